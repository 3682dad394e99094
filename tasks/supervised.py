"""Classification and regression by any network on any data set of inputs and targets."""

import math
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from learned_opt import errors
from learned_opt.tasks.base import Batch
from learned_opt.tasks.network_family import NetworkFamily, Predict


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Supervised(NetworkFamily):
    """A network that learns the targets of a data set.

    The data have `sample_batch(key, split, batch_size) -> (inputs, targets)` and `num_classes`, 0 for regression.

    Attributes:
        objective: softmax cross-entropy in nats, or the squared error summed over outputs (of classes: their
            indicators); a mean over the batch.
    """

    objective: Literal["cross-entropy", "squared-error"] = field(default="cross-entropy", metadata={"static": True})

    @property
    def loss_scale(self) -> float:
        """Of a uniform guess; standardised targets have variance 1."""
        classes = self.data.num_classes
        if self.objective == "cross-entropy":
            return math.log(classes)
        return 1 - 1 / classes if classes else 1.0

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """The shape of one input; an output for each class, or one number."""
        inputs, _ = jax.eval_shape(lambda key: self.data.sample_batch(key, "train", 1), jax.random.key(0))
        return inputs.shape[1:], self.data.num_classes or 1

    def loss(self, predict: Predict, batch: Batch) -> jax.Array:
        """The mean over the batch.

        Raises:
            UsageError: cross-entropy without classes.
        """
        inputs, targets = batch
        outputs, classes = predict(inputs), self.data.num_classes
        if self.objective == "squared-error":
            wanted = jax.nn.one_hot(targets, classes) if classes else targets[:, None]
            return jnp.square(outputs - wanted).sum(1).mean()
        if not classes:
            raise errors.UsageError("objective was given 'cross-entropy' for regression: 'squared-error' is accepted")
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()
