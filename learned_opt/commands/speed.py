"""`learned-opt speed`."""

import json
from dataclasses import dataclass

from rich.console import Console

from learned_opt.benchmarks import metaoptimize
from learned_opt.cli import parse
from learned_opt.errors import UsageError
from learned_opt.evaluate.provenance import provenance


@dataclass(frozen=True)
class SpeedFlags:
    """Cost per step, each beside its floor in one run; the last line is one JSON object. Exit status 1 past a limit."""

    repeats: int = 100
    """Rounds, in each of which everything is timed once."""
    steps: int = 5
    """Training steps timed at once: few, so that what else the machine does meets all of a round alike."""


def main(args: list[str]) -> None:
    """Measures and prints."""
    flags = parse("speed", SpeedFlags, args)
    for name in ("repeats", "steps"):
        if getattr(flags, name) < 1:
            raise UsageError(f"--{name} was given {getattr(flags, name)}: a number from 1 is accepted")
    console = Console(soft_wrap=True)
    found = list(metaoptimize.measure(flags.repeats, flags.steps))
    console.print(f"processor time of a step by that of plain AdamW, 1M-weight MLP, batch {metaoptimize.BATCH}")
    for row in found:
        word = "pass" if row.passed else "FAIL"
        console.print(
            f"{word}  {row.name}: {row.ratio:.3f} (quartiles {row.lower:.3f}, {row.upper:.3f}; at most {row.limit:g}); "
            f"{row.step_seconds * 1e3:.2f} ms against {row.floor_seconds * 1e3:.2f} ms",
            highlight=False,
        )
    passed = all(row.passed for row in found)
    print(json.dumps({**provenance(), "passed": passed, "metaoptimize": [row._asdict() for row in found]}))
    if not passed:
        raise SystemExit(1)
