"""`learned-opt benchmark`."""

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from learned_opt.cli import parse
from learned_opt.commands import cores
from learned_opt.errors import UsageError
from learned_opt.evaluate import benchmark, contenders, report, suites


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


def main(args: list[str]) -> None:
    """Scores optimizers on a suite."""
    flags = parse("benchmark", BenchmarkFlags, args)
    if not flags.optimizers:
        raise UsageError(
            "benchmark was given no optimizer: pretrained names, run directories or optax names are accepted"
        )
    cores.use_cores(None)
    suites.suite(flags.suite)
    score([contenders.parse(name) for name in flags.optimizers], flags, Console(soft_wrap=True))


def score(compared: list[contenders.Contender], flags: BenchmarkFlags, console: Console) -> None:
    """Scores them, prints the tables and writes the results."""
    report.prepare(flags.out)
    suite = suites.suite(flags.suite)
    columns = (TextColumn("comparing"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")
        results = benchmark.run(
            suite,
            compared,
            flags.seeds,
            flags.horizons or suite.horizons,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    report.write(results, flags.out)
    report.show(results, console)
    console.print(f"{flags.out}: results.json, curves.png; {results.wall_seconds:.0f} s")
