"""`learned-opt speed`."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console

from learned_opt import native
from learned_opt.benchmarks import meta_training, metaoptimize, update
from learned_opt.cli import parse
from learned_opt.commands import cores
from learned_opt.errors import UsageError
from learned_opt.evaluate.provenance import provenance

Part = Literal["meta-training", "update", "metaoptimize"]


@dataclass(frozen=True)
class SpeedFlags:
    """Throughput and cost per step, each beside its floor in one run. Exit status 1 past a limit.

    The last line is one JSON object.
    """

    repeats: int = 50
    """Rounds, in each of which everything is timed once."""
    steps: int = 5
    """Training steps with metaoptimize timed at once: few, so that what else the machine does meets all alike."""
    parts: tuple[Part, ...] = ("meta-training", "update", "metaoptimize")
    """What to measure."""
    clock: Literal["wall", "processor"] = "wall"
    """Time of the processor, all threads, leaves out the turns that other processes take, and what threads wait."""
    most_parameters: int = 10_000_000
    """Leave out larger trees."""


def main(args: list[str]) -> None:
    """Measures and prints."""
    flags = parse("speed", SpeedFlags, args)
    for name in ("repeats", "steps", "most_parameters"):
        if getattr(flags, name) < 1:
            raise UsageError(
                f"--{name.replace('_', '-')} was given {getattr(flags, name)}: a number from 1 is accepted"
            )
    clock = time.process_time if flags.clock == "processor" else time.perf_counter
    if "meta-training" in flags.parts:  # on one device and on all; the others are measured as users run them
        cores.use_cores(None)
    console = Console(soft_wrap=True)
    console.print(f"STAR's updates by {native.status()}", highlight=False)
    measures: dict[Part, Callable[[], Iterable[Any]]] = {
        "meta-training": lambda: meta_training.measure(flags.repeats, clock),
        "update": lambda: update.measure(flags.repeats, flags.most_parameters, clock),
        "metaoptimize": lambda: metaoptimize.measure(flags.repeats, flags.steps),
    }
    found: dict[str, list[dict[str, Any]]] = {}
    targets = []
    for part in flags.parts:
        console.print(f"{part}:")
        found[part] = []
        for row in measures[part]():
            for target in row.targets():
                console.print(target.line(), highlight=False)
                targets.append(target)
            console.print(row.line(), highlight=False)
            found[part].append(row._asdict())
    passed = all(target.passed for target in targets)
    listed = [{**target._asdict(), "passed": target.passed} for target in targets]
    print(json.dumps({**provenance(), "passed": passed, "targets": listed, **found}))
    if not passed:
        raise SystemExit(1)
