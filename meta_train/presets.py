"""Presets: a function each, whose docstring gives the command, the expected time and the expected result."""

import dataclasses
from collections.abc import Callable

from learned_opt import errors
from learned_opt.meta_train.config import Config
from learned_opt.meta_train.fds_config import FDSConfig
from learned_opt.tasks.mixture import BREADTH, MIXTURE

# The published scales of 1e-3 suit a thousand times more meta-training: within minutes theta moves by about one, and
# what an update can do must move with it. Of the scales tried these learned fastest; see the README for the result.
STAR_OPTIONS = {"preconditioner": "rms", "nominal_scale": 0.015, "step_scale": 0.01, "exponent_scale": 1.0}


def quickstart() -> Config:
    """STAR on reparametrised MLPs on 8x8 digits: the whole way through in minutes.

    Command: `learned-opt train`. Time: 2 to 4 minutes on 2 CPU cores, 48 to 57 seconds of it the comparison.
    Result: a final training loss 6.7 [5.3, 8.0] times lower than that of Adam with the best of 15 rates for each task
    after 1000 steps; after 4000, beyond the 3000 it was meta-trained for, 10, 1.3 or 1.6 times, by rounding.
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

    Command: `learned-opt train mixture --no-compare`. Time: 4 minutes 53 seconds on 2 CPU cores, 105 seconds of it to
    compile. Result: the loss falls in every family, from the first eighth of the outer steps to the last (in units of
    the loss scale): digits MLPs 0.055 to 0.030, deep 0.084 to 0.075, normalised 0.035 to 0.021, autoencoder 0.435 to
    0.415, teachers 0.467 to 0.453 and 0.090 to 0.080, noisy quadratic 0.273 to 0.031.
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


def star() -> Config:
    """STAR with orthogonal steps and a controller of step sizes, on fourteen families: the weights shipped as `star`.

    Command: `learned-opt train star --no-compare`, and `learned-opt export runs/star NAME --option early_decay=5e-4`:
    the shipped weights are used with half the decay of this recipe. Time: 29 minutes of one slow CPU core, 4 of them
    to compile. Result: on the suite `validation`, against Adam with the best of 15 rates for each task, training loss
    ratios of 1.41 and 1.87 after 200 and 2000 steps, validation loss 1.13 and 0.95; no run diverged. On tasks that it
    never saw: docs/star.md.
    """
    return dataclasses.replace(
        mixture(),
        preset="star",
        optimizer_options={
            "nominal": "orthogonal",
            "aligned": True,
            "zero_start": True,
            "momentum_decays": (0.6, 0.95, 0.994),
            "preconditioner": "rms",
            "nominal_scale": 5e-3,
            "step_scale": 5e-3,
            "exponent_scale": 0.3,
            "weight_decay": 0.0,
            "clipping_threshold": 1.0,
            "early_decay": 1e-3,
        },
        tasks=BREADTH,
        aggregate="mean-log",
        steps=1500,
        max_horizon=3000,
        learning_rate=1e-3,
        weight_decay=0.1,
        checkpoint_every=100,
    )


def finetune() -> Config:
    """From the weights shipped as `star`, or others, on to a task of one's own: small outer steps, one family.

    Command: `learned-opt train finetune --tasks NAME`. Time: about a minute of one CPU core, with the comparison.
    Result: on digits-linear, with `--learning-rate 3e-3 --steps 600`, after 2000 steps the ratio to tuned Adam goes
    from 0.11 to 1.14 in training loss and from 1.89 to 0.60 in validation loss; on breast_cancer-mlp, with
    `--measured-on valid`, from 0.36 to 0.53 in validation loss, where the training loss is a tenth of tuned Adam's
    before, and a sixth after.
    """
    return dataclasses.replace(
        star(),
        preset="finetune",
        init="star",
        tasks=("digits-mlp",),
        steps=300,
        particles=16,
        max_horizon=2000,
        learning_rate=3e-4,
        weight_decay=0.0,
    )


def fds_sgd() -> FDSConfig:
    """Schedules of learning rate, momentum and weight decay of SGD, from zero, for an MLP on 8x8 digits.

    Command: `learned-opt train fds-sgd`. Time: 35 seconds of one CPU core.
    Result: the loss at the end of a run falls from 2.41 to 0.04 in 10 outer steps; test loss 0.046 on 4 fresh seeds,
    with `--outer sign` 0.052.
    """
    return FDSConfig(
        preset="fds-sgd",
        windows={"learning_rate": 5, "momentum": 1, "weight_decay": 1},
        start={"learning_rate": 0.0, "momentum": 0.0, "weight_decay": 0.0},
        first_step={"learning_rate": 0.1, "momentum": 0.1, "weight_decay": 3e-4},
        outer="rprop",
        lowest={"learning_rate": 0.0, "momentum": 0.0, "weight_decay": 0.0},
        highest={"learning_rate": 1.0, "momentum": 0.999, "weight_decay": 5e-3},
    )


def fds_adamw() -> FDSConfig:
    """The same for AdamW: learning rate, b1 and decoupled weight decay.

    Command: `learned-opt train fds-adamw`. Time: 34 seconds of one CPU core.
    Result: the loss at the end of a run falls from 0.22 to 0.05 in 10 outer steps; test loss 0.053 on 4 fresh seeds.
    """
    return FDSConfig(
        preset="fds-adamw",
        base="adamw",
        windows={"learning_rate": 5, "b1": 1, "weight_decay": 1},
        start={"learning_rate": 1e-3, "b1": 0.9, "weight_decay": 0.0},
        first_step={"learning_rate": 3e-3, "b1": 0.05, "weight_decay": 0.1},
        lowest={"learning_rate": 0.0, "b1": 0.0, "weight_decay": 0.0},
        highest={"learning_rate": 0.1, "b1": 0.999, "weight_decay": 1.0},
    )


def fds_star() -> FDSConfig:
    """Factors over time on the two heads of a meta-trained STAR that move parameters.

    Command: `learned-opt train fds-star`. Time: 91 seconds of one CPU core.
    Result: the loss at the end of a run of 500 steps goes from 0.25 to 0.16 in 10 outer steps, between 0.11 and 0.28
    in the last five; test loss 0.126 on 4 fresh seeds.
    """
    return FDSConfig(
        preset="fds-star",
        base="star",
        steps=500,
        windows={"direction": 4, "nominal": 4},
        start={"direction": 1.0, "nominal": 1.0},
        first_step={"direction": 0.3, "nominal": 0.3},
        lowest={"direction": 0.0, "nominal": 0.0},
        highest={"direction": 10.0, "nominal": 10.0},
    )


PRESETS: dict[str, Callable[[], Config | FDSConfig]] = {
    "quickstart": quickstart,
    "digits": digits,
    "mixture": mixture,
    "star": star,
    "finetune": finetune,
    "fds-sgd": fds_sgd,
    "fds-adamw": fds_adamw,
    "fds-star": fds_star,
}


def preset(name: str) -> Config | FDSConfig:
    """The preset called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in PRESETS:
        raise errors.unknown("preset", name, PRESETS)
    return PRESETS[name]()
