"""Persistent evolution strategies (Vicol et al. 2021, arXiv 2112.13835), antithetic, for one particle."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp

from learned_opt.base import Theta
from learned_opt.meta_train.estimator import Estimate, drop_unless_finite
from learned_opt.meta_train.unroll import Problem, Unroller
from learned_opt.tasks.training import InnerState


class PESState(NamedTuple):
    """The problem under way, the inner states of the antithetic pair (leading axis 2), and the accumulator xi."""

    problem: Problem
    pair: InnerState
    xi: Theta


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PES:
    """Unbiased for the whole inner problem although it unrolls one truncation at a time.

    Each truncation draws `eps ~ N(0, sigma^2 I)`, advances `theta + eps` and `theta - eps` from their own states on the
    same batches, adds eps to xi and estimates `xi (L+ - L-) / (2 sigma^2)`, L the mean loss of the truncation.
    """

    unroller: Unroller
    sigma: float = field(default=0.01, metadata={"static": True})

    def init(self, key: jax.Array, theta: Theta) -> PESState:
        """A fresh problem; both inner states start alike and xi is zero."""
        problem_key, start_key = jax.random.split(key)
        problem = self.unroller.sample_problem(problem_key)
        inner = self.unroller.start(theta, problem, start_key)
        return PESState(problem, jax.tree.map(lambda x: jnp.stack([x, x]), inner), jax.tree.map(jnp.zeros_like, theta))

    def estimate(self, theta: Theta, state: PESState, key: jax.Array) -> tuple[Estimate, PESState]:
        """One truncation. A problem that has ended, or is not finite, gives way to a fresh one at the boundary."""
        eps_key, unroll_key, init_key = jax.random.split(key, 3)
        eps = self._perturbation(theta, eps_key)
        thetas = jax.tree.map(lambda t, e: jnp.stack([t + e, t - e]), theta, eps)
        # Keys and problem are not mapped, so that the pair draws each batch once.
        end = jax.vmap(self.unroller.unroll, in_axes=(0, None, 0, None))(thetas, state.problem, state.pair, unroll_key)
        xi = jax.tree.map(jnp.add, state.xi, eps)
        slope = (end.loss[0] - end.loss[1]) / (2 * self.sigma**2)
        gradient = jax.tree.map(lambda x: x * slope, xi)
        estimate = drop_unless_finite(gradient, end.loss.mean(), end.steps[0], end.clipped.mean(), end.steps.sum())

        problem, ended = self.unroller.advance(state.problem)
        return estimate, jax.lax.cond(
            ended | (estimate.weight == 0),
            lambda: self.init(init_key, theta),
            lambda: PESState(problem, end.inner, xi),
        )

    def _perturbation(self, theta: Theta, key: jax.Array) -> Theta:
        leaves, structure = jax.tree.flatten(theta)
        keys = jax.random.split(key, len(leaves))
        noise = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(structure, [self.sigma * x for x in noise])
