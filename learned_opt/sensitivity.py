"""Forward sensitivities: the derivative of a state with respect to hyperparameters, carried along with the state.

    X_{t+1} = gamma * (d step / d state) X_t + d step / d hyperparameters,    X_0 = 0

The derivative of anything that is a function of the state is then one product away. Three published methods are this
recursion with different switches: forward-mode hypergradients (Micaelli and Storkey 2021, arXiv 2007.07869), stochastic
meta-descent (Wu et al. 2018, arXiv 1803.02021) and MetaOptimize (Sharifnassab et al. 2025, arXiv 2402.02342).

- gamma below 1 forgets; `start` again resets;
- an optimizer behind `without_hessian` drops the Hessian, behind `clamp` it limits what the Hessian does;
- `active` leaves out hyperparameters that no step has used yet.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

State = Any  # a pytree of arrays: weights, momenta, counters
Hyperparameters = Any  # a pytree of float arrays; each of their entries is a column
Sensitivities = Any  # the state's floating-point arrays with a leading axis of columns, None for its other leaves
# step(state, hyperparameters) -> (new state, what to differentiate beside it, anything else)
Step = Callable[[State, Hyperparameters], tuple[State, Any, Any]]


class Advanced(NamedTuple):
    """After one step: state, sensitivities, the derivatives of the second output by column, and the third output."""

    state: State
    sensitivities: Sensitivities
    slopes: Any
    aux: Any


def columns(hyperparameters: Hyperparameters) -> Hyperparameters:
    """The identity: hyperparameters with a leading axis, of one entry each; in the order of `ravel_pytree`."""
    flat, unravel = jax.flatten_util.ravel_pytree(hyperparameters)
    return jax.vmap(unravel)(jnp.eye(flat.size, dtype=flat.dtype))


def start(state: State, hyperparameters: Hyperparameters) -> Sensitivities:
    """Zeros: nothing depends on the hyperparameters yet."""
    size = jax.flatten_util.ravel_pytree(hyperparameters)[0].size
    return jax.tree.map(lambda x: jnp.zeros((size, *jnp.shape(x)), jnp.result_type(x)), floats(state))


def advance(
    step: Step,
    state: State,
    sensitivities: Sensitivities,
    hyperparameters: Hyperparameters,
    *,
    gamma: float = 1.0,
    active: Hyperparameters | None = None,
) -> Advanced:
    """One step of the state and of its sensitivities, a `jvp` mapped over columns: memory does not grow with time.

    `active` are the columns that `sensitivities` is about, in place of all of `columns(hyperparameters)`.
    """
    column = columns(hyperparameters) if active is None else active
    if gamma != 1:
        sensitivities = jax.tree.map(lambda x: gamma * x, sensitivities)
    return push(step, state, hyperparameters, sensitivities, column)


def push(
    step: Step, state: State, hyperparameters: Hyperparameters, sensitivities: Sensitivities, column: Hyperparameters
) -> Advanced:
    """One step with tangents of both its arguments, given and returned with a leading axis."""

    def split_step(numbers: Any, hyperparameters: Hyperparameters) -> Any:
        new, output, aux = step(merge(numbers, state), hyperparameters)
        return (floats(new), output), (new, aux)

    def one(sensitivity: Any, column: Hyperparameters) -> Any:
        primals = floats(state), hyperparameters
        _, tangents, (new, aux) = jax.jvp(split_step, primals, (sensitivity, column), has_aux=True)
        return tangents, new, aux

    (pushed, slopes), new, aux = jax.vmap(one, out_axes=(0, None, None))(sensitivities, column)
    return Advanced(new, pushed, slopes, aux)


def along(gradient: Any, sensitivities: Sensitivities) -> jax.Array:
    """The derivatives of a function of the state by column, from its gradient with respect to (part of) the state.

    This is the meta-gradient. The two trees are alike but for the leading axis of the second.
    """
    products = jax.tree.map(
        lambda g, x: jnp.tensordot(x.reshape(len(x), -1), g.reshape(-1).astype(x.dtype), 1), gradient, sensitivities
    )
    return functools.reduce(jnp.add, jax.tree.leaves(products))


def without_hessian() -> optax.GradientTransformation:
    """Chained in front of an optimizer: sensitivities do not pass through the loss gradient."""
    return optax.stateless(lambda updates, params: jax.lax.stop_gradient(updates))


class ClampState(NamedTuple):
    """Zero; its sensitivity is the share of clamped entries, summed over the steps, by column."""

    share: jax.Array


def clamp(limit: float) -> optax.GradientTransformation:
    """Chained in front of an optimizer: entries of Hessian times sensitivity are kept within +-limit.

    It makes sensitivities inexact; how often it does is in those of `ClampState`. Forward mode only.
    """

    def update(updates: optax.Updates, state: ClampState, params: optax.Params | None = None) -> Any:
        del params
        updates, zero = _clamp_tangent(updates, limit)
        return updates, ClampState(state.share + zero)

    return optax.GradientTransformation(lambda params: ClampState(jnp.zeros(())), update)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _clamp_tangent(grads: Any, limit: float) -> tuple[Any, jax.Array]:
    """The gradient itself; its tangent is clamped, and the share of clamped entries is the tangent of a zero."""
    return grads, jnp.zeros(())


@_clamp_tangent.defjvp
def _(limit: float, primals: tuple[Any], tangents: tuple[Any]) -> Any:
    entries = jax.tree.leaves(tangents[0])
    beyond = functools.reduce(jnp.add, [jnp.sum(jnp.abs(x) > limit) for x in entries])
    share = (beyond / sum(x.size for x in entries)).astype(jnp.zeros(()).dtype)
    clamped = jax.tree.map(lambda x: jnp.clip(x, -limit, limit), tangents[0])
    return _clamp_tangent(primals[0], limit), (clamped, share)


def floats(tree: Any) -> Any:
    """The floating-point arrays of a tree; None in place of counters, keys and flags."""
    return jax.tree.map(lambda x: x if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else None, tree)


def merge(numbers: Any, tree: Any) -> Any:
    """`tree` with its floating-point arrays replaced by `numbers`."""
    return jax.tree.map(lambda new, old: old if new is None else new, numbers, tree, is_leaf=lambda x: x is None)
