"""`learned-opt train`."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

from learned_opt import errors
from learned_opt.checkpoints import artifact
from learned_opt.cli import parse, stop
from learned_opt.commands import cores, options
from learned_opt.commands.benchmark import BenchmarkFlags, score
from learned_opt.errors import UsageError
from learned_opt.evaluate import contenders, suites
from learned_opt.evaluate.suites import Suite
from learned_opt.meta_train.config import Config
from learned_opt.meta_train.fds import FDSTrainer
from learned_opt.meta_train.fds_config import FDSConfig
from learned_opt.meta_train.interrupt import Interrupted
from learned_opt.meta_train.presets import preset
from learned_opt.meta_train.start import start_from
from learned_opt.meta_train.trainer import MetaTrainer


@dataclass(frozen=True)
class TrainFlags:
    """Meta-train a learned optimizer. Run again with the same directory, it resumes."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    run_dir: Path | None = None
    """Where everything goes (default: runs/PRESET)."""
    drop: tuple[str, ...] = ()
    """Task families of the preset to leave out."""
    option: tuple[str, ...] = ()
    """Options of the learned optimizer, such as nominal=none or hidden=[8,8]."""
    compare: bool = True
    """End with the comparison with Adam, which takes about a minute."""


@dataclass(frozen=True)
class FDSFlags:
    """Find schedules by forward-mode differentiation with sharing. Run again with the same directory, it resumes."""

    config: Annotated[FDSConfig, tyro.conf.arg(name="")]
    run_dir: Path | None = None
    """Where everything goes (default: runs/PRESET)."""
    retrain: bool = True
    """End with runs on fresh seeds with the schedules found."""

    def __post_init__(self) -> None:
        """Refuses a length for runs that are not made."""
        if not self.retrain and self.config.retrain_steps is not None:
            raise UsageError("--retrain-steps was given with --no-retrain: it is accepted without")


def main(args: list[str]) -> None:
    """Meta-trains what the preset is about."""
    name, rest = (args[0], args[1:]) if args and not args[0].startswith("-") else ("quickstart", args)
    default = preset(name)
    if isinstance(default, FDSConfig):
        find_schedules(parse(f"train {name}", FDSFlags, rest, FDSFlags(default)))
    else:
        meta_train(name, default, rest)


def find_schedules(flags: FDSFlags) -> None:
    """Runs FDS, then trains with what it found."""
    console = Console(soft_wrap=True)
    trainer = FDSTrainer(flags.config, flags.run_dir or Path("runs") / flags.config.preset, console)
    try:
        theta = trainer.train()
    except Interrupted as interrupted:
        stop(str(interrupted), interrupted.exit_status)
    if flags.retrain:
        found = trainer.retrain(theta)
        losses = ", ".join(f"{split} {np.mean(found[split]):.4f}" for split in ("train", "valid", "test"))
        spread = max(found["test"]) - min(found["test"])
        console.print(
            f"{len(found['test'])} runs of {found['steps']} steps on fresh seeds: loss {losses} (spread {spread:.4f})",
            highlight=False,
        )


def meta_train(name: str, default: Config, rest: list[str]) -> None:
    """Meta-trains, then compares the optimizer before and after with Adam."""
    flags = parse(f"train {name}", TrainFlags, rest, TrainFlags(default))
    cores.use_cores(flags.config.devices)
    if flags.config.init:
        # Once more, over the optimizer of its card: where another one comes out, it was asked for, and is refused.
        default = start_from(default, flags.config.init)
        flags = parse(f"train {name}", TrainFlags, rest, TrainFlags(default))
    config = _with_options(_without(flags.config, flags.drop), default, flags.option)
    console = Console(soft_wrap=True)
    run_dir = flags.run_dir or Path("runs") / name
    trainer = MetaTrainer(config, run_dir, console)
    try:
        theta = trainer.train()
    except Interrupted as interrupted:
        stop(str(interrupted), interrupted.exit_status)
    if not flags.compare:
        return
    optimizer = trainer.optimizer
    label = config.init or config.optimizer
    compared = [
        contenders.learned(f"{label} after", optimizer, theta, artifact.read(run_dir)[1]),
        contenders.learned(f"{label} before", optimizer, trainer.initial_theta),
    ]
    flags_of_benchmark = BenchmarkFlags((), out=run_dir)
    suite = _own_tasks(config) if config.init else suites.suite(flags_of_benchmark.suite)
    score(compared, flags_of_benchmark, console, suite)


def _own_tasks(config: Config) -> Suite:
    """The families meta-trained on, with new tasks, weights and batches: what matters where a theta is fine-tuned."""
    longest = config.max_horizon
    make = functools.partial(suites.named, config.tasks)
    return Suite("own", "the families meta-trained on", make, (max(longest // 10, 1), longest))


def _without(config: Config, dropped: tuple[str, ...]) -> Config:
    """The mixture without some of its families."""
    for name in dropped:
        if name not in config.tasks:
            raise errors.unknown("task of the mixture", name, config.tasks)
    return dataclasses.replace(
        config,
        tasks=tuple(name for name in config.tasks if name not in dropped),
        weight_of={name: x for name, x in config.weight_of.items() if name not in dropped},
        particles_of={name: n for name, n in config.particles_of.items() if name not in dropped},
    )


def _with_options(config: Config, default: Config, given: tuple[str, ...]) -> Config:
    """The options of the preset, unless it is about another optimizer, and over them those of the command line."""
    own = default.optimizer_options if config.optimizer == default.optimizer else {}
    return dataclasses.replace(config, optimizer_options=own | options.read(given))
