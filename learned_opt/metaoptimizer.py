"""MetaOptimize: step sizes that tune themselves during one run (Sharifnassab et al. 2025, arXiv 2402.02342)."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from learned_opt import errors
from learned_opt.base import working_dtype
from learned_opt.online import BOUNDS, Form, TuneOnlineState, check, default_meta, meta_step, no_counts, tune_online

Sharing = Literal["scalar", "tensor", "weight"]


class MetaOptimizeState(NamedTuple):
    """The state of the base, one copy of the parameters (`trace`), and a few numbers for each block.

    logs: logarithms of the step sizes by block name. trace: the decayed sum of past displacements, which is the
    derivative of the parameters with respect to `logs`. skipped: steps whose meta-gradient was not finite. bounded:
    steps at which a step size was held at a bound.
    """

    base_state: optax.OptState
    logs: dict[str, jax.Array]
    meta_state: optax.OptState
    trace: Any
    skipped: jax.Array
    bounded: jax.Array


def metaoptimize(
    base: optax.GradientTransformation,
    meta: optax.GradientTransformation | None = None,
    *,
    initial: float = 1e-4,
    sharing: Sharing | Callable[[str], str] = "scalar",
    gamma: float = 1.0,
    form: Form = "hessian-free",
    bounds: tuple[float, float] = BOUNDS,
) -> optax.GradientTransformationExtraArgs:
    """`p' = p - step_size * base(gradient)`, where each step descends on the log step size too.

    A step size grows while gradients point along the displacements it has caused, and falls when they oppose them.
    `learned_opt.step_sizes(state)` reads what it has become. A step whose meta-gradient is not finite leaves the step
    sizes as they are and starts the trace again; the update itself is that of the base.

    Args:
        base: a first-order optimizer of unit step size, its sign that of the gradient: `optax.scale_by_adam()`,
            `optax.trace(0.9)`, or AdamW as `optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.1))`. Its
            state must not depend on the parameters but through the gradient.
        meta: what moves the log step sizes; default `optax.adam(1e-3)`, with which a step size that starts wrong by
            a factor of e takes about 1000 steps.
        initial: the step size at the start.
        sharing: one step size; one for each tensor; one for each weight; or, by a function from a parameter's path,
            such as `mlp/0/w`, to the name of its block.
        gamma: how much of the trace a step keeps; below 1 it forgets, which suits changing data and small step sizes.
        form: `hessian-free` costs a few passes over the parameters. `L`, `2x2` and `full` keep the Hessian, with a
            copy of parameters and base state and a Hessian-vector product for each block; see `tune_online`.
        bounds: of the step sizes.

    Raises:
        UsageError: an argument is out of range.
    """
    check(gamma, form, bounds, initial)
    if not callable(sharing) and sharing not in get_args(Sharing):
        raise errors.unknown("sharing", str(sharing), get_args(Sharing), "scalar, tensor, weight or a function")
    meta = default_meta() if meta is None else meta
    if form != "hessian-free":
        return _with_hessian(base, meta, initial, sharing, gamma, form, bounds)
    base = optax.with_extra_args_support(base)
    move = meta_step(meta, bounds)

    def init(params: optax.Params) -> MetaOptimizeState:
        logs = jax.tree.map(jnp.log, starting_step_sizes(params, initial, sharing))
        trace = jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), working_dtype(p)), params)
        return MetaOptimizeState(base.init(params), logs, meta.init(logs), trace, *no_counts())

    def update(
        updates: optax.Updates, state: MetaOptimizeState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, MetaOptimizeState]:
        if params is None:
            raise ValueError("metaoptimize needs the parameters: call update(grads, state, params)")

        def unit(params: optax.Params) -> tuple[optax.Updates, optax.OptState]:
            return base.update(updates, state.base_state, params, **extra)

        meta_gradient = _by_block(state.trace, updates, state.logs, sharing)
        moved = move(meta_gradient, state)
        # With the gradient held, the base depends on the parameters through weight decay and the like only.
        tangents = optax.tree.cast_like(state.trace, params)
        direction, carried, base_state = jax.jvp(unit, (params,), (tangents,), has_aux=True)
        steps = _broadcast(jax.tree.map(functools.partial(_after, moved.skipped), state.logs), params, sharing)
        displacement = jax.tree.map(lambda s, d, h: -s.astype(h.dtype) * d, steps, direction, state.trace)

        def follow(h: jax.Array, step: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
            return jnp.where(moved.finite, gamma * (h - step.astype(h.dtype) * c) + d, 0)

        trace = jax.tree.map(follow, state.trace, steps, carried, displacement)
        new = MetaOptimizeState(base_state, moved.logs, moved.meta_state, trace, moved.skipped, moved.bounded)
        return optax.tree.cast_like(displacement, params), new

    return optax.GradientTransformationExtraArgs(init, update)


def step_sizes(state: optax.OptState) -> dict[str, jax.Array]:
    """The step sizes by block name, or the values by name that `tune_online` tunes; from any state that holds them.

    Raises:
        UsageError: there are none, or those of several optimizers.
    """
    kinds = (MetaOptimizeState, TuneOnlineState)
    nodes = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, kinds))
    found = [node for node in nodes if isinstance(node, kinds)]
    if len(found) != 1:
        raise errors.UsageError(f"step_sizes was given a state with {len(found)} metaoptimize inside: one is accepted")
    return jax.tree.map(jnp.exp, found[0].logs)


def starting_step_sizes(
    params: optax.Params, initial: float, sharing: Sharing | Callable[[str], str]
) -> dict[str, jax.Array]:
    """`initial` for each block; where each weight has its own, in arrays like the parameters."""
    steps: dict[str, jax.Array] = {}
    for block, leaf in zip(_blocks(params, sharing), jax.tree.leaves(params), strict=True):
        shape = jnp.shape(leaf) if sharing == "weight" else ()
        dtype = working_dtype(leaf)
        if block in steps:
            dtype = jnp.promote_types(dtype, steps[block].dtype)
        steps[block] = jnp.full(shape, initial, dtype)
    return steps


def _blocks(params: optax.Params, sharing: Sharing | Callable[[str], str]) -> list[str]:
    """The name of the block of each tensor, in the order of the leaves.

    In an `nnx.Optimizer` a parameter is a variable at first, with its array in `value`, and the array itself later on.
    """
    value = jax.tree_util.GetAttrKey("value")
    paths = [
        jax.tree_util.keystr(path[:-1] if path[-1:] == (value,) else path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    if sharing == "scalar":
        return ["all"] * len(paths)
    return [sharing(path) for path in paths] if callable(sharing) else paths


def _broadcast(steps: dict[str, jax.Array], params: optax.Params, sharing: Sharing | Callable[[str], str]) -> Any:
    """A step size, or an array of them, for each tensor."""
    return jax.tree.unflatten(jax.tree.structure(params), [steps[block] for block in _blocks(params, sharing)])


def _after(skipped: jax.Array, log: jax.Array) -> jax.Array:
    """The step size, made to wait for the meta-gradient, by a condition that never holds.

    XLA then visits the trace and the parameters of a tensor one after the other while they are in cache, where it would
    come back to all traces at the end: 2 to 5 % of a training step. The CPU backend ignores `optimization_barrier`.
    """
    return jnp.where(skipped < 0, 0, jnp.exp(log))


def _by_block(trace: Any, grads: Any, logs: dict[str, jax.Array], sharing: Any) -> dict[str, jax.Array]:
    """The meta-gradient: the products of trace and gradient, summed over each block."""
    terms: dict[str, list[jax.Array]] = {}
    for block, h, g in zip(_blocks(trace, sharing), jax.tree.leaves(trace), jax.tree.leaves(grads), strict=True):
        product = h * g.astype(h.dtype)
        terms.setdefault(block, []).append(product if sharing == "weight" else product.sum())
    return {block: functools.reduce(jnp.add, terms[block]).astype(logs[block].dtype) for block in logs}


def _with_hessian(
    base: optax.GradientTransformation,
    meta: optax.GradientTransformation,
    initial: float,
    sharing: Sharing | Callable[[str], str],
    gamma: float,
    form: Form,
    bounds: tuple[float, float],
) -> optax.GradientTransformationExtraArgs:
    """Step sizes as any other hyperparameters."""

    def make(steps: dict[str, jax.Array]) -> optax.GradientTransformation:
        def scale(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
            return jax.tree.map(lambda s, u: -s.astype(u.dtype) * u, _broadcast(steps, updates, sharing), updates)

        return optax.chain(base, optax.stateless(scale))

    return tune_online(
        make,
        lambda params: starting_step_sizes(params, initial, sharing),
        meta,
        gamma=gamma,
        form=form,
        bounds=bounds,
    )
