"""What an inner problem is worth: the meta-objective."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from learned_opt import errors
from learned_opt.tasks.base import Params, Task
from learned_opt.tasks.training import Step

MeasuredOn = Literal["train", "same-batch-after", "valid"]
Aggregate = Literal["mean", "last", "final-window", "log", "mean-log", "log-time"]
LOGARITHMS = ("mean-log", "log-time")
LOG_FLOOR = 1e-3  # added to losses whose logarithms are averaged: below it, lower is hardly better
EARLY = 20.0  # inner steps that `log-time` counts about alike; from then on every doubling of time has an equal share


class Tally(NamedTuple):
    """Sums over inner steps, all that the objective needs to know of them.

    score: of weight * loss, where the weights of a whole problem sum to one. weight: of those weights. loss: of the
    losses, clipped. steps, clipped: how many were taken, and clipped.
    """

    score: jax.Array
    weight: jax.Array
    loss: jax.Array
    steps: jax.Array
    clipped: jax.Array


def total(tallies: Tally) -> Tally:
    """The sum over a leading axis."""
    return jax.tree.map(lambda x: x.sum(0, dtype=x.dtype), tallies)


@dataclass(frozen=True, kw_only=True)
class MetaObjective:
    """`F = f(sum_t weight_t loss_t)` over the steps of an inner problem; f is the identity, or `log(.) / horizon`.

    A sum, so that every truncation knows its own share of F. The outer function is applied to values, and its
    derivative to finished derivatives of the sum: no adjoint starts as 1 / loss, which under- or overflows while the
    meta-gradient does not (Wang et al. 2021, arXiv 2006.16495, corollary 1).

    Attributes:
        measured_on: `train` is the minibatch loss before the update, which costs nothing more; `same-batch-after` the
            loss of the updated parameters on the same minibatch; `valid` their loss on a fresh validation minibatch.
        aggregate: `mean` over all steps; `last` step only; mean over the last `window` steps, or all if there are
            fewer; `log` of the last loss, divided by the horizon; `mean-log`, the mean over all steps of
            `log(loss + 1e-3)`: halving a small loss late is worth as much as halving a large one early; `log-time`, the
            same weighted by `1 / (t + 20)` at step t from 0, so that the first hundreds of steps, which decide how
            fast a run is, count beside the thousands after them.
        window: of `final-window`, in inner steps.
        clip: losses above it count as `clip`; those below 0 as 0, where their logarithms are averaged. How often is
            reported.
        normalise: divide losses by the `loss_scale` of their task, before the clip.
    """

    measured_on: MeasuredOn = "train"
    aggregate: Aggregate = "mean"
    window: int = 100
    clip: float = float("inf")
    normalise: bool = False

    def __post_init__(self) -> None:
        """Refuses a measure or an aggregate that does not exist."""
        if self.measured_on not in get_args(MeasuredOn):
            raise errors.unknown("meta-objective", self.measured_on, get_args(MeasuredOn))
        if self.aggregate not in get_args(Aggregate):
            raise errors.unknown("aggregate", self.aggregate, get_args(Aggregate))

    def tally(
        self, task: Task, step: Step, params: Params, key: jax.Array, index: jax.Array, horizon: jax.Array
    ) -> Tally:
        """The tally of step number `index` from 0; `params` are those after its update. A NaN stays a NaN.

        Steps from the horizon on count for nothing.
        """
        loss = self._measure(task, step, params, key)
        if self.normalise:
            loss = loss / task.loss_scale
        counts = index < horizon
        weight = self._weight(index, horizon, loss.dtype)
        clipped = counts & ((loss > self.clip) | (self.aggregate in LOGARITHMS) & (loss < 0))
        loss = jnp.minimum(loss, self.clip)
        worth = jnp.log(jnp.maximum(loss, 0) + LOG_FLOOR) if self.aggregate in LOGARITHMS else loss
        score = jnp.where(weight > 0, weight * worth, 0)
        return Tally(score, weight, jnp.where(counts, loss, 0), counts.astype(jnp.int32), clipped.astype(jnp.int32))

    def value(self, tally: Tally, horizon: jax.Array) -> jax.Array:
        """The share of F that a truncation has, times horizon / steps: its mean over a problem's inner steps is F."""
        if self.aggregate == "log":
            return jnp.where(tally.weight > 0, jnp.log(tally.score), 0) / self._steps(tally)
        return tally.score * horizon.astype(tally.score.dtype) / self._steps(tally)

    def slope(self, tally: Tally, horizon: jax.Array) -> jax.Array:
        """The derivative of `value` with respect to the score."""
        if self.aggregate == "log":
            return jnp.where(tally.weight > 0, 1 / tally.score, 0) / self._steps(tally)
        return horizon.astype(tally.score.dtype) / self._steps(tally)

    def underflow(self, tally: Tally) -> jax.Array:
        """Whether a logarithm would be taken of less than the smallest normal number: zero, subnormal or negative."""
        if self.aggregate != "log":
            return jnp.zeros((), bool)
        return (tally.weight > 0) & (tally.score < jnp.finfo(tally.score.dtype).tiny)

    def _measure(self, task: Task, step: Step, params: Params, key: jax.Array) -> jax.Array:
        if self.measured_on == "train":
            return step.loss
        if self.measured_on == "same-batch-after":
            return task.loss(params, step.loss_key, step.batch)
        batch_key, loss_key = jax.random.split(key)
        return task.loss(params, loss_key, task.sample_batch(batch_key, "valid"))

    def _weight(self, index: jax.Array, horizon: jax.Array, dtype: jnp.dtype) -> jax.Array:
        if self.aggregate == "log-time":
            early, digamma = jnp.asarray(EARLY, dtype), jax.scipy.special.digamma
            total = digamma(early + horizon) - digamma(early)  # of 1 / (t + early) over the problem
            return jnp.where(index < horizon, 1 / ((early + index) * total), 0)
        spans = {"mean": horizon, "mean-log": horizon, "final-window": jnp.minimum(self.window, horizon)}
        last = spans.get(self.aggregate, 1)
        return jnp.where((index < horizon) & (index >= horizon - last), 1 / jnp.asarray(last, dtype), 0)

    @staticmethod
    def _steps(tally: Tally) -> jax.Array:
        """At least one, for truncations beyond the horizon."""
        return jnp.maximum(tally.steps, 1).astype(tally.score.dtype)
