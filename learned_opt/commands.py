"""What each command of the command line does."""

import dataclasses
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import jax
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from learned_opt import errors, registry
from learned_opt.checkpoints import artifact
from learned_opt.checkpoints.load import load_learned_optimizer
from learned_opt.cli import parse, stop
from learned_opt.errors import UsageError
from learned_opt.evaluate import benchmark as benchmarks
from learned_opt.evaluate import contenders, report, suites
from learned_opt.evaluate.reproduce import estimators
from learned_opt.meta_train.config import Config
from learned_opt.meta_train.estimators import EstimatorName
from learned_opt.meta_train.interrupt import Interrupted
from learned_opt.meta_train.presets import PRESETS, preset
from learned_opt.meta_train.trainer import MetaTrainer
from learned_opt.tasks.registry import AUGMENTATIONS, tasks
from learned_opt.tasks.survey import survey


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
class BenchmarkFlags:
    """Score optimizers beside Adam at 1e-3 and Adam with the best of 15 learning rates for each task and horizon."""

    optimizers: tyro.conf.Positional[tuple[str, ...]]
    """Pretrained names, run directories, or optax optimizers: adam (at its default), adam@3e-4, adam-tuned."""
    suite: str = "digits"
    """Tasks to score on."""
    out: Path = Path("benchmark")
    """Where results.json and curves.png go."""
    seeds: int = 4
    """Runs on each task."""
    horizons: tuple[int, ...] = ()
    """Inner steps at which results are read (default: those of the suite)."""


@dataclass(frozen=True)
class ReproduceFlags:
    """Make a published result again: every row with its criterion; exit status 1 if one fails."""

    result: tyro.conf.Positional[Literal["estimators"]]
    """Which: estimators."""
    out: Path | None = None
    """Where results.json, tables and plots go (default: reproduce/RESULT)."""
    samples: int = 100_000
    """Particles for each row."""
    seed: int = 0
    """Determines everything random."""


@dataclass(frozen=True)
class ExportFlags:
    """Turn a finished run into pretrained weights, a directory that `learned_opt.load` reads."""

    run: tyro.conf.Positional[Path]
    """The run directory."""
    name: tyro.conf.Positional[str]
    """The name of the weights."""
    out: Path = Path("checkpoints/pretrained")
    """The folder that gets NAME/."""
    description: str = ""
    """What the weights are, and are not, good for: the first line of their card."""


def train(args: list[str]) -> None:
    """Meta-trains, then compares the optimizer before and after with Adam."""
    name, rest = (args[0], args[1:]) if args and not args[0].startswith("-") else ("quickstart", args)
    default = preset(name)
    flags = parse(f"train {name}", TrainFlags, rest, TrainFlags(default))
    config = _with_options(_without(flags.config, flags.drop), default, flags.option)
    use_cores(config.devices)
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
    compared = [
        contenders.learned(f"{config.optimizer} before", optimizer, trainer.initial_theta()),
        contenders.learned(f"{config.optimizer} after", optimizer, theta, artifact.read(run_dir)[1]),
    ]
    _score(compared, BenchmarkFlags((), out=run_dir), console)


def benchmark(args: list[str]) -> None:
    """Scores optimizers on a suite."""
    flags = parse("benchmark", BenchmarkFlags, args)
    if not flags.optimizers:
        raise UsageError(
            "benchmark was given no optimizer: pretrained names, run directories or optax names are accepted"
        )
    use_cores(None)
    suites.suite(flags.suite)
    _score([contenders.parse(name) for name in flags.optimizers], flags, Console(soft_wrap=True))


def reproduce(args: list[str]) -> None:
    """Runs a reproduction."""
    flags = parse("reproduce", ReproduceFlags, args)
    if flags.samples < 2:
        raise UsageError(f"--samples was given {flags.samples}: a number from 2 is accepted")
    console = Console(soft_wrap=True)
    out = flags.out or Path("reproduce") / flags.result
    report.prepare(out)
    started = time.monotonic()
    found = estimators.run(flags.samples, flags.seed, console)
    seconds = time.monotonic() - started
    estimators.show(found, console)
    estimators.write(found, out, flags.samples, flags.seed, seconds)
    console.print(f"{out}: results.json, estimators.md, estimators.png; {seconds:.0f} s")
    if not found.passed:
        raise SystemExit(1)


def export(args: list[str]) -> None:
    """Copies theta and card of a finished run."""
    flags = parse("export", ExportFlags, args)
    if not flags.name.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"NAME was given {flags.name!r}: letters, digits, '-' and '_' are accepted")
    target = flags.out / flags.name
    if target.exists():
        raise UsageError(f"{target} exists: a new NAME is accepted, or another --out")
    if not (flags.run / "card.json").is_file():
        raise UsageError(f"{flags.run} is no finished run: it holds no card.json")
    theta, card = artifact.read(flags.run)
    load_learned_optimizer(flags.run)  # theta fits the architecture
    results = flags.run / "results.json"
    if results.is_file():
        card |= {"results": json.loads(results.read_text())["summary"]}
    artifact.write(target, theta, {"name": flags.name, "description": flags.description, **card})
    print(f"{target}: learned_opt.load({str(target)!r})")


def show_list(args: list[str]) -> None:
    """Prints what there is, by name; `tasks` tells more of those."""
    console = Console(soft_wrap=True, highlight=False)
    if args == ["tasks"]:
        show_tasks(console)
        return
    if args:
        raise UsageError(f"list was given {args[0]!r}: nothing, or tasks, is accepted")
    sections: dict[str, Iterable[str]] = {
        "presets": PRESETS,
        "learned optimizers": registry.OPTIMIZERS,
        "estimators": get_args(EstimatorName),
        "tasks": tasks(),
        "suites": [f"{s.name}: {s.description}" for s in suites.SUITES.values()],
        "pretrained weights": artifact.pretrained_names(),
    }
    for title, names in sections.items():
        console.print(f"[bold]{title}[/bold]")
        for name in names:
            console.print(f"  {name}", markup=False)


def show_tasks(console: Console) -> None:
    """A line for each task as soon as it is known; a data set that is not prepared says so."""
    console.print(f"{'task':34}{'data set':24}{'weights':>8}{'Mflop/step':>12}", style="bold")
    for name, entry in tasks().items():
        try:
            found = survey(entry.make())
            facts = f"{found.parameters:8,}{found.megaflops:12.3g}"
        except UsageError:
            facts = "  data set not prepared"
        console.print(f"{name:34}{entry.data:24}{facts}", markup=False)
    console.print("one gradient on one batch, by XLA's count, a loop counted once; augment any: NAME+AUGMENTATION")
    console.print(f"augmentations: {', '.join(AUGMENTATIONS)}")


def use_cores(devices: int | None) -> None:
    """Makes every core a CPU device, or as many as asked for; before JAX looks at its devices, and of no effect after.

    The number of forced CPU devices leaves accelerators alone.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", devices or cores)


def _score(compared: list[contenders.Contender], flags: BenchmarkFlags, console: Console) -> None:
    report.prepare(flags.out)
    suite = suites.suite(flags.suite)
    columns = (TextColumn("comparing"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")
        results = benchmarks.run(
            suite,
            compared,
            flags.seeds,
            flags.horizons or suite.horizons,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    report.write(results, flags.out)
    report.show(results, console)
    console.print(f"{flags.out}: results.json, curves.png; {results.wall_seconds:.0f} s")


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
    options: dict[str, Any] = dict(default.optimizer_options) if config.optimizer == default.optimizer else {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--option was given {text!r}: NAME=VALUE is accepted")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return dataclasses.replace(config, optimizer_options=options)
