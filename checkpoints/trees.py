"""Pytrees as flat dictionaries of arrays, one name per leaf: what is written to disk, and how it fits back."""

from typing import Any

import jax
import numpy as np

from learned_opt.errors import UsageError


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of `tree`, named by their key paths, such as `mlp/0/w`.

    Raises:
        ValueError: a key holds a slash.
    """
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.count("/") >= max(len(path), 1):
            raise ValueError(f"keys must not hold a slash, as one does in {name!r}")
        named[name] = leaf
    return named


def to_arrays(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of `tree` as numpy arrays in C order, so that equal trees have equal bytes."""
    return {path: np.asarray(leaf, order="C") for path, leaf in by_path(tree).items()}


def rebuild(like: Any, arrays: dict[str, np.ndarray], source: object) -> Any:
    """`arrays` in the structure of `like`, whose leaves need only a shape and a dtype.

    Raises:
        UsageError: names, shapes or dtypes differ; the line names `source` and the first leaf that does.
    """
    expected = by_path(like)
    for path in expected | arrays:
        wanted, found = _describe(expected.get(path)), _describe(arrays.get(path))
        if wanted != found:
            raise UsageError(
                f"{source}: checkpoint of another architecture: {path!r} is {found}, and {wanted} is expected"
            )
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[path] for path in expected])


def _describe(leaf: Any) -> str:
    return "absent" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
