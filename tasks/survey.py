"""What a task family costs: found by tracing it, without a training step."""

from typing import NamedTuple

import jax

from learned_opt.tasks.base import Params, TaskFamily


class Survey(NamedTuple):
    """Weights to train, and millions of floating-point operations for the gradient on one batch.

    The operations are what XLA counts before it optimises; those of a loop (recurrent networks) count once.
    """

    parameters: int
    megaflops: float


def survey(family: TaskFamily) -> Survey:
    """Traces one gradient of one task."""

    def gradient(family: TaskFamily, key: jax.Array) -> Params:
        task = family.task(family.sample(key))
        return jax.grad(task.loss)(task.init(key), key, task.sample_batch(key, "train"))

    traced = jax.jit(gradient).trace(family, jax.random.key(0))
    costs = traced.lower().cost_analysis() or {}
    return Survey(sum(x.size for x in jax.tree.leaves(traced.out_info)), costs.get("flops", 0.0) / 1e6)
