"""Training far beyond the horizon of meta-training."""

import jax
import jax.numpy as jnp
import numpy as np

from learned_opt.base import LearnedOptimizer, Theta
from learned_opt.tasks import registry as tasks
from learned_opt.tasks import training
from learned_opt.tasks.training import InnerState

FAMILY = "digits-mlp-reparametrised"
RUNS = 4


def losses(optimizer: LearnedOptimizer, theta: Theta, steps: int, seed: int) -> np.ndarray:
    """Training losses `[runs, steps / 100]`, each the mean of 100 steps, on tasks of the family of meta-training."""
    family = tasks.family(FAMILY)
    transform = optimizer.transform(theta)

    def one(key: jax.Array) -> jax.Array:
        task_key, start_key, key = jax.random.split(key, 3)
        task = family.task(family.sample(task_key))

        def step(inner: InnerState, key: jax.Array) -> tuple[InnerState, jax.Array]:
            inner, seen = training.step(task, transform, inner, key)
            return inner, seen.loss

        def hundred(inner: InnerState, key: jax.Array) -> tuple[InnerState, jax.Array]:
            inner, seen = jax.lax.scan(step, inner, jax.random.split(key, 100))
            return inner, jnp.mean(seen)

        inner = training.start(task, transform, start_key)
        return jax.lax.scan(hundred, inner, jax.random.split(key, steps // 100))[1]

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed + 1), RUNS)))
