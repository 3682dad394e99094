"""`learned-opt diagnose`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import tyro
from rich.console import Console

from learned_opt import errors, registry
from learned_opt.base import LearnedOptimizer, Theta
from learned_opt.checkpoints import artifact
from learned_opt.checkpoints.load import load_learned_optimizer
from learned_opt.cli import parse
from learned_opt.errors import UsageError
from learned_opt.evaluate import horizon_bias
from learned_opt.meta_train.config import Config
from learned_opt.meta_train.presets import PRESETS
from learned_opt.meta_train.start import initial_theta, start_from
from learned_opt.tasks import registry as task_registry


@dataclass(frozen=True)
class DiagnoseFlags:
    """Say whether a meta-training horizon is too short: which steps it prefers, and which where a decay follows."""

    what: tyro.conf.Positional[Literal["horizon"]]
    """Of what: horizon."""
    run: tyro.conf.Positional[str]
    """A run directory, or a preset."""
    horizon: int | None = None
    """Inner steps (default: the longest of the run's or preset's meta-training)."""
    seeds: int = 8
    """Training runs of each task family at each of 21 multipliers of the steps; 5 or more, for an interval."""
    seed: int = 0
    """Determines everything random."""

    def __post_init__(self) -> None:
        """Refuses what cannot be run."""
        errors.check_seed(self.seed)
        for name, least in (("horizon", 1), ("seeds", 5)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name} was given {value}: a number from {least} is accepted")


def main(args: list[str]) -> None:
    """Sweeps a multiplier of the optimizer's steps on the families of the run, and prints the ratio with advice."""
    flags = parse("diagnose", DiagnoseFlags, args)
    optimizer, theta, tasks, longest = _setting(flags.run, flags.seed)
    horizon = flags.horizon or longest
    console = Console(soft_wrap=True, highlight=False)
    sweeps = []
    for i, name in enumerate(tasks):
        console.print(
            f"{name}: {flags.seeds} runs of {horizon} steps and a decay at each of {len(horizon_bias.MULTIPLIERS)} "
            "multipliers",
            style="dim",
        )
        key = jax.random.fold_in(jax.random.key(flags.seed), i)
        sweeps.append(horizon_bias.sweep(task_registry.family(name), optimizer, theta, horizon, flags.seeds, key))
    found = horizon_bias.preference(sweeps, flags.seed)
    console.print(
        f"steps preferred at the horizon: {found.plain:.3g}x those of the optimizer; with a decay after it: "
        f"{found.decayed:.3g}x; ratio {found.ratio:.2f} (90 % interval {found.low:.2f} to {found.high:.2f})"
    )
    if found.at_least or found.at_most:
        bound = " and ".join(["at least"] * found.at_least + ["at most"] * found.at_most)
        console.print(f"a preferred multiplier is the smallest or largest tried: the ratio is {bound} that")
    if found.diverged:
        console.print(f"{found.diverged} of {found.runs} losses are not finite: their multipliers were not preferred")
    console.print(horizon_bias.advice(found, horizon))


def _setting(name: str, seed: int) -> tuple[LearnedOptimizer, Theta, tuple[str, ...], int]:
    """Optimizer, meta-parameters, task families and longest horizon of a preset or of a run."""
    if name in PRESETS:
        config = PRESETS[name]()
        if not isinstance(config, Config):
            raise UsageError(f"{name} has no horizon to choose: it trains whole runs; another preset is accepted")
        config = start_from(config, config.init) if config.init else config
        optimizer = registry.make(config.optimizer, config.optimizer_options)
        theta = initial_theta(config, optimizer, jax.random.key(seed))
        return optimizer, theta, tuple(config.tasks), config.max_horizon
    path = Path(name) / "config.json"
    if not path.is_file():
        raise errors.unknown("run or preset", name, [*PRESETS, "a run directory"])
    config_of_run = artifact.read_json(path, {"preset": str})
    if "max_horizon" not in config_of_run:
        raise UsageError(f"{name} has no horizon to choose: it trains whole runs; another run is accepted")
    optimizer, theta, _ = load_learned_optimizer(name)
    return optimizer, theta, tuple(config_of_run["tasks"]), int(config_of_run["max_horizon"])
