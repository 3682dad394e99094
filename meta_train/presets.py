"""Presets: a function each, whose docstring gives the command, the expected time and the expected result."""

import dataclasses
from collections.abc import Callable

from learned_opt import errors
from learned_opt.meta_train.config import Config
from learned_opt.tasks.mixture import MIXTURE

# The published scales of 1e-3 suit a thousand times more meta-training: within minutes theta moves by about one, and
# what an update can do must move with it. Of the scales tried these learned fastest; see the README for the result.
STAR_OPTIONS = {"preconditioner": "rms", "nominal_scale": 0.015, "step_scale": 0.01, "exponent_scale": 1.0}


def quickstart() -> Config:
    """STAR on reparametrised MLPs on 8x8 digits: the whole way through in minutes.

    Command: `learned-opt train`. Time: 2 minutes 42 seconds on 2 CPU cores.
    Result: 0.88x, 0.80x and 0.78x the mean training loss of the best of 15 Adam rates at 200, 1000 and 4000 steps.
    """
    return Config(
        preset="quickstart",
        optimizer_options=STAR_OPTIONS,
        steps=1500,
        particles=16,
        truncation=50,  # fewer truncations to a problem, so that less noise accumulates in xi
        max_horizon=3000,
        learning_rate=2e-3,
        weight_decay=0.01,
    )


def digits() -> Config:
    """The same with twice the particles and more steps: the weights shipped as `digits`.

    Command: `learned-opt train digits`. Time: 12 minutes 23 seconds on 2 CPU cores.
    Result: 0.94x, 0.81x and 0.80x the mean training loss of the best of 15 Adam rates at 200, 1000 and 4000 steps.
    """
    return dataclasses.replace(quickstart(), preset="digits", steps=3700, particles=32)


def mixture() -> Config:
    """STAR on seven families at once: deep and rescaled networks, a table, regression, an autoencoder, a quadratic.

    Command: `learned-opt train mixture`. Time: 8 minutes 37 seconds on 2 CPU cores, another job beside it.
    Result: 0.97x, 0.84x and 0.82x the mean training loss of the best of 15 Adam rates at 200, 1000 and 4000 steps, on
    the suite `digits`.
    """
    return Config(
        preset="mixture",
        optimizer_options=STAR_OPTIONS,
        tasks=MIXTURE,
        normalise=True,
        loss_clip=2.0,
        normalise_gradients=True,
        gradient_clip=None,
        steps=800,
        particles=4,
        truncation=50,
        max_horizon=2000,
        learning_rate=2e-3,
        weight_decay=0.01,
    )


PRESETS: dict[str, Callable[[], Config]] = {"quickstart": quickstart, "digits": digits, "mixture": mixture}


def preset(name: str) -> Config:
    """The preset called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in PRESETS:
        raise errors.unknown("preset", name, PRESETS)
    return PRESETS[name]()
