"""Evolution strategies over whole inner problems, for one particle."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from learned_opt.base import Theta
from learned_opt.meta_train.estimator import Estimate, from_members
from learned_opt.meta_train.objective import Tally
from learned_opt.meta_train.perturbation import Perturbation
from learned_opt.meta_train.pes import twice
from learned_opt.meta_train.unroll import Problem, Unroller
from learned_opt.tasks.training import InnerState


class WholeProblemState(NamedTuple):
    """The problem that the next estimate runs from start to end, and the inner state it starts from."""

    problem: Problem
    inner: InnerState


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FullES:
    """`eps (F+ - F-) / (2 sigma^2)`, F the objective of a whole problem: every estimate runs one to its end.

    Particles of a device wait for the one with the longest horizon.
    """

    unroller: Unroller
    perturbation: Perturbation = field(default_factory=Perturbation)

    def init(self, key: jax.Array, theta: Theta) -> WholeProblemState:
        """A first problem."""
        return WholeProblemState(*self.unroller.first(theta, key))

    def estimate(self, theta: Theta, state: WholeProblemState, key: jax.Array) -> tuple[Estimate, WholeProblemState]:
        """One problem, and a fresh one to come."""
        eps_key, unroll_key, next_key = jax.random.split(key, 3)
        eps = self.perturbation.draw(theta, eps_key)
        tallies = self._run(self.perturbation.members(theta, eps), state, unroll_key)
        direction = self.perturbation.direction(eps)
        estimate = from_members(self.unroller.objective, state.problem.horizon, direction, tallies)
        return estimate, WholeProblemState(*self.unroller.next(theta, next_key, state.problem.outer_step + 1))

    def _run(self, thetas: Theta, state: WholeProblemState, key: jax.Array) -> Tally:
        """The tallies of the pair over the whole problem."""

        def truncation(problem: Problem, pair: InnerState) -> tuple[Problem, InnerState, Tally]:
            end = self.perturbation.unroll(self.unroller, thetas, problem, pair, jax.random.fold_in(key, problem.step))
            return self.unroller.advance(problem)[0], *end

        def body(carry: Any) -> Any:
            problem, pair, tallies = carry
            problem, pair, more = truncation(problem, pair)
            return problem, pair, jax.tree.map(jnp.add, tallies, more)

        pair = twice(state.inner)
        nothing = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(truncation, state.problem, pair)[2]
        )
        *_, tallies = jax.lax.while_loop(
            lambda carry: carry[0].step < carry[0].horizon, body, (state.problem, pair, nothing)
        )
        return tallies
