"""Nominal directions: the hand-written steps that STAR takes where its network adds nothing."""

from typing import Literal

import jax

from learned_opt import orthogonal
from learned_opt.statistics import Statistics

Nominal = Literal["none", "sgd", "momentum", "aggmo", "adam", "adam-aggmo", "orthogonal"]


def direction(
    nominal: Nominal, grad: jax.Array, stats: Statistics, rms: jax.Array, second_moment_eps: float, eps: float
) -> jax.Array:
    """That of one tensor, or of each parameter alone for all but `orthogonal`.

    Args:
        nominal: its name, not "none".
        grad: the gradient.
        stats: corrected for their bias, or not.
        rms: the root mean square that an orthogonal step is to have, `[]`.
        second_moment_eps: added to the second moment under the root.
        eps: added to the mean square that an orthogonal step is divided by.
    """
    match nominal:
        case "sgd":
            return grad
        case "momentum":
            return stats.momenta[0]
        case "aggmo":
            return mean(stats.momenta)
        case "adam":
            return stats.momenta[0] * jax.lax.rsqrt(stats.second_moment + second_moment_eps)
        case "orthogonal" if orthogonal.suits(grad.shape):
            return rms * orthogonal.direction(mean(stats.momenta), eps)
    return adam_aggmo(stats, second_moment_eps)


def adam_aggmo(stats: Statistics, second_moment_eps: float) -> jax.Array:
    """The mean of three momenta by the root of the second moment."""
    return mean(stats.momenta) * jax.lax.rsqrt(stats.second_moment + second_moment_eps)


def mean(momenta: jax.Array) -> jax.Array:
    """A sum, as a mean over the axis would be a program of its own on CPU."""
    first, second, third = momenta
    return (first + second + third) / 3
