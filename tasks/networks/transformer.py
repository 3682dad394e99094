"""Transformers that normalise first (Xiong et al. 2020, arXiv 2002.04745): for language and for images."""

import jax
from flax import nnx

from learned_opt import errors
from learned_opt.tasks.networks.architecture import Activation

POSITION_DEVIATION = 0.02


class Block(nnx.Module):
    """Self-attention and a two-layer perceptron, each of normalised input and added to it."""

    def __init__(self, width: int, heads: int, expansion: int, dropout: float, rngs: nnx.Rngs) -> None:
        """`heads` divides `width`; the perceptron's hidden layer is `expansion` times as wide."""
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.attention_in = nnx.Linear(width, 3 * width, rngs=rngs)
        self.attention_out = nnx.Linear(width, width, rngs=rngs)
        self.hidden = nnx.Linear(width, expansion * width, rngs=rngs)
        self.out = nnx.Linear(expansion * width, width, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)
        self.heads = heads

    def __call__(self, x: jax.Array, activation: Activation, causal: bool, rngs: nnx.Rngs) -> jax.Array:
        """`[batch, length, width]`; where `causal`, no position sees a later one."""
        batch, length, width = x.shape
        heads = self.attention_in(self.norms[0](x)).reshape(batch, length, 3, self.heads, width // self.heads)
        mixed = jax.nn.dot_product_attention(heads[:, :, 0], heads[:, :, 1], heads[:, :, 2], is_causal=causal)
        x = x + self.dropout(self.attention_out(mixed.reshape(x.shape)), rngs=rngs)
        return x + self.dropout(self.out(activation(self.hidden(self.norms[1](x)))), rngs=rngs)


class Blocks(nnx.Module):
    """Blocks on top of positions that are added to the input, and a last norm."""

    def __init__(
        self, length: int, width: int, depth: int, heads: int, expansion: int, dropout: float, rngs: nnx.Rngs
    ) -> None:
        """`depth` blocks for sequences of at most `length`."""
        if width % heads:
            raise errors.UsageError(f"width was given {width} with {heads} heads: a multiple of heads is accepted")
        self.positions = nnx.Param(POSITION_DEVIATION * jax.random.normal(rngs.params(), (length, width)))
        self.blocks = nnx.List([Block(width, heads, expansion, dropout, rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)

    def __call__(self, x: jax.Array, activation: Activation, causal: bool, key: jax.Array) -> jax.Array:
        """`[batch, length, width]`."""
        rngs = nnx.Rngs(dropout=key)
        x = x + self.positions[: x.shape[1]]
        for block in self.blocks:
            x = block(x, activation, causal, rngs)
        return self.norm(x)


class LanguageModel(nnx.Module):
    """A decoder: every position predicts the next token from itself and those before it."""

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int,
        rngs: nnx.Rngs,
        width: int = 32,
        depth: int = 2,
        heads: int = 2,
        expansion: int = 4,
        dropout: float = 0.0,
    ) -> None:
        """`shape` is the length alone, `outputs` the size of the vocabulary."""
        self.embedding = nnx.Embed(outputs, width, rngs=rngs)
        self.blocks = Blocks(shape[0], width, depth, heads, expansion, dropout, rngs)
        self.head = nnx.Linear(width, outputs, rngs=rngs)

    def __call__(self, tokens: jax.Array, activation: Activation, key: jax.Array) -> jax.Array:
        """Logits of the next token after each, `[batch, length, outputs]`, for tokens `[batch, length]`."""
        return self.head(self.blocks(self.embedding(tokens), activation, True, key))


class ViT(nnx.Module):
    """A vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929) that ends in a mean over patches."""

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int,
        rngs: nnx.Rngs,
        patch: int = 2,
        width: int = 32,
        depth: int = 2,
        heads: int = 2,
        expansion: int = 4,
        dropout: float = 0.0,
    ) -> None:
        """`shape` is height, width, channels; `patch` divides height and width."""
        self.patches = Patches(shape, width, patch, rngs)
        self.blocks = Blocks(self.patches.count, width, depth, heads, expansion, dropout, rngs)
        self.head = nnx.Linear(width, outputs, rngs=rngs)

    def __call__(self, images: jax.Array, activation: Activation, key: jax.Array) -> jax.Array:
        """`[batch, outputs]`."""
        return self.head(self.blocks(self.patches(images), activation, False, key).mean(1))


class Patches(nnx.Module):
    """Images cut into squares, each mapped linearly to a vector."""

    def __init__(self, shape: tuple[int, ...], width: int, patch: int, rngs: nnx.Rngs) -> None:
        """`shape` is height, width, channels."""
        if shape[0] % patch or shape[1] % patch:
            raise errors.UsageError(f"patch was given {patch}: a divisor of {shape[0]} and {shape[1]} is accepted")
        self.patch = patch
        self.count = (shape[0] // patch) * (shape[1] // patch)
        self.layer = nnx.Linear(patch * patch * shape[2], width, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """`[batch, count, width]`, row by row."""
        n, height, width, channels = images.shape
        p = self.patch
        cut = images.reshape(n, height // p, p, width // p, p, channels).swapaxes(2, 3)
        return self.layer(cut.reshape(n, self.count, p * p * channels))
