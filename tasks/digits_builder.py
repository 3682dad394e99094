"""A TFDS builder for scikit-learn's 8x8 digits: real data with nothing to download."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

# Writers follow one another in the original order, so the splits are cut after a fixed shuffle.
SHUFFLE_SEED = 0
SPLIT_SIZES = {"train": 1197, "validation": 300, "test": 300}


class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """1,797 handwritten digits, 8x8 grey, rescaled from 0..16 to 0..255."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        )
        # Not `dataset_info_from_configs`: that looks for metadata files in a folder named after the module.
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        order = np.random.RandomState(SHUFFLE_SEED).permutation(sum(SPLIT_SIZES.values()))
        stops = np.cumsum(list(SPLIT_SIZES.values()))
        starts = stops - list(SPLIT_SIZES.values())
        return {
            name: self._generate_examples(order[start:stop])
            for name, start, stop in zip(SPLIT_SIZES, starts, stops, strict=True)
        }

    def _generate_examples(self, rows: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        for row in rows:
            yield int(row), {"image": images[row], "label": int(digits.target[row])}
