"""The contract of meta-gradient estimators."""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from learned_opt.base import Theta

EstimatorState = Any  # a pytree of arrays


class Estimate(NamedTuple):
    """One particle's estimate from one truncation.

    gradient: shaped as theta, for the mean loss over the truncation's inner steps. loss: that mean.
    weight: how many inner steps, or 0 for a particle that was dropped for not being finite.
    metrics: `clipped` (share of the steps), `dropped` (0 or 1), `inner_steps` (computed, of all members of a pair).
    """

    gradient: Theta
    loss: jax.Array
    weight: jax.Array
    metrics: dict[str, jax.Array]


class MetaGradientEstimator(Protocol):
    """How d objective / d theta is found, written for one particle.

    Implementations are frozen dataclasses registered as pytrees. The average of estimates over particles and
    truncations, each weighted by `weight`, estimates the gradient of the mean loss per inner step.
    """

    def init(self, key: jax.Array, theta: Theta) -> EstimatorState:
        """A particle at the start of an inner problem."""
        ...

    def estimate(self, theta: Theta, state: EstimatorState, key: jax.Array) -> tuple[Estimate, EstimatorState]:
        """Advances the particle by one truncation."""
        ...


def drop_unless_finite(
    gradient: Theta, loss: jax.Array, steps: jax.Array, clipped: jax.Array, inner_steps: jax.Array
) -> Estimate:
    """An estimate whose weight is 0, and whose numbers are zeros, where anything in it is not finite.

    `inner_steps` is what was computed, dropped or not: twice `steps` for an antithetic pair.
    """
    finite = jnp.isfinite(loss)
    for leaf in jax.tree.leaves(gradient):
        finite &= jnp.isfinite(leaf).all()
    gradient, loss, clipped = jax.tree.map(lambda x: jnp.where(finite, x, 0), (gradient, loss, clipped))
    metrics = {"clipped": clipped, "dropped": 1.0 - finite, "inner_steps": inner_steps}
    return Estimate(gradient, loss, jnp.where(finite, steps, 0), metrics)
