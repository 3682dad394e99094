"""Augmentations against the tasks inside them: what changes, and what does not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt.errors import UsageError
from learned_opt.tasks import augmentations as aug
from learned_opt.tasks.networks.architecture import architecture
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.noisy_quadratic import NoisyQuadratic
from learned_opt.tasks.reparametrise import Reparametrised
from learned_opt.tasks.supervised import Supervised


@pytest.fixture
def inner(make_data):
    return Supervised(make_data(), architecture(MLP, hidden=(6,)), activations=("tanh",), batch_size=16)


def seen(family):
    """The augmented task, the inner one, and weights, batch, loss and gradients of both."""
    key = jax.random.key(3)
    task_params = family.sample(key)
    task, plain = family.task(task_params), family.family.task(task_params[0])
    params, batch = plain.init(key), plain.sample_batch(key, "train")
    jax.tree.map(np.testing.assert_array_equal, task.init(key), params)
    found, expected = (jax.jit(jax.value_and_grad(t.loss))(params, key, batch) for t in (task, plain))
    return task, plain, found, expected


def assert_trees(found, expected, factor=1.0, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, factor * b, rtol=rtol, atol=1e-7), found, expected)


def test_loss_rescaling_scales_loss_gradient_and_loss_scale(inner) -> None:
    task, plain, (loss, grads), (expected, expected_grads) = seen(aug.LossRescaled(inner))
    assert abs(np.log(task.own)) > 0.1
    np.testing.assert_allclose(loss, task.own * expected, rtol=1e-6)
    assert_trees(grads, expected_grads, float(task.own))
    np.testing.assert_allclose(loss / task.loss_scale, expected / plain.loss_scale, rtol=1e-6)


@pytest.mark.parametrize("family", [aug.LossRescaled, aug.GradientRescaled])
def test_adam_trains_as_before_when_losses_or_gradients_are_rescaled(inner, family) -> None:
    """Twenty steps, by factors of a thousand either way; epsilon, which is not blind to scale, is out of the way."""
    plain = inner.task(jnp.asarray(0))
    optimizer = optax.adam(1e-2, eps=1e-30)

    @jax.jit
    def train(factor):
        task = family(inner).task((jnp.asarray(0), factor))
        params = plain.init(jax.random.key(0))
        state = optimizer.init(params)
        for key in jax.random.split(jax.random.key(1), 20):
            grads = jax.grad(task.loss)(params, key, task.sample_batch(key, "train"))
            updates, state = optimizer.update(grads, state)
            params = optax.apply_updates(params, updates)
        return params

    start, expected = plain.init(jax.random.key(0)), train(1.0)
    for factor in (2.0**-10, 2.0**10):
        found = train(factor)
        jax.tree.map(
            lambda a, b, s: np.testing.assert_allclose(a - s, b - s, rtol=1e-2, atol=2e-4), found, expected, start
        )


def test_gradient_rescaling_leaves_the_loss(inner) -> None:
    task, _, (loss, grads), (expected, expected_grads) = seen(aug.GradientRescaled(inner))
    assert abs(np.log(task.own)) > 0.1
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert_trees(grads, expected_grads, float(task.own), rtol=1e-4)


def test_gradient_noise_has_its_deviation_and_no_mean(inner) -> None:
    """Over 200 draws of the noise: mean zero, deviation s; the loss as it was."""
    family = aug.GradientNoise(inner, low=0.1, high=0.2)
    task, plain, (loss, _), (expected, _) = seen(family)
    assert 0.1 <= task.own <= 0.2
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    params, batch = plain.init(jax.random.key(0)), plain.sample_batch(jax.random.key(0), "train")
    exact = jax.grad(plain.loss)(params, jax.random.key(0), batch)
    keys = jax.random.split(jax.random.key(1), 200)
    noisy = jax.jit(jax.vmap(lambda key: jax.grad(task.loss)(params, key, batch)))(keys)
    noise = np.concatenate(
        [np.reshape(n - e, (200, -1)) for n, e in zip(jax.tree.leaves(noisy), jax.tree.leaves(exact), strict=True)], 1
    )
    np.testing.assert_allclose(noise.std(), task.own, rtol=0.02)
    assert abs(noise.mean()) < 4 * task.own / np.sqrt(noise.size)


def test_low_precision_rounds_weights_and_gradients(inner) -> None:
    _, plain, (loss, grads), _ = seen(aug.LowPrecision(inner))
    key = jax.random.key(3)
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), plain.init(key))
    batch = plain.sample_batch(key, "train")
    np.testing.assert_allclose(loss, plain.loss(rounded, key, batch), rtol=1e-6)
    for found, exact in zip(
        jax.tree.leaves(grads), jax.tree.leaves(jax.grad(plain.loss)(rounded, key, batch)), strict=True
    ):
        np.testing.assert_array_equal(found, found.astype(jnp.bfloat16).astype(found.dtype))
        np.testing.assert_allclose(found, exact, rtol=2**-7, atol=1e-7)


def test_smaller_batches_are_the_first_examples_in_training_only(inner) -> None:
    family = aug.SmallerBatches(inner, size=4)
    task, plain = family.task(family.sample(jax.random.key(0))), inner.task(jnp.asarray(0))
    for split, size in (("train", 4), ("valid", 16), ("test", 16)):
        found, whole = (t.sample_batch(jax.random.key(5), split) for t in (task, plain))
        jax.tree.map(lambda a, b, n=size: np.testing.assert_array_equal(a, b[:n]), found, whole)


@pytest.mark.parametrize("family", [NoisyQuadratic(*(jnp.ones(n),) * 3) for n in (2, 10)])
def test_batches_that_are_not_of_examples_are_not_cut(family) -> None:
    """A batch of two, and noise for each of ten weights."""
    small = aug.SmallerBatches(family, size=4)
    with pytest.raises(UsageError, match="small-batches was given NoisyQuadratic: a task whose batches are of more"):
        small.task(small.sample(jax.random.key(0)))


@pytest.mark.parametrize(("per", "distinct"), [("task", 1), ("tensor", 4), ("weight", None)])
def test_reparametrisation_by_task_tensor_or_weight(inner, per, distinct) -> None:
    """The loss at the start stays; there are as many scales as asked for, over the whole range."""
    family = Reparametrised(inner, 1e-3, 1e3, per)
    key = jax.random.key(0)
    task_params = family.sample(key)
    task, plain = family.task(task_params), inner.task(task_params[0])
    batch = plain.sample_batch(key, "train")
    expected = plain.loss(plain.init(key), key, batch)
    np.testing.assert_allclose(task.loss(task.init(key), key, batch), expected, rtol=1e-4)
    scales = np.concatenate([np.ravel(x) for x in jax.tree.leaves(task_params[1])])
    weights = sum(x.size for x in jax.tree.leaves(plain.init(key)))
    assert len(set(scales.tolist())) == (distinct or weights)
    if per == "weight":
        assert scales.min() < 1e-2
        assert scales.max() > 1e2


AUGMENTATIONS = (
    aug.LossRescaled,
    aug.GradientRescaled,
    aug.GradientNoise,
    aug.LowPrecision,
    aug.SmallerBatches,
    Reparametrised,
)


@pytest.mark.parametrize("outer", AUGMENTATIONS)
def test_augmentations_compose_and_differentiate_twice(inner, outer) -> None:
    """Around another one, vmapped, forward over reverse."""
    family = outer(aug.LossRescaled(inner))

    def directional(key):
        task = family.task(family.sample(key))
        params, batch = task.init(key), task.sample_batch(key, "train")
        gradient = lambda p: jax.grad(task.loss)(p, key, batch)  # noqa: E731
        return jax.jvp(gradient, (params,), (params,))[1]

    found = jax.jit(jax.vmap(directional))(jax.random.split(jax.random.key(0), 2))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
