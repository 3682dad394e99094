"""Presets: a function each, whose docstring gives the command, the expected time and the expected result."""

from collections.abc import Callable

from learned_opt import errors
from learned_opt.meta_train.config import Config

# Step sizes that meta-training can move: with the published 1e-3 everywhere, heads would have to grow a hundredfold.
STAR_OPTIONS = {"preconditioner": "rms", "step_scale": 0.01, "nominal_scale": 3e-3, "exponent_scale": 0.1}


def quickstart() -> Config:
    """STAR on reparametrised MLPs on 8x8 digits: the whole way through in minutes.

    Command: `learned-opt train`. TODO time and result.
    """
    return Config(preset="quickstart", optimizer_options=STAR_OPTIONS, steps=1000)


def digits() -> Config:
    """The same, long enough to beat Adam with the best of 15 learning rates.

    Command: `learned-opt train digits`. TODO
    """
    return Config(preset="digits", optimizer_options=STAR_OPTIONS, steps=8000)


PRESETS: dict[str, Callable[[], Config]] = {"quickstart": quickstart, "digits": digits}


def preset(name: str) -> Config:
    """The preset called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in PRESETS:
        raise errors.unknown("preset", name, PRESETS)
    return PRESETS[name]()
