"""MLP-mixers (Tolstikhin et al. 2021, arXiv 2105.01601)."""

import jax
import jax.numpy as jnp
from flax import nnx

from learned_opt.tasks.networks.architecture import Activation
from learned_opt.tasks.networks.transformer import Patches


class Block(nnx.Module):
    """A two-layer perceptron across patches, then one across channels, each of normalised input and added to it."""

    def __init__(self, patches: int, width: int, hidden: int, rngs: nnx.Rngs) -> None:
        """`hidden` is the width of both hidden layers."""
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.hidden = nnx.List([nnx.Linear(size, hidden, rngs=rngs) for size in (patches, width)])
        self.out = nnx.List([nnx.Linear(hidden, size, rngs=rngs) for size in (patches, width)])

    def __call__(self, x: jax.Array, activation: Activation) -> jax.Array:
        """`[batch, patches, width]`."""
        across = jnp.swapaxes(self.norms[0](x), 1, 2)
        x = x + jnp.swapaxes(self.out[0](activation(self.hidden[0](across))), 1, 2)
        return x + self.out[1](activation(self.hidden[1](self.norms[1](x))))


class Mixer(nnx.Module):
    """Patches, blocks, a norm, a mean over patches and a linear layer."""

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int,
        rngs: nnx.Rngs,
        patch: int = 2,
        width: int = 32,
        hidden: int = 32,
        depth: int = 2,
    ) -> None:
        """`shape` is height, width, channels; `patch` divides height and width."""
        self.patches = Patches(shape, width, patch, rngs)
        self.blocks = nnx.List([Block(self.patches.count, width, hidden, rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, outputs, rngs=rngs)

    def __call__(self, images: jax.Array, activation: Activation, key: jax.Array) -> jax.Array:
        """`[batch, outputs]`."""
        x = self.patches(images)
        for block in self.blocks:
            x = block(x, activation)
        return self.head(self.norm(x).mean(1))
