"""Noise-reuse evolution strategies (Li et al. 2023, arXiv 2304.12180), for one particle."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax

from learned_opt.base import Theta
from learned_opt.meta_train.estimator import Estimate, from_members
from learned_opt.meta_train.perturbation import Perturbation
from learned_opt.meta_train.pes import twice
from learned_opt.meta_train.unroll import Problem, Unroller
from learned_opt.tasks.training import InnerState


class NoiseReuseESState(NamedTuple):
    """The problem under way, the inner states of the pair (leading axis 2), and the problem's perturbation."""

    problem: Problem
    pair: InnerState
    eps: Theta


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class NoiseReuseES:
    """Full-length evolution strategies, one truncation at a time: one perturbation is kept for a whole problem.

    Each truncation estimates `eps (L+ - L-) / (2 sigma^2)`. Their sum over a problem is the estimate of `FullES`.
    """

    unroller: Unroller
    perturbation: Perturbation = field(default_factory=Perturbation)

    def init(self, key: jax.Array, theta: Theta) -> NoiseReuseESState:
        """A first problem, and its perturbation."""
        start_key, eps_key = jax.random.split(key)
        problem, inner = self.unroller.first(theta, start_key)
        return NoiseReuseESState(problem, twice(inner), self.perturbation.draw(theta, eps_key))

    def estimate(self, theta: Theta, state: NoiseReuseESState, key: jax.Array) -> tuple[Estimate, NoiseReuseESState]:
        """One truncation. A problem that has ended, or is not finite, gives way to a fresh one at the boundary."""
        unroll_key, next_key, eps_key = jax.random.split(key, 3)
        thetas = self.perturbation.members(theta, state.eps)
        end = self.perturbation.unroll(self.unroller, thetas, state.problem, state.pair, unroll_key)
        direction = self.perturbation.direction(state.eps)
        estimate = from_members(self.unroller.objective, state.problem.horizon, direction, end.tally)
        problem, ended = self.unroller.advance(state.problem)

        def begin() -> NoiseReuseESState:
            new_problem, inner = self.unroller.next(theta, next_key, problem.outer_step)
            return NoiseReuseESState(new_problem, twice(inner), self.perturbation.draw(theta, eps_key))

        return estimate, jax.lax.cond(
            ended | (estimate.weight == 0), begin, lambda: NoiseReuseESState(problem, end.inner, state.eps)
        )
