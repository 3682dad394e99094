"""Image classification against hand-written forward passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt.tasks.networks.architecture import architecture
from learned_opt.tasks.networks.convolutional import CNN
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.supervised import Supervised

ACTIVATIONS = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}


def mlp_logits(params, images, activation):
    x = images.reshape(len(images), -1)
    layers = params["layers"]
    for i in range(len(layers)):
        x = (activation(x) if i else x) @ layers[i]["kernel"] + layers[i]["bias"]
    return x


def convolution(x, kernel, bias):
    """3x3, stride 2, as many outputs as half the positions rounded up, zeros around, the extra one at the end."""
    n, size, _, _ = x.shape
    out = -(-size // 2)
    before = max((out - 1) * 2 + 3 - size, 0) // 2
    padded = np.pad(x, ((0, 0), (before, 3), (before, 3), (0, 0)))
    y = np.zeros((n, out, out, kernel.shape[3]))
    for i in range(out):
        for j in range(out):
            y[:, i, j] = np.tensordot(padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel, 3) + bias
    return y


def cnn_logits(params, images, activation):
    x = images
    for i in range(len(params["layers"])):
        x = activation(convolution(x, params["layers"][i]["kernel"], params["layers"][i]["bias"]))
    return x.mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]


def cross_entropy(logits, labels):
    return np.mean([np.log(np.sum(np.exp(row))) - row[label] for row, label in zip(logits, labels, strict=True)])


NETWORKS = {
    "mlp": (MLP, (12, 7), mlp_logits),
    "linear": (MLP, (), mlp_logits),
    "cnn": (CNN, (4, 6), cnn_logits),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]


def test_loss_is_the_plain_one_for_each_activation(network, make_data, quick_jit):
    module, hidden, logits = network
    family = Supervised(make_data(channels=3), architecture(module, hidden=hidden), batch_size=16)
    task = family.task(jnp.asarray(0))
    images, labels = task.sample_batch(jax.random.key(1), "valid")
    assert (images.shape, labels.shape) == ((16, 8, 8, 3), (16,))
    # Biases start at zero: move everything, so that they count.
    params = jax.tree.map(
        lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size).reshape(x.shape)), quick_jit(task.init)(jax.random.key(0))
    )
    plain = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    losses = []

    @quick_jit
    def loss_of(family, index):
        return family.task(index).loss(params, jax.random.key(2), (images, labels))

    for index, name in enumerate(family.activations):
        loss = loss_of(family, jnp.asarray(index))
        expected = cross_entropy(logits(plain, np.asarray(images, np.float64), ACTIVATIONS[name]), np.asarray(labels))
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        losses.append(float(loss))
        alone = loss_of(Supervised(family.data, architecture(module, hidden=hidden), activations=(name,)), jnp.asarray(0))
        assert float(alone) == pytest.approx(expected, rel=1e-5)
    assert (losses[0] != losses[1]) == bool(hidden)


def test_starts_at_chance_and_can_learn(network, make_data, quick_jit):
    module, hidden, _ = network
    family = Supervised(make_data(), architecture(module, hidden=hidden))

    @jax.vmap
    def start(key):
        task = family.task(family.sample(key))
        params = task.init(key)
        return jax.value_and_grad(task.loss)(params, key, task.sample_batch(key, "train"))

    loss, grads = quick_jit(start)(jax.random.split(jax.random.key(0), 20))
    assert float(loss.mean()) == pytest.approx(np.log(10), abs=0.3)
    for path, leaf in jax.tree.leaves_with_path(grads):
        per_task = np.abs(leaf).reshape(20, -1)
        assert (per_task.max(1) > 0).all(), path


def test_starting_weights_are_flax_defaults(make_data):
    params = Supervised(make_data(), architecture(MLP, hidden=(200,))).task(jnp.asarray(0)).init(jax.random.key(0))
    assert {i: {k: v.shape for k, v in layer.items()} for i, layer in params["layers"].items()} == {
        0: {"kernel": (64, 200), "bias": (200,)},
        1: {"kernel": (200, 10), "bias": (10,)},
    }
    for layer, fan_in in ((params["layers"][0], 64), (params["layers"][1], 200)):
        assert float(layer["kernel"].std()) * np.sqrt(fan_in) == pytest.approx(1, abs=0.1)
        assert np.all(layer["bias"] == 0)
    other = Supervised(make_data(), architecture(MLP, hidden=(200,))).task(jnp.asarray(0)).init(jax.random.key(1))
    assert np.any(other["layers"][0]["kernel"] != params["layers"][0]["kernel"])


def test_a_family_samples_every_activation(make_data):
    indices = jax.vmap(Supervised(make_data()).sample)(jax.random.split(jax.random.key(0), 200))
    assert np.mean(np.asarray(indices) == 0) == pytest.approx(0.5, abs=0.12)
    assert set(np.asarray(indices)) == {0, 1}
