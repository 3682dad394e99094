"""Image classification: Flax NNX networks on a data set, softmax cross-entropy."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from learned_opt.tasks.base import Batch, Params, Split, TaskParams
from learned_opt.tasks.datasets import Dataset

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"relu": jax.nn.relu, "tanh": jnp.tanh}


class MLP(nnx.Module):
    """A multi-layer perceptron on flattened images; no activation after the last layer."""

    def __init__(self, shape: tuple[int, ...], hidden: tuple[int, ...], num_classes: int, rngs: nnx.Rngs) -> None:
        """`shape` is height, width, channels."""
        sizes = (shape[0] * shape[1] * shape[2], *hidden, num_classes)
        self.layers = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in itertools.pairwise(sizes)])

    def __call__(self, images: jax.Array, activation: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """Logits `[batch, num_classes]`."""
        x = images.reshape(images.shape[0], -1)
        for layer in self.layers[:-1]:
            x = activation(layer(x))
        return self.layers[-1](x)


class CNN(nnx.Module):
    """3x3 convolutions of stride 2, then a mean over positions and a linear layer."""

    def __init__(self, shape: tuple[int, ...], hidden: tuple[int, ...], num_classes: int, rngs: nnx.Rngs) -> None:
        """`hidden` holds the number of channels of each convolution."""
        sizes = (shape[2], *hidden)
        self.layers = nnx.List(
            [nnx.Conv(i, o, kernel_size=(3, 3), strides=2, rngs=rngs) for i, o in itertools.pairwise(sizes)]
        )
        self.head = nnx.Linear(sizes[-1], num_classes, rngs=rngs)

    def __call__(self, images: jax.Array, activation: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """Logits `[batch, num_classes]`."""
        x = images
        for layer in self.layers:
            x = activation(layer(x))
        return self.head(x.mean((1, 2)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ImageFamily:
    """Classification of one data set by one architecture; a task is a choice of activation."""

    data: Dataset
    network: type[MLP] | type[CNN] = field(default=MLP, metadata={"static": True})
    hidden: tuple[int, ...] = field(default=(32,), metadata={"static": True})
    activations: tuple[str, ...] = field(default=("relu", "tanh"), metadata={"static": True})
    batch_size: int = field(default=64, metadata={"static": True})

    def sample(self, key: jax.Array) -> TaskParams:
        """The index of the activation."""
        return jax.random.randint(key, (), 0, len(self.activations))

    def task(self, task_params: TaskParams) -> "ImageTask":
        """The task with that activation."""
        return ImageTask(self, task_params)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ImageTask:
    """One network on one data set."""

    family: ImageFamily
    activation: jax.Array

    @property
    def loss_scale(self) -> float:
        """The loss of a uniform guess, in nats."""
        return math.log(self.family.data.num_classes)

    def init(self, key: jax.Array) -> Params:
        """Flax's defaults: LeCun-normal kernels, zero biases."""
        return nnx.to_pure_dict(nnx.state(self._network(key), nnx.Param))

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """Mean softmax cross-entropy in nats; `key` is not used."""
        images, labels = batch
        return optax.softmax_cross_entropy_with_integer_labels(self._logits(params, images), labels).mean()

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """Images and labels."""
        return self.family.data.sample_batch(key, split, self.family.batch_size)

    def _network(self, key: jax.Array) -> Any:
        f = self.family
        return f.network(f.data.shape, f.hidden, f.data.num_classes, nnx.Rngs(key))

    def _logits(self, params: Params, images: jax.Array) -> jax.Array:
        graphdef, state = nnx.split(nnx.eval_shape(lambda: self._network(jax.random.key(0))))
        nnx.replace_by_pure_dict(state, params)
        network = nnx.merge(graphdef, state)
        functions = [ACTIVATIONS[name] for name in self.family.activations]
        if len(functions) == 1:
            return network(images, functions[0])
        return network(images, lambda x: jax.lax.switch(self.activation, functions, x))
