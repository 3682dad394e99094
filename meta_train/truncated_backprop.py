"""Truncated backpropagation through unrolled inner training, for one particle."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from learned_opt.base import Theta
from learned_opt.meta_train.estimator import Estimate, from_derivative
from learned_opt.meta_train.unroll import Problem, Unrolled, Unroller
from learned_opt.tasks.training import InnerState


class TruncatedBackpropState(NamedTuple):
    """The problem under way and its inner state."""

    problem: Problem
    inner: InnerState


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TruncatedBackprop:
    """The exact gradient of each truncation, blind to what theta did before it: low variance, short-horizon bias."""

    unroller: Unroller

    def init(self, key: jax.Array, theta: Theta) -> TruncatedBackpropState:
        """A first problem."""
        return TruncatedBackpropState(*self.unroller.first(theta, key))

    def estimate(
        self, theta: Theta, state: TruncatedBackpropState, key: jax.Array
    ) -> tuple[Estimate, TruncatedBackpropState]:
        """One truncation. A problem that has ended, or is not finite, gives way to a fresh one at the boundary."""
        unroll_key, next_key = jax.random.split(key)

        def score(theta: Theta) -> tuple[jax.Array, Unrolled]:
            end = self.unroller.unroll(theta, *state, unroll_key)
            return end.tally.score, end

        derivative, end = jax.grad(score, has_aux=True)(theta)
        estimate = from_derivative(self.unroller.objective, state.problem.horizon, derivative, end.tally)
        problem, ended = self.unroller.advance(state.problem)
        # A gradient can overflow while the inner problem is well: only a problem that is itself not finite restarts.
        return estimate, jax.lax.cond(
            ended | ~jnp.isfinite(end.tally.loss),
            lambda: TruncatedBackpropState(*self.unroller.next(theta, next_key, problem.outer_step)),
            lambda: TruncatedBackpropState(problem, end.inner),
        )
