"""One step of inner training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt.tasks import training
from learned_opt.tasks.networks.architecture import architecture
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.supervised import Supervised


@pytest.fixture
def task(make_data):
    return Supervised(make_data(), architecture(MLP, hidden=(5,)), batch_size=8).task(jnp.asarray(1))


def test_a_step_is_a_gradient_step_on_the_batch_it_reports(task, quick_jit):
    rate = 0.1
    optimizer = optax.with_extra_args_support(optax.sgd(rate))
    state = quick_jit(lambda key: training.start(task, optimizer, key))(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, state.params, quick_jit(task.init)(jax.random.key(0)))
    new_state, seen = quick_jit(lambda s, k: training.step(task, optimizer, s, k))(state, jax.random.key(1))
    loss, grads = quick_jit(jax.value_and_grad(task.loss))(state.params, seen.loss_key, seen.batch)
    assert float(seen.loss) == pytest.approx(float(loss), rel=1e-6)
    jax.tree.map(
        lambda new, old, g: np.testing.assert_allclose(new, old - rate * g, rtol=1e-5, atol=1e-7),
        new_state.params,
        state.params,
        grads,
    )
    rows = np.rint(np.asarray(seen.batch[0][:, 0, 0, 0]) * 255)
    assert set(rows) == {0}  # the first pixel names the split: train


def test_every_key_is_another_batch(task, quick_jit):
    optimizer = optax.with_extra_args_support(optax.sgd(0.1))
    state = quick_jit(lambda key: training.start(task, optimizer, key))(jax.random.key(0))
    step = quick_jit(lambda key: training.step(task, optimizer, state, key)[1])
    first, again, other = (step(jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(first.batch[0], again.batch[0])
    assert np.any(first.batch[0] != other.batch[0])
    assert first.loss_key != other.loss_key


def test_the_optimizer_is_given_the_loss_and_the_weights(task, quick_jit):
    """`value`, as line searches and `reduce_on_plateau` want it."""

    def update(grads, state, params, *, value, **extra):
        return jax.tree.map(lambda p: value - p, params), value

    optimizer = optax.GradientTransformationExtraArgs(lambda params: jnp.zeros(()), update)
    state = quick_jit(lambda key: training.start(task, optimizer, key))(jax.random.key(0))
    new_state, seen = quick_jit(lambda s, key: training.step(task, optimizer, s, key))(state, jax.random.key(1))
    assert new_state.opt_state == seen.loss
    for leaf in jax.tree.leaves(new_state.params):
        np.testing.assert_allclose(leaf, np.full(leaf.shape, seen.loss), rtol=1e-6)
