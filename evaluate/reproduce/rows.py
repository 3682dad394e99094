"""What every reproduction is made of: rows with criteria, further tables, figures; how they are shown and written."""

import functools
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from learned_opt import errors
from learned_opt.checkpoints import artifact
from learned_opt.errors import UsageError
from learned_opt.evaluate.provenance import plain, provenance

# Compiles four times as fast, to slower code: for identities, whose programs are large and run once.
quick_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
)


@dataclass(frozen=True)
class Settings:
    """What can be asked of any reproduction."""

    out: Path | None = None
    """Where results.json, tables and plots go (default: reproduce/RESULT)."""
    seed: int = 0
    """Determines everything random."""

    def __post_init__(self) -> None:
        """Refuses values that no run could have."""
        errors.check_seed(self.seed)


@dataclass(frozen=True)
class SeededSettings(Settings):
    """Of a reproduction that draws random numbers, and shows their spread."""

    seeds: int = 3
    """Runs of everything that draws random numbers, each with its own."""

    def __post_init__(self) -> None:
        """Refuses too few for a spread."""
        super().__post_init__()
        if self.seeds < 3:
            raise UsageError(f"--seeds was given {self.seeds}: a number from 3 is accepted")


class Row(NamedTuple):
    """One claim: what was measured, the criterion it has to meet, and whether it does.

    id: short, unique in a reproduction or shared by rows of one kind. published: the paper's figure, where it has one.
    spread: over seeds, or the standard error; empty where nothing is random.
    """

    id: str
    what: str
    criterion: str
    measured: str
    passed: bool
    published: str = ""
    spread: str = ""


COLUMNS = ("id", "what", "published", "measured", "spread", "criterion")


class Detail(NamedTuple):
    """A table behind the rows; the first column is text, the others are numbers."""

    title: str
    columns: Sequence[str]
    cells: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Reproduction:
    """What a reproduction found.

    Attributes:
        name: of the paper's result, as on the command line.
        rows: in the order they are shown.
        figures: PNG files by name, without the ending.
        details: tables shown before the rows.
        legend: lines on those tables.
        extra: more for results.json, such as curves: numbers, texts, arrays, and lists and dicts of them.
    """

    name: str
    rows: list[Row]
    figures: dict[str, bytes] = field(default_factory=dict)
    details: list[Detail] = field(default_factory=list)
    legend: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> list[Row]:
        """Rows that do not meet their criterion."""
        return [row for row in self.rows if not row.passed]

    @property
    def passed(self) -> bool:
        """Whether every row meets its criterion; without rows nothing has been shown."""
        return bool(self.rows) and not self.failed


def show(found: Reproduction, console: Console) -> None:
    """Prints the details, every row beside its criterion, and which fail."""
    if found.legend:
        console.print(found.legend, highlight=False)
    for detail in found.details:
        console.print(_table(detail))
    table = Table(title=found.name, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    columns = [name for name in COLUMNS if name in ("id", "what") or any(getattr(row, name) for row in found.rows)]
    for name in columns:
        table.add_column(name, no_wrap=name == "id")
    table.add_column("")
    for row in found.rows:
        cells = [getattr(row, name) for name in columns]
        table.add_row(*cells, "pass" if row.passed else "FAIL", style=None if row.passed else "bold red")
    console.print(table)
    console.print(verdict(found), highlight=False)


def verdict(found: Reproduction) -> str:
    """One line: all rows pass, or which do not."""
    if found.passed:
        return f"all rows pass ({len(found.rows)})"
    failed = "; ".join(f"{row.id} ({row.what})" for row in found.failed) or "there are none"
    return f"{len(found.failed)} of {len(found.rows)} rows fail: {failed}"


def write(found: Reproduction, directory: Path, settings: Settings, seconds: float) -> list[str]:
    """Writes `results.json`, `NAME.md` and the figures; the names of the files."""
    asked = {name: value for name, value in vars(settings).items() if name != "out"}
    results = {
        **provenance(),
        **asked,
        "seconds": seconds,
        "passed": found.passed,
        "rows": [row._asdict() for row in found.rows],
        **found.extra,
    }
    contents = {
        "results.json": (json.dumps(plain(results), indent=1, allow_nan=False) + "\n").encode(),
        f"{found.name}.md": markdown(found).encode(),
        **{f"{name}.png": png for name, png in found.figures.items()},
    }
    for name, content in contents.items():
        artifact.replace(directory / name, content)
    return list(contents)


def markdown(found: Reproduction) -> str:
    """The tables for a document."""
    rows = [[*(getattr(row, name) for name in COLUMNS), "pass" if row.passed else "**FAIL**"] for row in found.rows]
    parts = [_markdown_table((*COLUMNS, ""), rows, "---|" * (len(COLUMNS) + 1))]
    if found.legend:
        parts.append(found.legend + "\n")
    for detail in found.details:
        table = _markdown_table(detail.columns, detail.cells, "---|" + "---:|" * (len(detail.columns) - 1))
        parts.append(f"{detail.title}\n\n{table}")
    return "\n".join(parts)


def dress(panel: Axes, title: str, x: str, logarithmic: bool) -> None:
    """What the panels of all figures have in common."""
    panel.set(xlabel=x, yscale="log" if logarithmic else "linear")
    panel.set_title(title, fontsize=10)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _table(detail: Detail) -> Table:
    table = Table(title=detail.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, name in enumerate(detail.columns):
        table.add_column(name, no_wrap=True, justify="right" if i else "left", min_width=0 if i else 18)
    for cells in detail.cells:
        table.add_row(*cells)
    return table


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], rule: str) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + rule]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in rows]
    return "\n".join(lines) + "\n"
