"""What a benchmark is made of and keeps: all seeds of one theta on one task, in a file called by its content.

A file's name is the hash of everything its numbers follow from: the lowered program of one run, the data,
the meta-parameters, keys, seeds and horizons, and the versions that compile it. So nothing is ever out of date: what
changed has another name.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxlib
import numpy as np

from learned_opt import errors
from learned_opt.cache import cache_dir
from learned_opt.tasks import cache

FORMAT = 1  # of the files


class Cell(NamedTuple):
    """All seeds of one theta on one task.

    Attributes:
        losses: the training loss of every step, before its update, `[seeds, steps]`.
        valid_losses: after each of `points(horizons)`, `[seeds, points]`.
        test_losses: after each horizon, `[seeds, horizons]`.
        seconds_per_step: wall-clock seconds of training, by the steps of all runs side by side.
        side_by_side: how many there were.
    """

    losses: np.ndarray
    valid_losses: np.ndarray
    test_losses: np.ndarray
    seconds_per_step: np.ndarray
    side_by_side: np.ndarray


class Store:
    """Cells as files in a directory, and a count of what became of those that were asked for."""

    def __init__(self, directory: Path | None = None) -> None:
        """By default within the cache of the data, where all benchmarks of a user find them.

        Raises:
            UsageError: the directory cannot be made.
        """
        self.directory = directory or cache_dir() / "benchmark"
        self.counts = {"ran": 0, "cached": 0, "damaged": 0}
        with errors.of_system(f"{self.directory}: cannot be made a directory for runs"):
            self.directory.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> Cell | None:
        """The cell, unless it was never run or its file is damaged."""
        path = self._path(name)
        arrays = cache.read(path, Cell._fields)
        self.counts["cached"] += arrays is not None
        self.counts["damaged"] += arrays is None and path.exists()
        return None if arrays is None else Cell(**arrays)

    def write(self, name: str, cell: Cell) -> None:
        """Keeps a cell that was run."""
        self.counts["ran"] += 1
        cache.write(self._path(name), cell._asdict())

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.npz"


def digest(*parts: Any) -> str:
    """A hash of plain values and of the arrays of pytrees; what holds them is not looked at."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(parts):
        found.update(_content(leaf))
    return found.hexdigest()


def platform(devices: Sequence[jax.Device]) -> list[Any]:
    """What else a cell's numbers follow from, and, from the number of devices, its time."""
    kinds = [device.device_kind for device in devices]
    return [FORMAT, jax.__version__, jaxlib.__version__, *kinds, jax.config.read("jax_enable_x64")]


def _content(leaf: Any) -> bytes:
    if isinstance(leaf, str | int | float):
        return f"{leaf!r};".encode()
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return f"{array.dtype}{array.shape}".encode() + array.tobytes()
