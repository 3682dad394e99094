"""Augmentations: a task seen through something that changes what an optimizer meets, and not what it is to learn.

Each wraps any family; `reparametrise.Reparametrised` is one more. What each changes, and what it must not, is in its
first lines, and tested.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from learned_opt import errors
from learned_opt.tasks.base import Batch, Params, Split, TaskFamily, TaskParams
from learned_opt.tasks.wrapped import WrappedTask


@dataclass(frozen=True)
class Wrapped:
    """A family around another one. `task_params` are those of the inner task, and what the augmentation draws."""

    family: TaskFamily

    def sample(self, key: jax.Array) -> TaskParams:
        """The inner task's parameters, and the augmentation's own."""
        inner_key, own_key = jax.random.split(key)
        return self.family.sample(inner_key), self.draw(own_key)

    def draw(self, key: jax.Array) -> Any:
        """Nothing, unless a subclass draws something."""
        return ()


def _log_uniform(key: jax.Array, low: float, high: float) -> jax.Array:
    return jnp.exp(jax.random.uniform(key, minval=jnp.log(low), maxval=jnp.log(high)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossRescaled(Wrapped):
    """The loss times c, log-uniform in [low, high]. An optimizer blind to the scale of gradients trains as before."""

    low: float = field(default=1e-3, metadata={"static": True})
    high: float = field(default=1e3, metadata={"static": True})

    def draw(self, key: jax.Array) -> jax.Array:
        """c."""
        return _log_uniform(key, self.low, self.high)

    def task(self, task_params: TaskParams) -> "LossRescaledTask":
        """The task with that scale."""
        return LossRescaledTask(self.family.task(task_params[0]), task_params[1])


class LossRescaledTask(WrappedTask):
    """`own` is the factor."""

    @property
    def loss_scale(self) -> Any:
        """That of the inner task, rescaled, so that a normalised loss is what it was."""
        return self.own * self.inner.loss_scale

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """The inner loss times the factor."""
        return self.own * self.inner.loss(params, key, batch)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GradientRescaled(Wrapped):
    """Gradients times c, log-uniform in [low, high]; losses as they were."""

    low: float = field(default=1e-3, metadata={"static": True})
    high: float = field(default=1e3, metadata={"static": True})

    def draw(self, key: jax.Array) -> jax.Array:
        """c."""
        return _log_uniform(key, self.low, self.high)

    def task(self, task_params: TaskParams) -> "GradientRescaledTask":
        """The task with that scale."""
        return GradientRescaledTask(self.family.task(task_params[0]), task_params[1])


class GradientRescaledTask(WrappedTask):
    """`own` is the factor."""

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """The inner loss, whose derivative is multiplied."""
        loss = self.inner.loss(params, key, batch)
        change = (self.own - 1) * loss
        return loss + change - jax.lax.stop_gradient(change)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GradientNoise(Wrapped):
    """Gaussian noise of deviation s, log-uniform in [low, high], on every entry of every gradient; losses as they were.

    The mean of the gradients is as it was.
    """

    low: float = field(default=1e-4, metadata={"static": True})
    high: float = field(default=1e-2, metadata={"static": True})

    def draw(self, key: jax.Array) -> jax.Array:
        """s."""
        return _log_uniform(key, self.low, self.high)

    def task(self, task_params: TaskParams) -> "GradientNoiseTask":
        """The task with that noise."""
        return GradientNoiseTask(self.family.task(task_params[0]), task_params[1])


class GradientNoiseTask(WrappedTask):
    """`own` is the deviation."""

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """The inner loss plus a term whose value is zero and whose derivative is the noise."""
        leaves = jax.tree.leaves(params)
        keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
        tilt = sum(jnp.vdot(jax.random.normal(k, x.shape, x.dtype), x) for k, x in zip(keys, leaves, strict=True))
        tilt = self.own * tilt
        return self.inner.loss(params, key, batch) + tilt - jax.lax.stop_gradient(tilt)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LowPrecision(Wrapped):
    """Losses and gradients at weights rounded to bfloat16; gradients are rounded too. Weights keep their precision."""

    def task(self, task_params: TaskParams) -> "LowPrecisionTask":
        """The task in low precision."""
        return LowPrecisionTask(self.family.task(task_params[0]), task_params[1])


class LowPrecisionTask(WrappedTask):
    """Nothing is drawn."""

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """The inner loss at the rounded weights."""
        # The cotangent passes through the same casts, and is rounded on its way back.
        rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), params)
        return self.inner.loss(rounded, key, batch)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SmallerBatches(Wrapped):
    """Training batches of their first `size` examples; the expected loss, and batches of other splits, as before."""

    size: int = field(default=4, metadata={"static": True})

    def task(self, task_params: TaskParams) -> "SmallerBatchesTask":
        """The task with small batches.

        Raises:
            UsageError: its batches are not of more examples than that.
        """
        task = SmallerBatchesTask(self.family.task(task_params[0]), task_params[1], self.size)
        try:
            jax.eval_shape(lambda k: task.loss(task.init(k), k, task.sample_batch(k, "train")), jax.random.key(0))
        except (TypeError, ValueError) as error:  # a batch of something else, such as noise for every weight
            raise errors.UsageError(
                f"small-batches was given {type(self.family).__name__}: "
                f"a task whose batches are of more than {self.size} examples is accepted"
            ) from error
        return task


@dataclass(frozen=True)
class SmallerBatchesTask(WrappedTask):
    """Nothing is drawn."""

    size: int

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """The first examples of the inner task's batch, along the leading axis of each of its arrays."""
        batch = self.inner.sample_batch(key, split)
        if split != "train":
            return batch
        lengths = {x.shape[:1] for x in jax.tree.leaves(batch)}
        if len(lengths) != 1 or min(lengths) <= (self.size,):
            raise ValueError(f"batches are of {sorted(lengths)} examples, {self.size} or fewer, or none")
        return jax.tree.map(lambda x: x[: self.size], batch)
