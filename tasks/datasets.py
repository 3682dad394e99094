"""Data sets that fit on the device: labelled images, text and tables, as arrays of three disjoint splits."""

import functools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from learned_opt import errors
from learned_opt.tasks import teachers
from learned_opt.tasks.base import SPLITS, Split
from learned_opt.tasks.cache import cached
from learned_opt.tasks.pixels import open_images
from learned_opt.tasks.sources import OURS, SKLEARN_TABLES, open_set, split_sources
from learned_opt.tasks.texts import open_text

# Image sets that named task families are made of; `load` reads any other that TFDS knows.
OFFICIAL = ("mnist", "fashion_mnist", "cifar10")
NAMES = ("digits", *OFFICIAL)
TABLES = (*SKLEARN_TABLES, *teachers.TEACHERS)
LIMIT_BYTES = 2 * 1024**3  # of decoded uint8: more is not held in memory, and not put on the device


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dataset:
    """A labelled image set. `images[split]` is uint8 `[n, height, width, channels]`, `labels[split]` int32 `[n]`."""

    images: dict[Split, Any]
    labels: dict[Split, Any]
    num_classes: int = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels of one image."""
        return self.images["train"].shape[1:]

    def sample_batch(self, key: jax.Array, split: Split, batch_size: int) -> tuple[jax.Array, jax.Array]:
        """Images as float32 in [0, 1] and labels, drawn with replacement from one split."""
        # `load` gives numpy arrays, which a traced index cannot index.
        images, labels = jnp.asarray(self.images[split]), jnp.asarray(self.labels[split])
        rows = jax.random.randint(key, (batch_size,), 0, labels.shape[0])
        return images[rows].astype(jnp.float32) / 255, labels[rows]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Text:
    """Text as bytes, a vocabulary of 256. `tokens[split]` is uint8 `[n]`, one stream."""

    tokens: dict[Split, Any]

    def sample_batch(self, key: jax.Array, split: Split, batch_size: int, length: int) -> jax.Array:
        """Windows int32 `[batch_size, length + 1]` that start anywhere in one split: `length` bytes and their nexts.

        Raises:
            UsageError: the split is shorter than a window.
        """
        tokens = jnp.asarray(self.tokens[split])
        if tokens.shape[0] <= length:
            raise errors.UsageError(
                f"a window of {length} + 1 bytes does not fit in the {tokens.shape[0]} bytes of the {split} split"
            )
        starts = jax.random.randint(key, (batch_size, 1), 0, tokens.shape[0] - length)
        return tokens[starts + jnp.arange(length + 1)].astype(jnp.int32)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Table:
    """Rows of numbers. `features[split]` is float32 `[n, d]`, mean 0 and deviation 1 in the training split.

    `targets[split]` is int32 `[n]` for classification; for regression `num_classes` is 0 and targets are float32
    `[n]`, standardised as features are.
    """

    features: dict[Split, Any]
    targets: dict[Split, Any]
    num_classes: int = field(metadata={"static": True})

    def sample_batch(self, key: jax.Array, split: Split, batch_size: int) -> tuple[jax.Array, jax.Array]:
        """Features and targets, drawn with replacement from one split."""
        features, targets = jnp.asarray(self.features[split]), jnp.asarray(self.targets[split])
        rows = jax.random.randint(key, (batch_size,), 0, targets.shape[0])
        return features[rows], targets[rows]


@functools.cache
def load(name: str, size: int | None = None, grey: bool = False) -> Dataset:
    """The labelled images `name`, as numpy arrays, decoded once and cached.

    `name` is `digits` or any TFDS set with an image and a label, read from `TFDS_DATA_DIR`. Images are resized to
    `size` x `size` (None: as they are); `grey` keeps their luma only.

    Raises:
        UsageError: the name is unknown, the set is not prepared (says how to get it), has other features, or is larger
            than `LIMIT_BYTES`.
    """
    names = (_edition(name), str(size or "full"), *(["grey"] if grey else []))
    arrays = cached(names, ("images", "labels"), lambda: _read_images(name, size, grey))
    labels = _splits(arrays, "labels")
    return Dataset(_splits(arrays, "images"), labels, _num_classes(labels))


@functools.cache
def load_text(name: str) -> Text:
    """The text `name`, all records joined in order, as numpy arrays, cached.

    `name` is `python_docs` or any TFDS set with a feature `text`, or `tokens` of uint8, read from `TFDS_DATA_DIR`.

    Raises:
        UsageError: as `load` does.
    """
    return Text(_splits(cached((_edition(name), "text"), ("tokens",), lambda: _read_text(name)), "tokens"))


@functools.cache
def load_table(name: str) -> Table:
    """The table `name`, one of `TABLES`, as numpy arrays; nothing to download.

    Raises:
        UsageError: the name is unknown.
    """
    if name not in TABLES:
        raise errors.unknown("table", name, TABLES)
    if name in teachers.TEACHERS:
        arrays = teachers.make(name)
    else:
        arrays = cached((_edition(name), "table"), ("features", "targets"), lambda: _read_table(name))
    features, targets = _splits(arrays, "features"), _splits(arrays, "targets")
    if np.issubdtype(targets["train"].dtype, np.floating):
        return Table(standardised(features), standardised(targets), 0)
    return Table(standardised(features), {s: y.astype(np.int32) for s, y in targets.items()}, _num_classes(targets))


def standardised(values: dict[Split, np.ndarray]) -> dict[Split, np.ndarray]:
    """Values less the mean of the training split, over its deviation, column by column, as float32.

    A column that never changes in training is shifted and left unscaled.
    """
    train = values["train"].astype(np.float64)
    # Equality is asked of the values: the deviation of equal ones is not always zero in floating point.
    deviation = np.where(np.ptp(train, axis=0) == 0, 1.0, train.std(0))
    return {split: ((x - train.mean(0)) / deviation).astype(np.float32) for split, x in values.items()}


def _edition(name: str) -> str:
    """What tells the content of the set `name` from others, in the names of cached files."""
    return f"{name}-{OURS[name]}" if name in OURS else name


def _splits(arrays: dict[str, np.ndarray], kind: str) -> dict[Split, Any]:
    return {split: arrays[f"{split}_{kind}"] for split in SPLITS}


def _num_classes(labels: dict[Split, np.ndarray]) -> int:
    return int(max(y.max() for y in labels.values())) + 1


def _read_images(name: str, size: int | None, grey: bool) -> dict[str, np.ndarray]:
    opened = open_images(name, size, grey)
    if opened.num_bytes > LIMIT_BYTES:
        raise errors.UsageError(
            f"data set {name!r} is {_gib(opened.num_bytes)} decoded, more than the {_gib(LIMIT_BYTES)} that are put on "
            f"the device: give a smaller size, or read it with learned_opt.tasks.streaming.stream"
        )
    arrays: dict[str, np.ndarray] = {}
    for split, source in opened.sources.items():
        images = arrays[f"{split}_images"] = np.empty((len(source), *opened.shape), np.uint8)
        labels = arrays[f"{split}_labels"] = np.empty(len(source), np.int32)
        for i in range(len(source)):
            images[i], labels[i] = opened.decode(source[i])
        if labels.min() < 0:  # how TFDS marks labels that were never published
            raise errors.UsageError(f"data set {name!r} has examples without a label in its {split} split")
    return arrays


def _read_text(name: str) -> dict[str, np.ndarray]:
    opened = open_text(name)
    if opened.num_bytes > LIMIT_BYTES:
        raise errors.UsageError(
            f"data set {name!r} is {_gib(opened.num_bytes)}, more than the {_gib(LIMIT_BYTES)} that are put on the "
            f"device: read it with learned_opt.tasks.streaming.stream_text"
        )
    return {
        f"{split}_tokens": np.concatenate([opened.decode(source[i]) for i in range(len(source))])
        for split, source in opened.sources.items()
    }


def _read_table(name: str) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for split, source in split_sources(name, open_set(name)).items():
        rows = [source[i] for i in range(len(source))]
        arrays[f"{split}_features"] = np.stack([row["features"] for row in rows])
        arrays[f"{split}_targets"] = np.stack([row["target"] for row in rows])
    return arrays


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 1024**3:.3g} GiB"
