"""`learned-opt reproduce`."""

import importlib
import time
from pathlib import Path

from rich.console import Console

from learned_opt import errors
from learned_opt.cli import parse
from learned_opt.errors import UsageError
from learned_opt.evaluate import report
from learned_opt.evaluate.reproduce import rows

# Modules of `learned_opt.evaluate.reproduce`, each with the dataclass `Settings` (flags; its docstring is the help) and
# `run(settings, console) -> Reproduction`.
RESULTS = {
    "estimators": "estimators",
    "short-horizon-bias": "short_horizon_bias",
    "step-size": "step_size",
    "fds": "fds",
    "metaoptimize": "metaoptimize",
    "star": "star",
}


def main(args: list[str]) -> None:
    """Makes a published result again; exit status 1 if a row fails."""
    if not args:
        raise UsageError(f"reproduce was given no result: accepted: {', '.join(RESULTS)}")
    name, *rest = args
    if name in ("-h", "--help"):
        print(_usage())
        return
    if name not in RESULTS:
        raise errors.unknown("result", name, RESULTS)
    module = importlib.import_module(f"learned_opt.evaluate.reproduce.{RESULTS[name]}")
    settings = parse(f"reproduce {name}", module.Settings, rest)
    console = Console(soft_wrap=True)
    out = settings.out or Path("reproduce") / name
    report.prepare(out)
    started = time.monotonic()
    found = module.run(settings, console)
    seconds = time.monotonic() - started
    rows.show(found, console)
    written = rows.write(found, out, settings, seconds)
    console.print(f"{out}: {', '.join(written)}; {seconds:.0f} s", highlight=False)
    if not found.passed:
        raise SystemExit(1)


def _usage() -> str:
    """Imports every module for its first line: asking for help is no time to save seconds."""
    lines = []
    for name, module in RESULTS.items():
        doc = importlib.import_module(f"learned_opt.evaluate.reproduce.{module}").Settings.__doc__ or ""
        lines.append(f"  {name:20}{doc.splitlines()[0]}")
    head = "usage: learned-opt reproduce RESULT [--out DIR] ...\n\n"
    return head + "\n".join(lines) + "\n\nlearned-opt reproduce RESULT --help tells more."
