"""Forward-mode differentiation of inner training, for one particle."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp

from learned_opt import sensitivity
from learned_opt.base import Theta
from learned_opt.meta_train.estimator import Estimate, from_derivative
from learned_opt.meta_train.objective import Tally, total
from learned_opt.meta_train.unroll import Problem, Unroller
from learned_opt.sensitivity import Sensitivities
from learned_opt.tasks.training import InnerState


class ForwardState(NamedTuple):
    """The problem under way, its inner state, and the sensitivities of that: d inner / d theta."""

    problem: Problem
    inner: InnerState
    sensitivities: Sensitivities


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
        return ForwardState(problem, inner, sensitivity.start(inner, theta))

    def _run(self, theta: Theta, state: ForwardState, key: jax.Array) -> tuple[InnerState, Sensitivities, Theta, Tally]:
        """Inner state and sensitivities at the end, the derivative of the truncation's score, and its tally."""
        problem = state.problem
        task = self.unroller.family.task(problem.task_params)
        flat, unravel = jax.flatten_util.ravel_pytree(theta)

        def body(carry: Any, offset_and_key: tuple[jax.Array, jax.Array]) -> Any:
            inner, sensitivities, derivative = carry

            def step(inner: InnerState, theta: Theta) -> Any:
                transform = self.unroller.optimizer.transform(theta)
                new, tally = self.unroller.step(task, transform, problem, inner, *offset_and_key)
                return new, tally.score, tally

            inner, sensitivities, slopes, tally = sensitivity.advance(step, inner, sensitivities, theta)
            return (inner, sensitivities, derivative + slopes), tally

        carry = (state.inner, state.sensitivities, jnp.zeros_like(flat))
        (inner, sensitivities, derivative), tallies = jax.lax.scan(body, carry, self.unroller.steps(key))
        return inner, sensitivities, unravel(derivative), total(tallies)
