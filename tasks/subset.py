"""Learning from some of a data set."""

import dataclasses
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from learned_opt.tasks.base import SPLITS, Task, TaskParams
from learned_opt.tasks.datasets import Dataset
from learned_opt.tasks.supervised import Supervised


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Subset:
    """Classification of some classes, drawn for each task, from `examples` examples of them in each split.

    Examples are drawn with replacement and stay the same throughout a task. Classes keep their numbers, so that the
    network has an output for each of all of them.

    Attributes:
        classes: how many.
        examples: how many, in each split.
    """

    family: Supervised
    classes: int = field(metadata={"static": True})
    examples: int = field(default=256, metadata={"static": True})

    def sample(self, key: jax.Array) -> TaskParams:
        """The inner task's parameters, and the seed of the subset."""
        inner_key, own_key = jax.random.split(key)
        return self.family.sample(inner_key), jax.random.bits(own_key)

    def task(self, task_params: TaskParams) -> Task:
        """The inner task on the subset that the seed gives."""
        inner, seed = task_params
        data = self.family.data
        inputs, labels = ("images", "labels") if isinstance(data, Dataset) else ("features", "targets")
        class_key, row_key = jax.random.split(jax.random.key(seed))
        chosen = jax.random.permutation(class_key, data.num_classes) < self.classes
        found: dict[str, dict] = {inputs: {}, labels: {}}
        for split, key in zip(SPLITS, jax.random.split(row_key, 3), strict=True):
            # The place of the n-th example of the chosen classes is where their running count first exceeds n.
            count = jnp.cumsum(chosen[jnp.asarray(getattr(data, labels)[split])])
            rows = jnp.searchsorted(count, jax.random.randint(key, (self.examples,), 0, count[-1]), side="right")
            for where, values in found.items():
                values[split] = jnp.asarray(getattr(data, where)[split])[rows]
        return dataclasses.replace(self.family, data=dataclasses.replace(data, **found)).task(inner)
