"""The default data: scikit-learn's digits, through a TFDS builder."""

import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from learned_opt.tasks import datasets
from learned_opt.tasks.base import SPLITS


def rows(images, labels):
    """Every image with its label, as a sorted array: a multiset."""
    flat = np.concatenate([images.reshape(len(images), -1), labels[:, None]], axis=1)
    return flat[np.lexsort(flat.T)]


@pytest.fixture
def digits():
    return datasets.load("digits")


def test_sizes_and_types(digits):
    for split, size in {"train": 1197, "valid": 300, "test": 300}.items():
        assert digits.images[split].shape == (size, 8, 8, 1)
        assert digits.images[split].dtype == np.uint8
        assert digits.labels[split].shape == (size,)
        assert digits.labels[split].dtype == np.int32
        assert set(digits.labels[split]) == set(range(10))
    assert digits.shape == (8, 8, 1)
    assert digits.num_classes == 10


def test_splits_are_scikit_learns_digits_and_disjoint(digits):
    source = load_digits()
    expected = rows(np.rint(source.images / 16 * 255), source.target)
    assert len(np.unique(expected, axis=0)) == 1797  # no two alike, so that a partition is a disjoint one
    union = rows(np.concatenate([digits.images[s] for s in SPLITS]), np.concatenate([digits.labels[s] for s in SPLITS]))
    np.testing.assert_array_equal(union, expected)


def test_size_8_is_the_images_themselves(digits):
    for split in SPLITS:
        np.testing.assert_array_equal(datasets.load("digits", size=8).images[split], digits.images[split])


def test_needs_no_tensorflow(tmp_path):
    code = """
import importlib.machinery
find = importlib.machinery.PathFinder.find_spec
absent = classmethod(lambda cls, name, *rest: None if name == "tensorflow" else find(name, *rest))
importlib.machinery.PathFinder.find_spec = absent
from learned_opt.tasks import datasets
sets = datasets.load("digits").labels, datasets.load_text("python_docs").tokens, datasets.load_table("wine").targets
print(*map(len, sets), importlib.util.find_spec("tensorflow"))
"""
    environment = os.environ | {"LEARNED_OPT_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout, done.stderr) == ("3 3 3 None\n", "")
