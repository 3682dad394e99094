"""Tasks around another task."""

from dataclasses import dataclass
from typing import Any

import jax

from learned_opt.tasks.base import Batch, Params, Split, Task


@dataclass(frozen=True)
class WrappedTask:
    """A task around another one, the same in everything that a subclass does not change."""

    inner: Task
    own: Any

    @property
    def loss_scale(self) -> Any:
        """That of the inner task."""
        return self.inner.loss_scale

    @property
    def delay(self) -> Any:
        """By how much the gradients of the inner task are late, or None: see `delay.py`."""
        return getattr(self.inner, "delay", None)

    def init(self, key: jax.Array) -> Params:
        """The inner weights."""
        return self.inner.init(key)

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """The inner loss."""
        return self.inner.loss(params, key, batch)

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """The inner task's batch."""
        return self.inner.sample_batch(key, split)
