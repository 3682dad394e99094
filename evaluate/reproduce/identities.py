"""What must hold of the estimators exactly: no sampling, and no standard error."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt.adam import LearnableAdam
from learned_opt.base import LearnedOptimizer, Theta
from learned_opt.evaluate.reproduce.closed_forms import chain, noisy_quadratic
from learned_opt.evaluate.reproduce.rows import Row
from learned_opt.evaluate.reproduce.sampling import SIGMA, expected_gradient, lengths, make, temporary_bytes, theta_of
from learned_opt.meta_train import estimators
from learned_opt.meta_train.estimator import MetaGradientEstimator
from learned_opt.meta_train.estimators import PERTURBING
from learned_opt.meta_train.horizons import Horizons
from learned_opt.meta_train.objective import MetaObjective
from learned_opt.meta_train.perturbation import Perturbation
from learned_opt.meta_train.unroll import Unroller
from learned_opt.tasks.noisy_quadratic import NoisyQuadratic

HORIZON, TRUNCATION = 31, 10  # not aligned
SHORT, LONG, SEGMENT, DIMENSION = 100, 10_000, 100, 1000  # of the memory measurements
TOLERANCES = {"float64": 1e-10, "float32": 1e-5}


def checks() -> Iterator[Row]:
    """All of them."""
    yield from derivatives()
    yield from antithetic()
    yield from smoothing()
    yield from memory()


def derivatives() -> Iterator[Row]:
    """Estimators that follow derivatives, against `jax.grad` of a plain loop over optax.

    Adam's four hyperparameters on a quadratic without noise, so that all see the same batches.
    """
    for dtype, tolerance in TOLERANCES.items():
        with jax.enable_x64(dtype == "float64"):
            exact = _plain_gradient(dtype)
            found = {
                "forward": _adam_gradient("forward", TRUNCATION, dtype),
                "full-backprop": _adam_gradient("full-backprop", TRUNCATION, dtype),
                "truncated-backprop, truncation = horizon": _adam_gradient("truncated-backprop", HORIZON, dtype),
            }
        for name, gradient in found.items():
            off = float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))
            yield Row(
                "derivatives",
                f"{name} = jax.grad, {dtype}",
                f"relative error <= {tolerance:g}",
                f"{off:.1e}",
                off <= tolerance,
            )
        whole, full = found["truncated-backprop, truncation = horizon"], found["full-backprop"]
        off = float(np.linalg.norm(whole - full) / np.linalg.norm(full))
        yield Row(
            "derivatives",
            f"truncated-backprop, truncation = horizon, = full-backprop, {dtype}",
            "relative error <= 1e-06",
            f"{off:.1e}",
            off <= 1e-6,
        )


def antithetic() -> Iterator[Row]:
    """On a constant the difference of a pair is zero; on a linear objective it has no error of higher order."""
    with jax.enable_x64(True):
        for name in PERTURBING:
            constant = _unmoved(name)
            yield Row("antithetic", f"{name} on a constant", "exactly 0", f"{constant:g}", constant == 0)
        problem = chain()
        exact = problem.gradient([HORIZON])
        estimator = make(problem, "noise-reuse-es", HORIZON, TRUNCATION)
        eps, gradient = _one_problem_with_eps(estimator, theta_of(problem))
        off = abs(gradient * SIGMA**2 / eps**2 / exact - 1)
        yield Row(
            "antithetic",
            "noise-reuse-es on a linear objective",
            "eps (eps . exact) / sigma^2 to 1e-10",
            f"{off:.1e}",
            off < 1e-10,
        )


def smoothing() -> Iterator[Row]:
    """The bias that no number of particles removes, by quadrature; the objective of `full-es` and that of `pes`."""
    problem = noisy_quadratic()
    for name in ("full-es", "pes"):
        for horizon, truncation in ((12, 5), (100, 10)):
            exact = problem.gradient([horizon])
            bias, halved = (
                expected_gradient(problem, name, horizon, truncation, sigma) / exact - 1 for sigma in (SIGMA, SIGMA / 2)
            )
            yield Row(
                "smoothing",
                f"smoothing bias of {name}, horizon {horizon}, truncation {truncation}, sigma {SIGMA:g}",
                "below 1 %; a quarter at half the sigma",
                f"{bias:+.3%}; {halved:+.3%}",
                bool(abs(bias) < 0.01 and 0.2 < halved / bias < 0.3),
            )


def memory() -> Iterator[Row]:
    """Temporary bytes of the compiled program that runs one particle through one problem of 1000 weights."""
    for name in ("forward", "full-backprop"):
        short, long = (_bytes_of_one(name, horizon) for horizon in (SHORT, LONG))
        ratio = long / short
        yield Row(
            "memory",
            f"memory of {name} at {LONG} steps by that at {SHORT}",
            "at most 1.25" if name == "forward" else "grows",
            f"{long:,} / {short:,} bytes = {ratio:.2f}",
            ratio <= 1.25 if name == "forward" else ratio > 1.25,
        )


def _bytes_of_one(name: str, horizon: int) -> int:
    """Of the compiled program for one problem, in truncations of `SEGMENT` steps."""
    problem = noisy_quadratic(tuple(np.geomspace(0.1, 2, DIMENSION)))
    count = 1 if name == "full-backprop" else horizon // SEGMENT
    with jax.enable_x64(True):
        estimator = make(problem, name, horizon, SEGMENT)
        program = jax.jit(_mean_gradient, static_argnums=2).lower(estimator, theta_of(problem), count)
        return temporary_bytes(program.compile())


def _mean_gradient(estimator: MetaGradientEstimator, theta: Theta, truncations: int) -> Theta:
    """Over the truncations of one particle, weighted by their steps."""
    key = jax.random.key(0)

    def body(i: jax.Array, carry: Any) -> Any:
        state, total, weight = carry
        estimate, state = estimator.estimate(theta, state, jax.random.fold_in(key, i))
        total = jax.tree.map(lambda t, g: t + estimate.weight.astype(g.dtype) * g, total, estimate.gradient)
        return state, total, weight + estimate.weight

    start = estimator.init(key, theta), jax.tree.map(jnp.zeros_like, theta), jnp.zeros((), jnp.int32)
    _, total, weight = jax.lax.fori_loop(0, truncations, body, start)
    return jax.tree.map(lambda x: x / weight.astype(x.dtype), total)


def _quadratic(dtype: str) -> NoisyQuadratic:
    curvatures = jnp.array([2.0, 1.0, 0.3], dtype)
    return NoisyQuadratic(curvatures, jnp.zeros(3, dtype), jnp.array([1.0, -2.0, 3.0], dtype))


def _adam(dtype: str) -> tuple[LearnedOptimizer, Theta]:
    optimizer = LearnableAdam(learning_rate=0.1, exponent_scale=1.0)
    return optimizer, jax.tree.map(lambda x: x.astype(dtype) + 0.1, optimizer.init(jax.random.key(0)))


def _adam_gradient(name: str, truncation: int, dtype: str) -> np.ndarray:
    optimizer, theta = _adam(dtype)
    unroller = Unroller(
        family=_quadratic(dtype),
        optimizer=optimizer,
        objective=MetaObjective(),
        truncation=truncation,
        horizons=Horizons(shortest=HORIZON, longest=HORIZON),
    )
    estimator = estimators.make(name, unroller, Perturbation())
    count = 1 if name == "full-backprop" else len(lengths(HORIZON, truncation))
    gradient = jax.jit(_mean_gradient, static_argnums=2)(estimator, theta, count)
    return np.array(jax.tree.leaves(gradient), float)


def _plain_gradient(dtype: str) -> np.ndarray:
    task = _quadratic(dtype)
    optimizer, theta = _adam(dtype)

    def loss(theta: Theta) -> jax.Array:
        transform = optimizer.transform(theta)

        def step(carry: Any, _: None) -> Any:
            params, opt_state = carry
            loss, grads = jax.value_and_grad(lambda w: 0.5 * jnp.sum(task.curvatures * w**2))(params)
            updates, opt_state = transform.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        return jax.lax.scan(step, (task.start, transform.init(task.start)), None, HORIZON)[1].mean()

    return np.array(jax.tree.leaves(jax.jit(jax.grad(loss))(theta)), float)


def _unmoved(name: str) -> float:
    """The estimate of one inner step, whose loss comes before the first update and does not depend on theta."""
    problem = noisy_quadratic()
    estimator = make(problem, name, 1, 1)
    return abs(float(jax.tree.leaves(jax.jit(_mean_gradient, static_argnums=2)(estimator, theta_of(problem), 1))[0]))


def _one_problem_with_eps(estimator: MetaGradientEstimator, theta: Theta) -> tuple[float, float]:
    """The perturbation of a problem under noise reuse, and the estimate from the whole of it."""
    eps = estimator.init(jax.random.key(0), theta).eps
    count = len(lengths(HORIZON, TRUNCATION))
    gradient = jax.jit(_mean_gradient, static_argnums=2)(estimator, theta, count)
    return float(jax.tree.leaves(eps)[0]), float(jax.tree.leaves(gradient)[0])
