"""Any hyperparameters of any optimizer, tuned during one run: MetaOptimize in full (arXiv 2402.02342, algorithm 1)."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt import errors, sensitivity
from learned_opt.base import EPS_ROOT

Form = Literal["hessian-free", "L", "2x2", "full"]
BOUNDS = (1e-12, 10.0)


class Moved(NamedTuple):
    """Log hyperparameters after one meta-update, and what happened to it."""

    logs: Any
    meta_state: optax.OptState
    finite: jax.Array
    skipped: jax.Array
    bounded: jax.Array


class TuneOnlineState(NamedTuple):
    """logs: of the hyperparameters. tangents: of `Joint`, by column. skipped, bounded: see `MetaOptimizeState`."""

    base_state: optax.OptState
    logs: Any
    meta_state: optax.OptState
    tangents: "Joint"
    skipped: jax.Array
    bounded: jax.Array


class Joint(NamedTuple):
    """All that moves: meta-optimizer, weights and optimizer, and in the full form the trace as well.

    trace: the sensitivities of params and base_state.
    """

    logs: Any
    meta_state: optax.OptState
    params: optax.Params
    base_state: optax.OptState
    trace: Any = None


def tune_online(
    make: Callable[[Any], optax.GradientTransformation],
    initial: Any,
    meta: optax.GradientTransformation | None = None,
    *,
    gamma: float = 1.0,
    form: Form = "hessian-free",
    bounds: Any = BOUNDS,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer `make(hyperparameters)`, whose hyperparameters descend on the loss while it trains.

    Each update costs and keeps a copy of parameters and optimizer state for each hyperparameter; where only step sizes
    are tuned, `metaoptimize` keeps one copy in all. All moves are of logarithms.

    Args:
        make: from positive hyperparameters to an optimizer: `lambda h: optax.adam(h["learning_rate"],
            b1=1 - h["one_minus_b1"], eps_root=1e-30)`. Without `eps_root`, the derivative of Adam with respect to `b2`
            is not finite where gradients are zero.
        initial: the hyperparameters at the start, a pytree; or a function from the parameters to it.
        meta: what moves the logarithms; default `optax.adam(1e-3)`, with an `eps_root` as `2x2` and `full` need it.
        gamma: how much of the sensitivities a step keeps.
        form: which derivatives sensitivities keep. `hessian-free`: none through the loss gradient; `L`: all of the
            optimizer; `2x2`: also those of the meta-optimizer's moves through the weights; `full`: also through the
            sensitivities. All but the first need `update(grads, state, params, value_fn=...)`, the loss as a function
            of the parameters, and a Hessian-vector product for each hyperparameter.
        bounds: lowest and highest value, for all, or in a tree like `initial`.

    Raises:
        UsageError: an argument is out of range.
    """
    check(gamma, form, bounds, None if callable(initial) else initial)
    meta = default_meta() if meta is None else meta
    move = meta_step(meta, bounds)

    def transform(logs: Any) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(make(jax.tree.map(jnp.exp, logs)))

    def init(params: optax.Params) -> TuneOnlineState:
        values = initial(params) if callable(initial) else initial
        logs = jax.tree.map(lambda x: jnp.log(jnp.asarray(x, float)), values)
        base_state, meta_state = transform(logs).init(params), meta.init(logs)
        tangents = _start(Joint(logs, meta_state, params, base_state), form)
        return TuneOnlineState(base_state, logs, meta_state, tangents, *no_counts())

    def update(
        updates: optax.Updates,
        state: TuneOnlineState,
        params: optax.Params | None = None,
        *,
        value_fn: Callable[[optax.Params], jax.Array] | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, TuneOnlineState]:
        if params is None or (form != "hessian-free" and value_fn is None):
            raise ValueError("call update(grads, state, params), and with value_fn for forms with a Hessian")
        value: Any = value_fn

        tangents = _forget(state.tangents, state.logs, gamma)

        def base_step(joint: Joint, logs: Any) -> Any:
            """Parameters and base state after the update; as a second output, the gradient."""
            grads = updates if form == "hessian-free" else jax.grad(value)(joint.params)
            steps, base_state = transform(logs).update(grads, joint.base_state, joint.params, **extra)
            new = joint._replace(params=optax.apply_updates(joint.params, steps), base_state=base_state)
            return new, grads, steps

        def step(joint: Joint, _: None) -> Any:
            new, grads, steps = base_step(joint, joint.logs)
            trace = state.tangents if joint.trace is None else joint.trace
            meta_gradient = _unflatten(sensitivity.along(grads, trace.params), joint.logs)
            if joint.trace is not None:
                new = new._replace(trace=_next_trace(base_step, joint, tangents, gamma))
            moved, meta_state = meta.update(meta_gradient, joint.meta_state, joint.logs)
            if form in ("hessian-free", "L"):  # what a move depends on is left out
                moved, meta_state = jax.lax.stop_gradient((moved, meta_state))
            new = new._replace(logs=optax.apply_updates(joint.logs, moved), meta_state=meta_state)
            return new, (), (meta_gradient, steps)

        joint = Joint(state.logs, state.meta_state, params, state.base_state)
        if form == "full":
            joint = joint._replace(trace=_trace(state.tangents))
        new, pushed, _, (meta_gradient, steps) = sensitivity.push(step, joint, None, tangents, None)
        moved = move(meta_gradient, state)
        pushed = jax.tree.map(lambda x, zero: jnp.where(moved.finite, x, zero), pushed, _start(joint, form))
        return steps, TuneOnlineState(
            new.base_state, moved.logs, moved.meta_state, pushed, moved.skipped, moved.bounded
        )

    return optax.GradientTransformationExtraArgs(init, update)


def default_meta() -> optax.GradientTransformation:
    """Adam at the published rate; differentiable where the first meta-gradient is zero, as it always is."""
    return optax.adam(1e-3, eps_root=EPS_ROOT)


def no_counts() -> tuple[jax.Array, jax.Array]:
    """Nothing skipped and nothing bounded: two buffers, as a state with one twice cannot be donated."""
    return jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)


def meta_step(meta: optax.GradientTransformation, bounds: Any) -> Callable[[Any, Any], Moved]:
    """A meta-update of the log hyperparameters in a state, kept within bounds; none if the meta-gradient is not finite.

    Bounds stop values and not derivatives: a hyperparameter at its bound can leave it.
    """

    def move(meta_gradient: Any, state: Any) -> Moved:
        finite = jax.tree.reduce(lambda so_far, x: so_far & jnp.isfinite(x).all(), meta_gradient, jnp.asarray(True))
        steps, meta_state = meta.update(meta_gradient, state.meta_state, state.logs)
        wanted = optax.apply_updates(state.logs, steps)
        limits = jax.tree.map(lambda _: bounds, wanted) if isinstance(bounds, tuple) else bounds
        logs = jax.tree.map(lambda x, b: jnp.clip(x, math.log(b[0]), math.log(b[1])), wanted, limits)
        moved_back = jax.tree.map(lambda x, y: (x != y).any(), logs, wanted)
        held = jax.tree.reduce(jnp.logical_or, moved_back, jnp.asarray(False))
        logs, meta_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), (logs, meta_state), (state.logs, state.meta_state)
        )
        skipped, bounded = state.skipped + ~finite, state.bounded + (finite & held)
        return Moved(logs, meta_state, finite, skipped, bounded)

    return move


def check(gamma: float, form: str, bounds: Any, initial: Any) -> None:
    """Refuses arguments that no run could have."""
    if form not in get_args(Form):
        raise errors.unknown("form", form, get_args(Form))
    if not 0 <= gamma <= 1:
        raise errors.UsageError(f"gamma was given {gamma}: a number from 0 to 1 is accepted")
    pairs = [bounds] if isinstance(bounds, tuple) else jax.tree.leaves(bounds, is_leaf=lambda x: isinstance(x, tuple))
    for low, high in pairs:
        if not 0 < low < high < math.inf:
            raise errors.UsageError(f"bounds were given {low}, {high}: two numbers above 0 are accepted, lowest first")
    for value in map(np.asarray, jax.tree.leaves(initial)):
        if not ((value > 0) & (value < math.inf)).all():
            raise errors.UsageError(f"initial was given {value}: a number above 0 is accepted")
        if isinstance(bounds, tuple) and not ((bounds[0] <= value) & (value <= bounds[1])).all():
            raise errors.UsageError(
                f"initial was given {value}: {bounds[0]:g} to {bounds[1]:g}, the bounds, are accepted"
            )


def _start(joint: Joint, form: Form) -> Joint:
    """The identity for the logarithms, zero for the rest."""
    tangents = sensitivity.start(joint._replace(trace=None), joint.logs)
    if form == "full":
        tangents = tangents._replace(trace=sensitivity.start(_trace(tangents), joint.logs))
    return tangents._replace(logs=sensitivity.columns(joint.logs))


def _trace(tangents: Joint) -> Joint:
    """The part that the full form differentiates as well."""
    return Joint(None, None, tangents.params, tangents.base_state)


def _forget(tangents: Joint, logs: Any, gamma: float) -> Joint:
    """`gamma T + (1 - gamma) [I; 0; 0]`."""
    if gamma == 1:
        return tangents
    tangents = jax.tree.map(lambda x: gamma * x, tangents)
    return tangents._replace(logs=_decayed_identity(tangents.logs, logs, gamma))


def _decayed_identity(forgotten: Any, logs: Any, gamma: float) -> Any:
    return jax.tree.map(lambda y, i: y + (1 - gamma) * i, forgotten, sensitivity.columns(logs))


def _next_trace(base_step: Any, joint: Joint, into: Joint, gamma: float) -> Joint:
    """The trace one step later as a function of weights and logarithms; how past logarithms moved those is held."""

    def step(part: Joint, logs: Any) -> Any:
        new, _, _ = base_step(joint._replace(params=part.params, base_state=part.base_state), logs)
        return Joint(None, None, new.params, new.base_state), (), None

    part = Joint(None, None, joint.params, joint.base_state)
    trace = jax.tree.map(lambda x: gamma * x, joint.trace)
    return sensitivity.push(step, part, joint.logs, trace, into.logs).sensitivities


def _unflatten(flat: jax.Array, like: Any) -> Any:
    """By hyperparameter."""
    return jax.flatten_util.ravel_pytree(like)[1](flat)
