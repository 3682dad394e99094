"""Where what is made once on a machine is kept."""

import os
from pathlib import Path

from learned_opt import errors


def cache_dir() -> Path:
    """Of prepared and decoded data, results and machine code: `LEARNED_OPT_CACHE`, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "learned_opt"
    return Path(os.environ.get("LEARNED_OPT_CACHE", default))


def folder(directory: Path) -> None:
    """Makes a directory, and those above it.

    Raises:
        UsageError: it cannot be made.
    """
    with errors.of_system(f"{directory}: cannot be made", "; LEARNED_OPT_CACHE may name another"):
        directory.mkdir(parents=True, exist_ok=True)
