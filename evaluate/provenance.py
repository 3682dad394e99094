"""Where results come from: the command, the versions and the machine."""

import importlib.metadata
import math
import os
import platform
import shlex
import sys
from typing import Any

import jax
import numpy as np

from learned_opt import native


def provenance() -> dict[str, Any]:
    """For the head of a results file."""
    return {
        "command": shlex.join(sys.argv),
        "versions": {name: importlib.metadata.version(name) for name in ("learned-opt", "jax", "optax", "numpy")},
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cpu_count": os.cpu_count(),
            "devices": [device.device_kind for device in jax.local_devices()],
            "star_updates": native.status(),
        },
    }


def plain(value: Any) -> Any:
    """`value` for JSON: null stands for what is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
