"""What an unroll is worth."""

from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from learned_opt import errors
from learned_opt.tasks.base import Params, Task
from learned_opt.tasks.training import Step

MeasuredOn = Literal["train", "same-batch-after", "valid"]


@dataclass(frozen=True, kw_only=True)
class MetaObjective:
    """The mean over the steps of an unroll of one loss per inner step.

    Attributes:
        measured_on: `train` is the minibatch loss before the update, which costs nothing more; `same-batch-after` the
            loss of the updated parameters on the same minibatch; `valid` their loss on a fresh validation minibatch.
        clip: losses above it count as `clip`; how often is reported.
    """

    measured_on: MeasuredOn = "train"
    clip: float = float("inf")

    def __post_init__(self) -> None:
        """Refuses a measure that does not exist."""
        if self.measured_on not in get_args(MeasuredOn):
            raise errors.unknown("meta-objective", self.measured_on, get_args(MeasuredOn))

    def measure(self, task: Task, step: Step, params: Params, key: jax.Array) -> jax.Array:
        """The loss of one step, before clipping; `params` are those after its update."""
        if self.measured_on == "train":
            return step.loss
        if self.measured_on == "same-batch-after":
            return task.loss(params, step.loss_key, step.batch)
        batch_key, loss_key = jax.random.split(key)
        return task.loss(params, loss_key, task.sample_batch(batch_key, "valid"))

    def aggregate(self, losses: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean clipped loss over the steps marked `valid`, and the share of them clipped. A NaN stays a NaN."""
        count = jnp.maximum(valid.sum(), 1)
        mean = jnp.where(valid, jnp.minimum(losses, self.clip), 0).sum() / count
        return mean, jnp.where(valid, losses > self.clip, False).sum() / count
