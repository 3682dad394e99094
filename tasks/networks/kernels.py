"""Starting values of kernels."""

import math

import jax
import jax.numpy as jnp

DEVIATION = 0.87962566103423978  # of a standard normal number that is cut off at -2 and 2


def lecun_normal(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """The numbers of `jax.nn.initializers.lecun_normal`, drawn as a vector.

    XLA unrolls loops over a short last dimension: the bits for a matrix of ten columns take seconds to compile on CPU.
    """
    deviation = jnp.sqrt(jnp.asarray(1 / math.prod(shape[:-1]), dtype)) / jnp.asarray(DEVIATION, dtype)
    return (deviation * jax.random.truncated_normal(key, -2, 2, (math.prod(shape),), dtype)).reshape(shape)
