"""Running statistics of gradients with meta-learned decays: what STAR carries for each tensor (arXiv 2209.11208)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

MOMENTUM_DECAYS = (0.9, 0.99, 0.999)
SECOND_MOMENT_DECAY = 0.999
FACTORED_DECAYS = (0.9, 0.99, 0.999)
DECAY_SCALE = 10.0  # a unit of theta is worth exp(10) in 1 - decay
LARGEST_DECAY = 1 - 1e-6  # float32 must still tell 1 - decay^t from zero
FACTORED_EPS = 1e-30  # Adafactor's epsilon_1
LARGE, STRIP = 2**18, 64  # elements of a matrix that is transposed by strips, and the most lines of a strip
NARROW = 16  # columns below which it is too, and below which a last dimension is not wide


class Statistics(NamedTuple):
    """Averages for one tensor, without bias correction.

    momenta: `[3, *shape]`. second_moment: `[*shape]`. rows: `[3, *shape]`, the mean over the second largest dimension
    (reduced to 1). cols: the same over the largest. Below rank 2 there is only the full diagonal: it stands in `rows`,
    and `cols` is (). `shape` is the tensor's in the layout of `wide_axis_last`.
    """

    momenta: jax.Array
    second_moment: jax.Array
    rows: jax.Array
    cols: Any


class Decays(NamedTuple):
    """Decay rates: momenta `[3]`, second_moment `[]`, factored `[3]`."""

    momenta: jax.Array
    second_moment: jax.Array
    factored: jax.Array


def init_decays(momenta: tuple[float, ...] = MOMENTUM_DECAYS) -> dict[str, jax.Array]:
    """Seven meta-parameters that stand for the starting decays, those of the momenta given."""
    shorter = (1 - jnp.asarray(momenta)) / (1 - jnp.asarray(MOMENTUM_DECAYS))
    return {"momenta": jnp.log(shorter) / DECAY_SCALE, "second_moment": jnp.zeros(()), "factored": jnp.zeros(3)}


def decays(theta: dict[str, jax.Array]) -> Decays:
    """`decay = 1 - (1 - d0) exp(10 theta)`, clipped to [0, 1); the second moment remembers at least as long as momenta.

    A momentum with a longer memory, divided by the root of a second moment that has fallen with the gradients already,
    is a step too long by any factor. With the same memory it is at most 1, as the square of a mean is at most the mean
    of squares; with a shorter one it is bounded too (`beta_1^2 < beta_2`, as Adam needs).
    """

    def decay(start: tuple[float, ...] | float, leaf: jax.Array) -> jax.Array:
        return jnp.clip(1 - (1 - jnp.asarray(start, leaf.dtype)) * jnp.exp(DECAY_SCALE * leaf), 0, LARGEST_DECAY)

    momenta = decay(MOMENTUM_DECAYS, theta["momenta"])
    second_moment = jnp.maximum(decay(SECOND_MOMENT_DECAY, theta["second_moment"]), momenta.max())
    return Decays(momenta, second_moment, decay(FACTORED_DECAYS, theta["factored"]))


def wide_axis_last(tensor: jax.Array) -> jax.Array:
    """The layout everything else here expects: a dimension last that is wide enough for loops over it to vectorise.

    The largest, where the last is narrow; a tensor of rank 2 or more that has a wide one last stays as it is.
    """
    return _moved(tensor, largest_axis(tensor.shape), -1) if _narrow(tensor.shape) else tensor


def restore_axes(tensor: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Undoes `wide_axis_last` for a tensor that had this shape."""
    return _moved(tensor, -1, largest_axis(shape)) if _narrow(shape) else tensor


def _narrow(shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and shape[-1] < NARROW


def _moved(tensor: jax.Array, source: int, destination: int) -> jax.Array:
    """`jnp.moveaxis`; of a matrix that is large, or narrow afterwards, by strips, in a loop: the result is in memory.

    XLA would otherwise read the large matrix across its lines wherever it is used, several times as slowly as a whole
    update; and make what becomes of a narrow one in loops over its short lines, four times as slowly.
    """
    narrow = tensor.shape[0] < NARROW <= tensor.shape[-1]
    most = tensor.shape[0] // 2 if narrow else STRIP
    rows = max((n for n in range(1, most + 1) if tensor.shape[0] % n == 0), default=1)
    in_strips = narrow or (tensor.size > LARGE and rows >= STRIP // 4)
    if tensor.ndim != 2 or source % 2 == destination % 2 or not in_strips:
        return jnp.moveaxis(tensor, source, destination)

    def strip(i: jax.Array, result: jax.Array) -> jax.Array:
        block = jax.lax.dynamic_slice_in_dim(tensor, i * rows, rows)
        return jax.lax.dynamic_update_slice_in_dim(result, block.T, i * rows, 1)

    return jax.lax.fori_loop(0, tensor.shape[0] // rows, strip, jnp.zeros(tensor.shape[::-1], tensor.dtype))


def largest_axis(shape: tuple[int, ...]) -> int:
    """Later axes win ties."""
    return max(range(len(shape)), key=lambda axis: (shape[axis], axis))


def second_axis(shape: tuple[int, ...]) -> int | None:
    """The axis of the second largest dimension, later axes winning ties; None below rank 2."""
    if len(shape) < 2:
        return None
    others = [axis for axis in range(len(shape)) if axis != largest_axis(shape)]
    return max(others, key=lambda axis: (shape[axis], axis))


def init(param: jax.Array, dtype: jnp.dtype) -> Statistics:
    """Zeros."""
    axis = second_axis(param.shape)
    momenta = jnp.zeros((3, *param.shape), dtype)
    second_moment = jnp.zeros(param.shape, dtype)
    if axis is None:
        return Statistics(momenta, second_moment, jnp.zeros((3, *param.shape), dtype), ())
    rows = jnp.zeros((3, *param.shape[:axis], 1, *param.shape[axis + 1 :]), dtype)
    largest = largest_axis(param.shape)
    cols = jnp.zeros((3, *param.shape[:largest], 1, *param.shape[largest + 1 :]), dtype)
    return Statistics(momenta, second_moment, rows, cols)


def update(stats: Statistics, grad: jax.Array, decay: Decays) -> Statistics:
    """One step of every average."""
    momenta = _average(stats.momenta, grad, decay.momenta)
    second_moment = _average(stats.second_moment, jnp.square(grad), decay.second_moment)
    return update_factored(stats, grad, decay)._replace(momenta=momenta, second_moment=second_moment)


def update_factored(stats: Statistics, grad: jax.Array, decay: Decays) -> Statistics:
    """One step of the averages over rows and columns alone."""
    axis = second_axis(grad.shape)
    square = jnp.square(grad)
    if axis is None:
        return stats._replace(rows=_average(stats.rows, square + FACTORED_EPS, decay.factored))
    # Added to means, not to every square: XLA would write and read the sum once more for them.
    of_rows, of_cols = (square.mean(a, keepdims=True) + FACTORED_EPS for a in (axis, largest_axis(grad.shape)))
    rows, cols = _average(stats.rows, of_rows, decay.factored), _average(stats.cols, of_cols, decay.factored)
    return stats._replace(rows=rows, cols=cols)


def _average(old: Any, new: jax.Array, rate: jax.Array) -> jax.Array:
    rate = rate.reshape(rate.shape + (1,) * new.ndim)
    return rate * old + (1 - rate) * new


def correct_bias(stats: Statistics, decay: Decays, count: jax.Array) -> Statistics:
    """Divides every average by `1 - decay^count`, as Adam does; `count` is the number of updates, at least 1."""

    def correct(average: jax.Array, rate: jax.Array) -> jax.Array:
        correction = 1 - rate**count
        return average / correction.reshape(rate.shape + (1,) * (average.ndim - rate.ndim))

    return Statistics(
        correct(stats.momenta, decay.momenta),
        correct(stats.second_moment, decay.second_moment),
        correct(stats.rows, decay.factored),
        () if isinstance(stats.cols, tuple) else correct(stats.cols, decay.factored),
    )
