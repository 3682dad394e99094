"""The derivative of the loss at the end of a whole run with respect to hyperparameters shared over windows of it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt import sensitivity
from learned_opt.base import Theta
from learned_opt.schedules import Schedule, ScheduledStar, window_starts
from learned_opt.sensitivity import Sensitivities
from learned_opt.tasks import training
from learned_opt.tasks.base import Params, Task
from learned_opt.tasks.training import InnerState

Scheduled = Schedule | ScheduledStar
Windows = dict[str, jax.Array]  # the windows of each hyperparameter, by name
STAGES = 8  # a program each


class Hypergradient(NamedTuple):
    """At the end of a run.

    loss: what is differentiated. gradient: by window, divided by its steps: the average over them. clamped: share of
    the entries of Hessian times sensitivity that were clamped, over all steps and columns.
    """

    loss: jax.Array
    gradient: Windows
    clamped: jax.Array


@dataclass(frozen=True, kw_only=True)
class WholeRun:
    """A run of `optimizer.steps` inner steps, and the loss at its end.

    Attributes:
        optimizer: a schedule.
        evaluations: validation minibatches over which the final loss is averaged, the same for every theta.
        gradient_clip: largest magnitude of the entries of a loss gradient, in training.
        clamp: limit of Hessian times sensitivity, which makes hypergradients inexact; forward mode only.
        measure: the loss at the end, in place of that on validation minibatches.
    """

    optimizer: Scheduled
    evaluations: int = 8
    gradient_clip: float | None = None
    clamp: float | None = None
    measure: Callable[[Any, Params], jax.Array] | None = None

    def forward(self, task: Task, theta: Theta, key: jax.Array) -> Hypergradient:
        """By sensitivities carried along: memory does not depend on the number of steps.

        Columns join when the run reaches their window, in at most `STAGES` stages.
        """
        windows, rest = self.split(theta)
        flat, unravel = jax.flatten_util.ravel_pytree(windows)
        order, stages = self.stages(windows)
        every = jax.tree.map(lambda x: x[order], sensitivity.columns(windows))
        inner = self.start(task, theta, key)
        sensitivities = sensitivity.start(inner, windows)
        sensitivities = jax.tree.map(lambda x: x[:0], sensitivities)
        for first, last, active in stages:
            joined = jax.tree.map(functools.partial(_join, active), sensitivities)
            columns = jax.tree.map(lambda x, n=active: x[:n], every)

            def body(i: jax.Array, carry: tuple[InnerState, Sensitivities], columns: Any = columns) -> Any:
                step = functools.partial(self.step, task, rest, jax.random.fold_in(key, i))
                advanced = sensitivity.advance(step, *carry, windows, active=columns)
                return advanced.state, advanced.sensitivities

            inner, sensitivities = jax.lax.fori_loop(first, last, body, (inner, joined))
        loss, grads = jax.value_and_grad(functools.partial(self.measured, task, key))(inner.params)
        ordered = sensitivity.along(grads, sensitivities.params)
        gradient = unravel(jnp.zeros_like(flat).at[order].set(ordered.astype(flat.dtype)))
        pushes = sum((last - first) * active for first, last, active in stages)
        clamps = sum(x.share.sum() for x in _clamp_states(sensitivities))
        return Hypergradient(loss, self.averaged(gradient), jnp.asarray(clamps / pushes))

    def reverse(self, task: Task, theta: Theta, key: jax.Array) -> Hypergradient:
        """By backpropagation through the run: time does not depend on the number of hyperparameters."""
        windows, rest = self.split(theta)
        loss, gradient = jax.value_and_grad(lambda w: self.final_loss(task, rest | w, key))(windows)
        return Hypergradient(loss, self.averaged(gradient), jnp.zeros(()))

    def final_loss(self, task: Task, theta: Theta, key: jax.Array) -> jax.Array:
        """The loss at the end of the run that `key` determines: start, minibatches and what it is measured on."""
        return self.measured(task, key, self.run(task, theta, key).params)

    def run(self, task: Task, theta: Theta, key: jax.Array) -> InnerState:
        """The run without derivatives of its own."""
        windows, rest = self.split(theta)

        def body(inner: InnerState, i: jax.Array) -> Any:
            return self.step(task, rest, jax.random.fold_in(key, i), inner, windows)[0], None

        return jax.lax.scan(body, self.start(task, theta, key), jnp.arange(self.optimizer.steps))[0]

    def split(self, theta: Theta) -> tuple[Windows, Theta]:
        """What is differentiated, and the rest of theta."""
        names = self.optimizer.names
        return {n: theta[n] for n in names}, {k: x for k, x in theta.items() if k not in names}

    def stages(self, windows: Windows) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
        """Columns in the order in which they join, and `(first step, last step, columns)` of every stage."""
        steps = self.optimizer.steps
        starts = {name: window_starts(len(x), steps) for name, x in windows.items()}
        joins = np.concatenate([starts[name] for name in sorted(starts)])  # as `ravel_pytree` orders a dict
        order = np.argsort(joins, kind="stable")
        bounds = np.unique(joins)
        bounds = bounds[:: -(-len(bounds) // STAGES)]
        ends = np.append(bounds[1:], steps)
        return order, [
            (int(first), int(last), int((joins < last).sum())) for first, last in zip(bounds, ends, strict=True)
        ]

    def averaged(self, gradient: Windows) -> Windows:
        """Divided by the steps of a window."""
        steps = self.optimizer.steps
        return {
            name: g / np.diff(np.append(window_starts(len(g), steps), steps)).astype(g.dtype)
            for name, g in gradient.items()
        }

    def transform(self, theta: Theta) -> optax.GradientTransformationExtraArgs:
        """The optimizer with what limits its gradients in front."""
        clip = optax.identity() if self.gradient_clip is None else optax.clip(self.gradient_clip)
        clamp = optax.identity() if self.clamp is None else sensitivity.clamp(self.clamp)
        return optax.chain(clamp, clip, self.optimizer.transform(theta))

    def start(self, task: Task, theta: Theta, key: jax.Array) -> InnerState:
        """A fresh run."""
        return training.start(task, self.transform(theta), jax.random.fold_in(key, self.optimizer.steps))

    def step(self, task: Task, rest: Theta, key: jax.Array, inner: InnerState, windows: Windows) -> Any:
        """One inner step, as `sensitivity.advance` wants it."""
        return training.step(task, self.transform(rest | windows), inner, key)[0], (), None

    def measured(self, task: Task, key: jax.Array, params: Params) -> jax.Array:
        """The loss that a run ends with."""
        if self.measure is not None:
            return self.measure(task, params)

        def one(key: jax.Array) -> jax.Array:
            batch_key, loss_key = jax.random.split(key)
            return task.loss(params, loss_key, task.sample_batch(batch_key, "valid"))

        keys = jax.random.split(jax.random.fold_in(key, self.optimizer.steps + 1), self.evaluations)
        return jax.vmap(one)(keys).mean()


def _join(columns: int, sensitivities: jax.Array) -> jax.Array:
    """With zeros for the columns that join."""
    missing = columns - len(sensitivities)
    return jnp.pad(sensitivities, [(0, missing)] + [(0, 0)] * (sensitivities.ndim - 1))


def _clamp_states(sensitivities: Any) -> list[sensitivity.ClampState]:
    leaves = jax.tree.leaves(sensitivities, is_leaf=lambda x: isinstance(x, sensitivity.ClampState))
    return [x for x in leaves if isinstance(x, sensitivity.ClampState)]
