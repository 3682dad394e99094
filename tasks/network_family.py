"""Families of tasks about a network: what supervised learning, language, autoencoding and others have in common."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax

from learned_opt.tasks.base import Batch, Params, Split, TaskParams
from learned_opt.tasks.networks.architecture import Architecture, architecture, choose
from learned_opt.tasks.networks.mlp import MLP

Predict = Callable[[Any], Any]  # the network, its weights, activation and key filled in


@dataclass(frozen=True)
class NetworkFamily:
    """One architecture on one data set; a task is a choice of activation. Subclasses say what the network learns.

    Attributes:
        data: a pytree of arrays with a method to draw batches.
        network: the architecture.
        activations: names of those a task is drawn from.
        batch_size: rows of a batch.
    """

    data: Any = ()
    network: Architecture = field(default=architecture(MLP), metadata={"static": True})
    activations: tuple[str, ...] = field(default=("relu", "tanh"), metadata={"static": True})
    batch_size: int = field(default=64, metadata={"static": True})

    def sample(self, key: jax.Array) -> TaskParams:
        """The index of the activation."""
        return jax.random.randint(key, (), 0, len(self.activations))

    def task(self, task_params: TaskParams) -> "NetworkTask":
        """The task with that activation."""
        return NetworkTask(self, task_params)

    @property
    def loss_scale(self) -> Any:
        """About the loss of an answer that ignores its input."""
        raise NotImplementedError

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """The shape of one input, and the number of outputs."""
        raise NotImplementedError

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """Draws one minibatch."""
        return self.data.sample_batch(key, split, self.batch_size)

    def loss(self, predict: Predict, batch: Batch) -> jax.Array:
        """The scalar loss of a network on one batch."""
        raise NotImplementedError


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NetworkTask:
    """One network to train."""

    family: NetworkFamily
    activation: jax.Array

    @property
    def loss_scale(self) -> Any:
        """That of the family."""
        return self.family.loss_scale

    def init(self, key: jax.Array) -> Params:
        """Starting weights of the architecture."""
        return self.family.network.init(key, *self.family.sizes())

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """The loss that the family defines; `key` drives dropout and samples of the network."""
        activation = choose(self.family.activations, self.activation)

        def predict(inputs: Any) -> Any:
            return self.family.network.apply(params, *self.family.sizes(), inputs, activation, key)

        return self.family.loss(predict, batch)

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """The family's batch."""
        return self.family.sample_batch(key, split)
