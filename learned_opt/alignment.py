"""Step sizes that follow the alignment of gradients: long while new gradients agree with the directions just taken.

Features normalised over a tensor cannot tell a step that is too long from one that is too short; whether the next
gradient still points the way of the last ones can. It is the signal of hypergradient descent and of MetaOptimize
(arXiv 2402.02342: the log step size moves by `h . g`), read off momenta that STAR has anyway, by a small meta-learned
controller in place of a hand-set rate.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from learned_opt import features, reductions
from learned_opt.base import Theta
from learned_opt.features import time_features

SMOOTHING = (0.9, 0.99)  # of alignments, over about 10 and 100 steps
GAIN = 5.0  # brings alignments, small where gradients are noisy, to the size of the other inputs
ALIGNMENTS = 2 * len(SMOOTHING) * 3  # of the tensor and of all tensors, with three momenta
HIDDEN = 8
CHANGE = 0.035  # largest change of a log step size in one step
# Of the weights of alignments, of the tensor and of all, by smoothing, and what is added to their sum: step sizes tune
# themselves before any meta-training. Where nothing is aligned they grow, ever less, as (1 + t / FALLING)^-FALL: where
# steps settle gradients oppose them by as much as is added, and only ever shorter steps average noise out.
START, GROWTH, FALLING, FALL = ((0.0, 0.6), (0.0, 0.3)), 0.6, 100.0, 0.5
# Of log step sizes: where they start, and their ends. Where a loss nears zero gradients stay aligned, and longer steps
# than this make it jump; where classes can be separated they must be longer late. The upper end rises as
# log(1 + t / RISING), up to a last one.
FIRST, LOWEST, HIGHEST, RISING, LAST = 1.0, -8.0, 2.0, 1000.0, 4.0
# Steps shrink as (1 + t / SETTLING)^-SETTLED, whatever the horizon: what no constant rate can do.
SETTLING, SETTLED = 500.0, 0.3
# Of n tensors each takes (n / FEW)^-1/2 of its step, as what they do to a function adds up; at most all of it.
FEW = 4  # tensors of a network with one hidden layer
RELATIVE_FLOOR = 1e-3  # added to the size of a tensor, which may start at zero
TINY = 1e-12


class Alignment(NamedTuple):
    """State beside the statistics, of n tensors in the order of their tree's leaves.

    log_step: `[n]`. smoothed: averages of each tensor's alignments, not bias-corrected, `[n, 2, 3]` for two smoothings
    and three momenta. everywhere: those of all tensors together, `[2, 3]`.
    """

    log_step: jax.Array
    smoothed: jax.Array
    everywhere: jax.Array


class Products(NamedTuple):
    """Weighted inner products over a tensor: gradient with momenta `[3]`, momenta and gradient with themselves."""

    across: jax.Array
    momenta: jax.Array
    gradient: jax.Array


def init(tensors: int, dtype: jnp.dtype) -> Alignment:
    """Step sizes of e, nothing aligned yet."""
    shape = (len(SMOOTHING), 3)
    return Alignment(jnp.full(tensors, FIRST, dtype), jnp.zeros((tensors, *shape), dtype), jnp.zeros(shape, dtype))


def init_controller(key: jax.Array) -> Theta:
    """A network whose outputs start at zero, and what is added to the starting weights of the alignments."""
    inputs = ALIGNMENTS + 1 + len(features.TIME_SCALES)
    initializer = jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
    return {
        "hidden": {"weights": initializer(key, (inputs, HIDDEN)), "biases": jnp.zeros(HIDDEN)},
        "out": {"weights": jnp.zeros((HIDDEN, 2)), "biases": jnp.zeros(2)},
        "alignments": jnp.zeros(ALIGNMENTS),
    }


def products(grad: jax.Array, momenta: jax.Array, weight: jax.Array) -> Products:
    """Of a gradient and the three momenta before it, for an inner product weighted by `weight`."""
    return gathered(reductions.sums(tuple(terms(grad, list(momenta), weight))))


def terms(grad: jax.Array, momenta: list[jax.Array], weight: jax.Array) -> list[jax.Array]:
    """What is summed over a tensor for each of its seven products, in the order of `gathered`."""
    weighted = [m * weight for m in momenta]
    across = [m * grad for m in weighted]
    own = [w * m for w, m in zip(weighted, momenta, strict=True)]
    return [*across, *own, jnp.square(grad) * weight]


def gathered(sums: Sequence[jax.Array] | jax.Array) -> Products:
    """From the sums of `terms`."""
    return Products(jnp.stack(sums[:3]), jnp.stack(sums[3:6]), sums[6])


def control(
    controller: Theta, state: Alignment, found: list[Products], steps: jax.Array, sizes: jax.Array, count: jax.Array
) -> tuple[jax.Array, Alignment]:
    """The factors for the steps of all tensors, `[n]`, and the new state.

    Args:
        controller: its meta-parameters.
        state: as it was.
        found: the products of every tensor.
        steps: root mean squares of the steps at factor 1, `[n]`.
        sizes: root mean squares of the tensors, `[n]`.
        count: the number of updates, this one included.
    """
    dtype = state.log_step.dtype
    controller = jax.tree.map(lambda x: jnp.asarray(x, dtype), controller)
    of_tensors = jax.tree.map(lambda *x: jnp.stack(x).astype(dtype), *found)
    smoothed = _smooth(state.smoothed, _cosines(of_tensors))
    everywhere = _smooth(state.everywhere, _cosines(jax.tree.map(lambda x: x.sum(0), of_tensors)))
    t = count.astype(dtype)
    correction = 1 - jnp.asarray(SMOOTHING, dtype)[:, None] ** t
    tensors = len(found)
    alignments = GAIN * jnp.concatenate(
        [
            (smoothed / correction).reshape(tensors, -1),
            jnp.broadcast_to((everywhere / correction).reshape(-1), (tensors, everywhere.size)),
        ],
        axis=1,
    )
    relative = jnp.log((steps * jnp.exp(state.log_step) + TINY) / (sizes + RELATIVE_FLOOR)).astype(dtype)
    time = time_features(count, dtype)
    inputs = jnp.concatenate(
        [alignments, jnp.clip(relative / 4, -3, 3)[:, None], jnp.broadcast_to(time, (tensors, time.size))], axis=1
    )
    hidden = jnp.tanh(inputs @ controller["hidden"]["weights"] + controller["hidden"]["biases"])
    change, now = (hidden @ controller["out"]["weights"] + controller["out"]["biases"]).T
    start = jnp.repeat(jnp.asarray(START, dtype).reshape(-1), 3)
    change = change + alignments @ (start + controller["alignments"]) + GROWTH * (1 + t / FALLING) ** -FALL
    highest = jnp.minimum(HIGHEST + jnp.log1p(t / RISING), LAST)
    log_step = jnp.clip(state.log_step + CHANGE * jnp.tanh(change), LOWEST, highest)
    settled = (1 + t / SETTLING) ** -SETTLED
    share = max(tensors / FEW, 1) ** -0.5
    return jnp.exp(log_step + now) * settled * share, Alignment(log_step, smoothed, everywhere)


def _cosines(found: Products) -> jax.Array:
    """`[..., 3]`; zero where either side is zero, as momenta are at the first step."""
    square = found.momenta * found.gradient[..., None]
    # Twice, as the derivative of the branch not taken must be finite too.
    norm = jnp.sqrt(jnp.where(square > 0, square, 1))
    return jnp.where(square > 0, found.across / norm, 0)


def _smooth(old: jax.Array, cosines: jax.Array) -> jax.Array:
    rate = jnp.asarray(SMOOTHING, old.dtype)[:, None]
    return rate * old + (1 - rate) * cosines[..., None, :]
