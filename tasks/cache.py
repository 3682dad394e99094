"""Decoded data as `.npz` files: a set is decoded once, in seconds, and read back in hundredths of one."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from learned_opt.cache import cache_dir, folder
from learned_opt.tasks.base import SPLITS

VERSION = 2  # of what is stored under a name; files of other versions are not read


def cached(
    names: Sequence[str], kinds: Sequence[str], make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays `{split}_{kind}` that `make` gives, from the file called by `names` or else made and stored there."""
    stem = "-".join((*names, f"v{VERSION}")).replace("/", "-").replace(":", "-")
    path = cache_dir() / f"{stem}.npz"
    arrays = read(path, [f"{split}_{kind}" for split in SPLITS for kind in kinds])
    if arrays is None:
        arrays = make()
        write(path, arrays)
    return arrays


def read(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray] | None:
    """The arrays `keys` of an `.npz` file; None if it is absent or damaged."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {key: file[key] for key in keys}
    except Exception:  # absent, or damaged in one of numpy's and zipfile's many ways: it is only a cache
        return None


def write(path: Path, arrays: dict[str, Any]) -> None:
    """An `.npz` file, whole or not at all.

    Raises:
        UsageError: its folder cannot be made.
    """
    folder(path.parent)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
        np.savez(file, **arrays)
    os.replace(file.name, path)
