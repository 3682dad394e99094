"""`learned-opt benchmark`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from learned_opt.cli import parse
from learned_opt.commands import cores
from learned_opt.errors import UsageError
from learned_opt.evaluate import benchmark, contenders, report, suites
from learned_opt.evaluate.contenders import Contender
from learned_opt.evaluate.suites import Suite


@dataclass(frozen=True)
class BenchmarkFlags:
    """Score optimizers beside Adam at 1e-3 and Adam with the best of 15 learning rates for each task and horizon.

    Runs are kept in the cache folder (LEARNED_OPT_CACHE) by their content: given again with another optimizer, or after
    an interruption, only what is missing is run.
    """

    optimizers: tyro.conf.Positional[tuple[str, ...]]
    """Pretrained names and run directories, each also as NAME+cooldown, whose steps fall to 0 at each horizon; or
    baselines: adam (at its default), adam@3e-4, adam-tuned (an oracle), adam-one-lr (tuned on suite in-distribution),
    adamw-cosine (peak tuned), nadamw, schedule-free, prodigy, muon, sgd-momentum, lion, any other name of optax;
    NAME@RATE; NAME-tuned."""
    suite: str = "digits"
    """Tasks to score on."""
    tasks: tuple[str, ...] = ()
    """Only these of the suite (default: all)."""
    out: Path = Path("benchmark")
    """Where report.html, report.md, results.json and curves.png go."""
    seeds: int = 5
    """Runs on each task."""
    horizons: tuple[str, ...] = ()
    """Inner steps at which results are read, or multiples, such as 1x 10x 25x, of the longest horizon that an optimizer
    given was meta-trained on (default: those of the suite)."""
    steps: int | None = None
    """One horizon, in inner steps."""


def main(args: list[str]) -> None:
    """Scores optimizers on a suite."""
    flags = parse("benchmark", BenchmarkFlags, args)
    if not flags.optimizers:
        raise UsageError(
            "benchmark was given no optimizer: pretrained names, run directories or optax names are accepted"
        )
    cores.use_cores(None)
    suite = suites.suite(flags.suite)
    compared = [contenders.parse(name) for name in flags.optimizers]
    score(compared, flags, Console(soft_wrap=True), suite.only(flags.tasks) if flags.tasks else suite)


def score(compared: list[Contender], flags: BenchmarkFlags, console: Console, suite: Suite) -> None:
    """Scores them on `suite`, prints the tables and writes the results."""
    horizons = chosen_horizons(flags, compared) or suite.horizons
    report.prepare(flags.out)
    columns = (TextColumn("comparing"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")
        results = benchmark.run(
            suite,
            compared,
            flags.seeds,
            horizons,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    names = report.write(results, flags.out)
    report.show(results, console)
    console.print(cells_line(results.cells), highlight=False)
    console.print(f"{flags.out}: {', '.join(names)}; {results.wall_seconds:.0f} s")


def chosen_horizons(flags: BenchmarkFlags, compared: Sequence[Contender]) -> tuple[int, ...]:
    """In inner steps; none if there are no flags about them.

    Raises:
        UsageError: they are not positive, or multiples of a meta-trained horizon that no contender states.
    """
    if flags.steps is None:
        return tuple(_horizon(text, compared) for text in flags.horizons)
    if flags.horizons:
        raise UsageError("--steps and --horizons were given: one of them is accepted")
    return (_horizon(str(flags.steps), compared),)


def _horizon(text: str, compared: Sequence[Contender]) -> int:
    number = text.removesuffix("x")
    if not number.isdecimal() or not int(number):
        raise UsageError(f"horizon {text!r}: inner steps such as 1000, or a multiple such as 10x, are accepted")
    if number == text:
        return int(text)
    known = [contender.max_horizon for contender in compared if contender.max_horizon]
    if not known:
        raise UsageError(
            f"horizon {text!r}: no optimizer given says how long it was meta-trained; inner steps are accepted"
        )
    return int(number) * max(known)


def cells_line(cells: dict[str, int]) -> str:
    """What was run and what was not, in one line."""
    damaged = f" ({cells['damaged']} of them because their files were damaged)" if cells["damaged"] else ""
    return f"{cells['ran']} cells (one task, one theta, all seeds) were run{damaged}, {cells['cached']} were cached"
