"""`learned-opt reproduce estimators`: every estimator scored against exact answers."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, get_args

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from rich.console import Console

from learned_opt.errors import UsageError
from learned_opt.evaluate.reproduce import identities, rows
from learned_opt.evaluate.reproduce.closed_forms import chain, noisy_quadratic
from learned_opt.evaluate.reproduce.rows import Detail, Reproduction, Row
from learned_opt.evaluate.reproduce.sampling import (
    MAX_Z,
    WHOLE,
    Case,
    Measurement,
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


@dataclass(frozen=True)
class Settings(rows.Settings):
    """Every meta-gradient estimator scored against closed forms."""

    samples: int = 100_000
    """Particles for each row."""

    def __post_init__(self) -> None:
        """Refuses what has no standard error."""
        super().__post_init__()
        if self.samples < 2:
            raise UsageError(f"--samples was given {self.samples}: a number from 2 is accepted")


def run(settings: Settings, console: Console) -> Reproduction:
    """Measures everything, saying what is under way."""
    samples, seed = settings.samples, settings.seed
    cases = list(_cases())
    console.print(f"compiling {len(cases)} programs", style="dim")
    with ThreadPoolExecutor(2) as pool:
        programs = list(pool.map(lambda case: case.compile(samples), cases))
    console.print(f"running them, {samples:,} particles each", style="dim")
    measured = [program(seed) for program in programs]
    console.print(f"all alignments of horizon and truncation up to {LONGEST}, and identities", style="dim")
    groups = list(_groups(measured))
    return Reproduction(
        "estimators",
        [
            *(_bias_row(title, group) for title, group in groups),
            *all_alignments(samples, seed),
            *identities.checks(),
        ],
        figures={"estimators": _png(measured)},
        details=[
            Detail(title, ("estimator", *COLUMNS), [[row.estimator, *_cells(row)] for row in group])
            for title, group in groups
        ],
        legend=LEGEND,
        extra={"estimators": [_as_dict(row) for row in measured]},
    )


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


def all_alignments(samples: int, seed: int, longest: int = LONGEST) -> Iterator[Row]:
    """PES and noise-reuse ES on both problems, every horizon with every truncation."""
    cases = [(problem, name) for problem in (chain(), noisy_quadratic()) for name in UNBIASED]
    with ThreadPoolExecutor(2) as pool:  # nothing is timed here
        found = pool.map(lambda case: alignments(case[0], case[1], longest, samples, seed), cases)
        for (problem, name), measured in zip(cases, found, strict=True):
            worst = max(measured, key=attrgetter("z"))
            yield Row(
                "alignments",
                f"{name} on the {problem.name}, {len(measured)} alignments with resets, {samples:,} particles each",
                f"|z| < {MAX_Z:g} against its smoothed objective, for each",
                f"largest {worst.z:.2f}, at {worst.horizon} / {worst.truncation}",
                worst.z < MAX_Z,
            )


def _groups(measured: list[Measurement]) -> Iterator[tuple[str, list[Measurement]]]:
    """By problem, horizon and truncation."""
    for (problem, horizon, truncation), group in itertools.groupby(measured, key=attrgetter(*KEY)):
        yield f"{problem}, horizon {horizon}, truncation {truncation}", list(group)


def _bias_row(title: str, group: list[Measurement]) -> Row:
    worst = max(group, key=attrgetter("z"))
    return Row(
        "bias",
        f"{len(group)} estimators on the {title}",
        f"|z| < {MAX_Z:g} against the closed form, for each",
        f"largest {worst.z:.2f}, of {worst.estimator}",
        all(row.passed for row in group),
    )


def _cells(row: Measurement) -> list[str]:
    percent = 100 / abs(row.exact)
    return [
        f"{row.bias * percent:+.2f} ± {row.sampled.error * percent:.2f}",
        f"{(row.expected - row.exact) * percent:+.2f}",
        f"{row.z:.1f}",
        f"{row.sampled.variance:.3g}",
        f"{row.sampled.seconds * 1e6:.1f}",
        f"{row.sampled.bytes:,.0f}",
    ]


def _as_dict(measured: Measurement) -> dict[str, Any]:
    names = (*KEY, "estimator", "exact", "expected", "bias", "z", "passed")
    return {name: getattr(measured, name) for name in names} | measured.sampled._asdict()


def _png(measured: list[Measurement]) -> bytes:
    """Bias and variance by truncation, measured (points) beside the closed form (lines)."""
    problem = noisy_quadratic()
    exact = problem.gradient([HORIZON])
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    bias, variance = figure.subplots(1, 2)
    every = np.arange(1, HORIZON + 1)
    for i, (name, (colour, marker)) in enumerate(STYLES.items()):
        shown = [r for r in measured if (r.problem, r.estimator, r.horizon) == (problem.name, name, HORIZON)]
        x = np.array([row.truncation for row in shown]) * 1.03 ** (i - 3)  # side by side, not on top of each other
        percent = 100 / exact
        expected = [(expected_gradient(problem, name, HORIZON, int(k)) - exact) * percent for k in every]
        bias.plot(every, expected, color=colour, linewidth=1, alpha=0.6)
        error = [4 * row.sampled.error * percent for row in shown]
        style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 6}
        bias.errorbar(x, [row.bias * percent for row in shown], error, label=name, capsize=2, **style)
        variance.plot(x, [row.sampled.variance for row in shown], **style)
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
    return rows.to_png(figure)
