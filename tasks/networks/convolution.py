"""Convolution as one product of matrices."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class Conv(nnx.Conv):
    """Flax's convolution of images, computed as a product of patches and kernel.

    Many networks side by side have kernels of their own. XLA has no fast program for that on a CPU, where the gradient
    of a vmapped convolution takes tens of times as long as that of the same products.
    """

    def __init__(self, *sizes: Any, **options: Any) -> None:
        """As `nnx.Conv`, without groups and dilation."""
        super().__init__(*sizes, conv_general_dilated=_as_product, **options)


def _as_product(images: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **_: Any) -> jax.Array:
    """`[batch, height, width, in]` and `[rows, columns, in, out]`, to `[batch, ceil(height / stride), ..., out]`."""
    rows, columns, channels, outputs = kernel.shape
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(images.shape[1:3], kernel.shape[:2], strides, padding)
    images = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    height, width = (
        (s - k) // stride + 1 for s, k, stride in zip(images.shape[1:3], kernel.shape, strides, strict=False)
    )
    patches = [
        images[:, i : i + strides[0] * (height - 1) + 1 : strides[0], j : j + strides[1] * (width - 1) + 1 : strides[1]]
        for i in range(rows)
        for j in range(columns)
    ]
    return jnp.concatenate(patches, axis=3) @ kernel.reshape(rows * columns * channels, outputs)
