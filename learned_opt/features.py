"""The inputs of STAR's network: 28 features for each parameter and 11 of time (arXiv 2209.11208)."""

import jax
import jax.numpy as jnp

from learned_opt.statistics import Statistics

PER_PARAMETER = 28
TIME_SCALES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)


def time_features(count: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`tanh(t / T - 1)` for eleven time scales T: `[11]`, the same for every parameter."""
    return jnp.tanh(count.astype(dtype) / jnp.asarray(TIME_SCALES, dtype) - 1)


def parameter_features(grad: jax.Array, param: jax.Array, stats: Statistics, eps: float) -> list[jax.Array]:
    """28 arrays that broadcast to the tensor, before normalisation; `eps` is added to second moments under a root.

    A feature that is constant along an axis is kept reduced along it.
    """
    inverse_root = jax.lax.rsqrt(stats.second_moment + eps)
    rows = stats.rows
    inverse_root_rows = jax.lax.rsqrt(rows + eps)
    if grad.ndim < 2:
        cols, inverse_root_cols, factors = rows, inverse_root_rows, inverse_root_rows
    else:
        cols = stats.cols
        inverse_root_cols = jax.lax.rsqrt(cols + eps)
        # g / sqrt(row / mean(row)) / sqrt(col): the mean over rows turns the outer product into an estimate of g^2
        mean = rows.mean(-1, keepdims=True)
        factors = inverse_root_rows * jnp.sqrt(mean + eps) * inverse_root_cols
    features = [grad, param, *stats.momenta, stats.second_moment, *(stats.momenta * inverse_root), inverse_root]
    for group in (grad * factors, rows, cols, inverse_root_rows, inverse_root_cols, stats.momenta * factors):
        features.extend(group)
    return features


def inverse_rms(feature: jax.Array, eps: float) -> jax.Array:
    """`1 / sqrt(mean(f^2) + eps)` over the tensor: a scalar, and the same for a feature kept reduced."""
    return jax.lax.rsqrt(jnp.mean(jnp.square(feature)) + eps)
