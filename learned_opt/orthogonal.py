"""The orthogonal factor of a matrix, by Newton-Schulz iterations: products of matrices alone, so that it runs anywhere.

Momenta of a network's matrices have few large singular values and many small ones; a step that is as long in all of
their directions learns from all (K. Jordan et al., Muon, 2024).
"""

import math

import jax
import jax.numpy as jnp

NARROWEST = 3  # the smaller dimension of a matrix, at least: with fewer there is little to be made equal
USUAL = 32  # the larger dimension of a matrix whose step is as long as that of any other tensor
# x -> a x + b x^3 + c x^5, five times: it takes singular values from [0.01, 1] to [0.68, 1.21], not to 1, which would
# need more rounds; a is as large as it can be, for small ones grow by it in a round.
COEFFICIENTS, ROUNDS = (3.4445, -4.7750, 2.0315), 5


def suits(shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this shape is a matrix, its last dimension against all others, of some width."""
    return len(shape) > 1 and min(_matrix(shape)) >= NARROWEST


def direction(tensor: jax.Array, eps: float) -> jax.Array:
    """`factor`, divided by its root mean square; `eps` is added to the mean square."""
    found = factor(tensor)
    return found * jax.lax.rsqrt(jnp.mean(jnp.square(found)) + eps)


def length(shape: tuple[int, ...]) -> float:
    """What the step of a tensor is multiplied by: with it the largest singular value is alike for all widths.

    An orthogonal step with a root mean square of r has singular values of r times the root of the larger dimension,
    and by as much it can change what a layer gives (Yang et al., A Spectral Condition for Feature Learning, 2023).
    """
    return math.sqrt(USUAL / max(_matrix(shape))) if suits(shape) else 1.0


def factor(tensor: jax.Array) -> jax.Array:
    """About `U V'` for a matrix `U S V'` (its singular value decomposition); zero where the tensor is.

    Tensors of rank above 2 are matrices of their last dimension against all others.
    """
    matrix = tensor.reshape(_matrix(tensor.shape))
    tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.T if tall else matrix
    # Squares of gradients near 1e-20 would be zero; and 1 for 0, as derivatives of the branch not taken must be finite.
    largest = jax.lax.stop_gradient(jnp.abs(found).max())
    found = found / jnp.where(largest > 0, largest, 1)
    square = jnp.sum(jnp.square(found))
    found = found * jax.lax.rsqrt(jnp.where(square > 0, square, 1))
    linear, cubic, quintic = COEFFICIENTS
    for _ in range(ROUNDS):
        gram = found @ found.T
        found = linear * found + (cubic * gram + quintic * gram @ gram) @ found
    return (found.T if tall else found).reshape(tensor.shape)


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return math.prod(shape[:-1]), shape[-1]
