"""The command line: finds the command, parses its flags and turns bad input into one line and exit status 2."""

import contextlib
import importlib
import io
import sys
from typing import Any, TypeVar

from learned_opt import errors
from learned_opt.errors import UsageError

Flags = TypeVar("Flags")

COMMANDS = {
    "train": "[PRESET] [--run-dir DIR] [--flags]: meta-train an optimizer (default: quickstart); again, to resume",
    "benchmark": "OPTIMIZER... [--suite SUITE] [--out DIR]: score optimizers on tasks, beside tuned Adam",
    "reproduce": "RESULT [--out DIR]: make a published result again, each row with its criterion",
    "speed": "[--repeats N]: throughput and cost per step, each beside its floor; the last line is one JSON object",
    "diagnose": "horizon RUN_OR_PRESET: whether a meta-training horizon is too short, and what to do",
    "export": "RUN NAME [--out DIR] [--option NAME=VALUE]: turn a finished run into pretrained weights",
    "list": "presets, optimizers, estimators, tasks, suites and pretrained weights; list tasks: what each costs",
}


def main(args: list[str] | None = None) -> None:
    """Runs one command. Exits with 2 after bad input, and with 128 + its number after a signal."""
    command, *rest = (sys.argv[1:] if args is None else args) or ["--help"]
    try:
        if command in ("-h", "--help"):
            print(_usage())
        elif command in COMMANDS:
            # Imported only now: help must not wait for JAX.
            importlib.import_module(f"learned_opt.commands.{command}").main(rest)
        else:
            raise errors.unknown("command", command, COMMANDS)
    except UsageError as error:
        stop(str(error), 2)
    except FloatingPointError as error:
        stop(str(error), 1)
    except KeyboardInterrupt:
        stop("interrupted", 130)


def stop(message: str, status: int) -> None:
    """Ends the program with one line on standard error."""
    print(f"learned-opt: {message}", file=sys.stderr)
    raise SystemExit(status)


def parse(command: str, kind: type[Flags], args: list[str], default: Flags | None = None) -> Flags:
    """Flags as an instance of the dataclass `kind`.

    Raises:
        UsageError: a flag is unknown, its value is not accepted, or it takes several and has none.
    """
    import tyro

    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            options: dict[str, Any] = {} if default is None else {"default": default}
            found = tyro.cli(kind, args=args, prog=f"learned-opt {command}", **options)
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(f"{command}: {_one_line(message.getvalue())}") from None
    for flag in args:
        if flag.startswith("--") and getattr(found, flag[2:].replace("-", "_"), None) == ():
            raise UsageError(f"{flag} was given nothing: at least one value is accepted")
    return found


def _one_line(box: str) -> str:
    """tyro draws its complaints in a box over several lines; this is their text."""
    lines = [line.strip("│ \t") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    text = " ".join(line for line in lines if line and set(line) != {"─"})
    return text.split(" For full helptext")[0]


def _usage() -> str:
    lines = [f"  {name:10}{does}" for name, does in COMMANDS.items()]
    return "usage: learned-opt COMMAND ...\n\n" + "\n".join(lines) + "\n\nlearned-opt COMMAND --help tells more."


if __name__ == "__main__":
    main()
