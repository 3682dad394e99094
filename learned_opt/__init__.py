"""Learned optimizers: train them, trust them, use them. Start with `load`, `Star` or the command `learned-opt`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learned_opt.adam import LearnableAdam
    from learned_opt.base import LearnedOptimizer
    from learned_opt.checkpoints.load import load
    from learned_opt.errors import UsageError
    from learned_opt.knobs import with_knobs
    from learned_opt.metaoptimizer import metaoptimize, step_sizes
    from learned_opt.online import tune_online
    from learned_opt.schedules import Schedule, ScheduledStar, as_schedule
    from learned_opt.sgd import StepSize
    from learned_opt.star import Star, black_box_mlp

__all__ = [
    "LearnableAdam",
    "LearnedOptimizer",
    "Schedule",
    "ScheduledStar",
    "Star",
    "StepSize",
    "UsageError",
    "as_schedule",
    "black_box_mlp",
    "load",
    "metaoptimize",
    "step_sizes",
    "tune_online",
    "with_knobs",
]

# Imported on first use, so that the command line answers before JAX has loaded.
_HOMES = {
    "LearnableAdam": "learned_opt.adam",
    "LearnedOptimizer": "learned_opt.base",
    "Schedule": "learned_opt.schedules",
    "ScheduledStar": "learned_opt.schedules",
    "Star": "learned_opt.star",
    "StepSize": "learned_opt.sgd",
    "UsageError": "learned_opt.errors",
    "as_schedule": "learned_opt.schedules",
    "black_box_mlp": "learned_opt.star",
    "load": "learned_opt.checkpoints.load",
    "metaoptimize": "learned_opt.metaoptimizer",
    "step_sizes": "learned_opt.metaoptimizer",
    "tune_online": "learned_opt.online",
    "with_knobs": "learned_opt.knobs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'learned_opt' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
