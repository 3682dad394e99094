"""Estimators against exact meta-gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt.adam import LearnableAdam
from learned_opt.meta_train.pes import PES
from learned_opt.meta_train.truncated_backprop import TruncatedBackprop
from learned_opt.star import Star

ALIGNMENTS = [(horizon, truncation) for horizon in range(1, 7) for truncation in range(1, 7)]


def particles(count: int) -> jax.Array:
    return jax.random.split(jax.random.key(0), count)


LONGEST = 18  # truncations: three problems of six


@jax.jit
def mean_gradients(estimator: Any, theta: Any, truncations: int, keys: jax.Array) -> tuple[Any, Any]:
    """Weighted mean over the first truncations of each particle's estimates, as mean and standard error over particles.

    Horizons and the number of truncations are traced, so that alignments share a program.
    """

    def run(key: jax.Array) -> Any:
        def body(state: Any, i: jax.Array) -> Any:
            estimate, state = estimator.estimate(theta, state, jax.random.fold_in(key, i))
            weight = jnp.where(i < truncations, estimate.weight, 0)
            return state, (weight, jax.tree.map(lambda g: weight * g, estimate.gradient))

        _, (weights, gradients) = jax.lax.scan(body, estimator.init(key, theta), jnp.arange(LONGEST))
        return jax.tree.map(lambda g: g.sum(0) / weights.sum(), gradients)

    found = jax.vmap(run)(keys)
    return jax.tree.map(lambda x: x.mean(0), found), jax.tree.map(lambda x: x.std(0) / np.sqrt(len(keys)), found)


@pytest.mark.parametrize(("horizon", "truncation"), ALIGNMENTS)
def test_pes_is_unbiased_on_the_linear_chain(chain: Any, horizon: int, truncation: int) -> None:
    """Over three problems on end, so that resets are part of the estimate; crediting old losses gives 2.0 for 2.5."""
    problems = 3 * -(-horizon // truncation)
    mean, error = jax.device_get(
        mean_gradients(PES(unroller=chain(horizon, truncation)), jnp.zeros(()), problems, particles(10_000))
    )
    assert error < 0.05
    assert abs(mean - (horizon + 1) / 2) < 4 * error


@pytest.mark.parametrize(("horizon", "truncation"), ALIGNMENTS)
def test_truncated_backprop_on_the_linear_chain(chain: Any, horizon: int, truncation: int) -> None:
    """A truncation of n steps sees the gradient (n + 1) / 2 of its own mean loss; only n = horizon is the exact one."""
    lengths = np.diff([*range(0, horizon, truncation), horizon])
    estimator = TruncatedBackprop(unroller=chain(horizon, truncation))
    mean, error = jax.device_get(mean_gradients(estimator, jnp.zeros(()), len(lengths), particles(2)))
    assert error == 0
    np.testing.assert_allclose(mean, np.sum(lengths * (lengths + 1) / 2) / horizon, rtol=1e-6)


def exact_gradient(unroller: Any, theta: Any, problems: int) -> Any:
    """Autodiff through whole problems in one piece, averaged over many of them."""
    horizon = unroller.max_horizon

    def loss(theta: Any, key: jax.Array) -> jax.Array:
        problem_key, start_key, unroll_key = jax.random.split(key, 3)
        problem = unroller.sample_problem(problem_key)
        inner = unroller.start(theta, problem, start_key)
        return unroller.unroll(theta, problem, inner, unroll_key).loss

    assert unroller.truncation == horizon == 12
    gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(theta, jax.random.split(jax.random.key(7), problems))
    return jax.tree.map(lambda g: (np.asarray(g.mean(0)), np.asarray(g.std(0)) / np.sqrt(problems)), gradients)


@pytest.mark.parametrize("measured_on", ["train", "same-batch-after", "valid"])
def test_pes_agrees_with_autodiff_through_the_whole_problem(quadratic: Any, measured_on: str) -> None:
    """Learnable Adam on noisy quadratics, 12 steps in truncations of 4."""
    optimizer = LearnableAdam(learning_rate=0.05, exponent_scale=1.0)
    with jax.enable_x64(True):
        theta = jax.tree.map(lambda x: x.astype(jnp.float64), optimizer.init(jax.random.key(0)))
        unrollers = [quadratic(optimizer, 12, truncation, measured_on=measured_on) for truncation in (4, 12)]
        exact = jax.device_get(exact_gradient(unrollers[1], theta, 4000))
        mean, error = jax.device_get(mean_gradients(PES(unroller=unrollers[0]), theta, 3, particles(20_000)))
    for name, (value, value_error) in exact.items():
        spread = np.hypot(error[name], value_error)
        assert abs(mean[name] - value) < 4 * spread, name
    # Precise enough to tell the gradient from zero, and from that of truncated backprop.
    value, value_error = exact["learning_rate"]
    assert np.hypot(error["learning_rate"], value_error) < 0.05 * abs(value)


def test_truncated_backprop_is_exact_when_the_truncation_is_the_horizon(quadratic: Any) -> None:
    """Same keys, float64: the estimate is the gradient of the plain loop."""
    optimizer = Star(nominal_scale=0.05)
    unroller = quadratic(optimizer, 6, 6)
    with jax.enable_x64(True):
        theta = jax.tree.map(lambda x: x.astype(jnp.float64), optimizer.init(jax.random.key(0)))
        estimator = TruncatedBackprop(unroller=unroller)
        state = estimator.init(jax.random.key(1), theta)
        estimate, _ = estimator.estimate(theta, state, jax.random.key(2))
        unroll_key, _ = jax.random.split(jax.random.key(2))

        def loop(theta: Any) -> jax.Array:
            task, transform = unroller.family.task(state.problem.task_params), optimizer.transform(theta)
            params, opt_state = state.inner
            losses = []
            for key in jax.random.split(unroll_key, 6):
                batch_key = jax.random.split(jax.random.split(key)[0])[0]
                batch = task.sample_batch(batch_key, "train")
                loss, grads = jax.value_and_grad(task.loss)(params, batch_key, batch)
                updates, opt_state = transform.update(grads, opt_state, params)
                params = params + updates
                losses.append(loss)
            return jnp.stack(losses).mean()

        loss, gradient = jax.value_and_grad(loop)(theta)
        np.testing.assert_allclose(estimate.loss, loss, rtol=1e-12)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12), estimate.gradient, gradient)


@pytest.mark.parametrize("estimator", [PES, TruncatedBackprop])
def test_a_particle_that_is_not_finite_is_dropped_counted_and_restarted(chain: Any, estimator: Any) -> None:
    """Chain problems are NaN with probability 1/2: weight 0, gradient 0, and a fresh problem after the boundary."""
    found = estimator(unroller=chain(4, 2, broken=0.5))
    theta = jnp.zeros(())

    def run(key: jax.Array) -> Any:
        state = found.init(key, theta)
        estimate, after = found.estimate(theta, state, jax.random.fold_in(key, 1))
        return state.problem.task_params, estimate, after.problem.step

    broken, estimate, step = jax.vmap(run)(jax.random.split(jax.random.key(0), 500))
    assert 0.4 < broken.mean() < 0.6
    np.testing.assert_array_equal(estimate.metrics["dropped"], broken)
    np.testing.assert_array_equal(estimate.weight, np.where(broken, 0, 2))
    np.testing.assert_array_equal(step, np.where(broken, 0, 2))
    assert np.isfinite(estimate.gradient).all()
    assert (np.asarray(estimate.gradient)[~broken] != 0).all()
    assert (np.asarray(estimate.gradient)[broken] == 0).all()


def test_horizons_are_log_uniform_and_inclusive(chain: Any) -> None:
    """Every horizon from 2 to 5 occurs, with the share log((h + 1) / h) / log(6 / 2)."""
    import dataclasses

    unroller = dataclasses.replace(chain(2, 2), max_horizon=5)
    problems = jax.vmap(unroller.sample_problem)(jax.random.split(jax.random.key(0), 40_000))
    values, counts = np.unique(problems.horizon, return_counts=True)
    np.testing.assert_array_equal(values, [2, 3, 4, 5])
    np.testing.assert_allclose(counts / 40_000, np.log((values + 1) / values) / np.log(3), atol=0.01)


def test_clipping_is_counted(quadratic: Any) -> None:
    """Losses above the clip count as the clip, and their share is reported."""
    unroller = quadratic(LearnableAdam(learning_rate=1e-9), 4, 4, clip=1e-3)
    estimator = TruncatedBackprop(unroller=unroller)
    theta = unroller.optimizer.init(jax.random.key(0))
    estimate, _ = estimator.estimate(theta, estimator.init(jax.random.key(1), theta), jax.random.key(2))
    np.testing.assert_allclose(estimate.loss, 1e-3)
    assert estimate.metrics["clipped"] == 1


def test_the_pair_sees_the_same_batches(quadratic: Any) -> None:
    """With sigma 0 both members of a pair have the same losses, so the estimate is exactly zero."""
    unroller = quadratic(LearnableAdam(), 8, 4)
    theta = unroller.optimizer.init(jax.random.key(0))
    estimator = PES(unroller=unroller, sigma=1e-12)
    estimate, state = estimator.estimate(theta, estimator.init(jax.random.key(1), theta), jax.random.key(2))
    assert all(g == 0 for g in jax.tree.leaves(estimate.gradient))
    jax.tree.map(lambda x: np.testing.assert_array_equal(x[0], x[1]), state.pair)
