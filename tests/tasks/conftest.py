"""Data for the tests of tasks: prepared in a folder of their own, never in the user's cache."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from learned_opt.tasks import datasets
from learned_opt.tasks.datasets import Dataset


@pytest.fixture(scope="session")
def data_cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(data_cache, monkeypatch) -> None:
    monkeypatch.setenv("LEARNED_OPT_CACHE", str(data_cache))


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    """An empty cache folder, and nothing loaded."""
    monkeypatch.setenv("LEARNED_OPT_CACHE", str(tmp_path / "cache"))
    datasets.load.cache_clear()
    yield tmp_path / "cache"
    datasets.load.cache_clear()


@pytest.fixture(scope="session")
def quick_jit() -> Callable[..., Any]:
    """`jax.jit` that compiles several times as fast, to slower code."""
    options = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    return functools.partial(jax.jit, compiler_options=options)


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
