"""Reparametrised tasks: the same function of rescaled weights (Celo's augmentation, after STAR's and VeLO's)."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from learned_opt.tasks.base import Batch, Params, Split, Task, TaskFamily, TaskParams


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Reparametrised:
    """Every tensor w of a task is replaced by w / c, c log-uniform in [low, high], one c per tensor.

    The function computed at the start, and so the starting loss, does not change; gradients are multiplied by c, and a
    step of size s moves the function as a step of size c s did. Adam's best learning rate moves with c; an optimizer
    meta-trained on many c learns step sizes relative to the weights.
    """

    family: TaskFamily
    low: float = field(default=0.1, metadata={"static": True})
    high: float = field(default=10.0, metadata={"static": True})

    def sample(self, key: jax.Array) -> TaskParams:
        """The inner task's parameters, and the scales: a tree of scalars shaped as the weights."""
        inner_key, scale_key = jax.random.split(key)
        inner = self.family.sample(inner_key)
        params = jax.eval_shape(self.family.task(inner).init, scale_key)
        leaves, structure = jax.tree.flatten(params)
        exponents = jax.random.uniform(scale_key, (len(leaves),), minval=jnp.log(self.low), maxval=jnp.log(self.high))
        return inner, jax.tree.unflatten(structure, list(jnp.exp(exponents)))

    def task(self, task_params: TaskParams) -> "ReparametrisedTask":
        """The inner task seen through the scales."""
        inner, scales = task_params
        return ReparametrisedTask(self.family.task(inner), scales)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ReparametrisedTask:
    """A task whose weights are stored divided by `scales`."""

    inner: Task
    scales: Params

    @property
    def loss_scale(self) -> Any:
        """That of the inner task."""
        return self.inner.loss_scale

    def init(self, key: jax.Array) -> Params:
        """The inner weights, divided by the scales."""
        return jax.tree.map(jnp.divide, self.inner.init(key), self.scales)

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """The inner loss of the weights times the scales."""
        return self.inner.loss(jax.tree.map(jnp.multiply, params, self.scales), key, batch)

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """The inner task's batch."""
        return self.inner.sample_batch(key, split)
