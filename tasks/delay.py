"""Gradients that arrive late, as from workers that compute while others already step."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from learned_opt import errors
from learned_opt.tasks.base import Params, TaskFamily, TaskParams
from learned_opt.tasks.wrapped import WrappedTask


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Delay:
    """What a task says of its gradients; `training` holds them back.

    Attributes:
        steps: by how many; 0 to `longest`.
        longest: how many gradients are kept.
    """

    steps: jax.Array
    longest: int = field(metadata={"static": True})

    def start(self, params: Params) -> Params:
        """Gradients under way at the start, the newest last, `[longest, ...]` each: zeros."""
        return jax.tree.map(lambda x: jnp.zeros((self.longest, *x.shape), x.dtype), params)

    def __call__(self, grads: Params, under_way: Params) -> tuple[Params, Params]:
        """The gradients of `steps` ago, and what is under way after these ones."""
        kept = jax.tree.map(lambda old, new: jnp.concatenate([old, new[None]]), under_way, grads)
        return jax.tree.map(lambda x: x[self.longest - self.steps], kept), jax.tree.map(lambda x: x[1:], kept)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DelayedGradients:
    """Every step sees the gradient of d steps ago, d uniform in 0..longest, and zeros before; losses as they were.

    With d = 0 training is as without; with any d no gradient is lost or changed. A task says how late its gradients
    are, and `training.InnerState` holds them: tasks have no state.
    """

    family: TaskFamily
    longest: int = field(default=4, metadata={"static": True})

    def sample(self, key: jax.Array) -> TaskParams:
        """The inner task's parameters, and d."""
        inner_key, own_key = jax.random.split(key)
        return self.family.sample(inner_key), jax.random.randint(own_key, (), 0, self.longest + 1)

    def task(self, task_params: TaskParams) -> "DelayedTask":
        """The task with that delay.

        Raises:
            UsageError: its gradients are late already.
        """
        inner, steps = task_params
        task = self.family.task(inner)
        if getattr(task, "delay", None) is not None:
            raise errors.UsageError("augmentation 'delayed' was given twice: once is accepted")
        return DelayedTask(task, Delay(steps, self.longest))


class DelayedTask(WrappedTask):
    """`own` is the delay."""

    @property
    def delay(self) -> Any:
        """How late gradients are."""
        return self.own
