"""The contracts of inner problems."""

from typing import Any, Literal, Protocol

import jax

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
Params = Any  # a pytree of arrays: the weights of an inner problem
Batch = Any  # a pytree of arrays: one minibatch
TaskParams = Any  # a pytree of arrays: what tells one task of a family from another


class Task(Protocol):
    """One inner problem, without hidden batch axes. All three methods are pure and traceable."""

    @property
    def loss_scale(self) -> Any:
        """About the loss of an answer that ignores its input, such as ln(classes): by it losses of tasks compare."""
        ...

    def init(self, key: jax.Array) -> Params:
        """Samples starting weights."""
        ...

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """The scalar loss on one batch; `key` drives dropout and other noise."""
        ...

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """Draws one minibatch; the three splits are disjoint."""
        ...


class TaskFamily(Protocol):
    """A distribution over tasks that share one compiled program.

    Implementations are frozen dataclasses registered as pytrees whose array fields hold the data, so that data enters
    compiled programs as an argument instead of being baked in as a constant.
    """

    def sample(self, key: jax.Array) -> TaskParams:
        """Draws the parameters of one task."""
        ...

    def task(self, task_params: TaskParams) -> Task:
        """The task that `task_params` stands for."""
        ...
