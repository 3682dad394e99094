"""Named suites of tasks to score optimizers on."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from learned_opt import errors
from learned_opt.tasks import datasets, registry
from learned_opt.tasks.base import TaskFamily
from learned_opt.tasks.mixture import MIXTURE, VALIDATION
from learned_opt.tasks.networks.architecture import architecture
from learned_opt.tasks.networks.convolutional import CNN
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.reparametrise import Reparametrised
from learned_opt.tasks.supervised import Supervised


@dataclass(frozen=True)
class Suite:
    """A named list of tasks, each a `TaskFamily`: a seed draws its task, its starting weights and its batches."""

    name: str
    description: str
    make: Callable[[], dict[str, TaskFamily]]
    horizons: tuple[int, ...] = (200, 1000, 4000)

    @functools.cached_property
    def tasks(self) -> dict[str, TaskFamily]:
        """The families by name; the first call loads their data."""
        return self.make()

    def only(self, names: Sequence[str]) -> "Suite":
        """Some of its tasks, in its own order.

        Raises:
            UsageError: a name is not among them.
        """
        for name in names:
            if name not in self.tasks:
                raise errors.unknown(f"task of the suite {self.name}", name, self.tasks)
        return dataclasses.replace(self, make=lambda: {name: self.tasks[name] for name in self.tasks if name in names})

    def floor(self, task: str) -> float:
        """The expected loss that no weights can go below; 0 where none is stated, and for tasks without an entry."""
        return registry.floor(task)


def suite(name: str) -> Suite:
    """The suite called `name`, its data not loaded yet.

    Raises:
        UsageError: the name is unknown.
    """
    if name not in SUITES:
        raise errors.unknown("suite", name, SUITES)
    return SUITES[name]


def _digits() -> dict[str, TaskFamily]:
    data = datasets.load("digits", size=8)
    tasks: dict[str, TaskFamily] = {}
    for activation in ("relu", "tanh"):
        family = Supervised(data, activations=(activation,))
        tasks[f"mlp-32-{activation}"] = family
        tasks[f"mlp-32-{activation}-reparametrised"] = Reparametrised(family)
    return tasks


def _digits_ood() -> dict[str, TaskFamily]:
    data = datasets.load("digits", size=8)
    return {
        "mlp-128-relu": Supervised(data, architecture(MLP, hidden=(128,)), activations=("relu",)),
        "mlp-16-16-16-tanh": Supervised(data, architecture(MLP, hidden=(16, 16, 16)), activations=("tanh",)),
        "mlp-64-64-relu": Supervised(data, architecture(MLP, hidden=(64, 64)), activations=("relu",)),
        "cnn-16-32-relu": Supervised(data, architecture(CNN, hidden=(16, 32)), activations=("relu",)),
    }


def _fast() -> dict[str, TaskFamily]:
    """Raises: UsageError, if a set is not prepared."""
    names = ("mnist", "fashion_mnist", "cifar10", "digits")
    return {f"{name}-mlp-grey": Supervised(datasets.load(name, size=8, grey=True)) for name in names}


def named(names: tuple[str, ...]) -> dict[str, TaskFamily]:
    """The families called so."""
    return {name: registry.family(name) for name in names}


OOD_SMALL = (
    "wine-mlp",
    "breast_cancer-mlp-deep",
    "iris-linear",
    "diabetes-mlp",
    "digits-cnn",
    "digits-resnet",
    "digits-vae",
    "digits-mixer",
    "python_docs-gru",
    "regression-logistic-ill",
    "rosenbrock-10d",
    "poisson-mlp",
    "block_model-graph",
    "cart_pole-mlp-balance",
)

# More of the kinds above, four times as wide (128) and three times as deep (12 layers) as what the preset mixture has.
OOD = (
    *OOD_SMALL,
    "wine-linear",
    "wine-mlp-wide",
    "wine-mlp-deepest",
    "breast_cancer-mlp-wide",
    "breast_cancer-mlp-deepest",
    "iris-mlp-deepest",
    "diabetes-mlp-wide",
    "digits-linear",
    "digits-vit",
    "teacher_classification-linear",
    "teacher_regression-linear",
    "python_docs-lstm",
    "python_docs-transformer",
    "regression-linear-ill",
    "rastrigin-10d",
    "styblinski_tang-10d",
    "levy-10d",
    "heat-mlp",
    "burgers-mlp",
    "cart_pole-linear-balance",
)
OOD_LONG = ("wine-mlp", "breast_cancer-mlp", "diabetes-mlp", "rosenbrock-10d", "regression-logistic-ill")
OOD_IMAGES = (
    "mnist-cnn",
    "mnist-vae",
    "fashion_mnist-mlp",
    "fashion_mnist-cnn-16px",
    "cifar10-mlp",
    "cifar10-cnn-16px",
    "cifar10-resnet-16px",
    "sotu-gru",
    "sotu-transformer",
)
UNSEEN = "none with a data set and architecture that a preset meta-trains on"

SUITES = {
    s.name: s
    for s in (
        Suite("digits", "8x8 digits on the architecture the presets meta-train on; tasks and batches are new", _digits),
        Suite(
            "digits-ood",
            "8x8 digits on networks not meta-trained on: wide, deep and narrow, convolutional",
            _digits_ood,
        ),
        Suite(
            "in-distribution",
            "the families of the preset mixture; tasks, weights and batches are new",
            functools.partial(named, MIXTURE),
            (200, 1000),
        ),
        Suite(
            "validation",
            "families that recipes are chosen by: in no meta-training, and in no suite that results are reported on",
            functools.partial(named, VALIDATION),
            (200, 2000),
        ),
        Suite(
            "ood-small",
            f"{len(OOD_SMALL)} tasks, {UNSEEN}",
            functools.partial(named, OOD_SMALL),
            (200, 1000),
        ),
        Suite(
            "ood",
            f"{len(OOD)} tasks, {UNSEEN}; wider, deeper, language, equations, a graph, control",
            functools.partial(named, OOD),
            (200, 2000),
        ),
        Suite(
            "ood-long",
            f"{len(OOD_LONG)} tasks of ood for ten times the longest horizon of the preset mixture",
            functools.partial(named, OOD_LONG),
            (2000, 20_000),
        ),
        Suite(
            "ood-images",
            f"{len(OOD_IMAGES)} tasks on mnist, fashion_mnist, cifar10 and sotu, {UNSEEN}; all four must be prepared",
            functools.partial(named, OOD_IMAGES),
            (200, 1000),
        ),
        Suite("fast", "the field's four: MLPs on 8x8 grey MNIST, Fashion-MNIST and CIFAR-10, and on digits", _fast),
    )
}
