"""Delayed gradients against training written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt.errors import UsageError
from learned_opt.tasks import training
from learned_opt.tasks.augmentations import GradientRescaled
from learned_opt.tasks.delay import DelayedGradients
from learned_opt.tasks.networks.architecture import architecture
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.noisy_quadratic import NoisyQuadratic
from learned_opt.tasks.supervised import Supervised

STEPS, RATE = 12, 0.1


@pytest.fixture
def inner(make_data):
    return Supervised(make_data(), architecture(MLP, hidden=(6,)), activations=("tanh",), batch_size=16)


def trajectory(task, steps=STEPS):
    sgd = optax.with_extra_args_support(optax.sgd(RATE))
    state, seen = training.start(task, sgd, jax.random.key(0)), []
    for key in jax.random.split(jax.random.key(1), steps):
        seen.append(state.params)
        state, step = training.step(task, sgd, state, key)
        np.testing.assert_allclose(step.loss, task.loss(seen[-1], step.loss_key, step.batch), rtol=1e-6)
    return seen


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_trajectory_is_that_of_delayed_sgd(inner, delay):
    plain = inner.task(jnp.asarray(0))
    found = trajectory(DelayedGradients(inner, longest=3).task((jnp.asarray(0), jnp.asarray(delay))))
    params, gradients = [plain.init(jax.random.key(0))], []
    for t, key in enumerate(jax.random.split(jax.random.key(1), STEPS)):
        batch_key, loss_key = jax.random.split(key)
        gradients.append(jax.grad(plain.loss)(params[t], loss_key, plain.sample_batch(batch_key, "train")))
        late = gradients[t - delay] if t >= delay else jax.tree.map(jnp.zeros_like, params[0])
        params.append(jax.tree.map(lambda w, g: w - RATE * g, params[t], late))
    assert delay == 0 or not np.array_equal(jax.tree.leaves(params[delay + 1])[0], jax.tree.leaves(params[0])[0])
    for a, b in zip(found, params, strict=False):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-6), a, b)


def test_weights_that_are_one_array():
    """As those of functions and quadratics are; without noise every gradient is that of its weights."""
    plain = NoisyQuadratic(jnp.ones(3), jnp.zeros(3), jnp.ones(3))
    late = trajectory(DelayedGradients(plain, longest=2).task((plain.sample(jax.random.key(0)), jnp.asarray(2))))
    np.testing.assert_allclose(np.stack(late)[:6, 0], [1, 1, 1, 0.9, 0.8, 0.7], rtol=1e-6)


def test_other_augmentations_keep_the_delay(inner):
    """The rescaling around the delay or inside it: the same training."""
    index, steps, factor = jnp.asarray(0), jnp.asarray(2), jnp.asarray(3.0)
    outside = GradientRescaled(DelayedGradients(inner)).task(((index, steps), factor))
    inside = DelayedGradients(GradientRescaled(inner)).task(((index, factor), steps))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), trajectory(outside, 5)[-1], trajectory(inside, 5)[-1]
    )


def test_delays_are_uniform(inner):
    family = DelayedGradients(inner, longest=3)
    _, steps = jax.vmap(family.sample)(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose(np.bincount(steps) / 4000, 0.25, atol=0.03)


def test_twice_or_without_a_place_for_them_is_refused(inner):
    twice = DelayedGradients(DelayedGradients(inner))
    with pytest.raises(UsageError, match=r"^augmentation 'delayed' was given twice: once is accepted$"):
        twice.task(twice.sample(jax.random.key(0)))
    family = DelayedGradients(inner)
    task, sgd = family.task(family.sample(jax.random.key(0))), optax.with_extra_args_support(optax.sgd(RATE))
    params = task.init(jax.random.key(0))
    with pytest.raises(UsageError, match=r"^a task with delayed gradients was given a state that holds none"):
        training.step(task, sgd, training.InnerState(params, sgd.init(params)), jax.random.key(0))
