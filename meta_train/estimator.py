"""The contract of meta-gradient estimators."""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from learned_opt.base import Theta
from learned_opt.meta_train.objective import MetaObjective, Tally

EstimatorState = Any  # a pytree of arrays


class Estimate(NamedTuple):
    """One particle's estimate from one truncation.

    direction, difference: the meta-gradient is their product. Estimators that perturb theta keep the difference of the
        objective between the pair apart, for `shaping`; that of the others is 1.
    loss: mean inner loss, as the objective measures it.
    weight: inner steps of the problem, or 0 for a particle that was dropped for not being finite.
    metrics: `objective`; `clipped` (share of the steps); `dropped` (0 or 1) and why: `overflow` of a loss or of the
        gradient, `underflow` of a logarithm; `inner_steps` (computed, of all members).
    """

    direction: Theta
    difference: jax.Array
    loss: jax.Array
    weight: jax.Array
    metrics: dict[str, jax.Array]

    @property
    def gradient(self) -> Theta:
        """The meta-gradient, shaped as theta."""
        return jax.tree.map(lambda x: self.difference.astype(x.dtype) * x, self.direction)


class MetaGradientEstimator(Protocol):
    """How d objective / d theta is found, written for one particle.

    Implementations are frozen dataclasses registered as pytrees. The average of the estimates over the truncations of a
    problem, each weighted by `weight`, estimates the gradient of its objective. The start of an inner problem is taken
    as given: a learned optimizer's `init` must not depend on theta.
    """

    def init(self, key: jax.Array, theta: Theta) -> EstimatorState:
        """A particle at the start of its first inner problem."""
        ...

    def estimate(self, theta: Theta, state: EstimatorState, key: jax.Array) -> tuple[Estimate, EstimatorState]:
        """Advances the particle by one truncation."""
        ...


def from_derivative(objective: MetaObjective, horizon: jax.Array, derivative: Theta, tally: Tally) -> Estimate:
    """From the derivative of the score with respect to theta."""
    slope = objective.slope(tally, horizon)
    direction = jax.tree.map(lambda x: slope.astype(x.dtype) * x, derivative)
    pair = jax.tree.map(lambda x: x[None], tally)
    return _estimate(objective, horizon, direction, jnp.ones_like(slope), pair)


def from_members(objective: MetaObjective, horizon: jax.Array, direction: Theta, tallies: Tally) -> Estimate:
    """From the tallies of members of a particle, leading axis first: a pair, and others that only cost time."""
    values = jax.vmap(objective.value, (0, None))(tallies, horizon)
    return _estimate(objective, horizon, direction, values[0] - values[1], tallies)


def _estimate(
    objective: MetaObjective, horizon: jax.Array, direction: Theta, difference: jax.Array, tallies: Tally
) -> Estimate:
    """The estimate, of weight 0 and with zeros in place of its numbers where anything in it is not finite."""
    members = jnp.arange(tallies.steps.shape[0]) < 2
    loss = (tallies.loss / jnp.maximum(tallies.steps, 1)).mean(where=members)
    value = jax.vmap(objective.value, (0, None))(tallies, horizon).mean(where=members)
    underflow = jax.vmap(objective.underflow)(tallies).any(where=members)
    finite = jnp.isfinite(loss) & jnp.isfinite(difference)
    for leaf in jax.tree.leaves(direction):
        finite &= jnp.isfinite(leaf).all()
    kept = finite & ~underflow
    clipped = (tallies.clipped / jnp.maximum(tallies.steps, 1)).mean()
    direction, difference, loss, value, clipped = jax.tree.map(
        lambda x: jnp.where(kept, x, 0), (direction, difference, loss, value, clipped)
    )
    metrics = {
        "objective": value,
        "clipped": clipped,
        "dropped": 1 - kept.astype(jnp.int32),
        "overflow": (~finite & ~underflow).astype(jnp.int32),
        "underflow": underflow.astype(jnp.int32),
        "inner_steps": tallies.steps.sum(),
    }
    return Estimate(direction, difference, loss, jnp.where(kept, tallies.steps[0], 0), metrics)
