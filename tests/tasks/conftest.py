"""Data for the tests of tasks: prepared in a folder of their own, never in the user's cache."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from learned_opt.errors import UsageError
from learned_opt.tasks import datasets, registry
from learned_opt.tasks.datasets import Dataset
from learned_opt.tasks.sources import FILE_FORMAT, quiet


@pytest.fixture(scope="session")
def data_cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(data_cache, monkeypatch) -> None:
    monkeypatch.setenv("LEARNED_OPT_CACHE", str(data_cache))


@pytest.fixture(scope="session")
def family_of() -> Callable[[str], Any]:
    """The family of a name; the test is skipped where its data set is not prepared."""

    def family_of(name: str) -> Any:
        try:
            return registry.family(name)
        except UsageError as error:
            if "is not prepared" not in str(error):
                raise
            pytest.skip(str(error).partition(":")[0])

    return family_of


@pytest.fixture
def forget() -> Callable[[], None]:
    """Lets go of what was loaded, so that the next call reads a file or the set."""

    def forget() -> None:
        for load in (datasets.load, datasets.load_text, datasets.load_table):
            load.cache_clear()

    return forget


@pytest.fixture
def fresh_cache(tmp_path, forget, monkeypatch):
    """An empty cache folder, and nothing loaded."""
    monkeypatch.setenv("LEARNED_OPT_CACHE", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache"
    forget()


@pytest.fixture
def prepare(tmp_path, monkeypatch, fresh_cache):
    """Prepares a set under a name in a `TFDS_DATA_DIR` of the test's own, its examples in the order given."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))

    def make(name: str, features: dict[str, Any], splits: dict[str, list[Any]], version: str = "1.0.0") -> Any:
        import tensorflow_datasets as tfds

        def info(self):
            dictionary = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=dictionary, disable_shuffling=True)

        methods = {
            "name": name,
            "VERSION": tfds.core.Version(version),
            "_info": info,
            "_split_generators": lambda self, _: {split: self._generate_examples(x) for split, x in splits.items()},
            "_generate_examples": lambda self, examples: enumerate(examples),
            "__module__": __name__,
        }
        made = type(name, (tfds.core.GeneratorBasedBuilder,), methods, skip_registration=True)
        builder = made(data_dir=tmp_path / "data", **FILE_FORMAT)
        with quiet():
            builder.download_and_prepare()
        return builder

    return make


@pytest.fixture
def prepare_images(prepare):
    """`prepare` for images, given as arrays for each split; the labels count from 0 to 9, again and again."""

    def make(name: str, splits: dict[str, Any], version: str = "1.0.0") -> Any:
        import tensorflow_datasets as tfds

        shapes = {image.shape for images in splits.values() for image in images}
        shape = shapes.pop() if len(shapes) == 1 else (None, None, 3)
        features = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(num_classes=10)}
        examples = {
            split: [{"image": png(image), "label": i % 10} for i, image in enumerate(images)]
            for split, images in splits.items()
        }
        return prepare(name, features, examples, version)

    return make


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def make_data():
    """A small data set of random images, every one of them unlike every other in its first two pixels."""

    def make(seed: int = 0, size: int = 8, channels: int = 1) -> Dataset:
        rng = np.random.default_rng(seed)
        images, labels = {}, {}
        for i, (split, n) in enumerate({"train": 40, "valid": 20, "test": 30}.items()):
            images[split] = rng.integers(0, 256, (n, size, size, channels), dtype=np.uint8)
            images[split][:, 0, 0, 0] = i
            images[split][:, 0, 1, 0] = np.arange(n)
            labels[split] = rng.permutation(np.arange(n) % 10).astype(np.int32)
        return Dataset(images, labels, 10)

    return make


# Stand-ins of the same shape, for as long as `datasets` has no tables and texts of its own.
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StandInTable:
    features: Any
    targets: Any
    num_classes: int = field(metadata={"static": True})

    def sample_batch(self, key, split, batch_size):
        features, targets = jnp.asarray(self.features[split]), jnp.asarray(self.targets[split])
        rows = jax.random.randint(key, (batch_size,), 0, len(targets))
        return features[rows], targets[rows]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StandInText:
    tokens: Any

    def sample_batch(self, key, split, batch_size, length):
        tokens = jnp.asarray(self.tokens[split])
        starts = jax.random.randint(key, (batch_size, 1), 0, len(tokens) - length)
        return tokens[starts + jnp.arange(length + 1)].astype(jnp.int32)


def _thirds(rows: np.ndarray) -> dict:
    return dict(
        zip(("train", "valid", "test"), np.split(rows, [len(rows) * 8 // 10, len(rows) * 9 // 10]), strict=True)
    )


def stand_in_table(name: str) -> StandInTable:
    """The same numbers of columns and classes, and targets that can be learned."""
    columns, classes = {
        "wine": (13, 3),
        "breast_cancer": (30, 2),
        "iris": (4, 3),
        "diabetes": (10, 0),
        "teacher_classification": (20, 10),
        "teacher_regression": (20, 0),
    }[name]
    rng = np.random.default_rng(0)
    features = rng.standard_normal((500, columns)).astype(np.float32)
    outputs = features @ rng.standard_normal((columns, classes or 1)) / np.sqrt(columns)
    targets = outputs.argmax(1).astype(np.int32) if classes else outputs[:, 0].astype(np.float32)
    return StandInTable(_thirds(features), _thirds(targets), classes)


def stand_in_text(name: str) -> StandInText:
    text = "".join(f"{i} times {i + 1} is {i * (i + 1)}, and not {i * i}.\n" for i in range(2000))
    return StandInText(_thirds(np.frombuffer(text.encode(), np.uint8)))


@pytest.fixture
def tables_and_texts(monkeypatch):
    if not hasattr(datasets, "load_table"):
        monkeypatch.setattr(datasets, "load_table", stand_in_table, raising=False)
        monkeypatch.setattr(datasets, "load_text", stand_in_text, raising=False)


@pytest.fixture(scope="session")
def make_table():
    return StandInTable


@pytest.fixture(scope="session")
def text():
    return stand_in_text("times")
