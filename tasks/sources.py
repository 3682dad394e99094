"""The one read path of data: `tfds.data_source` on `array_record` files, of TFDS's builders and of our own."""

import contextlib
import io
import logging
import os
import sys
from collections.abc import Collection, Iterator
from typing import Any

from learned_opt import errors
from learned_opt.cache import cache_dir, folder
from learned_opt.tasks.base import SPLITS, Split

FILE_FORMAT = {"file_format": "array_record"}  # the only format that needs no TensorFlow and loses nothing
PUBLISHED: dict[Split, str] = {"train": "train", "valid": "validation", "test": "test"}  # what TFDS calls the splits
SKLEARN_TABLES = ("wine", "breast_cancer", "iris", "diabetes")
# The sets that `builders.py` makes, with nothing to download, and their versions.
OURS = {
    "digits": "1.0.0",
    "python_docs": ".".join(map(str, sys.version_info[:3])),  # the text comes with Python, and changes with it
    **dict.fromkeys(SKLEARN_TABLES, "1.0.0"),
}


def open_set(name: str) -> Any:
    """The TFDS builder of the set `name`, such as `svhn_cropped`, `emnist/letters` or one of `OURS`.

    Ours are prepared on the spot; others are looked for in `TFDS_DATA_DIR` and never downloaded.

    Raises:
        UsageError: the name is unknown, or there is no place to prepare it in.
    """
    with quiet():
        if name not in OURS:
            return _official(name)
        from learned_opt.tasks import builders

        prepared = cache_dir() / "tensorflow_datasets"
        folder(prepared)
        builder = builders.make(name, str(prepared))
        builder.download_and_prepare()
        return builder


def features_of(builder: Any) -> dict[str, Any]:
    """What an example holds: TFDS features by name; known of a set that is not prepared, too."""
    features = builder.info.features
    return {key: features[key] for key in features} if hasattr(features, "keys") else {}


def split_sources(name: str, builder: Any) -> dict[Split, Any]:
    """A random-access source of decoded examples for each split.

    Raises:
        UsageError: the set is not prepared (says how to get it), publishes no training split, or one too small to cut
            the others from.
    """
    if not builder.info.splits:  # asked first: TFDS itself fails only after minutes of retries
        raise errors.UsageError(
            f"data set {name!r} is not prepared (looked in {builder.data_dir}): point TFDS_DATA_DIR at it, or run "
            f"once: pip install 'learned-opt[data]' && python -c \"import tensorflow_datasets as tfds; "
            f"tfds.data_source('{name}', builder_kwargs={FILE_FORMAT})\""
        )
    slices = tfds_slices(name, builder.info.splits)
    for split in SPLITS:
        if not builder.info.splits[slices[split]].num_examples:
            raise errors.UsageError(f"data set {name!r} has no examples in {slices[split]}, its {split} split")
    with quiet():
        return {split: builder.as_data_source(split=slices[split]) for split in SPLITS}


def tfds_slices(name: str, published: Collection[str]) -> dict[Split, str]:
    """What to ask of TFDS for each split. A missing test split is the last tenth of the training split, a missing
    validation split the last tenth, or the one before it.

    Raises:
        UsageError: there is no training split.
    """
    if "train" not in published:
        raise errors.UsageError(
            f"data set {name!r} publishes no split train, only {', '.join(published)}: tasks need one to train on"
        )
    slices: dict[Split, str] = {}
    stop = 100
    for split in reversed(SPLITS):
        if split == "train":
            slices[split] = f"train[:{stop}%]"
        elif PUBLISHED[split] in published:
            slices[split] = PUBLISHED[split]
        else:
            slices[split] = f"train[{stop - 10}%:{stop}%]"
            stop -= 10
    return slices


def in_order(count: int) -> dict[Split, slice]:
    """Our own sets' splits of `count` rows: the first eight tenths, the ninth and the last."""
    valid, test = count * 8 // 10, count * 9 // 10
    return {"train": slice(0, valid), "valid": slice(valid, test), "test": slice(test, count)}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides the progress bars and notices of TFDS, which says the same things on every preparation."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    os.environ.setdefault("TQDM_DISABLE", "1")
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def _official(name: str) -> Any:
    import tensorflow_datasets as tfds

    try:
        # TFDS reads the variable when it is imported; read here, it may be set later.
        return tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"), **FILE_FORMAT)
    except tfds.core.registered.DatasetNotFoundError:
        known = [*OURS, *tfds.list_builders(with_community_datasets=False)]
        listed = f"{', '.join(sorted(OURS))}, any set in TFDS_DATA_DIR, any name of tensorflow.org/datasets/catalog"
        raise errors.unknown("data set", name, known, listed) from None
    except (ValueError, AssertionError, ImportError) as error:  # no such configuration or version; needs TensorFlow
        reason = str(error).partition("\n")[0].rpartition('}": ')[2]  # less "Failed to construct" and its arguments
        raise errors.UsageError(f"TFDS cannot open the data set {name!r}: {reason}") from None
