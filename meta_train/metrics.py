"""Where the numbers of a run go: `metrics.jsonl`, TensorBoard events and the screen."""

import json
import math
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from learned_opt.errors import UsageError

PLAIN_LINE_EVERY = 10.0  # seconds, where there is no terminal to draw a bar on


class MetricsWriter:
    """`metrics.jsonl`, one line for each outer step, and the same as TensorBoard events."""

    def __init__(self, run_dir: Path, first_step: int) -> None:
        """Goes on from `first_step`: lines that a killed run wrote after its last checkpoint are removed.

        Raises:
            UsageError: a line is not one that this wrote.
        """
        path = run_dir / "metrics.jsonl"
        kept = [line for i, line in enumerate(_whole_lines(path)) if _step(line, f"{path}:{i + 1}") < first_step]
        partial = path.with_name(path.name + ".partial")
        partial.write_text("".join(line + "\n" for line in kept))
        os.replace(partial, path)
        self._file = path.open("a")
        self._events = SummaryWriter(str(run_dir), purge_step=first_step, flush_secs=10)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Adds the metrics of one outer step; what is not finite is null."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._file.write(json.dumps({"step": step, **{name: finite.get(name) for name in metrics}}) + "\n")
        # One event: `add_scalar` for each takes a fiftieth of an outer step.
        values = [Summary.Value(tag=f"meta_train/{name}", simple_value=value) for name, value in finite.items()]
        self._events.file_writer.add_summary(Summary(value=values), step)

    def flush(self) -> None:
        """What was written so far survives a kill."""
        self._file.flush()

    def close(self) -> None:
        """Writes what is left."""
        self._file.close()
        self._events.close()


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file that may end in the middle of one."""
    if not path.exists():
        return []
    *whole, _ = path.read_text().split("\n")
    return whole


def _step(line: str, where: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{where}: not the metrics of an outer step; the line, or the file, may be removed") from error


class ProgressReport:
    """A bar with the rate and the time left on a terminal, and plain lines elsewhere."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        """Starts at `done` of `total` outer steps."""
        self._console, self._total, self._first = console, total, done
        self._started = self._last_line = time.monotonic()
        self._progress: Progress | None = None
        self._task = TaskID(0)
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("meta-training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]:,.0f} inner steps/s"),
                TimeRemainingColumn(),
                TextColumn("loss {task.fields[loss]:.4f}"),
                console=console,
            )
            self._task = self._progress.add_task("", total=total, completed=done, rate=0.0, loss=float("nan"))

    def __enter__(self) -> Self:
        """Starts drawing."""
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops drawing."""
        if self._progress:
            self._progress.stop()

    def first_step_done(self, seconds: float) -> None:
        """The first step includes compilation, which the rate leaves out."""
        self._console.print(f"compiled in {seconds:.0f} s")
        self._started = self._last_line = time.monotonic()
        self._first += 1

    def step_done(self, done: int, inner_steps_per_step: float, loss: float) -> None:
        """One more outer step."""
        now = time.monotonic()
        seconds_per_step = (now - self._started) / max(done - self._first, 1)
        rate = inner_steps_per_step / seconds_per_step if done > self._first else 0.0
        if self._progress:
            self._progress.update(self._task, completed=done, rate=rate, loss=loss)
        elif now - self._last_line >= PLAIN_LINE_EVERY or done == self._total:
            self._last_line = now
            left = seconds_per_step * (self._total - done)
            self._console.print(
                f"outer step {done}/{self._total}, loss {loss:.4f}, {rate:,.0f} inner steps/s, {left:.0f} s left"
            )
