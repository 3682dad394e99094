"""Outer optimizers that look at the sign of a hypergradient only (arXiv 2007.07869)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class SignDescentState(NamedTuple):
    """The step of every entry, and the sign of its last gradient; 0 after a step that was not taken."""

    steps: Any
    signs: Any


def rprop(first_steps: Any, decay: float = 0.5, growth: float = 1.2) -> optax.GradientTransformation:
    """Steps against the sign of the gradient, each entry by a length of its own, which follows whether the sign stays.

    It grows while the sign is the last one's. Where it flips it shrinks, and the entry waits: the next sign says which
    of the two to believe (iRprop-, Igel and Huesken, 2000). A gradient that is zero or not finite moves nothing.
    Hypergradients of a long run differ by orders of magnitude between windows, and their signs do not.

    Args:
        first_steps: a tree that the parameters' tree extends: a length for each of its leaves.
        decay: of a step whose sign is the opposite of the last one.
        growth: of a step whose sign is the last one.
    """
    return _descent(first_steps, decay, growth, waits=True)


def sign_descent(first_steps: Any, decay: float = 0.5) -> optax.GradientTransformation:
    """As published: steps only ever shrink, and are taken where the sign flips too."""
    return _descent(first_steps, decay, 1.0, waits=False)


def _descent(first_steps: Any, decay: float, growth: float, waits: bool) -> optax.GradientTransformation:
    def init(params: optax.Params) -> SignDescentState:
        steps = jax.tree.map(lambda s, p: jax.tree.map(lambda x: jnp.full_like(x, s), p), first_steps, params)
        return SignDescentState(steps, jax.tree.map(jnp.zeros_like, params))

    def update(
        updates: optax.Updates, state: SignDescentState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, SignDescentState]:
        del params
        signs = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), jnp.sign(g), 0), updates)
        turns = jax.tree.map(jnp.multiply, signs, state.signs)  # 1: the same sign again, -1: the other, 0: one is none
        steps = jax.tree.map(
            lambda length, turn: jnp.where(turn == -1, decay * length, jnp.where(turn == 1, growth * length, length)),
            state.steps,
            turns,
        )
        if waits:
            signs = jax.tree.map(lambda sign, turn: jnp.where(turn == -1, 0, sign), signs, turns)
        return jax.tree.map(lambda s, length: -s * length, signs, steps), SignDescentState(steps, signs)

    return optax.GradientTransformation(init, update)


def converged(state: SignDescentState, values: Any, share: float = 0.05) -> jax.Array:
    """Whether every step is below that share of its value; a value of zero, as at a bound, has not settled."""
    below = jax.tree.map(lambda length, x: (length < share * jnp.abs(x)).all(), state.steps, values)
    return jnp.stack(jax.tree.leaves(below)).all()
