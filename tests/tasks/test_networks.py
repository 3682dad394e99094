"""Networks against plain computations, and what they promise together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from learned_opt.errors import UsageError
from learned_opt.tasks.autoencoding import Autoencoding
from learned_opt.tasks.language import Language
from learned_opt.tasks.networks.architecture import ACTIVATIONS, architecture, choose
from learned_opt.tasks.networks.autoencoder import VAE, Autoencoder
from learned_opt.tasks.networks.mixer import Mixer
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.networks.recurrent import Recurrent
from learned_opt.tasks.networks.residual import ResNet
from learned_opt.tasks.networks.transformer import LanguageModel, Patches, ViT

KEY = jax.random.key(0)
IMAGE, TEXT = (8, 8, 1), (7,)
NETWORKS = {
    "mlp-norm": (architecture(MLP, hidden=(5, 4), norm="layer"), IMAGE),
    "resnet": (architecture(ResNet, hidden=(4, 8)), IMAGE),
    "vit": (architecture(ViT, width=8, depth=1, patch=4), IMAGE),
    "mixer": (architecture(Mixer, width=8, hidden=6, depth=1, patch=4), IMAGE),
    "gru": (architecture(Recurrent, cell="gru", width=6), TEXT),
    "lstm": (architecture(Recurrent, cell="lstm", width=6), TEXT),
    "language": (architecture(LanguageModel, width=8, depth=1), TEXT),
}


def inputs_of(shape, rows=3):
    if shape == TEXT:
        return jax.random.randint(KEY, (rows, *shape), 0, 11)
    return jax.random.uniform(KEY, (rows, *shape))


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_are_dicts_of_arrays_and_derivatives_exist(name, quick_jit):
    """Gradients reach every weight, and forward over reverse equals reverse over reverse's symmetric product."""
    network, shape = NETWORKS[name]
    inputs = inputs_of(shape)

    def derivatives(key):
        params = network.init(key, shape, 11)

        def loss(params):
            outputs = network.apply(params, shape, 11, inputs, jnp.tanh, key)
            return jnp.mean(jnp.sin(outputs + jnp.arange(11.0)))

        one = jax.tree.map(lambda p: jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params)
        two = jax.tree.map(lambda p: jnp.sin(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params)
        products = [jax.jvp(jax.grad(loss), (params,), (d,))[1] for d in (one, two)]
        dots = [
            sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(p), jax.tree.leaves(d), strict=True))
            for p, d in zip(products, (two, one), strict=True)
        ]
        return params, jax.grad(loss)(params), jnp.stack(dots)

    params, grads, dots = quick_jit(jax.vmap(derivatives))(jax.random.split(KEY, 2))
    assert type(params) is dict
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    for path, leaf in jax.tree.leaves_with_path(grads):
        # A constant added to every key changes no attention.
        assert np.any(np.abs(leaf) > 0), path
    np.testing.assert_allclose(dots[:, 0], dots[:, 1], rtol=1e-3, atol=1e-5)
    assert np.all(np.abs(dots) > 1e-6)
    shapes = jax.eval_shape(lambda key: network.init(key, shape, 11), KEY)
    assert jax.tree.map(lambda x: x.shape[1:], params) == jax.tree.map(lambda x: x.shape, shapes)


@pytest.mark.parametrize("name", ["gru", "lstm", "language"])
def test_language_models_see_no_later_byte(name, quick_jit):
    network, shape = NETWORKS[name]
    params = network.init(KEY, shape, 11)
    apply = quick_jit(lambda tokens: network.apply(params, shape, 11, tokens, jnp.tanh, KEY))
    tokens = inputs_of(shape)
    before, after = apply(tokens), apply(tokens.at[:, 4].set((tokens[:, 4] + 1) % 11))
    assert before.shape == (3, 7, 11)
    np.testing.assert_allclose(before[:, :4], after[:, :4], atol=1e-6)
    assert np.all(np.abs(before[:, 4:] - after[:, 4:]).max(2) > 1e-6)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_gru_is_the_plain_one(quick_jit):
    network, shape = NETWORKS["gru"]
    params = jax.tree.map(lambda p: p + 0.1, network.init(KEY, shape, 11))
    tokens = inputs_of(shape)
    found = quick_jit(lambda p: network.apply(p, shape, 11, tokens, jnp.tanh, KEY))(params)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    inside, recurrent = p["cell"]["dense_i"], p["cell"]["dense_h"]["kernel"]
    hidden = np.zeros((3, 6))
    for t in range(7):
        x = p["embedding"]["embedding"][np.asarray(tokens[:, t])] @ inside["kernel"] + inside["bias"]
        r, z, n = np.split(x, 3, axis=1)
        hr, hz, hn = np.split(hidden @ recurrent, 3, axis=1)
        update = sigmoid(z + hz)
        hidden = (1 - update) * np.tanh(n + sigmoid(r + hr) * hn) + update * hidden
        np.testing.assert_allclose(found[:, t], hidden @ p["head"]["kernel"] + p["head"]["bias"], rtol=1e-4, atol=1e-5)


def test_layer_norm_comes_before_the_activation(quick_jit):
    network = architecture(MLP, hidden=(5,), norm="layer")
    params = jax.tree.map(lambda p: p + 0.1, network.init(KEY, (3,), 2))
    inputs = jax.random.normal(KEY, (4, 3))
    p = jax.tree.map(np.asarray, params)
    x = inputs @ p["layers"][0]["kernel"] + p["layers"][0]["bias"]
    x = np.asarray(x)
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    x = np.tanh(x * p["norms"][0]["scale"] + p["norms"][0]["bias"])
    expected = x @ p["layers"][1]["kernel"] + p["layers"][1]["bias"]
    found = quick_jit(lambda p: network.apply(p, (3,), 2, inputs, jnp.tanh, KEY))(params)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_dropout_follows_the_key_and_keeps_the_mean():
    network = architecture(MLP, hidden=(200,), dropout=0.25)
    params = network.init(KEY, (3,), 1)
    params["layers"][1]["kernel"] = jnp.ones((200, 1))
    inputs = jnp.ones((500, 3))

    @jax.jit
    def apply(key):
        return network.apply(params, (3,), 1, inputs, lambda x: jnp.ones_like(x), key)[:, 0]

    first, again, other = apply(KEY), apply(KEY), apply(jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    kept = np.asarray(first) * 0.75  # binomial: 200 units, each kept with probability 3/4
    np.testing.assert_allclose(kept, np.rint(kept), atol=1e-3)
    assert kept.mean() == pytest.approx(150, abs=1.1)  # four standard errors
    assert kept.var() == pytest.approx(37.5, rel=0.26)


def test_patches_are_squares_row_by_row():
    network = Patches((4, 6, 2), 8, 2, nnx.Rngs(0))
    network.layer.kernel.set_value(jnp.eye(8))
    image = jnp.arange(48.0).reshape(1, 4, 6, 2)
    found = network(image)
    assert found.shape == (1, 6, 8)
    for i in range(6):
        row, column = divmod(i, 3)
        np.testing.assert_array_equal(found[0, i], image[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].ravel())
    with pytest.raises(UsageError, match="patch was given 3: a divisor of 4 and 6 is accepted"):
        Patches((4, 6, 2), 8, 3, nnx.Rngs(0))


def test_autoencoding_is_cross_entropy_in_nats_per_image(make_data, quick_jit):
    family = Autoencoding(make_data(), architecture(Autoencoder, hidden=(6,), latent=3), batch_size=4)
    task = family.task(jnp.asarray(1))
    params, batch = task.init(KEY), task.sample_batch(KEY, "valid")
    logits, cost = family.network.apply(params, IMAGE, 64, batch[0], jnp.tanh, KEY)
    p, x = sigmoid(np.asarray(logits, np.float64)), np.asarray(batch[0], np.float64).reshape(4, 64)
    expected = -(x * np.log(p) + (1 - x) * np.log1p(-p)).sum(1).mean()
    assert np.all(cost == 0)
    assert float(quick_jit(task.loss)(params, KEY, batch)) == pytest.approx(expected, rel=1e-5)
    grey = jax.tree.map(jnp.zeros_like, params)
    assert float(task.loss(grey, KEY, batch)) == pytest.approx(64 * np.log(2), rel=1e-5)
    assert task.loss_scale == pytest.approx(64 * np.log(2))


def test_the_vae_pays_the_divergence_of_its_code(make_data):
    """Against an estimate from samples: KL = E[log q - log p]."""
    network = architecture(VAE, hidden=(), latent=2)
    params = jax.tree.map(lambda p: p + 0.1, network.init(KEY, (3,), 3))
    inputs = jax.random.normal(KEY, (1, 3))
    apply = jax.jit(lambda key: network.apply(params, (3,), 3, inputs, jnp.tanh, key))
    logits, kl = apply(KEY)
    other, same_kl = apply(jax.random.key(1))
    assert np.any(logits != other)  # the code is sampled with the key
    assert kl == same_kl
    out = np.asarray(inputs @ params["encoder"]["layers"][0]["kernel"] + params["encoder"]["layers"][0]["bias"])[0]
    mean, log_variance = out[:2].astype(np.float64), out[2:].astype(np.float64)
    code = mean + np.exp(log_variance / 2) * np.random.default_rng(0).standard_normal((400_000, 2))
    log_q = -0.5 * ((code - mean) ** 2 / np.exp(log_variance) + log_variance)
    assert float(kl[0]) == pytest.approx((log_q + 0.5 * code**2).sum(1).mean(), abs=0.02)


def test_language_is_scored_on_every_next_byte(text, quick_jit):
    family = Language(text, architecture(Recurrent, width=6), ("tanh",), batch_size=4, length=9)
    task = family.task(jnp.asarray(0))
    params, batch = task.init(KEY), task.sample_batch(KEY, "test")
    assert batch.shape == (4, 10)
    logits = np.asarray(family.network.apply(params, (9,), 256, batch[:, :9], jnp.tanh, KEY), np.float64)
    log_sums = np.log(np.exp(logits).sum(2))
    right = np.take_along_axis(logits, np.asarray(batch)[:, 1:, None], 2)[..., 0]
    assert float(quick_jit(task.loss)(params, KEY, batch)) == pytest.approx((log_sums - right).mean(), rel=1e-5)
    assert task.loss_scale == pytest.approx(np.log(256))


def test_every_activation_by_its_index():
    names = tuple(ACTIVATIONS)
    x = jnp.linspace(-2, 2, 9)
    found = jax.vmap(lambda i: choose(names, i)(x))(jnp.arange(len(names)))
    for name, values in zip(names, found, strict=True):
        np.testing.assert_allclose(values, ACTIVATIONS[name](x), rtol=1e-6)
    np.testing.assert_allclose(found[names.index("silu")], x * sigmoid(np.asarray(x)), rtol=1e-5)
    with pytest.raises(UsageError, match="unknown activation 'rellu': did you mean relu"):
        choose(("rellu",), jnp.asarray(0))
