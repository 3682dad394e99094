"""Autoencoding of images."""

import math
from dataclasses import dataclass, field

import jax
import optax

from learned_opt.tasks.base import Batch
from learned_opt.tasks.network_family import NetworkFamily, Predict
from learned_opt.tasks.networks.architecture import Architecture, architecture
from learned_opt.tasks.networks.autoencoder import Autoencoder


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Autoencoding(NetworkFamily):
    """A network that gives its input again through a narrow code; labels are not used."""

    network: Architecture = field(default=architecture(Autoencoder), metadata={"static": True})

    @property
    def loss_scale(self) -> float:
        """The loss of grey: a half for every pixel."""
        return math.prod(self.data.shape) * math.log(2)

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """The shape of an image, and its size."""
        return self.data.shape, math.prod(self.data.shape)

    def loss(self, predict: Predict, batch: Batch) -> jax.Array:
        """Bernoulli cross-entropy and what the code costs, in nats per image."""
        images, _ = batch
        logits, cost = predict(images)
        return (optax.sigmoid_binary_cross_entropy(logits, images.reshape(logits.shape)).sum(1) + cost).mean()
