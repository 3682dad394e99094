"""Plain convolutional networks."""

import itertools

import jax
from flax import nnx

from learned_opt.tasks.networks.architecture import Activation
from learned_opt.tasks.networks.convolution import Conv


class CNN(nnx.Module):
    """3x3 convolutions of stride 2, then a mean over positions and a linear layer."""

    def __init__(
        self, shape: tuple[int, ...], outputs: int, rngs: nnx.Rngs, hidden: tuple[int, ...] = (16, 32)
    ) -> None:
        """`shape` is height, width, channels; `hidden` holds the number of channels of each convolution."""
        sizes = (shape[2], *hidden)
        self.layers = nnx.List(
            [Conv(i, o, kernel_size=(3, 3), strides=2, rngs=rngs) for i, o in itertools.pairwise(sizes)]
        )
        self.head = nnx.Linear(sizes[-1], outputs, rngs=rngs)

    def __call__(self, images: jax.Array, activation: Activation, key: jax.Array) -> jax.Array:
        """`[batch, outputs]`."""
        x = images
        for layer in self.layers:
            x = activation(layer(x))
        return self.head(x.mean((1, 2)))
