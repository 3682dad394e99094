"""Recurrent language models."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from learned_opt.tasks.networks.architecture import Activation
from learned_opt.tasks.networks.kernels import orthogonal


class Recurrent(nnx.Module):
    """An embedding, one recurrent cell along the sequence, and a linear layer. The cell has its own activations."""

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int,
        rngs: nnx.Rngs,
        cell: Literal["gru", "lstm"] = "gru",
        width: int = 32,
    ) -> None:
        """`outputs` is the size of the vocabulary, `width` that of embedding and cell."""
        self.embedding = nnx.Embed(outputs, width, rngs=rngs)
        self.cell: Any = {"gru": nnx.GRUCell, "lstm": nnx.OptimizedLSTMCell}[cell](
            width, width, recurrent_kernel_init=orthogonal, rngs=rngs
        )
        self.head = nnx.Linear(width, outputs, rngs=rngs)

    def __call__(self, tokens: jax.Array, activation: Activation, key: jax.Array) -> jax.Array:
        """Logits of the next token after each, `[batch, length, outputs]`, for tokens `[batch, length]`."""
        x = jnp.swapaxes(self.embedding(tokens), 0, 1)
        zeros = jnp.zeros_like(x[0])
        carry = zeros if isinstance(self.cell, nnx.GRUCell) else (zeros, zeros)
        _, hidden = jax.lax.scan(lambda carry, x: self.cell(carry, x), carry, x)
        return self.head(jnp.swapaxes(hidden, 0, 1))
