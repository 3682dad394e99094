"""Perceptrons of many widths and depths in one compiled program."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from learned_opt import errors
from learned_opt.tasks.base import Params, TaskParams
from learned_opt.tasks.network_family import NetworkTask
from learned_opt.tasks.networks.architecture import Activation, choose
from learned_opt.tasks.supervised import Supervised


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SampledSizes(Supervised):
    """Supervised learning by perceptrons as wide and deep as `network`, an `MLP` of equal layers, or less.

    A task has 1 to all of the hidden layers, and a width log-uniform between `narrowest` and that of `network`. Its
    weights have the shapes of `network`'s; those beyond its own width and depth are zero and have no gradient. The
    others train as those of the smaller network do, under every optimizer that treats each weight by itself.

    Attributes:
        narrowest: the least width.
    """

    narrowest: int = field(default=4, metadata={"static": True})

    def __post_init__(self) -> None:
        """Refuses layers that are not equal, and options without a smaller network."""
        options = dict(self.network.options)
        if set(options) != {"hidden"} or len(set(options["hidden"])) != 1:
            raise errors.UsageError(
                f"network was given {options}: hidden layers of one width, and no more, is accepted"
            )

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the largest network."""
        return dict(self.network.options)["hidden"]

    def sample(self, key: jax.Array) -> TaskParams:
        """The index of the activation, a width and a depth."""
        activation_key, width_key, depth_key = jax.random.split(key, 3)
        low, high = jnp.log(self.narrowest), jnp.log(self.hidden[0] + 1)
        width = jnp.exp(jax.random.uniform(width_key, minval=low, maxval=high)).astype(jnp.int32)
        width = jnp.clip(width, self.narrowest, self.hidden[0])  # against rounding at either end
        return super().sample(activation_key), width, jax.random.randint(depth_key, (), 1, len(self.hidden) + 1)

    def task(self, task_params: TaskParams) -> "SizedTask":
        """The task with a network of that size."""
        return SizedTask(self, *task_params)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SizedTask(NetworkTask):
    """A network of hidden layers `width` wide, `depth` of them."""

    family: SampledSizes
    width: jax.Array
    depth: jax.Array

    def init(self, key: jax.Array) -> Params:
        """LeCun-normal kernels for the inputs that each has, and zero biases."""
        params = self.family.network.init(key, *self.family.sizes())
        layers, widest, last = params["layers"], self.family.hidden[0], len(self.family.hidden)
        own = jnp.arange(widest) < self.width
        for i, layer in layers.items():
            kernel = layer["kernel"]
            if i > 0:
                kernel = kernel * (own * jnp.sqrt(widest / self.width))[:, None]
            if i < last:
                kernel = kernel * (own & (i < self.depth))
            layer["kernel"] = kernel
        return params

    def loss(self, params: Params, key: jax.Array, batch: Any) -> jax.Array:
        """The loss of the smaller network."""
        activation = choose(self.family.activations, self.activation)
        return self.family.loss(lambda inputs: self.outputs(params, inputs, activation), batch)

    def outputs(self, params: Params, inputs: jax.Array, activation: Activation) -> jax.Array:
        """`[batch, outputs]`."""
        *hidden, last = (params["layers"][i] for i in range(len(self.family.hidden) + 1))
        own = jnp.arange(self.family.hidden[0]) < self.width
        x = inputs.reshape(inputs.shape[0], -1)
        for i, layer in enumerate(hidden):
            y = own * activation(x @ layer["kernel"] + layer["bias"])
            x = y if i == 0 else jnp.where(i < self.depth, y, x)
        return x @ last["kernel"] + last["bias"]
