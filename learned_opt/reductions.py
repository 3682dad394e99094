"""Many means over tensors in few passes."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

TOGETHER = 6  # sums that one loop makes: with more, its body is too long for the compiler to unroll
NEIGHBOURS = 8  # numbers that are added up at once, at most: a loop of as many is unrolled
LANES = 8  # sums made side by side, at least
FEW = 64  # numbers that are added up one by one


def by_shape(arrays: Sequence[jax.Array]) -> dict[tuple[int, ...], list[int]]:
    """The indices of the arrays of each shape."""
    found: dict[tuple[int, ...], list[int]] = {}
    for i, x in enumerate(arrays):
        found.setdefault(x.shape, []).append(i)
    return found


def means(arrays: Sequence[jax.Array]) -> jax.Array:
    """The mean of each array; those of one shape are read together."""
    totals: dict[int, jax.Array] = {}
    for indices in by_shape(arrays).values():
        totals.update(zip(indices, sums(tuple(arrays[i] for i in indices)), strict=True))
    sizes = jnp.asarray([max(x.size, 1) for x in arrays], arrays[0].dtype)
    return jnp.stack([totals[i] for i in range(len(arrays))]) / sizes


@jax.custom_jvp
def sums(arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """The sum of each of several arrays of one shape.

    Reductions with many operands: XLA fuses what computes them into the first, where on CPU it gives one with a single
    operand that operand in memory. As no compiler may change the order of a sum, it would be a loop over single
    numbers; a few neighbours at a time, in many places at once, make vectors, and keep the digits of float32.
    Arrays that stand together go through one loop, and share what they are computed from.
    """
    loops = -(-len(arrays) // TOGETHER) if arrays[0].size > FEW else 1
    share = -(-len(arrays) // loops)
    found: list[jax.Array] = []
    for first in range(0, len(arrays), share):
        found.extend(_sums(arrays[first : first + share]))
    return tuple(found)


@sums.defjvp
def _sums_jvp(primals: Any, tangents: Any) -> Any:
    """A sum is linear; written plainly, it can be transposed."""
    return sums(*primals), tuple(x.sum() for x in tangents[0])


def _sums(arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    while (split := _split(arrays[0].shape)) is not None:
        arrays = _sums_over((1,), tuple(_padded(x, split).reshape(split) for x in arrays))
    return _sums_over(range(arrays[0].ndim), arrays)


def _split(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Three dimensions, of which the middle one is summed over next; None where what is left is few.

    The last dimension stays whole while there are others, as what is constant along one of them would not be otherwise.
    Where nothing divides a length there are more places than numbers: see `_padded`.
    """
    size = math.prod(shape)
    if size <= FEW:
        return None
    lanes = shape[-1] if LANES <= shape[-1] < size else 1
    rows = size // lanes
    neighbours = next((n for n in range(NEIGHBOURS, 1, -1) if rows % n == 0), NEIGHBOURS)
    if lanes > 1:
        return -(-rows // neighbours), neighbours, lanes
    return 1, neighbours, -(-rows // neighbours)


def _padded(x: jax.Array, split: tuple[int, int, int]) -> jax.Array:
    """With zeros, along the flat array, up to the size of the split."""
    missing = math.prod(split) - x.size
    return jnp.pad(x.reshape(-1), (0, missing)) if missing else x


def _sums_over(axes: Sequence[int], arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    def add(one: tuple[jax.Array, ...], other: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(x + y for x, y in zip(one, other, strict=True))

    zeros = tuple(jnp.zeros((), x.dtype) for x in arrays)
    return tuple(jax.lax.reduce(arrays, zeros, add, tuple(axes)))
