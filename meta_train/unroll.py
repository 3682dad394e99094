"""Unrolls of inner training, one truncation at a time, for one particle."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from learned_opt.base import LearnedOptimizer, Theta
from learned_opt.meta_train.horizons import Horizons
from learned_opt.meta_train.objective import MetaObjective, Tally, total
from learned_opt.tasks import training
from learned_opt.tasks.base import Task, TaskFamily, TaskParams
from learned_opt.tasks.training import InnerState


class Problem(NamedTuple):
    """An inner problem under way: which task, how many inner steps it lasts, how many are done.

    `outer_step` counts what its particle has lived through, earlier problems included.
    """

    task_params: TaskParams
    horizon: jax.Array
    step: jax.Array
    outer_step: jax.Array


class Unrolled(NamedTuple):
    """The end of a truncation, and the tally of its steps."""

    inner: InnerState
    tally: Tally


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Unroller:
    """Starts inner problems of a family and advances them by `truncation` steps at a time.

    A horizon that is no multiple of `truncation` ends inside its last truncation: the steps beyond it change no
    weights, and the next problem starts at the boundary.
    """

    family: TaskFamily
    optimizer: LearnedOptimizer = field(metadata={"static": True})
    objective: MetaObjective = field(metadata={"static": True})
    truncation: int = field(metadata={"static": True})
    horizons: Horizons

    def first(self, theta: Theta, key: jax.Array) -> tuple[Problem, InnerState]:
        """The first problem of a particle."""
        problem_key, start_key = jax.random.split(key)
        task_key, horizon_key = jax.random.split(problem_key)
        horizon = self.horizons.sample_first(horizon_key)
        return self._start(theta, task_key, horizon, jnp.zeros((), jnp.int32), start_key)

    def next(self, theta: Theta, key: jax.Array, outer_step: jax.Array) -> tuple[Problem, InnerState]:
        """A later problem, starting at `outer_step`."""
        problem_key, start_key = jax.random.split(key)
        task_key, horizon_key = jax.random.split(problem_key)
        return self._start(theta, task_key, self.horizons.sample(horizon_key, outer_step), outer_step, start_key)

    def advance(self, problem: Problem) -> tuple[Problem, jax.Array]:
        """The problem one truncation later, and whether that ends it."""
        problem = problem._replace(step=problem.step + self.truncation, outer_step=problem.outer_step + 1)
        return problem, problem.step >= problem.horizon

    def unroll(self, theta: Theta, problem: Problem, inner: InnerState, key: jax.Array) -> Unrolled:
        """Runs one truncation. Randomness depends on `key` alone: two thetas see the same batches."""
        task, transform = self.family.task(problem.task_params), self.optimizer.transform(theta)

        def body(inner: InnerState, offset_and_key: tuple[jax.Array, jax.Array]) -> tuple[InnerState, Tally]:
            return self.step(task, transform, problem, inner, *offset_and_key)

        inner, tallies = jax.lax.scan(jax.checkpoint(body), inner, self.steps(key))
        return Unrolled(inner, total(tallies))

    def steps(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Offsets and keys of the inner steps of a truncation."""
        return jnp.arange(self.truncation), jax.random.split(key, self.truncation)

    def step(
        self,
        task: Task,
        transform: optax.GradientTransformationExtraArgs,
        problem: Problem,
        inner: InnerState,
        offset: jax.Array,
        key: jax.Array,
    ) -> tuple[InnerState, Tally]:
        """One inner step, `offset` steps into the truncation."""
        step_key, measure_key = jax.random.split(key)
        index = problem.step + offset
        new, seen = training.step(task, transform, inner, step_key)
        # Weights are held at the horizon: if they diverged beyond it, the meta-gradient would become 0 * inf. What the
        # optimizer keeps goes on, from finite gradients that nothing reads: to hold it too would copy it in every step.
        params = jax.tree.map(lambda a, b: jnp.where(index < problem.horizon, a, b), new.params, inner.params)
        return new._replace(params=params), self.objective.tally(
            task, seen, params, measure_key, index, problem.horizon
        )

    def _start(
        self, theta: Theta, task_key: jax.Array, horizon: jax.Array, outer_step: jax.Array, start_key: jax.Array
    ) -> tuple[Problem, InnerState]:
        problem = Problem(self.family.sample(task_key), horizon, jnp.zeros((), jnp.int32), outer_step)
        task, transform = self.family.task(problem.task_params), self.optimizer.transform(theta)
        return problem, training.start(task, transform, start_key)
