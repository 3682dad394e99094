"""Residual networks (He et al. 2016, arXiv 1603.05027) with group norm: no statistics of the batch, no state."""

import jax
from flax import nnx

from learned_opt.tasks.networks.architecture import Activation
from learned_opt.tasks.networks.convolution import Conv

CHANNELS_PER_GROUP = 4


class Block(nnx.Module):
    """Twice norm, activation and 3x3 convolution, added to the input; 1x1 convolved where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, rngs: nnx.Rngs) -> None:
        """`stride` is that of the first convolution."""
        self.norms = nnx.List([_norm(n, rngs) for n in (inputs, outputs)])
        self.layers = nnx.List(
            [
                Conv(inputs, outputs, (3, 3), strides=stride, use_bias=False, rngs=rngs),
                Conv(outputs, outputs, (3, 3), use_bias=False, rngs=rngs),
            ]
        )
        self.shortcut = nnx.data(
            Conv(inputs, outputs, (1, 1), strides=stride, use_bias=False, rngs=rngs)
            if (inputs, 1) != (outputs, stride)
            else None
        )

    def __call__(self, x: jax.Array, activation: Activation) -> jax.Array:
        """Images of the new size."""
        y = activation(self.norms[0](x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = self.layers[0](y)
        return shortcut + self.layers[1](activation(self.norms[1](y)))


class ResNet(nnx.Module):
    """A 3x3 convolution, blocks, each but the first of stride 2, a mean over positions and a linear layer."""

    def __init__(self, shape: tuple[int, ...], outputs: int, rngs: nnx.Rngs, hidden: tuple[int, ...] = (8, 16)) -> None:
        """`shape` is height, width, channels; `hidden` the channels of each block, multiples of 4."""
        self.stem = Conv(shape[2], hidden[0], (3, 3), use_bias=False, rngs=rngs)
        sizes = zip((hidden[0], *hidden), hidden, (1, *[2] * (len(hidden) - 1)), strict=False)
        self.blocks = nnx.List([Block(i, o, stride, rngs) for i, o, stride in sizes])
        self.norm = _norm(hidden[-1], rngs)
        self.head = nnx.Linear(hidden[-1], outputs, rngs=rngs)

    def __call__(self, images: jax.Array, activation: Activation, key: jax.Array) -> jax.Array:
        """`[batch, outputs]`."""
        x = self.stem(images)
        for block in self.blocks:
            x = block(x, activation)
        return self.head(activation(self.norm(x)).mean((1, 2)))


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.GroupNorm:
    return nnx.GroupNorm(channels, num_groups=None, group_size=CHANNELS_PER_GROUP, rngs=rngs)
