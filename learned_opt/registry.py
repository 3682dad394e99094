"""Learned optimizers by name: how a configuration or a model card says which one it means."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from learned_opt import errors
from learned_opt.adam import LearnableAdam
from learned_opt.base import LearnedOptimizer
from learned_opt.schedules import Schedule, ScheduledStar
from learned_opt.sgd import StepSize
from learned_opt.star import Star, black_box_mlp

OPTIMIZERS: dict[str, Callable[..., LearnedOptimizer]] = {
    "star": Star,
    "black-box-mlp": black_box_mlp,
    "learnable-adam": LearnableAdam,
    "step-size": StepSize,
    "schedule": Schedule,
    "scheduled-star": ScheduledStar,
}
_FIELDS_OF: dict[str, Any] = OPTIMIZERS | {"black-box-mlp": Star}


def make(name: str, options: Mapping[str, Any]) -> LearnedOptimizer:
    """The learned optimizer called `name`; options come from JSON, so that lists stand for tuples.

    Raises:
        UsageError: an unknown name or option, or an option of the wrong type.
    """
    if name not in OPTIMIZERS:
        raise errors.unknown("learned optimizer", name, OPTIMIZERS)
    defaults = {f.name: f.default for f in dataclasses.fields(_FIELDS_OF[name])}
    arguments = {}
    for option, value in options.items():
        if option not in defaults:
            raise errors.unknown(f"option of {name}", option, defaults)
        arguments[option] = _checked(f"{name}.{option}", value, defaults[option])
    return OPTIMIZERS[name](**arguments)


def _checked(what: str, value: Any, default: Any) -> Any:
    try:
        return _as_type_of(default, value)
    except TypeError:
        raise errors.UsageError(f"{what} was given {value!r}: a value like {default!r} is accepted") from None


def _as_type_of(default: Any, value: Any) -> Any:
    """Integers stand for floats, lists for tuples; anything else of another type is a TypeError."""
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(_as_type_of(default[0], element) for element in value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default) or isinstance(default, tuple):
        raise TypeError
    return value
