"""`learned-opt reproduce`."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from learned_opt.cli import parse
from learned_opt.errors import UsageError
from learned_opt.evaluate import report
from learned_opt.evaluate.reproduce import estimators


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


def main(args: list[str]) -> None:
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
