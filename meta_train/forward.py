"""Forward-mode differentiation of inner training, for one particle."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp

from learned_opt.base import Theta
from learned_opt.meta_train.estimator import Estimate, from_derivative
from learned_opt.meta_train.objective import Tally, total
from learned_opt.meta_train.unroll import Problem, Unroller
from learned_opt.tasks.training import InnerState


class ForwardState(NamedTuple):
    """The problem under way, its inner state, and the sensitivities of that: d inner / d theta.

    One array for each floating-point array of the inner state, with a leading axis of theta's entries.
    """

    problem: Problem
    inner: InnerState
    sensitivities: list[jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Forward:
    """The exact gradient of the whole problem, one truncation at a time: sensitivities are carried forward.

    `X_{t+1} = (d step / d inner) X_t + d step / d theta`. Memory does not depend on the horizon; time and memory are
    those of one inner training for every entry of theta. While theta moves within a problem the sensitivities are those
    of the thetas that were, as in real-time recurrent learning.
    """

    unroller: Unroller

    def init(self, key: jax.Array, theta: Theta) -> ForwardState:
        """A first problem."""
        return self._begin(theta, *self.unroller.first(theta, key))

    def estimate(self, theta: Theta, state: ForwardState, key: jax.Array) -> tuple[Estimate, ForwardState]:
        """One truncation. A problem that has ended, or is not finite, gives way to a fresh one at the boundary."""
        unroll_key, next_key = jax.random.split(key)
        inner, sensitivities, derivative, tally = self._run(theta, state, unroll_key)
        estimate = from_derivative(self.unroller.objective, state.problem.horizon, derivative, tally)
        problem, ended = self.unroller.advance(state.problem)
        return estimate, jax.lax.cond(
            ended | (estimate.weight == 0),
            lambda: self._begin(theta, *self.unroller.next(theta, next_key, problem.outer_step)),
            lambda: ForwardState(problem, inner, sensitivities),
        )

    def _begin(self, theta: Theta, problem: Problem, inner: InnerState) -> ForwardState:
        """Nothing depends on theta yet."""
        size = jax.flatten_util.ravel_pytree(theta)[0].size
        return ForwardState(problem, inner, [jnp.zeros((size, *x.shape), x.dtype) for x in _split(inner)[0]])

    def _run(
        self, theta: Theta, state: ForwardState, key: jax.Array
    ) -> tuple[InnerState, list[jax.Array], Theta, Tally]:
        """Inner state and sensitivities at the end, the derivative of the truncation's score, and its tally."""
        problem = state.problem
        task = self.unroller.family.task(problem.task_params)
        flat, unravel = jax.flatten_util.ravel_pytree(theta)
        columns = jax.vmap(unravel)(jnp.eye(flat.size, dtype=flat.dtype))

        def body(carry: Any, offset_and_key: tuple[jax.Array, jax.Array]) -> Any:
            inner, sensitivities, derivative = carry
            floats, merge = _split(inner)

            def step(theta: Theta, floats: list[jax.Array]) -> Any:
                new, tally = self.unroller.step(
                    task, self.unroller.optimizer.transform(theta), problem, merge(floats), *offset_and_key
                )
                return (_split(new)[0], tally.score), (new, tally)

            def push(column: Theta, sensitivity: list[jax.Array]) -> Any:
                _, tangents, new = jax.jvp(step, (theta, floats), (column, sensitivity), has_aux=True)
                return tangents, new

            (sensitivities, slopes), (inner, tally) = jax.vmap(push, out_axes=(0, None))(columns, sensitivities)
            return (inner, sensitivities, derivative + slopes), tally

        carry = (state.inner, state.sensitivities, jnp.zeros_like(flat))
        (inner, sensitivities, derivative), tallies = jax.lax.scan(body, carry, self.unroller.steps(key))
        return inner, sensitivities, unravel(derivative), total(tallies)


def _split(inner: InnerState) -> tuple[list[jax.Array], Any]:
    """The floating-point arrays of an inner state, and a function that puts others in their place."""
    leaves, structure = jax.tree.flatten(inner)
    where = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.inexact)]

    def merge(floats: list[jax.Array]) -> InnerState:
        merged = list(leaves)
        for i, x in zip(where, floats, strict=True):
            merged[i] = x
        return jax.tree.unflatten(structure, merged)

    return [leaves[i] for i in where], merge
