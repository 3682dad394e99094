"""Many means over tensors in one pass."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

LONGEST = 2**16  # sum of as many numbers in a row; beyond, float32 would lose digits


def means(arrays: Sequence[jax.Array]) -> jax.Array:
    """The mean of each array; those of one shape are read together."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, x in enumerate(arrays):
        by_shape.setdefault(x.shape, []).append(i)
    totals: dict[int, jax.Array] = {}
    for indices in by_shape.values():
        totals.update(zip(indices, sums(tuple(arrays[i] for i in indices)), strict=True))
    sizes = jnp.asarray([max(x.size, 1) for x in arrays], arrays[0].dtype)
    return jnp.stack([totals[i] for i in range(len(arrays))]) / sizes


@jax.custom_jvp
def sums(arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """The sum of each of several arrays of one shape.

    One reduction with many operands: XLA fuses what computes them into it. A reduction with a single one is given its
    operand in memory on CPU.
    """
    if arrays[0].size <= LONGEST:
        return _sums_over(range(arrays[0].ndim), arrays)
    while arrays[0].ndim:
        length = arrays[0].shape[-1]
        if length > LONGEST:
            rows = -(-length // 1024)
            arrays = tuple(_padded(x, rows * 1024).reshape(*x.shape[:-1], rows, 1024) for x in arrays)
        arrays = _sums_over((arrays[0].ndim - 1,), arrays)
    return arrays


@sums.defjvp
def _sums_jvp(primals: Any, tangents: Any) -> Any:
    """A sum is linear; written plainly, it can be transposed."""
    return sums(*primals), tuple(x.sum() for x in tangents[0])


def _sums_over(axes: Sequence[int], arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    def add(one: tuple[jax.Array, ...], other: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(x + y for x, y in zip(one, other, strict=True))

    zeros = tuple(jnp.zeros((), x.dtype) for x in arrays)
    return tuple(jax.lax.reduce(arrays, zeros, add, tuple(axes)))


def _padded(x: jax.Array, length: int) -> jax.Array:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, length - x.shape[-1])])
