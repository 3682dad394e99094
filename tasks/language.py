"""Language models over bytes."""

import math
from dataclasses import dataclass, field

import jax
import optax

from learned_opt.tasks.base import Batch, Split
from learned_opt.tasks.network_family import NetworkFamily, Predict
from learned_opt.tasks.networks.architecture import Architecture, architecture
from learned_opt.tasks.networks.recurrent import Recurrent

VOCABULARY = 256


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Language(NetworkFamily):
    """A network that predicts every next byte of a text.

    Attributes:
        length: bytes predicted of each row of a batch.
    """

    network: Architecture = field(default=architecture(Recurrent), metadata={"static": True})
    length: int = field(default=32, metadata={"static": True})

    @property
    def loss_scale(self) -> float:
        """The loss of a uniform guess."""
        return math.log(VOCABULARY)

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """The length, and the number of bytes there are."""
        return (self.length,), VOCABULARY

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """Windows int32 `[batch_size, length + 1]`."""
        return self.data.sample_batch(key, split, self.batch_size, self.length)

    def loss(self, predict: Predict, batch: Batch) -> jax.Array:
        """Mean cross-entropy in nats per byte."""
        return optax.softmax_cross_entropy_with_integer_labels(predict(batch[:, :-1]), batch[:, 1:]).mean()
