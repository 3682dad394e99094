"""The inputs of STAR's network: 28 features for each parameter and 11 of time (arXiv 2209.11208)."""

import functools
import operator
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from learned_opt.statistics import Statistics

PER_PARAMETER = 28
TIME_SCALES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)


def time_features(count: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`tanh(t / T - 1)` for eleven time scales T: `[11]`, the same for every parameter."""
    return jnp.tanh(count.astype(dtype) / jnp.asarray(TIME_SCALES, dtype) - 1)


def parameter_features(
    grad: jax.Array, param: jax.Array, stats: Statistics, eps: float, row_means: Any = None
) -> list[tuple[jax.Array, ...]]:
    """28 features before normalisation, each as the factors whose product it is; `eps` is added under every root.

    A product broadcasts to the tensor. One that is constant along an axis is kept reduced along it. `row_means`, the
    means of `stats.rows` over the largest dimension, are given where only a block of the tensor is seen.
    """
    inverse_root = jax.lax.rsqrt(stats.second_moment + eps)
    rows = list(stats.rows)
    inverse_root_rows = [jax.lax.rsqrt(x + eps) for x in rows]
    if grad.ndim < 2:
        cols, inverse_root_cols = rows, inverse_root_rows
        factors: list[tuple[jax.Array, ...]] = [(x,) for x in inverse_root_rows]
    else:
        cols = list(stats.cols)
        inverse_root_cols = [jax.lax.rsqrt(x + eps) for x in cols]
        # g / sqrt(row / mean(row)) / sqrt(col): the mean over rows turns the outer product into an estimate of g^2
        means = [x.mean(-1, keepdims=True) for x in rows] if row_means is None else row_means
        relative = [inverse * jnp.sqrt(mean + eps) for inverse, mean in zip(inverse_root_rows, means, strict=True)]
        factors = list(zip(relative, inverse_root_cols, strict=True))
    return [
        (grad,),
        (param,),
        *((m,) for m in stats.momenta),
        (stats.second_moment,),
        *((m, inverse_root) for m in stats.momenta),
        (inverse_root,),
        *((grad, *factor) for factor in factors),
        *((x,) for group in (rows, cols, inverse_root_rows, inverse_root_cols) for x in group),
        *((m, *factor) for m, factor in zip(stats.momenta, factors, strict=True)),
    ]


def inverse_rms(factors: tuple[jax.Array, ...], eps: float) -> jax.Array:
    """`1 / sqrt(mean(f^2) + eps)` of a feature over the tensor: a scalar, and the same for a feature kept reduced.

    From the squares of the factors: nothing is shared with the feature itself, which XLA would keep in memory for both.
    """
    return jax.lax.rsqrt(jnp.mean(product(jnp.square(x) for x in factors)) + eps)


def product(factors: Iterable[jax.Array]) -> jax.Array:
    """Of arrays that broadcast together."""
    return functools.reduce(operator.mul, factors)
