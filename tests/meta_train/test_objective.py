"""Meta-objectives under every estimator, against derivatives by hand."""

import dataclasses
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt.errors import UsageError
from learned_opt.meta_train import estimators
from learned_opt.meta_train.estimators import PERTURBING, EstimatorName
from learned_opt.meta_train.horizons import Horizons
from learned_opt.meta_train.objective import EARLY, LOG_FLOOR, MetaObjective
from learned_opt.meta_train.perturbation import Perturbation
from learned_opt.meta_train.unroll import Unroller
from learned_opt.sgd import StepSize
from learned_opt.tasks.noisy_quadratic import NoisyQuadratic

NAMES = get_args(EstimatorName)
HORIZON, TRUNCATION, WINDOW, THETA = 7, 3, 4, 0.3
AGGREGATES = {"mean": {}, "last": {}, "final-window": {"window": WINDOW}, "log": {}, "mean-log": {}, "log-time": {}}


def chain_gradient(aggregate: str, truncated: bool) -> float:
    """Of the chain: the loss after step t is t theta, and has the derivative t, or that since the last boundary."""
    t = np.arange(1, HORIZON + 1)
    derivative = (t - 1) % TRUNCATION + 1 if truncated else t
    if aggregate == "mean":
        return derivative.mean()
    if aggregate == "mean-log":
        return (derivative / (t * THETA + LOG_FLOOR)).mean()
    if aggregate == "log-time":
        return np.average(derivative / (t * THETA + LOG_FLOOR), weights=1 / (t - 1 + EARLY))
    if aggregate == "final-window":
        return derivative[-WINDOW:].mean()
    return derivative[-1] if aggregate == "last" else derivative[-1] / (HORIZON * THETA) / HORIZON


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_aggregates_on_the_chain(chain: Any, mean_gradient: Any, name: str, aggregate: str) -> None:
    """A horizon of 7 in truncations of 3; the window crosses a boundary."""
    truncated = name.startswith("truncated")
    with jax.enable_x64(True):
        unroller = chain(HORIZON, TRUNCATION, aggregate=aggregate, **AGGREGATES[aggregate])
        estimator = estimators.make(name, unroller, Perturbation(sigma=1e-3))
        count = 1 if name.startswith("full") else 3
        particles = 20_000 if name in PERTURBING else 2
        mean, error = mean_gradient(estimator, {"drift": jnp.asarray(THETA)}, count, particles)
    expected = chain_gradient(aggregate, truncated)
    if name in PERTURBING:
        assert error["drift"] < 0.03 * expected
        assert abs(mean["drift"] - expected) < 4 * error["drift"]
    else:
        np.testing.assert_allclose(mean["drift"], expected, rtol=1e-12)


def test_normalised_losses_are_divided_before_the_clip(chain: Any) -> None:
    """The chain's loss scale is 2: losses 0.5, 1, 1.5 and 2 count as 0.25, 0.5, 0.6 and 0.6."""
    unroller = chain(4, 4, normalise=True, clip=0.6)
    estimator = estimators.make("truncated-backprop", unroller, Perturbation())
    theta = {"drift": jnp.asarray(0.5)}
    estimate, _ = estimator.estimate(theta, estimator.init(jax.random.key(0), theta), jax.random.key(1))
    np.testing.assert_allclose(estimate.loss, (0.25 + 0.5 + 0.6 + 0.6) / 4, rtol=1e-6)
    np.testing.assert_allclose(estimate.metrics["objective"], estimate.loss, rtol=1e-6)
    assert estimate.metrics["clipped"] == 0.5


@pytest.mark.parametrize("aggregate", ["mean-log", "log-time", "mean"])
def test_losses_below_zero_are_counted_where_their_logarithm_is_taken(aggregate: str, chain: Any) -> None:
    """The chain goes 0.5, 1, 1.5, 2 times its drift."""
    unroller = chain(4, 4, aggregate=aggregate)
    estimator = estimators.make("truncated-backprop", unroller, Perturbation())
    theta = {"drift": jnp.asarray(-0.5)}
    estimate, _ = estimator.estimate(theta, estimator.init(jax.random.key(0), theta), jax.random.key(1))
    assert estimate.loss < 0
    assert estimate.metrics["clipped"] == (0 if aggregate == "mean" else 1)


def test_unknown_choices_are_named() -> None:
    with pytest.raises(UsageError, match="unknown meta-objective 'test'"):
        MetaObjective(measured_on="test")
    with pytest.raises(UsageError, match="unknown aggregate 'sum'"):
        MetaObjective(aggregate="sum")


# The quadratic of the step-size guarantees (Wang et al. 2021), in its eigenbasis: 80 steps from a unit start.
STEPS = 80
ETAS = (1e-3, 0.02, 0.026, 0.03, 0.05, 0.1, 0.2, 1.0, 10.0)
PUBLISHED = (-22.595133, -0.592695, -0.461295, 125.756720, 55.704530, 23.281878, 10.758257, 2.028596, 0.200282)


def eigenproblem() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(0)
    start = rng.randn(20)
    x = rng.randn(20, 20)
    curvatures, vectors = np.linalg.eigh(x.T @ x)
    return curvatures, vectors.T @ (start / np.linalg.norm(start))


def stable_gradient(eta: float) -> float:
    """Normalised by the fastest direction, so that nothing over- or underflows."""
    h, c = eigenproblem()
    s = np.abs(1 - eta * h).max()
    q = (1 - eta * h) / s
    return -2 / s * (c**2 * h**2 * q ** (2 * STEPS - 1)).sum() / (c**2 * h * q ** (2 * STEPS)).sum()


def log_estimate(name: str, eta: float, dtype: str, sigma: float = 1e-7) -> Any:
    h, c = (jnp.asarray(x, dtype) for x in eigenproblem())
    return estimate_log(name, NoisyQuadratic(h, jnp.zeros(20, dtype), c), eta, dtype, STEPS, sigma)


def estimate_log(name: str, task: NoisyQuadratic, eta: float, dtype: str, steps: int, sigma: float) -> Any:
    unroller = Unroller(
        family=task,
        optimizer=StepSize(),
        objective=MetaObjective(measured_on="same-batch-after", aggregate="log"),
        truncation=steps,
        horizons=Horizons(shortest=steps, longest=steps),
    )
    estimator = estimators.make(name, unroller, Perturbation(sigma=sigma))
    theta = {"step_size": jnp.asarray(eta, dtype)}
    return jax.device_get(first_estimate(estimator, theta))


@jax.jit
def first_estimate(estimator: Any, theta: Any) -> Any:
    """Compiled once for all thetas and sigmas."""
    return estimator.estimate(theta, estimator.init(jax.random.key(0), theta), jax.random.key(1))[0]


def test_the_stable_gradient_is_the_published_one() -> None:
    np.testing.assert_allclose([stable_gradient(eta) for eta in ETAS], PUBLISHED, rtol=0, atol=6e-7)


def test_reverse_mode_through_the_logarithm_is_silently_zero() -> None:
    """What the objective is built to avoid: 0 in float32 where 55.7 is right, and NaN further on."""
    h, c = (jnp.asarray(x, jnp.float32) for x in eigenproblem())

    @jax.grad
    def naive(eta: jax.Array) -> jax.Array:
        end = jax.lax.scan(lambda w, _: (w - eta * h * w, None), c, None, STEPS)[0]
        return jnp.log(0.5 * jnp.sum(h * end**2)) / STEPS

    np.testing.assert_allclose(naive(0.026), stable_gradient(0.026), rtol=1e-4)
    assert naive(0.05) == 0
    assert np.isnan(naive(1.0))


@pytest.mark.parametrize("name", ["forward", "full-backprop", "truncated-backprop"])
@pytest.mark.parametrize(("dtype", "rtol", "finite_below"), [("float32", 1e-4, 0.04), ("float64", 1e-10, 2.0)])
def test_the_log_objective_is_right_or_says_that_it_overflowed(
    name: str, dtype: str, rtol: float, finite_below: float
) -> None:
    """Reverse mode through the logarithm is silently 0 at 0.05 in float32 and at 10 in float64, and NaN from 0.1 on."""
    with jax.enable_x64(dtype == "float64"):
        for eta in ETAS:
            estimate = log_estimate(name, eta, dtype)
            if eta < finite_below:
                assert estimate.metrics["dropped"] == 0
                np.testing.assert_allclose(estimate.gradient["step_size"], stable_gradient(eta), rtol=rtol)
            else:
                assert (estimate.weight, estimate.metrics["overflow"], estimate.metrics["underflow"]) == (0, 1, 0)


@pytest.mark.parametrize("name", PERTURBING)
def test_perturbed_logarithms(name: str) -> None:
    """One pair, far from overflow in float64: the estimate is eps^2 / sigma^2 times the derivative."""
    with jax.enable_x64(True):
        for eta in (0.026, 0.1, 1.0):
            estimate = log_estimate(name, eta, "float64")
            eps = 2 * 1e-14 * estimate.direction["step_size"]
            found = estimate.gradient["step_size"] * 1e-14 / eps**2
            np.testing.assert_allclose(found, stable_gradient(eta), rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_logarithm_of_nothing_is_an_underflow(name: str) -> None:
    """A curvature of 1 and a step size of 1 reach the minimum in one step; so does nearly every theta close by."""
    task = NoisyQuadratic(jnp.ones(1), jnp.zeros(1), jnp.ones(1))
    estimate = estimate_log(name, task, 1.0, "float32", 60, sigma=1e-9)
    assert (estimate.weight, estimate.metrics["overflow"], estimate.metrics["underflow"]) == (0, 0, 1)
    assert estimate.gradient["step_size"] == 0


def test_the_validation_batches_are_not_the_training_batches() -> None:
    """Leak-free by construction: the same key draws from another stream for every split."""
    task = NoisyQuadratic(jnp.ones(3), jnp.ones(3), jnp.ones(3))
    draws = [task.sample_batch(jax.random.key(0), split) for split in ("train", "valid", "test")]
    assert len({tuple(np.asarray(x)) for x in draws}) == 3


def test_objectives_are_values(chain: Any) -> None:
    """Equal objectives share a compiled program."""
    assert MetaObjective(aggregate="last") == MetaObjective(aggregate="last")
    assert hash(MetaObjective()) == hash(dataclasses.replace(MetaObjective()))
