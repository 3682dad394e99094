"""Stochastic meta-descent during training: looking five steps ahead, it prefers learning rates that are far too small.

Wu et al. 2018, arXiv 1803.02021, section 4.2, on the teacher task instead of MNIST.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from learned_opt.evaluate.reproduce.teacher_task import TeacherTask, teacher_task
from learned_opt.meta_train import smd
from learned_opt.meta_train.smd import SMD
from learned_opt.tasks.training import InnerState

STEPS = 5000  # of adapting training, and as many again of a decay to 1e-4
EVERY = 10  # training steps between meta-updates, and meta-updates each time
ONE_MINUS_MOMENTUM = 0.1
STARTS = (1e-3, 1e-2, 1e-1)
HAND_SET = 0.1


class Outcome(NamedTuple):
    """The effective rate alpha / (1 - mu) at every tenth step `[blocks]`; full training loss after both phases."""

    rates: np.ndarray
    adapted: float
    decayed: float


def adaptive(seed: int, same_batch: bool) -> dict[float, Outcome]:
    """From every start, side by side."""
    task = teacher_task()
    run = jax.jit(jax.vmap(functools.partial(_run, smd.published_online(same_batch), task, seed, EVERY)))
    return _outcomes(*run(jnp.array(STARTS) / ONE_MINUS_MOMENTUM))


def hand_set(seed: int) -> Outcome:
    """The rate and momentum that people set, never touched."""
    task = teacher_task()
    run = jax.jit(jax.vmap(functools.partial(_run, smd.published_online(), task, seed, 0)))
    return next(iter(_outcomes(*run(jnp.array([HAND_SET]) / ONE_MINUS_MOMENTUM)).values()))


def _run(descent: SMD, task: TeacherTask, seed: int, meta_steps: int, rate: jax.Array) -> tuple[jax.Array, ...]:
    start_key, adapt_key, decay_key = jax.random.split(jax.random.key(seed), 3)
    values = {"learning_rate": rate, "one_minus_momentum": jnp.asarray(ONE_MINUS_MOMENTUM)}
    inner = descent.start(task, values, start_key)
    state, inner, path = smd.online(
        descent, task, descent.init(values), inner, adapt_key, steps=STEPS, every=EVERY, meta_steps=meta_steps
    )
    end: InnerState = smd.decay(descent, task, state.values, inner, decay_key, steps=STEPS)[0]
    losses = (task.full_loss(params, "train") for params in (inner.params, end.params))
    return (path.values["learning_rate"], *losses)


def _outcomes(rates: jax.Array, adapted: jax.Array, decayed: jax.Array) -> dict[float, Outcome]:
    return {
        start: Outcome(np.asarray(course), float(after), float(end))
        for start, course, after, end in zip(STARTS, rates, adapted, decayed, strict=False)
    }
