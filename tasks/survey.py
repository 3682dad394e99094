"""What a task family costs: found by tracing it, without a training step."""

from typing import NamedTuple

import jax

from learned_opt.tasks.base import Batch, Params, TaskFamily


class Survey(NamedTuple):
    """Weights to train, and millions of floating-point operations for the gradient on one batch.

    The operations are what XLA counts before it optimises; those of a loop (recurrent networks) count once.
    """

    parameters: int
    megaflops: float


def survey(family: TaskFamily) -> Survey:
    """Traces one gradient of one task."""

    def gradient(family: TaskFamily, key: jax.Array) -> Params:
        task, params, batch = start(family, key)
        return jax.grad(task.loss)(params, key, batch)

    def start(family: TaskFamily, key: jax.Array) -> tuple:
        task = family.task(family.sample(key))
        return task, task.init(key), task.sample_batch(key, "train")

    def weights(family: TaskFamily, key: jax.Array) -> tuple[Params, Batch]:
        return start(family, key)[1:]

    key = jax.random.key(0)
    params, _ = jax.eval_shape(weights, family, key)
    costs = jax.jit(gradient).lower(family, key).cost_analysis() or {}
    return Survey(sum(x.size for x in jax.tree.leaves(params)), costs.get("flops", 0.0) / 1e6)
