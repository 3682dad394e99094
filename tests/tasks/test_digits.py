"""The default data: scikit-learn's digits, through a TFDS builder and a cache."""

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


def test_cache_is_where_it_was_asked_for(fresh_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    datasets.load("digits")
    assert [path.name for path in fresh_cache.glob("*.npz")] == ["digits-full-v1.npz"]
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "home").exists()


def test_default_cache_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.delenv("LEARNED_OPT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert datasets.cache_dir() == tmp_path / "learned_opt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert datasets.cache_dir() == tmp_path / "home" / ".cache" / "learned_opt"


def same(a, b):
    return all(
        np.array_equal(a.images[s], b.images[s])
        and np.array_equal(a.labels[s], b.labels[s])
        and (a.images[s].dtype, a.labels[s].dtype) == (b.images[s].dtype, b.labels[s].dtype)
        for s in SPLITS
    )


def test_reads_its_cache(fresh_cache, digits, monkeypatch):
    """And nothing else: the second time, preparation is out of reach."""
    datasets.load.cache_clear()
    monkeypatch.setattr(datasets, "_read", lambda name: pytest.fail("the cache was not used"))
    again = datasets.load("digits")
    assert again is not digits
    assert same(again, digits)


def flipped(content, i):
    return content[:i] + bytes([content[i] ^ 255]) + content[i + 1 :]


DAMAGE = {
    "empty": lambda content: b"",
    "text": lambda content: b"not an archive",
    "cut short": lambda content: content[: len(content) // 2],
    "a flipped byte in the images": lambda content: flipped(content, 5000),
    "an unknown compression": lambda content: flipped(content, content.index(b"PK\x01\x02") + 10),
    "another archive": lambda content: b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cache_is_made_again(damage, digits, data_cache):
    path = data_cache / "digits-full-v1.npz"
    content = path.read_bytes()
    assert damage(content) != content
    path.write_bytes(damage(content))
    datasets.load.cache_clear()
    assert same(datasets.load("digits"), digits)
    datasets.load.cache_clear()
    assert same(datasets.load("digits"), digits)
    assert path.read_bytes() == content
    assert not list(data_cache.glob("tmp*"))


def test_needs_no_tensorflow(tmp_path):
    code = """
import importlib.machinery
find = importlib.machinery.PathFinder.find_spec
absent = classmethod(lambda cls, name, *rest: None if name == "tensorflow" else find(name, *rest))
importlib.machinery.PathFinder.find_spec = absent
from learned_opt.tasks import datasets
print(len(datasets.load("digits").labels["train"]), importlib.util.find_spec("tensorflow"))
"""
    environment = os.environ | {"LEARNED_OPT_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout, done.stderr) == ("1197 None\n", "")
