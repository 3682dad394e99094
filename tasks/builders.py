"""TFDS builders of our own: real data with nothing to download."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import sklearn.datasets
import tensorflow_datasets as tfds

from learned_opt.tasks.base import SPLITS
from learned_opt.tasks.sources import FILE_FORMAT, OURS, PUBLISHED, SKLEARN_TABLES, in_order

# Neighbouring rows are often alike (digits by one writer, tables sorted by class): splits follow a fixed shuffle.
SHUFFLE_SEED = 0
DIGITS_SIZES = {"train": 1197, "validation": 300, "test": 300}


def make(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """The builder of the set `name`, one of `sources.OURS`, not prepared."""
    if name == "digits":
        return Digits(data_dir=data_dir, **FILE_FORMAT)
    if name == "python_docs":
        return PythonDocs(data_dir=data_dir, **FILE_FORMAT)
    return SklearnTable(config=name, data_dir=data_dir, **FILE_FORMAT)


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A builder whose subclasses give features and, for each split, its examples."""

    def _describe(self, features: dict[str, Any], **options: Any) -> tfds.core.DatasetInfo:
        # Not `dataset_info_from_configs`: that looks for metadata files in a folder named after the module.
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), **options)

    def _generate_examples(self, examples: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        yield from examples  # each with the key that its place in the split follows from


class Digits(_Builder, skip_registration=True):  # type: ignore[call-arg]
    """scikit-learn's 1,797 handwritten digits, 8x8 grey, rescaled from 0..16 to 0..255."""

    VERSION = tfds.core.Version(OURS["digits"])

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8)
        return self._describe({"image": image, "label": tfds.features.ClassLabel(num_classes=10)})

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        digits = sklearn.datasets.load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        order = np.random.RandomState(SHUFFLE_SEED).permutation(len(images))
        starts = np.cumsum([0, *DIGITS_SIZES.values()])
        return {
            split: self._generate_examples(
                (int(row), {"image": images[row], "label": int(digits.target[row])})
                for row in order[start : start + size]
            )
            for (split, size), start in zip(DIGITS_SIZES.items(), starts[:-1], strict=True)
        }


class PythonDocs(_Builder, skip_registration=True):  # type: ignore[call-arg]
    """What `help()` says of Python's topics: 0.4 MB of English and code, the same for everyone with that Python.

    Topics in alphabetical order, a paragraph a record. Topics quote one another at length: a paragraph is kept where
    it first stands, so that no split repeats another's. The first 80 % of paragraphs train, then 10 % and 10 %.
    """

    VERSION = tfds.core.Version(OURS["python_docs"])

    def _info(self) -> tfds.core.DatasetInfo:
        return self._describe({"text": tfds.features.Text()}, disable_shuffling=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        from pydoc_data.topics import topics

        paragraphs = list(dict.fromkeys(p.strip("\n") for key in sorted(topics) for p in topics[key].split("\n\n")))
        cut = in_order(len(paragraphs))
        return {
            PUBLISHED[split]: self._generate_examples(
                (place, {"text": f"{paragraph}\n\n"}) for place, paragraph in enumerate(paragraphs[cut[split]])
            )
            for split in SPLITS
        }


class SklearnTable(_Builder, skip_registration=True):  # type: ignore[call-arg]
    """scikit-learn's small tables, as measured: not standardised. Rows whose features repeat another's are left out."""

    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name, version=OURS[name]) for name in SKLEARN_TABLES]  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        features, targets = self._table()
        row = tfds.features.Tensor(shape=features.shape[1:], dtype=features.dtype)
        return self._describe({"features": row, "target": tfds.features.Tensor(shape=(), dtype=targets.dtype)})

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        features, targets = self._table()
        order = np.random.RandomState(SHUFFLE_SEED).permutation(np.unique(features, axis=0, return_index=True)[1])
        cut = in_order(len(order))
        return {
            PUBLISHED[split]: self._generate_examples(
                (int(row), {"features": features[row], "target": targets[row]}) for row in order[cut[split]]
            )
            for split in SPLITS
        }

    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        # Diabetes comes scaled by statistics of all its rows, test rows included, unless asked not to.
        options = {"scaled": False} if self.builder_config.name == "diabetes" else {}
        table = getattr(sklearn.datasets, f"load_{self.builder_config.name}")(**options)
        return table.data, table.target
