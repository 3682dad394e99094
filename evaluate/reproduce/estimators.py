"""`learned-opt reproduce estimators`: every estimator scored against exact answers."""

import io
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from rich import box
from rich.console import Console
from rich.table import Table

from learned_opt.checkpoints import artifact
from learned_opt.evaluate.provenance import plain, provenance
from learned_opt.evaluate.reproduce import identities
from learned_opt.evaluate.reproduce.closed_forms import chain, noisy_quadratic
from learned_opt.evaluate.reproduce.identities import Check
from learned_opt.evaluate.reproduce.sampling import (
    MAX_Z,
    WHOLE,
    Case,
    Row,
    alignments,
    expected_gradient,
)
from learned_opt.meta_train.estimators import PERTURBING, EstimatorName
from learned_opt.meta_train.perturbation import Perturbation

HORIZON = 12  # of the figure, and of most of the table
TRUNCATIONS = (12, 5, 3, 1)
LONGEST = 6  # of all alignments
UNBIASED = ("pes", "noise-reuse-es")
KEY = ("problem", "horizon", "truncation")
COLUMNS = ("bias, %", "expected", "z", "variance", "us", "bytes")
LEGEND = """bias: of the mean over all inner problems run, in per cent of the exact gradient, with its standard error;
expected: what the closed form predicts (truncation, smoothing); z: standard errors between the two;
variance: of the estimate from one inner problem; us, bytes: time and temporary memory for one problem, in a batch"""
STYLES = {
    "pes": ("#0072B2", "o"),
    "noise-reuse-es": ("#56B4E9", "D"),
    "full-es": ("#009E73", "^"),
    "truncated-es": ("#E69F00", "v"),
    "truncated-backprop": ("#D55E00", "s"),
    "full-backprop": ("#000000", "P"),
    "forward": ("#CC79A7", "X"),
}


class Reproduction(NamedTuple):
    """The table, and what must hold beyond it."""

    rows: list[Row]
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether every row and every check did."""
        return all(row.passed for row in self.rows) and all(check.passed for check in self.checks)


def run(samples: int, seed: int, console: Console) -> Reproduction:
    """Measures everything, saying what is under way."""
    cases = list(_cases())
    console.print(f"compiling {len(cases)} programs", style="dim")
    with ThreadPoolExecutor(2) as pool:
        programs = list(pool.map(lambda case: case.compile(samples), cases))
    console.print(f"running them, {samples:,} particles each", style="dim")
    rows = [program(seed) for program in programs]
    console.print(f"all alignments of horizon and truncation up to {LONGEST}, and identities", style="dim")
    return Reproduction(rows, [*all_alignments(samples, seed), *identities.checks()])


def _cases() -> Iterator[Case]:
    """The rows of the table."""
    line, quadratic = chain(), noisy_quadratic()
    pairs = [(line, 4, 2), *((quadratic, HORIZON, truncation) for truncation in TRUNCATIONS), (quadratic, 100, 10)]
    for problem, horizon, truncation in pairs:
        for name in get_args(EstimatorName):
            # Whole problems do not depend on the truncation: once for each horizon is enough.
            if name not in WHOLE or (horizon, truncation) in ((4, 2), (HORIZON, HORIZON), (100, 10)):
                yield Case(problem, name, horizon, truncation)
    one_sided = Perturbation(antithetic=False)
    own_batches = Perturbation(common_random_numbers=False)
    yield Case(quadratic, "pes", HORIZON, 3, one_sided, "pes, one-sided")
    yield Case(quadratic, "pes", HORIZON, 3, own_batches, "pes, own batches")


def all_alignments(samples: int, seed: int, longest: int = LONGEST) -> Iterator[Check]:
    """PES and noise-reuse ES on both problems, every horizon with every truncation."""
    cases = [(problem, name) for problem in (chain(), noisy_quadratic()) for name in UNBIASED]
    with ThreadPoolExecutor(2) as pool:  # nothing is timed here
        found = pool.map(lambda case: alignments(case[0], case[1], longest, samples, seed), cases)
        for (problem, name), rows in zip(cases, found, strict=True):
            worst = max(rows, key=lambda row: row.z)
            yield Check(
                f"{name} on the {problem.name}, {len(rows)} alignments, resets included, {samples:,} particles each",
                f"|z| < {MAX_Z:g} against its smoothed objective, for each",
                f"largest {worst.z:.2f}, at {worst.horizon} / {worst.truncation}",
                worst.z < MAX_Z,
            )


def show(found: Reproduction, console: Console) -> None:
    """Prints a table for each problem, horizon and truncation, and the checks."""
    console.print(LEGEND)
    for (problem, horizon, truncation), rows in itertools.groupby(found.rows, key=attrgetter(*KEY)):
        table = Table(title=f"{problem}, horizon {horizon}, truncation {truncation}", title_justify="left")
        table.box, table.padding = box.SIMPLE_HEAD, (0, 1, 0, 0)
        table.add_column("estimator", no_wrap=True, min_width=18)
        for column in COLUMNS:
            table.add_column(column, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(row.estimator, *_cells(row), style=None if row.passed else "bold red")
        console.print(table)
    for check in found.checks:
        word = "pass" if check.passed else "FAIL"
        console.print(f"{word}  {check.name}: {check.measured} ({check.criterion})", highlight=False)
    failed = [row for row in found.rows if not row.passed]
    for row in failed:
        console.print(f"FAIL  {row.estimator} on the {row.problem}, {row.horizon} / {row.truncation}: z = {row.z:.1f}")
    console.print(f"{len(found.rows) - len(failed)} of {len(found.rows)} rows within {MAX_Z:g} standard errors")


def _cells(row: Row) -> list[str]:
    percent = 100 / abs(row.exact)
    return [
        f"{row.bias * percent:+.2f} ± {row.sampled.error * percent:.2f}",
        f"{(row.expected - row.exact) * percent:+.2f}",
        f"{row.z:.1f}",
        f"{row.sampled.variance:.3g}",
        f"{row.sampled.seconds * 1e6:.1f}",
        f"{row.sampled.bytes:,.0f}",
    ]


def write(found: Reproduction, directory: Path, samples: int, seed: int, seconds: float) -> None:
    """`results.json`, `estimators.md` and `estimators.png`."""
    rows = [
        {name: getattr(row, name) for name in (*KEY, "estimator", "exact", "expected", "bias", "z", "passed")}
        | row.sampled._asdict()
        for row in found.rows
    ]
    results = {
        **provenance(),
        "samples": samples,
        "seed": seed,
        "seconds": seconds,
        "passed": found.passed,
        "rows": rows,
        "checks": [check._asdict() for check in found.checks],
    }
    artifact.replace(directory / "results.json", (json.dumps(plain(results), indent=1) + "\n").encode())
    artifact.replace(directory / "estimators.md", markdown(found).encode())
    artifact.replace(directory / "estimators.png", png(found))


def markdown(found: Reproduction) -> str:
    """The table for a document."""
    head = ("problem", "horizon / truncation", "estimator", *COLUMNS)
    lines = ["| " + " | ".join(head) + " |", "|---|---|---|" + "---:|" * len(COLUMNS)]
    for row in found.rows:
        cells = [row.problem, f"{row.horizon} / {row.truncation}", f"`{row.estimator}`", *_cells(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def png(found: Reproduction) -> bytes:
    """Bias and variance by truncation, measured (points) beside the closed form (lines)."""
    problem = noisy_quadratic()
    exact = problem.gradient([HORIZON])
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    bias, variance = figure.subplots(1, 2)
    every = np.arange(1, HORIZON + 1)
    for i, (name, (colour, marker)) in enumerate(STYLES.items()):
        rows = [r for r in found.rows if (r.problem, r.estimator, r.horizon) == (problem.name, name, HORIZON)]
        x = np.array([row.truncation for row in rows]) * 1.03 ** (i - 3)  # side by side, not on top of each other
        percent = 100 / exact
        expected = [(expected_gradient(problem, name, HORIZON, int(k)) - exact) * percent for k in every]
        bias.plot(every, expected, color=colour, linewidth=1, alpha=0.6)
        error = [4 * row.sampled.error * percent for row in rows]
        style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 6}
        bias.errorbar(x, [row.bias * percent for row in rows], error, label=name, capsize=2, **style)
        variance.plot(x, [row.sampled.variance for row in rows], **style)
    bias.set(ylabel="bias, % of the exact gradient (bars: 4 standard errors)")
    variance.set(ylabel="variance of one problem's estimate", yscale="log")
    variance.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    variance.yaxis.set_major_formatter("{x:g}")
    for panel in (bias, variance):
        panel.set(xlabel=f"truncation, of a horizon of {HORIZON}", xscale="log", xticks=list(TRUNCATIONS))
        panel.set_xticklabels([str(k) for k in TRUNCATIONS])
        panel.minorticks_off()
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"Noisy quadratic: {', '.join(PERTURBING)} at sigma 0.01; lines: what the closed form predicts", fontsize=10
    )
    figure.legend(*bias.get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
