"""Tasks that start from larger or smaller weights than their network's own."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from learned_opt.tasks.base import Params, TaskFamily, TaskParams
from learned_opt.tasks.wrapped import WrappedTask


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rescaled:
    """Every matrix (and kernel) starts c times as large, one c for each task, log-uniform in [low, high].

    Unlike `Reparametrised`, another function to start from. Vectors, biases and norms among them, start as ever.
    """

    family: TaskFamily
    low: float = field(default=0.5, metadata={"static": True})
    high: float = field(default=2.0, metadata={"static": True})

    def sample(self, key: jax.Array) -> TaskParams:
        """The inner task's parameters, and c."""
        inner_key, scale_key = jax.random.split(key)
        exponent = jax.random.uniform(scale_key, minval=jnp.log(self.low), maxval=jnp.log(self.high))
        return self.family.sample(inner_key), jnp.exp(exponent)

    def task(self, task_params: TaskParams) -> "RescaledTask":
        """The inner task with another start."""
        inner, scale = task_params
        return RescaledTask(self.family.task(inner), scale)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RescaledTask(WrappedTask):
    """A task whose matrices start `own` times as large."""

    def init(self, key: jax.Array) -> Params:
        """The inner weights, the matrices rescaled."""
        return jax.tree.map(lambda w: w * self.own if w.ndim > 1 else w, self.inner.init(key))
