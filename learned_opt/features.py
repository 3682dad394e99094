"""The inputs of STAR's network: 28 features for each parameter and 11 of time (arXiv 2209.11208)."""

import functools
import operator
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from learned_opt.statistics import Statistics, largest_axis

PER_PARAMETER = 28
TIME_SCALES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)


def time_features(count: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`tanh(t / T - 1)` for eleven time scales T: `[11]`, the same for every parameter."""
    return jnp.tanh(count.astype(dtype) / jnp.asarray(TIME_SCALES, dtype) - 1)


class Factor(NamedTuple):
    """Part of a product. The square is no function of the value, or XLA would keep the value in memory for both."""

    value: jax.Array
    square: jax.Array


def parameter_features(
    grad: jax.Array, param: jax.Array, stats: Statistics, eps: float, row_means: Any = None
) -> list[tuple[Factor, ...]]:
    """28 features before normalisation, each as the factors whose product it is; `eps` is added under every root.

    A product broadcasts to the tensor. One that is constant along an axis is kept reduced along it. `row_means`, the
    means of `stats.rows` over the largest dimension, are given where only a block of the tensor is seen.
    """
    gradient, momenta = _factor(grad), [_factor(m) for m in stats.momenta]
    inverse_root = _inverse_root(stats.second_moment, eps)
    rows, inverse_rows = list(stats.rows), [_inverse_root(x, eps) for x in stats.rows]
    if grad.ndim < 2:
        cols, inverse_cols = rows, inverse_rows
        factors: list[tuple[Factor, ...]] = [(x,) for x in inverse_rows]
    else:
        cols, inverse_cols = list(stats.cols), [_inverse_root(x, eps) for x in stats.cols]
        # g / sqrt(row / mean(row)) / sqrt(col): the mean over rows turns the outer product into an estimate of g^2
        means = [x.mean(largest_axis(grad.shape), keepdims=True) for x in rows] if row_means is None else row_means
        relative = [_factor(x.value * jnp.sqrt(mean + eps)) for x, mean in zip(inverse_rows, means, strict=True)]
        factors = list(zip(relative, inverse_cols, strict=True))
    return [
        (gradient,),
        (_factor(param),),
        *((m,) for m in momenta),
        (_factor(stats.second_moment),),
        *((m, inverse_root) for m in momenta),
        (inverse_root,),
        *((gradient, *factor) for factor in factors),
        *((_factor(x),) for x in (*rows, *cols)),
        *((x,) for x in (*inverse_rows, *inverse_cols)),
        *((m, *factor) for m, factor in zip(momenta, factors, strict=True)),
    ]


def values(features: list[tuple[Factor, ...]]) -> list[jax.Array]:
    """Of every feature, from the values of its factors."""
    return [product(factor.value for factor in factors) for factors in features]


def squares(features: list[tuple[Factor, ...]]) -> list[jax.Array]:
    """Of every feature, from the squares of its factors."""
    return [product(factor.square for factor in factors) for factors in features]


def product(factors: Iterable[jax.Array]) -> jax.Array:
    """Of arrays that broadcast together."""
    return functools.reduce(operator.mul, factors)


def _factor(x: jax.Array) -> Factor:
    return Factor(x, jnp.square(x))


def _inverse_root(x: jax.Array, eps: float) -> Factor:
    return Factor(jax.lax.rsqrt(x + eps), 1 / (x + eps))
