"""Classification with wrong labels."""

import dataclasses
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from learned_opt.tasks.base import Task, TaskParams
from learned_opt.tasks.datasets import Dataset
from learned_opt.tasks.supervised import Supervised


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NoisyLabels:
    """A random share of the training labels, the same throughout a task, is replaced by random other classes.

    Validation and test labels are left alone.
    """

    family: Supervised
    share: float = field(default=0.2, metadata={"static": True})

    def sample(self, key: jax.Array) -> TaskParams:
        """The inner task's parameters, and the seed of the noise."""
        inner_key, noise_key = jax.random.split(key)
        return self.family.sample(inner_key), jax.random.bits(noise_key)

    def task(self, task_params: TaskParams) -> Task:
        """The inner task on the labels that the seed gives."""
        inner, seed = task_params
        data = self.family.data
        where = "labels" if isinstance(data, Dataset) else "targets"
        labels = getattr(data, where)
        noisy = self._noisy(jnp.asarray(labels["train"]), jax.random.key(seed))
        data = dataclasses.replace(data, **{where: labels | {"train": noisy}})
        return dataclasses.replace(self.family, data=data).task(inner)

    def _noisy(self, labels: jax.Array, key: jax.Array) -> jax.Array:
        chosen_key, shift_key = jax.random.split(key)
        chosen = jax.random.bernoulli(chosen_key, self.share, labels.shape)
        shift = jax.random.randint(shift_key, labels.shape, 1, self.family.data.num_classes)
        return jnp.where(chosen, (labels + shift) % self.family.data.num_classes, labels)
