"""One step size on one quadratic: objectives, their derivatives in several ways, and descent on them.

`w' = w - eta H w` for t steps from w_0 of norm 1; `f(w) = 1/2 w^T H w` (Wang et al. 2021, arXiv 2006.16495, setting 1).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from learned_opt.meta_train.forward import Forward
from learned_opt.meta_train.horizons import Horizons
from learned_opt.meta_train.objective import MetaObjective
from learned_opt.meta_train.unroll import Unroller
from learned_opt.sgd import StepSize
from learned_opt.tasks.noisy_quadratic import NoisyQuadratic

DIMENSION, STEPS = 20, 80
ETAS = (1e-3, 0.02, 0.026, 0.03, 0.05, 0.1, 0.2, 1.0, 10.0)
HORIZONS = (1, 5, 20, 80, 320, 1000, 10_000)


class Quadratic(NamedTuple):
    """The Hessian, the start, and both in the eigenbasis: eigenvalues (ascending) and c_i^2; float64."""

    hessian: np.ndarray
    start: np.ndarray
    eigenvalues: np.ndarray
    squares: np.ndarray


def quadratic() -> Quadratic:
    """`H = X^T X` of a normal X `[20, 20]`; its condition number is 1061."""
    rng = np.random.RandomState(0)  # its numbers are promised never to change
    start = rng.standard_normal(DIMENSION)
    start /= np.linalg.norm(start)
    features = rng.standard_normal((DIMENSION, DIMENSION))
    hessian = features.T @ features
    eigenvalues, vectors = np.linalg.eigh(hessian)
    return Quadratic(hessian, start, eigenvalues, (vectors.T @ start) ** 2)


def log_slope(problem: Quadratic, eta: float, steps: int = STEPS) -> float:
    """The derivative of `log f(w_t) / t` in closed form, scaled so that nothing over- or underflows."""
    factors = 1 - eta * problem.eigenvalues
    largest = np.abs(factors).max()
    scaled = factors / largest
    weight = problem.squares * problem.eigenvalues
    upper = (weight * problem.eigenvalues * scaled ** (2 * steps - 1)).sum()
    return float(-2 / largest * upper / (weight * scaled ** (2 * steps)).sum())


def best_step_size(problem: Quadratic, steps: int = STEPS) -> float:
    """Where that derivative is zero; there is one place, as the objective is quasi-convex."""
    return float(scipy.optimize.brentq(lambda eta: log_slope(problem, eta, steps), 1e-6, 1.0, xtol=1e-14))


def normalised_forward_slope(hessian: jax.Array, start: jax.Array, eta: jax.Array, steps: int = STEPS) -> jax.Array:
    """The same in forward mode with w and its tangent rescaled after every step; right in float32 for any eta and t.

    Only for linear inner dynamics: there a rescaled state goes on as the state itself would.
    """

    def body(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        w, u = carry
        u = u - eta * (hessian @ u) - hessian @ w
        w = w - eta * (hessian @ w)
        norm = jnp.linalg.norm(w)
        return w / norm, u / norm

    w, u = jax.lax.fori_loop(0, steps, body, (start, jnp.zeros_like(start)))
    gradient = hessian @ w
    return (gradient @ u) / (steps * 0.5 * (w @ gradient))


def final_loss(hessian: jax.Array, start: jax.Array, eta: jax.Array, steps: int = STEPS) -> jax.Array:
    """f(w_t): the naive objective."""
    w = jax.lax.scan(lambda w, _: (w - eta * (hessian @ w), None), start, None, steps)[0]
    return 0.5 * w @ hessian @ w


def log_loss(hessian: jax.Array, start: jax.Array, eta: jax.Array, steps: int = STEPS) -> jax.Array:
    """`log f(w_t) / t`, to be differentiated in reverse mode, which fails."""
    return jnp.log(final_loss(hessian, start, eta, steps)) / steps


def estimated_slope(problem: Quadratic, eta: float, dtype: str) -> tuple[float, bool]:
    """What the estimator `forward` makes of the `log` objective, and whether it drops the particle as not finite."""
    arrays = (problem.eigenvalues, np.zeros(DIMENSION), np.sqrt(problem.squares))
    family = NoisyQuadratic(*(jnp.asarray(x, dtype) for x in arrays))
    unroller = Unroller(
        family=family,
        optimizer=StepSize(),
        objective=MetaObjective(measured_on="same-batch-after", aggregate="log"),
        truncation=STEPS,
        horizons=Horizons(shortest=STEPS, longest=STEPS),
    )
    estimator = Forward(unroller=unroller)
    theta = {"step_size": jnp.asarray(eta, dtype)}
    key = jax.random.key(0)
    estimate, _ = jax.jit(estimator.estimate)(theta, estimator.init(key, theta), key)
    return float(estimate.gradient["step_size"]), bool(estimate.metrics["dropped"])


def meta_descent(problem: Quadratic, start: float, steps: int = 1000) -> np.ndarray:
    """Step sizes of gradient descent on the log objective by steps of `1 / (100 sqrt k)`, kept above 0; k from 1."""
    course = [start]
    for k in range(1, steps + 1):
        course.append(max(course[-1] - log_slope(problem, course[-1]) / (100 * np.sqrt(k)), 0.0))
    return np.array(course)
