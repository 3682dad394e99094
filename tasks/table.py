"""The table of built-in tasks: families by name, with what their first hundred steps are known to do."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp

from learned_opt.tasks import datasets
from learned_opt.tasks.autoencoding import Autoencoding
from learned_opt.tasks.base import TaskFamily
from learned_opt.tasks.control import CartPole
from learned_opt.tasks.entry import Entry
from learned_opt.tasks.functions import FunctionFamily
from learned_opt.tasks.graphs import NodeClassification, block_model
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
from learned_opt.tasks.noisy_quadratic import NoisyQuadratic
from learned_opt.tasks.physics import Physics
from learned_opt.tasks.regression import Regression
from learned_opt.tasks.reparametrise import Reparametrised
from learned_opt.tasks.sampled_sizes import SampledSizes
from learned_opt.tasks.subset import Subset
from learned_opt.tasks.supervised import Supervised

IMAGE_SIZE = 8  # larger sets are shrunk to the size of digits: a step has to be cheap
SMOOTH = ("tanh", "gelu", "silu")
MANY = ("relu", "tanh", "gelu", "silu", "sigmoid", "elu")
# Around ln 10, the loss of a uniform guess of ten classes: fresh weights are often a little worse.
OF_TEN = (2.15, 2.9)
LINEAR = architecture(MLP, hidden=())
LARGEST = architecture(MLP, hidden=(64, 64, 64, 64))  # of sampled sizes


def _images(data: str, size: int = IMAGE_SIZE) -> datasets.Dataset:
    return datasets.load(data, size=size)


def _image_entries(data: str, mlp: float, cnn: float) -> Iterator[Entry]:
    """The four kinds that every image set of ten classes has; by how much Adam lowers the loss of each network."""
    networks = {"mlp": (architecture(MLP), mlp), "cnn": (architecture(CNN, hidden=(16, 32)), cnn)}
    for name, (network, lowers) in networks.items():

        def make(network: Architecture = network) -> TaskFamily:
            return Supervised(_images(data), network)

        def rescaled(make: Callable[[], TaskFamily] = make) -> TaskFamily:
            return Reparametrised(make())

        yield Entry(f"{data}-{name}", make, data, OF_TEN, lowers)
        yield Entry(f"{data}-{name}-reparametrised", rescaled, data, OF_TEN, lowers)


def _supervised(
    name: str, lowers: float, network: Architecture, loss: tuple[float, float] = OF_TEN, **fields: Any
) -> Entry:
    """An image classifier."""
    data = name.partition("-")[0]
    return Entry(name, lambda: Supervised(_images(data), network, **fields), data, loss, lowers)


def _digits_entries() -> Iterator[Entry]:
    yield _supervised("digits-linear", 0.1, LINEAR)
    yield _supervised("digits-mlp-wide", 0.3, architecture(MLP, hidden=(128,)))
    yield _supervised("digits-mlp-deep", 0.3, architecture(MLP, hidden=(32, 32, 32, 32)))
    yield _supervised("digits-mlp-norm", 0.3, architecture(MLP, hidden=(32, 32), norm="layer"))
    yield _supervised("digits-mlp-dropout", 0.2, architecture(MLP, hidden=(64,), dropout=0.3))
    yield _supervised("digits-mlp-activations", 0.2, architecture(MLP, hidden=(32, 32)), activations=MANY)
    yield _supervised("digits-mlp-small_batch", 0.1, architecture(MLP), batch_size=8)
    yield _supervised("digits-mlp-squared", 0.4, architecture(MLP), (0.9, 4.0), objective="squared-error")
    yield Entry("digits-mlp-scaled", lambda: Rescaled(Supervised(_images("digits"))), "digits", OF_TEN, 0.1)
    yield Entry("digits-mlp-noisy_labels", lambda: NoisyLabels(Supervised(_images("digits"))), "digits", OF_TEN, 0.1)
    yield Entry("digits-mlp-sizes", lambda: SampledSizes(_images("digits"), LARGEST), "digits", OF_TEN, 0.1)
    yield Entry("digits-mlp-subset", lambda: Subset(Supervised(_images("digits")), 5), "digits", OF_TEN, 0.2)
    yield _supervised("digits-cnn-deep", 0.2, architecture(CNN, hidden=(8, 16, 16)), activations=SMOOTH)
    yield _supervised("digits-resnet", 0.1, architecture(ResNet), batch_size=32)
    yield _supervised("digits-vit", 0.3, architecture(ViT), batch_size=32, activations=("gelu",))
    yield _supervised("digits-mixer", 0.3, architecture(Mixer), batch_size=32, activations=("gelu",))


def _larger_image_entries() -> Iterator[Entry]:
    """Images of 16 x 16, in colour where the set is."""
    networks = {"cnn": architecture(CNN, hidden=(16, 32)), "resnet": architecture(ResNet)}
    for data, name in ((data, name) for data in ("fashion_mnist", "cifar10") for name in networks):

        def make(data: str = data, name: str = name) -> TaskFamily:
            return Supervised(_images(data, 16), networks[name], batch_size=16)

        yield Entry(f"{data}-{name}-16px", make, data, OF_TEN, 0.01)


def _autoencoder_entries() -> Iterator[Entry]:
    """Around 64 pixels times ln 2, grey; the code of a fresh VAE costs a little more.

    The floor is the entropy of the pixels themselves, which are not black or white: the least mean over a split.
    """
    networks = {"autoencoder": architecture(Autoencoder), "vae": architecture(VAE)}
    for data, floor in (("digits", 13.34), ("mnist", 10.59), ("fashion_mnist", 20.90)):
        for name, network in networks.items():

            def make(data: str = data, network: Architecture = network) -> TaskFamily:
                return Autoencoding(_images(data), network)

            yield Entry(f"{data}-{name}", make, data, (43.0, 54.0), 0.1, floor)


def _table_entries() -> Iterator[Entry]:
    """Tables: how many classes, 0 for regression; and how much Adam lowers the loss of linear models and networks."""
    tables = {
        "wine": (3, 0.1, 0.4),
        "breast_cancer": (2, 0.15, 0.4),
        "iris": (3, 0.08, 0.3),
        "diabetes": (0, 0.1, 0.2),
        "teacher_classification": (10, 0.05, 0.08),
        "teacher_regression": (0, 0.1, 0.3),
    }
    for data, (classes, linear, mlp) in tables.items():
        fields: dict[str, Any] = {"objective": "cross-entropy" if classes else "squared-error", "batch_size": 32}
        loss = (math.log(classes) - 0.2, math.log(classes) + 1) if classes else (0.7, 3.0)
        for name, network, lowers in (
            ("linear", LINEAR, linear),
            ("mlp", architecture(MLP), mlp),
            ("mlp-deep", architecture(MLP, hidden=(32, 32, 32)), mlp),
            ("mlp-wide", architecture(MLP, hidden=(128,)), mlp),
            ("mlp-deepest", architecture(MLP, hidden=(32,) * 12, norm="layer"), mlp),
        ):

            def make(data: str = data, network: Architecture = network, fields: Any = fields) -> TaskFamily:
                return Supervised(datasets.load_table(data), network, **fields)

            yield Entry(f"{data}-{name}", make, data, loss, lowers)


def _language_entries() -> Iterator[Entry]:
    # Around ln 256, the loss of a uniform guess.
    networks = {
        "gru": architecture(Recurrent, cell="gru"),
        "lstm": architecture(Recurrent, cell="lstm"),
        "transformer": architecture(LanguageModel),
        "transformer-wide": architecture(LanguageModel, width=64, depth=3, heads=4),
    }
    for data, name in ((data, name) for data in ("python_docs", "sotu") for name in networks):

        def make(data: str = data, name: str = name) -> TaskFamily:
            return Language(datasets.load_text(data), networks[name], ("gelu",), batch_size=8)

        yield Entry(f"{data}-{name}", make, data, (5.45, 6.5), 0.2)


def _generated(
    name: str,
    loss: tuple[float, float],
    lowers: float,
    make: Callable[..., TaskFamily],
    floor: float = 0.0,
    **fields: Any,
) -> Entry:
    """A task without a data set."""
    return Entry(name, functools.partial(make, **fields), "none", loss, lowers, floor)


def _function_entries() -> Iterator[Entry]:
    """No networks: functions, and regression. Floors are what noise leaves at the best point, where it is known."""
    for name, dimension, loss, lowers, floor in (
        ("sphere", 10, (2.0, 5.0), 0.1, 0.001),
        ("rosenbrock", 2, (100.0, 1500.0), 0.1, 0.0485),
        ("rosenbrock", 10, (3000.0, 5200.0), 0.1, 0.446),
        ("rastrigin", 10, (150.0, 220.0), 0.08, 0.198),
        ("ackley", 10, (8.0, 12.0), 0.02, 0.0),
        ("styblinski_tang", 10, (250.0, 550.0), 0.04, 0.0),
        ("beale", 2, (5.0, 40.0), 0.04, 0.0),
        ("griewank", 10, (0.8, 1.4), 0.0, 0.0),
        ("levy", 10, (15.0, 45.0), 0.04, 0.0),
    ):
        fields: dict[str, Any] = {"function": name, "dimension": dimension}
        yield _generated(f"{name}-{dimension}d", loss, lowers, FunctionFamily, floor, **fields)
    yield _generated("quadratic-noisy", (2.2, 2.4), 0.1, _noisy_quadratic, 0.02249)
    for kind, loss, floor in (("linear", (0.4, 0.6), 0.005), ("logistic", (0.65, 0.75), 0.3605)):
        for suffix, condition in (("", 10.0), ("-ill", 1000.0)):
            fields = {"kind": kind, "condition": condition}
            yield _generated(f"regression-{kind}{suffix}", loss, 0.05, Regression, floor, **fields)


def _simulated_entries() -> Iterator[Entry]:
    """Networks on what is computed: equations, a random graph, a cart with a pole."""
    for equation, loss, lowers in (
        ("poisson", (35.0, 70.0), 0.3),
        ("heat", (0.1, 2.0), 0.4),
        ("burgers", (0.2, 2.0), 0.4),
    ):
        network = architecture(MLP, hidden=(16, 16))
        yield _generated(f"{equation}-mlp", loss, lowers, Physics, network=network, equation=equation, batch_size=32)
    yield _generated("block_model-graph", (1.2, 1.8), 0.15, lambda: NodeClassification(block_model()))
    policy: dict[str, Any] = {"activations": ("tanh",), "batch_size": 16}
    for goal, loss, lowers in (("balance", (0.3, 0.6), 0.1), ("swing-up", (0.9, 1.0), 0.0)):
        for name, network in (("linear", LINEAR), ("mlp", architecture(MLP, hidden=(16,)))):
            yield _generated(f"cart_pole-{name}-{goal}", loss, lowers, CartPole, network=network, goal=goal, **policy)


def _noisy_quadratic() -> TaskFamily:
    """Fifty dimensions with curvatures 1/i, and noise of the same size in each."""
    curvatures = 1 / jnp.arange(1.0, 51.0)
    return NoisyQuadratic(curvatures, 0.1 * jnp.ones(50), jnp.ones(50))


def _entries() -> Iterator[Entry]:
    yield from _image_entries("digits", 0.2, 0.15)
    yield from _image_entries("mnist", 0.1, 0.1)
    yield from _image_entries("fashion_mnist", 0.15, 0.1)
    yield from _image_entries("cifar10", 0.04, 0.02)
    yield from _digits_entries()
    yield from _larger_image_entries()
    yield from _autoencoder_entries()
    yield from _table_entries()
    yield from _language_entries()
    yield from _function_entries()
    yield from _simulated_entries()


ENTRIES = tuple(_entries())
