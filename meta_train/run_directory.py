"""The directory that a run writes: who it belongs to, and the card it ends with."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from learned_opt import errors, native
from learned_opt.errors import UsageError
from learned_opt.meta_train import config as config_file


def open_run_directory(config: dict[str, Any], run_dir: Path) -> None:
    """Creates the directory with its `config.json`, or checks that it belongs to the same configuration.

    Raises:
        UsageError: it holds another run, or something else, or cannot be written; nothing is.
    """
    path = run_dir / "config.json"
    if path.exists():
        config_file.check_same(config, path)
        return
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise UsageError(f"{run_dir} exists and is no run directory: an empty or new directory is accepted")
    with errors.of_system(f"{run_dir} cannot be written", "; another --run-dir is accepted"):
        run_dir.mkdir(parents=True, exist_ok=True)
        config_file.write(config, path)


def circumstances(seconds: float, devices: list[str]) -> dict[str, Any]:
    """What a card says of the machine and of the versions."""
    return {
        "compute": {
            "seconds": round(seconds, 1),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "devices": devices,
            "star_updates": native.status(),
        },
        "versions": {name: importlib.metadata.version(name) for name in ("learned-opt", "jax", "optax", "flax")},
    }
