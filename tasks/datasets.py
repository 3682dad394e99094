"""Data: one read path, `tfds.data_source` on `array_record` files, to uint8 arrays on the device."""

import contextlib
import functools
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from learned_opt import errors
from learned_opt.tasks.base import SPLITS, Split

# Image sets known to work here; each is asked of TFDS under this very name.
OFFICIAL = ("mnist", "fashion_mnist", "cifar10")
NAMES = ("digits", *OFFICIAL)
FILE_FORMAT = {"file_format": "array_record"}  # the only format that needs no TensorFlow and loses nothing


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


@functools.cache
def load(name: str, size: int | None = None) -> Dataset:
    """The data set `name` with images resized to `size` x `size` (None: as they are), as numpy arrays.

    Official sets are read from `TFDS_DATA_DIR`; digits are prepared by our own builder. Decoded arrays are cached.

    Raises:
        UsageError: the name is unknown, or the set is not prepared; says how to get it.
    """
    if name not in NAMES:
        raise errors.unknown("data set", name, NAMES)
    path = cache_dir() / f"{name}-{size or 'full'}-v1.npz"
    arrays = _read_cache(path)
    if arrays is None:
        arrays = _resized(_read(name), size)
        _write_cache(path, arrays)
    labels = {split: arrays[f"{split}_labels"] for split in SPLITS}
    return Dataset(
        {split: arrays[f"{split}_images"] for split in SPLITS}, labels, int(max(y.max() for y in labels.values())) + 1
    )


def cache_dir() -> Path:
    """Where prepared and decoded data lives: `LEARNED_OPT_CACHE`, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "learned_opt"
    return Path(os.environ.get("LEARNED_OPT_CACHE", default))


def _read(name: str) -> dict[str, np.ndarray]:
    """Decodes every split; a set without a validation split gives the last tenth of its training split."""
    with _quiet():
        import tensorflow_datasets as tfds

        if name == "digits":
            from learned_opt.tasks.digits_builder import Digits

            builder = Digits(data_dir=str(cache_dir() / "tensorflow_datasets"), **FILE_FORMAT)
            builder.download_and_prepare()
        else:
            builder = tfds.builder(name, **FILE_FORMAT)
        if not builder.info.splits:  # asked first: TFDS itself fails only after minutes of retries
            raise errors.UsageError(_how_to_get(name, str(builder.data_dir)))
        if "validation" in builder.info.splits:
            names = {"train": "train", "valid": "validation", "test": "test"}
        else:
            names = {"train": "train[:90%]", "valid": "train[90%:]", "test": "test"}
        arrays: dict[str, np.ndarray] = {}
        for split, tfds_split in names.items():
            source = builder.as_data_source(split=tfds_split)
            examples = [source[i] for i in range(len(source))]
            arrays[f"{split}_images"] = np.stack([e["image"] for e in examples])
            arrays[f"{split}_labels"] = np.asarray([e["label"] for e in examples], np.int32)
    return arrays


def _how_to_get(name: str, directory: str) -> str:
    return (
        f"data set {name!r} is not prepared (looked in {directory}): point TFDS_DATA_DIR at it, or run once: "
        f"pip install 'learned-opt[data]' && python -c \"import tensorflow_datasets as tfds; "
        f"tfds.data_source('{name}', builder_kwargs={FILE_FORMAT})\""
    )


def _resized(arrays: dict[str, np.ndarray], size: int | None) -> dict[str, np.ndarray]:
    if size is None:
        return arrays
    from PIL import Image

    def resize(image: np.ndarray) -> np.ndarray:
        mode = Image.fromarray(image.squeeze()).resize((size, size), Image.Resampling.BOX)
        return np.asarray(mode, np.uint8).reshape(size, size, -1)

    return {k: np.stack([resize(x) for x in v]) if k.endswith("images") else v for k, v in arrays.items()}


def _read_cache(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {f"{s}_{kind}": file[f"{s}_{kind}"] for s in SPLITS for kind in ("images", "labels")}
    except Exception:  # absent, or damaged in one of numpy's and zipfile's many ways: it is only a cache
        return None


def _write_cache(path: Path, arrays: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
        np.savez(file, **arrays)
    os.replace(file.name, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the progress bars and notices of TFDS, which says the same things on every preparation."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    os.environ.setdefault("TQDM_DISABLE", "1")
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
