"""Unrolls of inner training, one truncation at a time, for one particle."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp

from learned_opt.base import LearnedOptimizer, Theta
from learned_opt.meta_train.objective import MetaObjective
from learned_opt.tasks import training
from learned_opt.tasks.base import TaskFamily, TaskParams
from learned_opt.tasks.training import InnerState


class Problem(NamedTuple):
    """An inner problem under way: which task, how many inner steps it lasts, how many are done."""

    task_params: TaskParams
    horizon: jax.Array
    step: jax.Array


class Unrolled(NamedTuple):
    """The end of a truncation: inner state, mean loss over its steps, how many they were, the share clipped."""

    inner: InnerState
    loss: jax.Array
    steps: jax.Array
    clipped: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Unroller:
    """Starts inner problems of a family and advances them by `truncation` steps at a time.

    Horizons are log-uniform in `[min_horizon, max_horizon]`. One that is no multiple of `truncation` ends inside its
    last truncation: steps beyond the horizon are masked, and the next problem starts at the boundary.
    """

    family: TaskFamily
    optimizer: LearnedOptimizer = field(metadata={"static": True})
    objective: MetaObjective = field(metadata={"static": True})
    truncation: int = field(metadata={"static": True})
    min_horizon: int
    max_horizon: int

    def sample_problem(self, key: jax.Array) -> Problem:
        """A task and a horizon, at step 0."""
        task_key, horizon_key = jax.random.split(key)
        low, high = jnp.log(self.min_horizon), jnp.log(self.max_horizon + 1)
        horizon = jnp.exp(jax.random.uniform(horizon_key, minval=low, maxval=high)).astype(jnp.int32)
        horizon = jnp.clip(horizon, self.min_horizon, self.max_horizon)
        return Problem(self.family.sample(task_key), horizon, jnp.zeros((), jnp.int32))

    def start(self, theta: Theta, problem: Problem, key: jax.Array) -> InnerState:
        """A fresh inner state of the problem."""
        return training.start(self.family.task(problem.task_params), self.optimizer.transform(theta), key)

    def advance(self, problem: Problem) -> tuple[Problem, jax.Array]:
        """The problem one truncation later, and whether that ends it."""
        problem = problem._replace(step=problem.step + self.truncation)
        return problem, problem.step >= problem.horizon

    def unroll(self, theta: Theta, problem: Problem, inner: InnerState, key: jax.Array) -> Unrolled:
        """Runs one truncation. Randomness depends on `key` alone: two thetas see the same batches."""
        task = self.family.task(problem.task_params)
        optimizer = self.optimizer.transform(theta)

        def body(inner: InnerState, key: jax.Array) -> tuple[InnerState, jax.Array]:
            step_key, measure_key = jax.random.split(key)
            inner, step = training.step(task, optimizer, inner, step_key)
            return inner, self.objective.measure(task, step, inner.params, measure_key)

        inner, losses = jax.lax.scan(jax.checkpoint(body), inner, jax.random.split(key, self.truncation))
        valid = problem.step + jnp.arange(self.truncation) < problem.horizon
        loss, clipped = self.objective.aggregate(losses, valid)
        return Unrolled(inner, loss, valid.sum(), clipped)
