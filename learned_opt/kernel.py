"""STAR's update of a matrix as two Pallas kernels: one pass over memory for statistics, one for the step.

The plain path writes and reads what XLA cannot fuse across reductions over the tensor. Here features live in registers
in both passes: the first updates momenta and second moment and adds up the squares of the features, the second makes
the features again and runs the network. Row and column means of squares, small, are left to XLA. Used on GPUs; CPUs
have machine code (`native.py`), other backends and derivatives take the plain path, which it equals (tests run it in
interpret mode).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from learned_opt import alignment, features, network, nominal, statistics, steps
from learned_opt.base import Theta
from learned_opt.network import Layer
from learned_opt.statistics import Decays, Statistics
from learned_opt.steps import Result

if TYPE_CHECKING:
    from learned_opt.star import Star

BLOCK = (8, 128)  # elements of a matrix that one program holds, powers of two
SMALLEST = 1 << 14  # parameters below which two launches cost more than they save
FEATURES = features.PER_PARAMETER
SUMS = FEATURES + 1 + 7  # of squares of the features and of the Adam-AggMo direction; of the alignment's products


def suits(star: "Star", param: jax.Array) -> bool:
    """Whether the kernels can do it: matrices of float32, large enough, with heads that are not averaged."""
    whole = steps.averaged(star) or star.nominal == "orthogonal"
    return param.ndim > 1 and param.size >= SMALLEST and param.dtype == jnp.float32 and not whole


def propose(
    star: "Star",
    theta: Theta,
    decay: Decays,
    grad: jax.Array,
    param: jax.Array,
    stats: Statistics,
    count: jax.Array,
) -> Result:
    """What `steps.plain` makes of the other arguments: by kernels on a GPU, plainly elsewhere and for derivatives."""

    plain = functools.partial(steps.plain, star)

    @jax.custom_jvp
    def chosen(*args: Any) -> Result:
        return jax.lax.platform_dependent(*args, cuda=functools.partial(fused, star), default=plain)

    @chosen.defjvp
    def jvp(primals: Any, tangents: Any) -> Any:
        return jax.jvp(plain, primals, tangents)

    return chosen(theta, decay, grad, param, stats, count)


def fused(
    star: "Star",
    theta: Theta,
    decay: Decays,
    grad: jax.Array,
    param: jax.Array,
    stats: Statistics,
    count: jax.Array,
    interpret: bool = False,
) -> Result:
    """The step, what is removed or 0, the products or (), and the new statistics."""
    shape, second = grad.shape, statistics.second_axis(grad.shape)
    assert second is not None  # a matrix
    largest = statistics.largest_axis(shape)
    first, last = sorted((second, largest))

    def stacked(x: jax.Array) -> jax.Array:
        """A stack of matrices of the two largest dimensions, each a multiple of the block or one."""
        lead = x.ndim - len(shape)
        x = jnp.moveaxis(x, (lead + first, lead + last), (-2, -1))
        x = x.reshape(*x.shape[:lead], -1, *x.shape[-2:])
        pad = [(0, -size % block if size > 1 else 0) for size, block in zip(x.shape[-2:], BLOCK, strict=True)]
        return jnp.pad(x, [(0, 0)] * (lead + 1) + pad)

    def restored(x: jax.Array) -> jax.Array:
        lead = x.ndim - 3
        others = [size for axis, size in enumerate(shape) if axis not in (first, last)]
        x = x[..., : shape[first], : shape[last]].reshape(*x.shape[:lead], *others, shape[first], shape[last])
        return jnp.moveaxis(x, (-2, -1), (lead + first, lead + last))

    factored = statistics.update_factored(stats, grad, decay)
    read = statistics.correct_bias(factored, decay, count.astype(grad.dtype)) if star.bias_correction else factored
    row_means = read.rows.mean(1 + largest, keepdims=True)
    reduced = [stacked(x) for x in (read.rows, read.cols, row_means)]
    g, p, m, v = (stacked(x) for x in (grad, param, stats.momenta, stats.second_moment))
    rates = _rates(star, decay, count, grad.dtype)
    sizes = (shape[first], shape[last])
    inputs = (g, p, m, v, *reduced)
    m, v, sums = _call(functools.partial(_first, star, sizes), rates, inputs, (m, v), True, interpret)
    totals = sums.sum((0, 1, 2))
    means = totals[: FEATURES + 1] / grad.size
    scales = jax.lax.rsqrt(means[:FEATURES] + star.feature_eps)
    layers = network.folded(theta, scales, features.time_features(count, grad.dtype))
    rms = jnp.sqrt(means[FEATURES] + star.feature_eps)
    flat = jnp.concatenate([rates, rms[None], *(x.ravel() for layer in layers for x in layer)])
    shapes = [tuple(map(np.shape, layer)) for layer in layers]
    outputs = (g, g) if star.weight_decay else (g,)
    inputs = (g, p, m, v, *reduced)
    step, *decayed = _call(functools.partial(_second, star, shapes), flat, inputs, outputs, False, interpret)
    stats = Statistics(restored(m), restored(v), factored.rows, factored.cols)
    products = alignment.gathered(totals[FEATURES + 1 :]) if star.aligned else ()
    return restored(step), restored(*decayed) if decayed else 0.0, products, stats


def _rates(star: "Star", decay: Decays, count: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Decays of the three momenta and of the second moment, and what their averages are divided by, `[8]`."""
    rates = jnp.append(decay.momenta, decay.second_moment)
    return jnp.concatenate([rates, 1 - rates ** count.astype(dtype) if star.bias_correction else jnp.ones_like(rates)])


def _block(rates: list[jax.Array], momenta: list[jax.Array], v: jax.Array, reduced: Any) -> Any:
    """Bias-corrected statistics of a block, and the means of its rows over the whole tensor."""
    rows, cols, means = ([ref[i] for i in range(3)] for ref in reduced)
    corrected = tuple(m / c for m, c in zip(momenta, rates[4:7], strict=True))
    return Statistics(corrected, v / rates[7], tuple(rows), tuple(cols)), means  # type: ignore[arg-type]


def _first(star: "Star", sizes: tuple[int, int], rates_ref: Any, *refs: Any) -> None:
    """Updates momenta and second moment of a block, and adds up squares and products, without the padding."""
    g_ref, p_ref, m_ref, v_ref, *reduced, new_m_ref, new_v_ref, sums_ref = refs
    rates = [rates_ref[k] for k in range(8)]
    grad, param, before = g_ref[...], p_ref[...], [m_ref[i] for i in range(3)]
    momenta = [d * m + (1 - d) * grad for d, m in zip(rates[:3], before, strict=True)]
    v = rates[3] * v_ref[...] + (1 - rates[3]) * jnp.square(grad)
    for i, m in enumerate(momenta):
        new_m_ref[i] = m
    new_v_ref[...] = v
    stats, means = _block(rates, momenta, v, reduced)
    inputs = features.parameter_features(grad, param, stats, star.second_moment_eps, means)
    weight = jax.lax.rsqrt(stats.second_moment + star.second_moment_eps)
    adam = nominal.adam_aggmo(stats, star.second_moment_eps)
    summed = [*features.squares(inputs), jnp.square(adam), *alignment.terms(grad, before, weight)]
    inside = jnp.ones(grad.shape, bool)
    for axis, size in enumerate(sizes):
        index = jax.lax.broadcasted_iota(jnp.int32, grad.shape, axis)
        inside &= index + pl.program_id(axis + 1) * grad.shape[axis] < size
    for k, x in enumerate(summed):
        sums_ref[k] = jnp.where(inside, jnp.broadcast_to(x, grad.shape), 0).sum()


def _second(star: "Star", shapes: Any, flat_ref: Any, *refs: Any) -> None:
    """The step of a block, and what of it is removed."""
    g_ref, p_ref, m_ref, v_ref, *more = refs
    reduced, (step_ref, *decayed_ref) = more[:3], more[3:]
    rates, rms = [flat_ref[k] for k in range(8)], flat_ref[8]
    layers, at = [], 9
    for weights, biases in shapes:
        layers.append(Layer(_scalars(flat_ref, at, weights), _scalars(flat_ref, at + math.prod(weights), biases)))
        at += math.prod(weights) + math.prod(biases)
    grad, param = g_ref[...], p_ref[...]
    stats, means = _block(rates, [m_ref[i] for i in range(3)], v_ref[...], reduced)
    inputs = features.parameter_features(grad, param, stats, star.second_moment_eps, means)
    step, decayed = steps.outcome(star, network.written_out(layers, features.values(inputs)), grad, param, stats, rms)
    step_ref[...] = step
    for ref in decayed_ref:
        ref[...] = decayed


def _scalars(ref: Any, start: int, shape: tuple[int, ...]) -> np.ndarray:
    """An array whose entries are scalars read from `ref`, in order."""
    found = np.empty(math.prod(shape), object)
    for k in range(found.size):
        found[k] = ref[start + k]
    return found.reshape(shape)


def _call(
    kernel: Callable[..., None],
    scalars: jax.Array,
    arrays: Sequence[jax.Array],
    outputs: Sequence[jax.Array],
    sums: bool,
    interpret: bool,
) -> Sequence[jax.Array]:
    """Runs a kernel on every block of the stacks of matrices `arrays`, of which the first sets the grid.

    Results have the shapes of `outputs`; with `sums`, one more is `[*grid, SUMS]`.
    """
    stack, rows, cols = arrays[0].shape
    block = (min(BLOCK[0], rows), min(BLOCK[1], cols))
    grid = (stack, rows // block[0], cols // block[1])

    def spec(x: jax.Array) -> pl.BlockSpec:
        lead = x.shape[:-3]
        moves = [int(size > 1) for size in x.shape[-2:]]
        own = [b if moved else 1 for b, moved in zip(block, moves, strict=True)]
        return pl.BlockSpec((*lead, None, *own), lambda n, i, j: (*(0 for _ in lead), n, i * moves[0], j * moves[1]))

    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in outputs]
    out_specs = [spec(x) for x in outputs]
    if sums:
        shapes.append(jax.ShapeDtypeStruct((*grid, SUMS), scalars.dtype))
        out_specs.append(pl.BlockSpec((None, None, None, SUMS), lambda n, i, j: (n, i, j, 0)))
    return pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=[pl.BlockSpec(scalars.shape, lambda n, i, j: (0,)), *map(spec, arrays)],
        out_specs=out_specs,
        out_shape=shapes,
        interpret=interpret,
        compiler_params=triton.CompilerParams(num_warps=4),
    )(scalars, *arrays)
