"""What STAR does to one tensor before any control: its statistics, features, network and heads, as XLA makes them."""

from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from learned_opt import alignment, features, orthogonal, reductions, statistics
from learned_opt import network as networks
from learned_opt import nominal as directions
from learned_opt.base import Theta
from learned_opt.statistics import Decays, Statistics

if TYPE_CHECKING:
    from learned_opt.star import Star

Preconditioner = Literal["none", "second-moment", "rms"]
# In which order squares are summed, the 28 of features and that of the direction: a division goes into memory if loops
# share it, so what is divided by the second moment stands together, then what is made of momenta, and of the gradient.
SUMMED = (5, 6, 7, 8, 9, features.PER_PARAMETER, 2, 3, 4, 25, 26, 27, 0, 1, 10, 11, 12, *range(13, 25))

Result = tuple[jax.Array, Any, Any, Statistics]


def plain(
    star: "Star", network: Theta, decay: Decays, grad: jax.Array, param: jax.Array, before: Statistics, count: jax.Array
) -> Result:
    """The step, what is removed or 0, the products or (), and the new statistics."""
    stats = statistics.update(before, grad, decay)
    return *step(star, network, decay, grad, param, before, stats, count), stats


def step(
    star: "Star",
    network: Theta,
    decay: Decays,
    grad: jax.Array,
    param: jax.Array,
    before: Statistics,
    stats: Statistics,
    count: jax.Array,
) -> tuple[jax.Array, Any, Any]:
    """The same from `stats` that are new already, and those `before` them."""
    read = statistics.correct_bias(stats, decay, count.astype(grad.dtype)) if star.bias_correction else stats
    inputs = features.parameter_features(grad, param, read, star.second_moment_eps)
    squares = features.squares(inputs)
    if needs_rms(star):
        squares.append(jnp.square(directions.mean(read.momenta)) / (read.second_moment + star.second_moment_eps))
    order = [k for k in SUMMED if k < len(squares)]
    found = reductions.means([squares[k] for k in order])[np.argsort(order)]
    scales = jax.lax.rsqrt(found[: features.PER_PARAMETER] + star.feature_eps)
    rms = jnp.sqrt(found[-1] + star.feature_eps)
    layers = networks.folded(network, scales, features.time_features(count, grad.dtype))
    layers, channels = networks.without_reduced(layers, features.values(inputs))
    taken, decayed = outcome(star, networks.outputs(layers, channels), grad, param, read, rms)
    if not star.aligned:
        return taken, decayed, ()
    weight = jax.lax.rsqrt(read.second_moment + star.second_moment_eps)
    return taken, decayed, alignment.products(grad, before.momenta, weight)


def needs_rms(star: "Star") -> bool:
    """Whether the root mean square of the direction `adam-aggmo` is read."""
    return star.preconditioner == "rms" or star.nominal == "orthogonal" or star.clipping_threshold > 0


def averaged(star: "Star") -> bool:
    """Whether a head is averaged over its tensor, so that no parameter is stepped alone."""
    return star.average_magnitude or star.average_nominal_magnitude or star.normalised


def outcome(
    star: "Star",
    outputs: list[jax.Array],
    grad: jax.Array,
    param: jax.Array,
    stats: Statistics,
    rms: jax.Array,
) -> tuple[jax.Array, jax.Array | float]:
    """The step, and what of the parameter is removed; of each parameter alone, unless a magnitude is averaged.

    `outputs` are the network's, `rms` is that of the direction `adam-aggmo` over the tensor.
    """
    heads = dict(zip(star.heads, outputs, strict=True))
    decayed = star.weight_decay * jnp.exp(star.exponent_scale * heads["decay"]) * param if star.weight_decay else 0.0
    length = orthogonal.length(grad.shape) if star.nominal == "orthogonal" else 1.0
    step = _combined(star, heads, grad, stats, length * rms)
    if star.clipping_threshold:
        step = step * jnp.minimum(star.clipping_threshold / rms, 1)
    return step, decayed


def _combined(
    star: "Star", heads: dict[str, jax.Array], grad: jax.Array, stats: Statistics, rms: jax.Array
) -> jax.Array:
    """The black box and the nominal term: `b + n`."""

    def magnitude(head: str, averaged: bool) -> jax.Array:
        exponent = heads[head].mean() if averaged else heads[head]
        return jnp.exp(star.exponent_scale * exponent)

    step = star.step_scale * heads["direction"]
    if star.normalised:
        step = step * jax.lax.rsqrt(jnp.mean(jnp.square(heads["direction"])) + star.feature_eps)
    if star.learned_magnitude:
        step = step * magnitude("magnitude", star.average_magnitude)
    if star.preconditioner == "second-moment":
        step = step * jax.lax.rsqrt(stats.second_moment + star.preconditioner_eps)
    elif star.preconditioner == "rms":
        step = step * rms
    if star.nominal == "none":
        return step
    scale = star.nominal_scale * magnitude("nominal", star.average_nominal_magnitude)
    return step + scale * directions.direction(star.nominal, grad, stats, rms, star.second_moment_eps, star.feature_eps)
