"""Persistent evolution strategies (Vicol et al. 2021, arXiv 2112.13835), for one particle."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp

from learned_opt.base import Theta
from learned_opt.meta_train.estimator import Estimate, from_members
from learned_opt.meta_train.perturbation import Perturbation
from learned_opt.meta_train.unroll import Problem, Unroller
from learned_opt.tasks.training import InnerState


class PESState(NamedTuple):
    """The problem under way, the inner states of the pair (leading axis 2), and the accumulator xi."""

    problem: Problem
    pair: InnerState
    xi: Theta


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PES:
    """Unbiased for the whole inner problem although it unrolls one truncation at a time.

    Each truncation draws `eps ~ N(0, sigma^2 I)`, advances `theta + eps` and `theta - eps` from their own states on the
    same batches, adds eps to xi and estimates `xi (L+ - L-) / (2 sigma^2)`, L the truncation's share of the objective.
    """

    unroller: Unroller
    perturbation: Perturbation = field(default_factory=Perturbation)

    def init(self, key: jax.Array, theta: Theta) -> PESState:
        """A first problem."""
        return self._begin(theta, *self.unroller.first(theta, key))

    def estimate(self, theta: Theta, state: PESState, key: jax.Array) -> tuple[Estimate, PESState]:
        """One truncation. A problem that has ended, or is not finite, gives way to a fresh one at the boundary."""
        eps_key, unroll_key, next_key = jax.random.split(key, 3)
        eps = self.perturbation.draw(theta, eps_key)
        thetas = self.perturbation.members(theta, eps)
        end = self.perturbation.unroll(self.unroller, thetas, state.problem, state.pair, unroll_key)
        xi = jax.tree.map(jnp.add, state.xi, eps)
        direction = self.perturbation.direction(xi)
        estimate = from_members(self.unroller.objective, state.problem.horizon, direction, end.tally)
        problem, ended = self.unroller.advance(state.problem)
        return estimate, jax.lax.cond(
            ended | (estimate.weight == 0),
            lambda: self._begin(theta, *self.unroller.next(theta, next_key, problem.outer_step)),
            lambda: PESState(problem, end.inner, xi),
        )

    def _begin(self, theta: Theta, problem: Problem, inner: InnerState) -> PESState:
        """Both states start alike and xi is zero."""
        return PESState(problem, twice(inner), jax.tree.map(jnp.zeros_like, theta))


def twice(inner: InnerState) -> InnerState:
    """A pair of equal states."""
    return jax.tree.map(lambda x: jnp.stack([x, x]), inner)
