"""Tensors of one shape through one program: a copy of the program for each takes long to compile."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

SMALL = 2**16  # elements of a tensor that goes with others of its shape


def each(functions: Sequence[Callable[..., Any]], arguments: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """`[f(*own), g(*own, f(*own)), ...]` of functions f, g, ... for every tuple of arguments.

    The first of a tuple is a tensor, and sets the shapes of the others.
    """
    groups: dict[Any, list[int]] = {}
    for i, (tensor, *_) in enumerate(arguments):
        groups.setdefault((tensor.shape, tensor.dtype) if 0 < tensor.size <= SMALL else i, []).append(i)
    found: dict[int, list[Any]] = {}
    for members in groups.values():
        given = [arguments[i] for i in members]
        results = _stacked(functions, given) if len(given) > 1 else [_in_turn(functions, given[0])]
        found.update(zip(members, results, strict=True))
    return [found[i] for i in range(len(arguments))]


def _in_turn(functions: Sequence[Callable[..., Any]], own: tuple[Any, ...]) -> list[Any]:
    found: list[Any] = []
    for function in functions:
        found.append(function(*own, *found))
    return found


def _stacked(functions: Sequence[Callable[..., Any]], trees: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """Those of every tuple, all alike, as one program.

    For each function a loop over parts of their stack, each under one `vmap`. What goes into a loop and comes out of it
    is in memory; other stacks XLA fuses on CPU into what reads them, as a choice among the members for every element,
    and what one function makes into each that reads it.
    """
    parts = next(n for n in range(2, len(trees) + 1) if len(trees) % n == 0)

    def stack(*leaves: jax.Array) -> jax.Array:
        stacked = jnp.stack(leaves)
        return stacked.reshape(parts, -1, *stacked.shape[1:])

    def loop(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *own: jax.lax.scan(lambda _, part: (None, jax.vmap(function)(*part)), None, own)[1]

    found = _in_turn([loop(function) for function in functions], jax.tree.map(stack, *trees))
    flat = jax.tree.map(lambda x: x.reshape(len(trees), *x.shape[2:]), found)
    return [jax.tree.map(operator.itemgetter(i), flat) for i in range(len(trees))]
