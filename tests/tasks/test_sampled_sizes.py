"""Perceptrons inside a larger shape against the smaller perceptrons themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt.errors import UsageError
from learned_opt.tasks.networks.architecture import architecture
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.sampled_sizes import SampledSizes
from learned_opt.tasks.supervised import Supervised

LARGEST = architecture(MLP, hidden=(12, 12, 12))
ACTIVATIONS = ("sigmoid", "relu")  # the first is not zero at zero


def cut(params, width, depth):
    """The weights of the smaller network."""
    layers = [params["layers"][i] for i in (*range(depth), 3)]
    small = {}
    for i, layer in enumerate(layers):
        rows = slice(None) if i == 0 else slice(width)
        columns = slice(None) if i == depth else slice(width)
        small[i] = {"kernel": layer["kernel"][rows, columns], "bias": layer["bias"][columns]}
    return {"layers": small}


@pytest.mark.parametrize(("width", "depth"), [(5, 1), (7, 2), (12, 3)])
@pytest.mark.parametrize("activation", [0, 1])
def test_training_is_that_of_the_smaller_network(width, depth, activation, make_data):
    task = SampledSizes(make_data(), LARGEST, ACTIVATIONS, 16).task(
        (jnp.asarray(activation), jnp.asarray(width), jnp.asarray(depth))
    )
    small = Supervised(make_data(), architecture(MLP, hidden=(width,) * depth), ACTIVATIONS, 16).task(
        jnp.asarray(activation)
    )
    optimizer = optax.adam(1e-2)
    params = task.init(jax.random.key(0))
    pair = [(task, params, optimizer.init(params))]
    pair.append((small, cut(params, width, depth), optimizer.init(cut(params, width, depth))))
    assert jax.tree.map(jnp.shape, pair[1][1]) == jax.tree.map(jnp.shape, small.init(jax.random.key(0)))
    gradients = [jax.jit(jax.value_and_grad(t.loss)) for t, _, _ in pair]
    for key in jax.random.split(jax.random.key(1), 5):
        losses, stepped = [], []
        for gradient, (t, w, s) in zip(gradients, pair, strict=True):
            loss, grads = gradient(w, key, t.sample_batch(key, "train"))
            updates, s = optimizer.update(grads, s)
            stepped.append((t, optax.apply_updates(w, updates), s))
            losses.append(float(loss))
        pair = stepped
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    large, alone = pair[0][1], pair[1][1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), cut(large, width, depth), alone)
    # Nothing beyond the smaller network: its weights are all that is not zero.
    assert sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(large)) == pytest.approx(
        sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(alone)), rel=1e-4
    )


def test_sizes_and_starting_weights(make_data):
    family = SampledSizes(make_data(), architecture(MLP, hidden=(64, 64, 64)))
    keys = jax.random.split(jax.random.key(0), 2000)
    _, width, depth = jax.vmap(family.sample)(keys)
    np.testing.assert_allclose(np.bincount(depth)[1:] / 2000, 1 / 3, atol=0.04)
    assert (width.min(), width.max()) == (4, 64)
    assert np.mean(np.asarray(width) < 16) == pytest.approx(np.log(16 / 4) / np.log(65 / 4), abs=0.04)
    for narrow in (16, 64):
        kernel = family.task((0, jnp.asarray(narrow), jnp.asarray(3))).init(keys[0])["layers"][1]["kernel"]
        own = kernel[:narrow, :narrow]
        assert float(own.std()) * np.sqrt(narrow) == pytest.approx(1, abs=0.1)
        assert jnp.count_nonzero(kernel) == jnp.count_nonzero(own)


@pytest.mark.parametrize("options", [{"hidden": (8, 9)}, {"hidden": (8, 8), "norm": "layer"}, {}])
def test_other_networks_are_refused(options, make_data):
    with pytest.raises(
        UsageError, match=r"^network was given .*: hidden layers of one width, and no more, is accepted$"
    ):
        SampledSizes(make_data(), architecture(MLP, **options))
