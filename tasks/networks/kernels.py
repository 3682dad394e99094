"""Starting values of kernels."""

import math

import jax
import jax.numpy as jnp

DEVIATION = 0.87962566103423978  # of a standard normal number that is cut off at -2 and 2
ITERATIONS = 60  # each makes small singular values half as large again, of which 1e-8 was seen; the last few 1


def lecun_normal(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """The numbers of `jax.nn.initializers.lecun_normal`, drawn as a vector.

    XLA unrolls loops over a short last dimension: the bits for a matrix of ten columns take seconds to compile on CPU.
    """
    deviation = jnp.sqrt(jnp.asarray(1 / math.prod(shape[:-1]), dtype)) / jnp.asarray(DEVIATION, dtype)
    return (deviation * jax.random.truncated_normal(key, -2, 2, (math.prod(shape),), dtype)).reshape(shape)


def orthogonal(key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """A matrix with orthonormal lines or columns, distributed as `jax.nn.initializers.orthogonal`, by products alone.

    The orthogonal factor of a matrix of standard normal numbers. Two decompositions by LAPACK at the same time can wait
    for each other forever on a CPU of two cores: each holds a thread and asks for another (JAX 0.10).
    """

    def nearer(_: int, x: jax.Array) -> jax.Array:
        return 1.5 * x - 0.5 * jnp.matmul(jnp.matmul(x, x.T, precision="highest"), x, precision="highest")

    x = jax.random.normal(key, (min(shape), max(shape)), dtype)
    x = jax.lax.fori_loop(0, ITERATIONS, nearer, x / jnp.linalg.norm(x))
    return x if x.shape == tuple(shape) else x.T
