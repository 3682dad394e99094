"""Multi-layer perceptrons."""

import itertools
import math
from typing import Literal

import jax
from flax import nnx

from learned_opt.tasks.networks.architecture import Activation
from learned_opt.tasks.networks.kernels import lecun_normal


class MLP(nnx.Module):
    """A multi-layer perceptron on flattened inputs; nothing follows the last layer."""

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int,
        rngs: nnx.Rngs,
        hidden: tuple[int, ...] = (32,),
        norm: Literal["none", "layer"] = "none",
        dropout: float = 0.0,
    ) -> None:
        """`hidden` holds the widths of the hidden layers, each followed by norm, activation and dropout."""
        sizes = (math.prod(shape), *hidden, outputs)
        self.layers = nnx.List(
            [nnx.Linear(i, o, kernel_init=lecun_normal, rngs=rngs) for i, o in itertools.pairwise(sizes)]
        )
        self.norms = nnx.List([nnx.LayerNorm(size, rngs=rngs) for size in hidden if norm == "layer"])
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, inputs: jax.Array, activation: Activation, key: jax.Array) -> jax.Array:
        """`[batch, outputs]`."""
        rngs = nnx.Rngs(dropout=key)
        x = inputs.reshape(inputs.shape[0], -1)
        for i, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            x = self.norms[i](x) if self.norms else x
            x = self.dropout(activation(x), rngs=rngs)
        return self.layers[-1](x)
