"""Reparametrised tasks against the tasks inside them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt.tasks.networks.architecture import architecture
from learned_opt.tasks.networks.convolutional import CNN
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.reparametrise import Reparametrised
from learned_opt.tasks.supervised import Supervised


@pytest.fixture
def inner(make_data):
    return Supervised(make_data(), architecture(MLP, hidden=(6,)), batch_size=16)


def powers_of_two(params):
    """One scale for each tensor, by which products and quotients are exact."""
    leaves, structure = jax.tree.flatten(params)
    return structure.unflatten([jnp.float32(2.0 ** (i - 2)) for i in range(len(leaves))])


def test_sampled_scales_keep_the_starting_loss(inner):
    family = Reparametrised(inner)
    for seed in range(5):
        key = jax.random.key(seed)
        index, scales = family.sample(key)
        task, plain = family.task((index, scales)), inner.task(index)
        batch = task.sample_batch(key, "test")
        jax.tree.map(np.testing.assert_array_equal, batch, plain.sample_batch(key, "test"))
        start = float(plain.loss(plain.init(key), key, batch))
        assert float(task.loss(task.init(key), key, batch)) == pytest.approx(start, rel=1e-5)
        jax.tree.map(
            lambda w, c, p: np.testing.assert_allclose(w * c, p, rtol=1e-6), task.init(key), scales, plain.init(key)
        )


def test_gradients_are_multiplied_by_the_scales(inner, quick_jit):
    key = jax.random.key(0)
    plain = inner.task(jnp.asarray(1))
    params = plain.init(key)
    scales = powers_of_two(params)
    task = Reparametrised(inner).task((jnp.asarray(1), scales))
    batch = plain.sample_batch(key, "train")
    loss, grads = quick_jit(jax.value_and_grad(plain.loss))(params, key, batch)
    scaled_loss, scaled_grads = quick_jit(jax.value_and_grad(task.loss))(task.init(key), key, batch)
    assert scaled_loss == loss
    jax.tree.map(lambda s, g, c: np.testing.assert_array_equal(s, c * g), scaled_grads, grads, scales)
    assert all(np.any(g != 0) for g in jax.tree.leaves(grads))


def test_a_step_of_sgd_is_multiplied_by_the_square_of_the_scales(inner, quick_jit):
    key, rate = jax.random.key(0), 0.5
    plain = inner.task(jnp.asarray(0))
    params = plain.init(key)
    scales = powers_of_two(params)
    task = Reparametrised(inner).task((jnp.asarray(0), scales))
    scaled = task.init(key)
    gradient, scaled_gradient = (quick_jit(jax.grad(t.loss)) for t in (plain, task))
    for k in jax.random.split(key, 5):
        batch = plain.sample_batch(k, "train")
        grads = gradient(params, k, batch)
        params = jax.tree.map(lambda w, c, g: w - rate * c**2 * g, params, scales, grads)
        updates, _ = optax.sgd(rate).update(scaled_gradient(scaled, k, batch), optax.sgd(rate).init(scaled))
        scaled = optax.apply_updates(scaled, updates)
    jax.tree.map(lambda s, c, w: np.testing.assert_allclose(s * c, w, rtol=1e-5, atol=1e-6), scaled, scales, params)
    moved = jax.tree.map(lambda w, start: np.abs(w - start).max(), params, plain.init(key))
    assert min(jax.tree.leaves(moved)) > 1e-3


@pytest.mark.parametrize(("low", "high"), [(0.1, 10.0), (0.5, 0.6)])
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_scales_are_log_uniform_one_for_each_tensor(low, high, network, inner):
    if network == "cnn":
        inner = Supervised(inner.data, architecture(CNN, hidden=(3,)))
    family = Reparametrised(inner, low, high)
    index, scales = jax.vmap(family.sample)(jax.random.split(jax.random.key(0), 500))
    assert jax.tree.structure(scales) == jax.tree.structure(inner.task(index[0]).init(jax.random.key(0)))
    assert set(np.asarray(index)) == {0, 1}
    values = np.log(np.stack(jax.tree.leaves(scales)))
    assert values.shape == (4, 500)
    assert values.min() >= np.log(low) - 1e-6
    assert values.max() <= np.log(high) + 1e-6
    unit = (values - np.log(low)) / (np.log(high) - np.log(low))
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        np.testing.assert_allclose(np.quantile(unit, quantile, axis=1), quantile, atol=0.07)
    assert np.abs(np.corrcoef(unit) - np.eye(4)).max() < 0.2  # drawn independently
