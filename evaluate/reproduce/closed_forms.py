"""Inner problems whose expected meta-gradients are known, for every estimator, without any sampling or autodiff."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt.base import LearnedOptimizer
from learned_opt.evaluate import noisy_quadratic as exact
from learned_opt.meta_train.objective import MeasuredOn
from learned_opt.sgd import StepSize
from learned_opt.tasks.base import Batch, Params, Split, TaskFamily, TaskParams
from learned_opt.tasks.noisy_quadratic import NoisyQuadratic

TINY = 1e-30  # the step of complex-step differentiation, whose error is its square
NODES = 40  # of Gauss-Hermite quadrature: exact up to degree 79, and to rounding for what is smooth over a few sigma

# How moments of the inner state follow from one inner step: (theta, moments) -> (expected loss, new moments).
# Moments are affine in themselves, so that expectations over independent perturbations can be taken one by one.
MomentStep = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class ClosedForm:
    """A problem with one meta-parameter, and the exact course of its moments.

    `step` takes theta `[..., 1]` and moments `[..., dimension]`.
    """

    name: str
    family: TaskFamily
    optimizer: LearnedOptimizer
    measured_on: MeasuredOn
    theta: float
    moments: np.ndarray
    step: MomentStep

    def gradient(self, lengths: list[int], sigma: float = 0.0) -> float:
        """That of the mean loss over a problem whose truncations have these lengths.

        Each truncation has its own perturbation N(0, sigma^2), so that one length is the Gaussian-smoothed objective,
        several are what PES estimates, and sigma = 0 is the exact gradient.
        """
        return self._gradient(lengths, sigma, follow=True)

    def truncated_gradient(self, lengths: list[int], sigma: float = 0.0) -> float:
        """The same where theta acts within its truncation only, each starting from what theta itself arrives at."""
        return self._gradient(lengths, sigma, follow=False)

    def _gradient(self, lengths: list[int], sigma: float, follow: bool) -> float:
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES if sigma else 1)
        weights = weights / weights.sum()
        theta = self.theta + TINY * 1j
        moments, total = self.moments.astype(complex), 0j
        for length in lengths:
            end, score = self._truncation((theta + sigma * nodes)[:, None], moments, length)
            total += weights @ score
            if follow:
                moments = weights @ end
            else:
                moments = self._truncation(np.array([[theta]]), moments, length)[0][0].real.astype(complex)
        return total.imag / TINY / sum(lengths)

    def _truncation(self, theta: np.ndarray, moments: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Moments at the end `[nodes, dimension]` and summed losses `[nodes]`, for each theta `[nodes, 1]`."""
        moments = np.broadcast_to(moments, (len(theta), len(self.moments)))
        score = np.zeros(len(theta), complex)
        for _ in range(length):
            loss, moments = self.step(theta, moments)
            score = score + loss
        return moments, score


def chain() -> ClosedForm:
    """`s' = s + theta`, with the loss s after each step: the gradient of the mean is `(horizon + 1) / 2`."""
    return ClosedForm(
        name="linear chain",
        family=Chain(),
        optimizer=Drift(),
        measured_on="same-batch-after",
        theta=0.3,
        moments=np.zeros(1),
        step=lambda theta, s: ((s + theta).sum(-1), s + theta),
    )


def noisy_quadratic(
    curvatures: tuple[float, ...] = (2.0, 0.5), theta: float = 0.3, name: str = "noisy quadratic"
) -> ClosedForm:
    """SGD whose step size is theta on a noisy quadratic of gradient noise h, from weights of one.

    With `a = E[w^2]`: the expected loss is `1/2 sum h (a + sigma^2)`, and without momentum a is all that is needed.
    """
    h = np.asarray(curvatures)
    spectrum = exact.Spectrum(h, 1 / h)
    with jax.enable_x64(True):
        family = NoisyQuadratic(jnp.asarray(h), jnp.asarray(np.sqrt(spectrum.variances)), jnp.ones(len(h)))
    return ClosedForm(
        name=name,
        family=family,
        optimizer=StepSize(start=theta),
        measured_on="train",
        theta=theta,
        moments=np.ones(len(h)),
        step=lambda theta, a: (
            0.5 * (h * (a + spectrum.variances)).sum(-1),
            exact.step(spectrum, exact.at_rest(a), theta, 0.0).weight,
        ),
    )


@dataclass(frozen=True)
class Drift:
    """Moves every parameter by theta, whatever its gradient."""

    def init(self, key: jax.Array) -> Any:
        """Zero."""
        return {"drift": jnp.zeros(())}

    def transform(self, theta: Any) -> optax.GradientTransformationExtraArgs:
        """An optimizer without state."""
        return optax.GradientTransformationExtraArgs(
            lambda params: optax.EmptyState(),
            lambda updates, state, params=None, **extra: (
                jax.tree.map(lambda p: theta["drift"].astype(p.dtype), params),
                state,
            ),
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Chain:
    """The loss is the one weight; the family of one task, itself."""

    loss_scale = 1.0

    def sample(self, key: jax.Array) -> TaskParams:
        """Nothing: there is one task."""
        return ()

    def task(self, task_params: TaskParams) -> "Chain":
        """The task itself."""
        return self

    def init(self, key: jax.Array) -> Params:
        """Zero."""
        return jnp.zeros(())

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """The weight."""
        return params

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """Nothing."""
        return ()
