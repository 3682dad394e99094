"""Reparametrised tasks: the same function of rescaled weights (Celo's augmentation, after STAR's and VeLO's)."""

from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp

from learned_opt.tasks.base import Batch, Params, TaskFamily, TaskParams
from learned_opt.tasks.wrapped import WrappedTask

Per = Literal["task", "tensor", "weight"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Reparametrised:
    """Weights w of a task are replaced by w / c, c log-uniform in [low, high]: one c for each tensor, or as `per` says.

    The function computed at the start, and so the starting loss, does not change; gradients are multiplied by c, and a
    step of size s moves the function as a step of size c s did. Adam's best learning rate moves with c; an optimizer
    meta-trained on many c learns step sizes relative to the weights.
    """

    family: TaskFamily
    low: float = field(default=0.1, metadata={"static": True})
    high: float = field(default=10.0, metadata={"static": True})
    per: Per = field(default="tensor", metadata={"static": True})

    def sample(self, key: jax.Array) -> TaskParams:
        """The inner task's parameters, and the scales: a tree like that of the weights."""
        inner_key, scale_key = jax.random.split(key)
        inner = self.family.sample(inner_key)
        params = jax.eval_shape(self.family.task(inner).init, scale_key)
        leaves, structure = jax.tree.flatten(params)
        low, high = jnp.log(self.low), jnp.log(self.high)
        if self.per == "weight":
            keys = jax.random.split(scale_key, len(leaves))
            exponents = [
                jax.random.uniform(k, x.shape, minval=low, maxval=high) for k, x in zip(keys, leaves, strict=True)
            ]
        else:
            count = len(leaves) if self.per == "tensor" else 1
            drawn = jax.random.uniform(scale_key, (count,), minval=low, maxval=high)
            exponents = list(jnp.broadcast_to(drawn, len(leaves)))
        return inner, jax.tree.unflatten(structure, [jnp.exp(x) for x in exponents])

    def task(self, task_params: TaskParams) -> "ReparametrisedTask":
        """The inner task seen through the scales."""
        inner, scales = task_params
        return ReparametrisedTask(self.family.task(inner), scales)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ReparametrisedTask(WrappedTask):
    """A task whose weights are stored divided by `own`, the scales."""

    def init(self, key: jax.Array) -> Params:
        """The inner weights, divided by the scales."""
        return jax.tree.map(jnp.divide, self.inner.init(key), self.own)

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """The inner loss of the weights times the scales."""
        return self.inner.loss(jax.tree.map(jnp.multiply, params, self.own), key, batch)
