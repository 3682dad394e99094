"""Backpropagation through whole inner problems, with rematerialisation, for one particle."""

from dataclasses import dataclass, field

import jax

from learned_opt.base import Theta
from learned_opt.meta_train.estimator import Estimate, from_derivative
from learned_opt.meta_train.full_es import WholeProblemState
from learned_opt.meta_train.objective import Tally, total
from learned_opt.meta_train.unroll import Problem, Unroller
from learned_opt.tasks.training import InnerState


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FullBackprop:
    """The exact gradient of a whole problem: every estimate runs one to its end and back.

    Inner states are kept at the boundaries of truncations and, of the truncation under way, at every step; all else is
    computed again. Memory is least where the truncation is the root of the horizon. Reverse mode needs a loop of known
    length, so that a problem costs what the longest does.

    Attributes:
        truncations: how many the longest horizon has.
    """

    unroller: Unroller
    truncations: int = field(metadata={"static": True})

    def init(self, key: jax.Array, theta: Theta) -> WholeProblemState:
        """A first problem."""
        return WholeProblemState(*self.unroller.first(theta, key))

    def estimate(self, theta: Theta, state: WholeProblemState, key: jax.Array) -> tuple[Estimate, WholeProblemState]:
        """One problem, and a fresh one to come."""
        unroll_key, next_key = jax.random.split(key)

        def score(theta: Theta) -> tuple[jax.Array, Tally]:
            def truncation(carry: tuple[Problem, InnerState], key: jax.Array) -> tuple[tuple, Tally]:
                end = self.unroller.unroll(theta, *carry, key)
                return (self.unroller.advance(carry[0])[0], end.inner), end.tally

            keys = jax.random.split(unroll_key, self.truncations)
            _, tallies = jax.lax.scan(jax.checkpoint(truncation), (state.problem, state.inner), keys)
            tally = total(tallies)
            return tally.score, tally

        derivative, tally = jax.grad(score, has_aux=True)(theta)
        estimate = from_derivative(self.unroller.objective, state.problem.horizon, derivative, tally)
        return estimate, WholeProblemState(*self.unroller.next(theta, next_key, state.problem.outer_step + 1))
