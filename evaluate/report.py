"""A benchmark's results for a person: tables on a terminal, `results.json` and `curves.png`."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from learned_opt.checkpoints import artifact
from learned_opt.errors import UsageError
from learned_opt.evaluate import curves
from learned_opt.evaluate.batch import TEST_BATCHES
from learned_opt.evaluate.contenders import Contender
from learned_opt.evaluate.provenance import plain, provenance
from learned_opt.evaluate.scores import DEFAULT_ADAM, MEASURES, TUNED_ADAM, Results, Run, Score

TIMING = (
    "wall-clock of training by the steps of all runs side by side: one step of one run, batch and gradient included"
)


def show(results: Results, console: Console | None = None) -> None:
    """Prints the verdict, where optimizers lose to tuned Adam first, and two tables, a row for each optimizer."""
    console = console or Console()
    for line in [*verdict(results), *edges(results)]:
        console.print(line, highlight=False)
    console.print(_mean_table(results))
    console.print(_final_table(results))


def verdict(results: Results) -> list[str]:
    """Lines on every contender but Adam: first where it loses to tuned Adam, then the ratios over the suite."""
    labels = [c.label for c in results.contenders if c.label not in (DEFAULT_ADAM, TUNED_ADAM)]
    lines = []
    for label in labels:
        lost = {name: results.lost_to_tuned_adam(label, measure) for measure, name in MEASURES.items()}
        where = "; ".join(f"{name}: {_listed(results, places)}" for name, places in lost.items())
        lines.append(f"{label} loses to tuned Adam in {where}")
    for label in labels:
        ratios = ", ".join(f"{_ratio(results, label, h)} at {h} steps" for h in results.horizons)
        lines.append(f"{label}, mean training loss over the suite by that of tuned Adam: {ratios}")
    return lines


def edges(results: Results) -> list[str]:
    """For every swept contender, where its best rate is the lowest or highest tried: there the sweep was too narrow."""
    lines = []
    for contender in results.contenders:
        if len(contender.rates) > 1:
            at_edge = {
                task: [h for h, score in runs[contender.label].scores.items() if score.at_edge]
                for task, runs in results.runs.items()
            }
            where = _listed(results, {task: horizons for task, horizons in at_edge.items() if horizons})
            sweep = f"{len(contender.rates)} rates, {contender.rates[0]:.1e} to {contender.rates[-1]:.1e}"
            lines.append(
                f"{contender.label} is the best of {sweep}, for each task and horizon; best at an edge: {where}"
            )
    return lines


def prepare(directory: Path) -> None:
    """Makes `directory`; called before the work, so that hours of it do not end in a wrong path.

    Raises:
        UsageError: it cannot be made or written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be made a directory for results: {error.strerror}") from error
    if not os.access(directory, os.W_OK):
        raise UsageError(f"{directory}: cannot be written to")


def write(results: Results, directory: Path) -> None:
    """Writes `results.json` and `curves.png`; files already there are replaced once both new ones are whole.

    Raises:
        UsageError: the directory cannot be made or written to.
    """
    prepare(directory)
    text = json.dumps(plain(as_dict(results)), indent=1, allow_nan=False) + "\n"
    contents = {"results.json": text.encode(), "curves.png": curves.png(results)}
    for name, content in contents.items():
        artifact.replace(directory / name, content)


def as_dict(results: Results) -> dict[str, Any]:
    """Everything but the curves, with infinities where runs diverged."""
    labels = [contender.label for contender in results.contenders]
    return {
        "suite": results.suite,
        "seeds": results.seeds,
        "horizons": results.horizons,
        "test_batches": TEST_BATCHES,
        "wall_seconds": results.wall_seconds,
        "seconds_per_step": TIMING,
        **provenance(),
        "verdict": [*verdict(results), *edges(results)],
        "lost_to_tuned_adam": {
            label: {measure: results.lost_to_tuned_adam(label, measure) for measure in MEASURES} for label in labels
        },
        "contenders": {c.label: _contender(c) for c in results.contenders},
        "summary": {label: {h: _summary(results, label, h) for h in results.horizons} for label in labels},
        "tasks": {
            task: {c.label: _run(runs[c.label], c) for c in results.contenders} for task, runs in results.runs.items()
        },
    }


def _contender(contender: Contender) -> dict[str, Any]:
    return {
        "optimizer": repr(contender.optimizer),
        "rates": contender.rates,
        "sha256": contender.card.get("sha256"),
        "max_horizon": contender.max_horizon,
    }


def _summary(results: Results, label: str, horizon: int) -> dict[str, Any]:
    means = {
        measure: {
            "geometric_mean": results.geometric_mean(label, horizon, measure),
            "arithmetic_mean": results.arithmetic_mean(label, horizon, measure),
            "ratio_to_tuned_adam": results.ratio(label, horizon, measure),
        }
        for measure in MEASURES
    }
    return means | {"divergence_rate": results.divergence_rate(label, horizon)}


def _run(run: Run, contender: Contender) -> dict[str, Any]:
    return {
        "seconds_per_step": run.seconds_per_step,
        "runs_side_by_side": run.side_by_side,
        "horizons": {h: _score(score, contender.rates) for h, score in run.scores.items()},
    }


def _score(score: Score, rates: tuple[float, ...]) -> dict[str, Any]:
    result: dict[str, Any] = {measure: getattr(score, measure).mean() for measure in MEASURES}
    result |= {f"{measure}_by_seed": getattr(score, measure) for measure in MEASURES}
    result |= {"diverged": score.diverged.sum(), "divergence_rate": score.diverged.mean()}
    if rates:
        result |= {"rate": rates[score.best], "rate_at_edge": score.at_edge, "final_loss_by_rate": score.sweep}
    return result


def _mean_table(results: Results) -> Table:
    title = "Mean training loss: geometric mean over tasks, and its ratio to tuned Adam's"
    table = _table(title, results, "diverged", "us/step")
    table.caption, table.caption_justify = f"us/step: {TIMING}", "left"
    for contender in results.contenders:
        label = contender.label
        cells = [f"{_number(results.geometric_mean(label, h))} ({_ratio(results, label, h)})" for h in results.horizons]
        seconds = np.mean([runs[label].seconds_per_step for runs in results.runs.values()])
        diverged = results.divergence_rate(label, results.horizons[-1])
        table.add_row(label, *cells, f"{diverged:.0%}", f"{seconds * 1e6:.1f}")
    return table


def _final_table(results: Results) -> Table:
    table = _table("Mean training / final training / validation / test loss: arithmetic means over tasks", results)
    for contender in results.contenders:
        cells = [
            " / ".join(_number(results.arithmetic_mean(contender.label, h, measure), ".2g") for measure in MEASURES)
            for h in results.horizons
        ]
        table.add_row(contender.label, *cells)
    return table


def _table(title: str, results: Results, *more: str) -> Table:
    table = Table(title=f"{results.suite}, {results.seeds} seeds. {title}", title_justify="left")
    table.add_column("optimizer")
    for column in [*(f"{h} steps" for h in results.horizons), *more]:
        table.add_column(column, justify="right")
    return table


def _number(value: float, form: str = ".3g") -> str:
    return format(value, form) if math.isfinite(value) else "inf"


def _ratio(results: Results, label: str, horizon: int) -> str:
    ratio = results.ratio(label, horizon)
    return f"{ratio:.3g}x" if math.isfinite(ratio) else "-"


def _listed(results: Results, places: dict[str, list[int]]) -> str:
    """Tasks with their horizons, and shorter where it is all of them or none."""
    if sum(map(len, places.values())) == len(results.runs) * len(results.horizons):
        return "everywhere"
    return ", ".join(f"{task} ({', '.join(map(str, horizons))})" for task, horizons in places.items()) or "nowhere"
