"""Official TFDS sets: small ones that pose under their names, and the real ones where TFDS_DATA_DIR holds them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from learned_opt.tasks import datasets
from learned_opt.tasks.sources import FILE_FORMAT

DATA_DIR = Path(os.environ.get("TFDS_DATA_DIR", "no TFDS_DATA_DIR"))


def box_means(images: np.ndarray, size: int) -> np.ndarray:
    """Means over `size` x `size` boxes of whole pixels: for 28 -> 8, boxes of 4 and 3 pixels in turn."""
    for axis in (1, 2):
        n = images.shape[axis]
        edges = np.ceil(np.arange(size + 1) * n / size - 1e-9).astype(int)
        sums = np.add.reduceat(images.astype(float), edges[:-1], axis=axis)
        images = sums / np.diff(edges).reshape([-1 if a == axis else 1 for a in range(4)])
    return images


@pytest.mark.parametrize(
    ("name", "version", "shape", "with_validation"),
    [
        ("mnist", "3.0.1", (28, 28, 1), False),
        ("cifar10", "3.0.2", (32, 32, 3), False),
        ("fashion_mnist", "3.0.1", (28, 28, 1), True),
        ("svhn_cropped", "3.1.0", (32, 32, 3), False),
    ],
)
def test_reads_and_resizes_a_small_set_of_that_name(name, version, shape, with_validation, tmp_path, prepare_images):
    names = ("train", "validation", "test") if with_validation else ("train", "test")
    rng = np.random.default_rng(0)
    raw = {split: rng.integers(0, 256, (20, *shape), dtype=np.uint8) for split in names}
    prepare_images(name, raw, version)
    # In a program of its own, which is expected to say nothing, warnings included.
    code = f"from learned_opt.tasks import datasets; datasets.load({name!r}); datasets.load({name!r}, size=8)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(list(tmp_path.glob("cache/*.npz"))) == 2
    full, resized = datasets.load(name), datasets.load(name, size=8)  # from the cache that the program left
    assert (full.shape, resized.shape) == (shape, (8, 8, shape[2]))
    expected = {"train": raw["train"][:18], "valid": raw["train"][18:], "test": raw["test"]}
    if with_validation:
        expected |= {"train": raw["train"], "valid": raw["validation"]}
    for split, images in expected.items():
        np.testing.assert_array_equal(full.images[split], images)
        first = 18 if split == "valid" and not with_validation else 0
        np.testing.assert_array_equal(full.labels[split], (first + np.arange(len(images))) % 10)
        np.testing.assert_array_equal(resized.labels[split], full.labels[split])
        np.testing.assert_allclose(resized.images[split], box_means(full.images[split], 8), atol=1.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("mnist", {"train": 54000, "valid": 6000, "test": 10000}),
        ("fashion_mnist", {"train": 54000, "valid": 6000, "test": 10000}),
        ("cifar10", {"train": 45000, "valid": 5000, "test": 10000}),
    ],
)
def test_the_set_itself(name, sizes, fresh_cache):
    if not (DATA_DIR / name).is_dir():
        pytest.skip(f"{name} is not in {DATA_DIR}")
    data = datasets.load(name, size=8)
    assert {split: len(y) for split, y in data.labels.items()} == sizes
    assert data.num_classes == 10
    source = tfds.data_source(name, split="test", data_dir=DATA_DIR, builder_kwargs=FILE_FORMAT)
    examples = [source[i] for i in range(0, 10000, 500)]
    np.testing.assert_array_equal(data.labels["test"][::500], [e["label"] for e in examples])
    expected = box_means(np.stack([e["image"] for e in examples]), 8)
    np.testing.assert_allclose(data.images["test"][::500], expected, atol=1.01)
