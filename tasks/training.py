"""One step of inner training: the only place where an optimizer meets a task."""

from typing import NamedTuple

import jax
import optax

from learned_opt.tasks.base import Batch, Params, Task


class InnerState(NamedTuple):
    """An inner training run: weights and optimizer state."""

    params: Params
    opt_state: optax.OptState


class Step(NamedTuple):
    """What one inner step saw: its minibatch, the key of its loss, and the loss before the update."""

    batch: Batch
    loss_key: jax.Array
    loss: jax.Array


def start(task: Task, optimizer: optax.GradientTransformation, key: jax.Array) -> InnerState:
    """A fresh inner training run."""
    params = task.init(key)
    return InnerState(params, optimizer.init(params))


def step(
    task: Task, optimizer: optax.GradientTransformationExtraArgs, state: InnerState, key: jax.Array
) -> tuple[InnerState, Step]:
    """One gradient step on a fresh training minibatch. The loss is that before the update."""
    batch_key, loss_key = jax.random.split(key)
    batch = task.sample_batch(batch_key, "train")
    loss, grads = jax.value_and_grad(task.loss)(state.params, loss_key, batch)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, value=loss)
    return InnerState(optax.apply_updates(state.params, updates), opt_state), Step(batch, loss_key, loss)
