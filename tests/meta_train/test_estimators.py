"""What holds of every meta-gradient estimator; bias and variance are in tests/evaluate/test_reproduce.py."""

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt.adam import LearnableAdam
from learned_opt.errors import UsageError
from learned_opt.meta_train import estimators
from learned_opt.meta_train.estimators import PERTURBING, EstimatorName
from learned_opt.meta_train.perturbation import Perturbation
from learned_opt.meta_train.pes import PES
from learned_opt.meta_train.truncated_backprop import TruncatedBackprop
from learned_opt.star import Star

NAMES = get_args(EstimatorName)
WHOLE = ("full-es", "full-backprop")


def make(name: str, unroller: Any, **perturbation: Any) -> Any:
    return estimators.make(name, unroller, Perturbation(**perturbation))


def zero() -> Any:
    return {"drift": jnp.zeros(())}


def exact_gradient(unroller: Any, theta: Any, problems: int) -> Any:
    """Autodiff through whole problems in one piece, averaged over many of them."""

    def loss(theta: Any, key: jax.Array) -> jax.Array:
        start_key, unroll_key = jax.random.split(key)
        problem, inner = unroller.first(theta, start_key)
        return unroller.unroll(theta, problem, inner, unroll_key).tally.score

    assert unroller.truncation == unroller.horizons.longest == 12
    gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(theta, jax.random.split(jax.random.key(7), problems))
    return jax.tree.map(lambda g: (np.asarray(g.mean(0)), np.asarray(g.std(0)) / np.sqrt(problems)), gradients)


@pytest.mark.parametrize("measured_on", ["train", "same-batch-after", "valid"])
def test_pes_agrees_with_autodiff_through_the_whole_problem(quadratic: Any, mean_gradient: Any, measured_on: str):
    """Learnable Adam on random noisy quadratics, 12 steps in truncations of 4."""
    optimizer = LearnableAdam(learning_rate=0.05, exponent_scale=1.0)
    with jax.enable_x64(True):
        theta = jax.tree.map(lambda x: x.astype(jnp.float64), optimizer.init(jax.random.key(0)))
        unrollers = [quadratic(optimizer, 12, truncation, measured_on=measured_on) for truncation in (4, 12)]
        exact = jax.device_get(exact_gradient(unrollers[1], theta, 4000))
        mean, error = mean_gradient(make("pes", unrollers[0]), theta, 3, 20_000)
    for name, (value, value_error) in exact.items():
        assert abs(mean[name] - value) < 4 * np.hypot(error[name], value_error), name
    # Precise enough to tell the gradient from zero, and from that of truncated backprop.
    value, value_error = exact["learning_rate"]
    assert np.hypot(error["learning_rate"], value_error) < 0.05 * abs(value)


def star_loop(optimizer: Star, unroller: Any, state: Any, key: jax.Array) -> Any:
    """The plain loop of a truncation of 6 steps, as a function of theta."""

    def loop(theta: Any) -> jax.Array:
        task, transform = unroller.family.task(state.problem.task_params), optimizer.transform(theta)
        params, opt_state, _ = state.inner
        losses = []
        for step_key in jax.random.split(key, 6):
            batch_key = jax.random.split(jax.random.split(step_key)[0])[0]
            batch = task.sample_batch(batch_key, "train")
            loss, grads = jax.value_and_grad(task.loss)(params, batch_key, batch)
            updates, opt_state = transform.update(grads, opt_state, params)
            params = params + updates
            losses.append(loss)
        return jnp.stack(losses).mean()

    return loop


@pytest.mark.parametrize("name", [pytest.param("truncated-backprop", marks=pytest.mark.slow), "forward"])
def test_star_has_the_gradient_of_the_plain_loop(quadratic: Any, name: str) -> None:
    """Same batches, float64, all 207 meta-parameters."""
    optimizer = Star(nominal_scale=0.05)
    unroller = quadratic(optimizer, 6, 6)
    with jax.enable_x64(True):
        theta = jax.tree.map(lambda x: x.astype(jnp.float64), optimizer.init(jax.random.key(0)))
        estimator = make(name, unroller)
        state = estimator.init(jax.random.key(1), theta)
        estimate, _ = jax.jit(estimator.estimate)(theta, state, jax.random.key(2))
        loop = star_loop(optimizer, unroller, state, jax.random.split(jax.random.key(2))[0])
        loss, gradient = jax.value_and_grad(loop)(theta)
        np.testing.assert_allclose(estimate.loss, loss, rtol=1e-12)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12), estimate.gradient, gradient)


@pytest.mark.parametrize("name", NAMES)
def test_a_particle_that_is_not_finite_is_dropped_counted_and_restarted(chain: Any, name: str) -> None:
    """Chain problems are NaN with probability 1/2: weight 0, gradient 0, and a fresh problem after the boundary."""
    found, theta = make(name, chain(4, 2, broken=0.5)), zero()

    @jax.jit
    @jax.vmap
    def run(key: jax.Array) -> Any:
        state = found.init(key, theta)
        estimate, after = found.estimate(theta, state, jax.random.fold_in(key, 1))
        return state.problem.task_params, estimate, after.problem.step, estimate.gradient

    broken, estimate, step, gradient = run(jax.random.split(jax.random.key(0), 500))
    steps = 4 if name in WHOLE else 2
    assert 0.4 < broken.mean() < 0.6
    for metric in ("dropped", "overflow"):
        np.testing.assert_array_equal(estimate.metrics[metric], broken)
    assert not estimate.metrics["underflow"].any()
    np.testing.assert_array_equal(estimate.weight, np.where(broken, 0, steps))
    np.testing.assert_array_equal(step, np.where(broken | (name in WHOLE), 0, 2))
    assert np.isfinite(gradient["drift"]).all()
    assert (np.asarray(gradient["drift"])[~broken] != 0).all()
    assert (np.asarray(gradient["drift"])[broken] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_outer_step_is_counted_through_problems(chain: Any, name: str) -> None:
    """Horizon 4, truncation 3: two outer steps to a problem, or one."""
    found, theta = make(name, chain(4, 3)), zero()
    state = found.init(jax.random.key(0), theta)
    for outer_step in range(4):
        assert state.problem.outer_step == outer_step
        assert state.problem.step == (0 if name in WHOLE else 3 * (outer_step % 2))
        _, state = found.estimate(theta, state, jax.random.key(outer_step))


@pytest.mark.parametrize("name", NAMES)
def test_steps_beyond_the_horizon_leave_no_trace(chain: Any, mean_gradient: Any, name: str) -> None:
    """A horizon of 3 in truncations of 5: from the fourth step on, losses and their derivatives would be NaN."""
    estimator = make(name, chain(3, 5, ceiling=3.5), sigma=1e-4)
    mean, _ = mean_gradient(estimator, {"drift": jnp.ones(())}, 1, 2)
    assert np.isfinite(mean["drift"])
    if name not in PERTURBING:
        np.testing.assert_allclose(mean["drift"], 2.0, rtol=1e-6)


def test_clipping_is_counted(quadratic: Any) -> None:
    """Losses above the clip count as the clip, and their share is reported."""
    unroller = quadratic(LearnableAdam(learning_rate=1e-9), 4, 4, clip=1e-3)
    estimator = TruncatedBackprop(unroller=unroller)
    theta = unroller.optimizer.init(jax.random.key(0))
    estimate, _ = estimator.estimate(theta, estimator.init(jax.random.key(1), theta), jax.random.key(2))
    np.testing.assert_allclose(estimate.loss, 1e-3)
    assert estimate.metrics["clipped"] == 1


@pytest.mark.parametrize("common", [True, False])
def test_the_pair_sees_the_same_batches(quadratic: Any, common: bool) -> None:
    """With hardly any perturbation both members have the same losses, unless they draw batches of their own."""
    unroller = quadratic(LearnableAdam(), 8, 4)
    theta = unroller.optimizer.init(jax.random.key(0))
    estimator = PES(unroller=unroller, perturbation=Perturbation(sigma=1e-12, common_random_numbers=common))
    estimate, state = estimator.estimate(theta, estimator.init(jax.random.key(1), theta), jax.random.key(2))
    assert all((g == 0) == common for g in jax.tree.leaves(estimate.gradient))
    assert bool((state.pair.params[0] == state.pair.params[1]).all()) == common


@pytest.mark.parametrize("name", PERTURBING)
def test_sigma_by_leaf(name: str, quadratic: Any) -> None:
    """A part of theta that hardly moves has the direction of its own sigma, and the rest of theirs."""
    unroller = quadratic(LearnableAdam(learning_rate=0.1), 4, 4)
    theta = unroller.optimizer.init(jax.random.key(0))
    sigma = dict.fromkeys(theta, 0.01) | {"eps": 1.0}
    estimates = []
    for given in (sigma, 0.01):
        estimator = make(name, unroller, sigma=given)
        estimate, _ = estimator.estimate(theta, estimator.init(jax.random.key(1), theta), jax.random.key(2))
        estimates.append(estimate.direction)
    # eps / sigma^2 with eps = sigma * noise
    for key in theta:
        np.testing.assert_allclose(estimates[0][key] * sigma[key], estimates[1][key] * 0.01, rtol=1e-6)


def test_an_unknown_estimator_is_named(chain: Any) -> None:
    with pytest.raises(UsageError, match="unknown estimator 'pess': did you mean pes"):
        make("pess", chain(4, 2))
