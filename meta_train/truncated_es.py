"""Truncated evolution strategies, for one particle."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp

from learned_opt.base import Theta
from learned_opt.meta_train.estimator import Estimate, from_members
from learned_opt.meta_train.perturbation import Perturbation
from learned_opt.meta_train.unroll import Problem, Unroller
from learned_opt.tasks.training import InnerState


class TruncatedESState(NamedTuple):
    """The problem under way and its inner state, that of theta itself."""

    problem: Problem
    inner: InnerState


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TruncatedES:
    """The smoothed gradient of each truncation, blind to what theta did before it: short-horizon bias.

    The pair starts every truncation from one state, which theta itself then carries on: a third unroll, unless the
    pair is not antithetic and has theta as its second member.
    """

    unroller: Unroller
    perturbation: Perturbation = field(default_factory=Perturbation)

    def init(self, key: jax.Array, theta: Theta) -> TruncatedESState:
        """A first problem."""
        return TruncatedESState(*self.unroller.first(theta, key))

    def estimate(self, theta: Theta, state: TruncatedESState, key: jax.Array) -> tuple[Estimate, TruncatedESState]:
        """One truncation. A problem that has ended, or is not finite, gives way to a fresh one at the boundary."""
        eps_key, unroll_key, next_key = jax.random.split(key, 3)
        eps = self.perturbation.draw(theta, eps_key)
        thetas = self.perturbation.members(theta, eps)
        if self.perturbation.antithetic:
            thetas = jax.tree.map(lambda pair, t: jnp.concatenate([pair, t[None]]), thetas, theta)
        end = self.perturbation.unroll(self.unroller, thetas, *state, unroll_key, same_start=True)
        direction = self.perturbation.direction(eps)
        estimate = from_members(self.unroller.objective, state.problem.horizon, direction, end.tally)
        problem, ended = self.unroller.advance(state.problem)
        return estimate, jax.lax.cond(
            ended | (estimate.weight == 0),
            lambda: TruncatedESState(*self.unroller.next(theta, next_key, problem.outer_step)),
            lambda: TruncatedESState(problem, jax.tree.map(lambda x: x[-1], end.inner)),
        )
