"""The table of built-in tasks: families by name, with what their first hundred steps are known to do."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from learned_opt.tasks import datasets
from learned_opt.tasks.autoencoding import Autoencoding
from learned_opt.tasks.base import TaskFamily
from learned_opt.tasks.entry import Entry
from learned_opt.tasks.initialisation import Rescaled
from learned_opt.tasks.label_noise import NoisyLabels
from learned_opt.tasks.language import Language
from learned_opt.tasks.networks.architecture import Architecture, architecture
from learned_opt.tasks.networks.autoencoder import VAE, Autoencoder
from learned_opt.tasks.networks.convolutional import CNN
from learned_opt.tasks.networks.mixer import Mixer
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.networks.recurrent import Recurrent
from learned_opt.tasks.networks.residual import ResNet
from learned_opt.tasks.networks.transformer import LanguageModel, ViT
from learned_opt.tasks.reparametrise import Reparametrised
from learned_opt.tasks.supervised import Supervised

IMAGE_SIZE = 8  # larger sets are shrunk to the size of digits: a step has to be cheap
SMOOTH = ("tanh", "gelu", "silu")
MANY = ("relu", "tanh", "gelu", "silu", "sigmoid", "elu")
LINEAR = architecture(MLP, hidden=())


def _images(data: str) -> datasets.Dataset:
    return datasets.load(data, size=IMAGE_SIZE)


def _about(classes: int) -> tuple[float, float]:
    """Around the loss of a uniform guess; fresh weights are no better, and often a little worse."""
    return math.log(classes) - 0.15, math.log(classes) + 0.6


def _image_entries(data: str, classes: int) -> Iterator[Entry]:
    """The four kinds that every image set has."""
    networks = {"mlp": (architecture(MLP), 0.1), "cnn": (architecture(CNN, hidden=(16, 32)), 0.05)}
    for name, (network, lowers) in networks.items():

        def make(network: Architecture = network) -> TaskFamily:
            return Supervised(_images(data), network)

        def rescaled(make: Callable[[], TaskFamily] = make) -> TaskFamily:
            return Reparametrised(make())

        yield Entry(f"{data}-{name}", make, data, _about(classes), lowers)
        yield Entry(f"{data}-{name}-reparametrised", rescaled, data, _about(classes), lowers)


def _supervised(name: str, lowers: float, network: Architecture, loss: tuple[float, float] = _about(10), **fields: Any):
    """An image classifier."""
    data = name.partition("-")[0]
    return Entry(name, lambda: Supervised(_images(data), network, **fields), data, loss, lowers)


def _digits_entries() -> Iterator[Entry]:
    yield _supervised("digits-linear", 0.05, LINEAR)
    yield _supervised("digits-mlp-wide", 0.3, architecture(MLP, hidden=(128,)))
    yield _supervised("digits-mlp-deep", 0.05, architecture(MLP, hidden=(32, 32, 32, 32)))
    yield _supervised("digits-mlp-norm", 0.1, architecture(MLP, hidden=(32, 32), norm="layer"))
    yield _supervised("digits-mlp-dropout", 0.05, architecture(MLP, hidden=(64,), dropout=0.3))
    yield _supervised("digits-mlp-activations", 0.0, architecture(MLP, hidden=(32, 32)), activations=MANY)
    yield _supervised("digits-mlp-small_batch", 0.1, architecture(MLP), batch_size=8)
    yield _supervised("digits-mlp-squared", 0.1, architecture(MLP), (0.9, 4.0), objective="squared-error")
    mlp = Supervised
    yield Entry("digits-mlp-scaled", lambda: Rescaled(mlp(_images("digits"))), "digits", (2.2, 4.0), 0.02)
    yield Entry("digits-mlp-noisy_labels", lambda: NoisyLabels(mlp(_images("digits"))), "digits", _about(10), 0.05)
    yield _supervised("digits-cnn-deep", 0.0, architecture(CNN, hidden=(8, 16, 16)), activations=SMOOTH)
    yield _supervised("digits-resnet", 0.05, architecture(ResNet), batch_size=32)
    yield _supervised("digits-vit", 0.05, architecture(ViT), batch_size=32, activations=("gelu",))
    yield _supervised("digits-mixer", 0.05, architecture(Mixer), batch_size=32, activations=("gelu",))


def _entries() -> Iterator[Entry]:
    for data, classes in {"digits": 10, **dict.fromkeys(datasets.OFFICIAL, 10)}.items():
        yield from _image_entries(data, classes)
    yield from _digits_entries()


ENTRIES = tuple(_entries())
