"""One step of inner training: the only place where an optimizer meets a task."""

from typing import Any, NamedTuple

import jax
import optax

from learned_opt import errors
from learned_opt.tasks.base import Batch, Params, Task


class InnerState(NamedTuple):
    """An inner training run: weights, optimizer state, and gradients under way where the task's are late."""

    params: Params
    opt_state: optax.OptState
    under_way: Any = ()


class Step(NamedTuple):
    """What one inner step saw: its minibatch, the key of its loss, and the loss before the update."""

    batch: Batch
    loss_key: jax.Array
    loss: jax.Array


def start(task: Task, optimizer: optax.GradientTransformation, key: jax.Array) -> InnerState:
    """A fresh inner training run."""
    return start_at(task, optimizer, task.init(key))


def start_at(task: Task, optimizer: optax.GradientTransformation, params: Params) -> InnerState:
    """A run that starts at these weights."""
    delay = getattr(task, "delay", None)
    return InnerState(params, optimizer.init(params), () if delay is None else delay.start(params))


def step(
    task: Task, optimizer: optax.GradientTransformationExtraArgs, state: InnerState, key: jax.Array
) -> tuple[InnerState, Step]:
    """One gradient step on a fresh training minibatch. The loss is that before the update.

    Raises:
        UsageError: the task's gradients are late, and the state is not one of `start`.
    """
    batch_key, loss_key = jax.random.split(key)
    batch = task.sample_batch(batch_key, "train")
    loss, grads = jax.value_and_grad(task.loss)(state.params, loss_key, batch)
    under_way, delay = state.under_way, getattr(task, "delay", None)
    if delay is not None:
        if isinstance(under_way, tuple) and not under_way:
            raise errors.UsageError("a task with delayed gradients was given a state that holds none: see start")
        grads, under_way = delay(grads, under_way)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, value=loss)
    return InnerState(optax.apply_updates(state.params, updates), opt_state, under_way), Step(batch, loss_key, loss)
