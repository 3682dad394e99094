"""The tables of a report as text, the same on a terminal, on the page and in Markdown."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from learned_opt.evaluate.report import words
from learned_opt.evaluate.scores import MEASURES, TUNED_ADAM
from learned_opt.evaluate.statistics import Estimate
from learned_opt.evaluate.summary import Aggregated, Summary

TIMING = (
    "wall-clock of training by the steps of all runs side by side: one step of one run, batch and gradient included"
)


class Cell(NamedTuple):
    """Text; `kind` is `win` or `loss` where an interval says so, and where there is no interval."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Each row begins with its name."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[Cell]]


def main(summary: Summary) -> Table:
    """Every contender against tuned Adam: how low, how fast, how often."""
    late, early = summary.horizon, summary.speed_horizon
    columns = ["optimizer", "training loss", "valid. loss", f"speed-up at {early}", "on valid. loss"]
    columns += [f"beats {baseline.removeprefix('adam-')}" for baseline in summary.baselines] + ["diverged"]
    rows = []
    for label in summary.labels:
        losses = summary.compared(label, TUNED_ADAM, late).ratios
        speeds = summary.compared(label, TUNED_ADAM, early).ratios
        shown = [losses["final_loss"], losses["valid_loss"], speeds["speed_up"], speeds["valid_speed_up"]]
        beaten = [Cell(_beaten(summary, label, baseline)) for baseline in summary.baselines]
        rows.append([Cell(label), *map(_overall, shown), *beaten, Cell(words.diverged(summary, label))])
    note = (
        f"Ratios to {TUNED_ADAM}, above 1 is better; interquartile mean over {len(summary.tasks)} tasks and "
        f"{summary.results.seeds} seeds with its 95 % interval. Losses after {late} steps. Speed-up: how many steps of "
        f"{TUNED_ADAM} one is worth, from when the curves of both reach the losses that both end at after {early}; "
        f"\u2265, \u2264, \u2277: at least, at most, either, as {late} steps were not enough to tell. "
        f"Beats {', '.join(summary.baselines)}: on how many of the {len(summary.tasks)} tasks the median training and "
        f"validation losses are lower."
    )
    return Table(f"Against Adam tuned for each task, after {late} steps", note, columns, rows)


def other(summary: Summary) -> Table:
    """The remaining figures of every contender, over the suite."""
    columns = ["optimizer", "chance to improve", "on valid. loss", "mean rank", "clipped, cens."]
    columns += ["us per step", "cost of a step", "speed-up in time", "one-sided speed-up"]
    ranks = summary.mean_ranks(summary.horizon)
    rows = []
    for label in summary.labels:
        found = summary.compared(label, TUNED_ADAM, summary.horizon)
        speeds = summary.compared(label, TUNED_ADAM, summary.speed_horizon).ratios
        speed, one_sided = speeds["speed_up"], speeds["one_sided_speed_up"]
        cost = summary.relative_cost(label)
        cells = [
            *(words.interval(found.improvement[m]) for m in ("final_loss", "valid_loss")),
            f"{ranks[label]:.1f} of {len(ranks)}",
            words.limits(summary, label),
            f"{summary.seconds_per_step(label).mean() * 1e6:.1f}",
            f"{cost:.2f}x",
            words.bounded(speed.bound, words.ratio(float(speed.overall.value) / cost)),
            words.bounded(one_sided.bound, words.interval(one_sided.overall)),
        ]
        rows.append([Cell(label), *map(Cell, cells)])
    note = (
        f"Probability that a run ends lower than one of {TUNED_ADAM} on the same task, ties half. Rank by final "
        f"training loss. Clipped: ratios beyond 0.1 or 10; censored: speed-ups that are at least or at most what is "
        f"shown; of all tasks and seeds, training and validation. us per step: {TIMING}. Cost and time: relative to "
        f"{TUNED_ADAM}. One-sided: only the steps that {TUNED_ADAM} needs to reach the training loss that the "
        f"optimizer ends at after {summary.speed_horizon}, by {summary.speed_horizon}; a noisy curve touches its own "
        f"end early, so that equals are below 1."
    )
    if cached := summary.results.cells.get("cached", 0):
        sets = cached + summary.results.cells["ran"]
        note += f" Times of {cached} of {sets} sets of runs come from the cache: of when, and beside what, they ran."
    return Table("Probability of improvement, rank, wall-clock", note, columns, rows)


def by_horizon(summary: Summary) -> Table:
    """Loss ratios to tuned Adam at every horizon."""
    horizons = summary.results.horizons
    rows = []
    for label in summary.labels:
        if label != TUNED_ADAM:
            found = [summary.compared(label, TUNED_ADAM, horizon) for horizon in horizons]
            cells = [_overall(x.ratios[m]) for m in ("final_loss", "valid_loss") for x in found]
            rows.append([Cell(label), *cells])
    columns = ["optimizer", *(f"{name} {h}" for name in ("training", "valid.") for h in horizons)]
    return Table("Loss ratios by horizon", f"To {TUNED_ADAM} of the same horizon; above 1 is better.", columns, rows)


def by_task(summary: Summary, name: str) -> Table:
    """One ratio to tuned Adam of every contender on every task."""
    labels = [label for label in summary.labels if label != TUNED_ADAM]
    horizon = summary.speed_horizon if "speed" in name else summary.horizon
    found = {label: summary.compared(label, TUNED_ADAM, horizon).ratios[name] for label in labels}
    rows = [[Cell(task), *(_of_task(found[label], i) for label in labels)] for i, task in enumerate(summary.tasks)]
    return Table("", "", ["task", *labels], rows)


def means(summary: Summary) -> Table:
    """The losses themselves, for whoever wants no ratios."""
    horizons = summary.results.horizons
    rows = []
    for label in summary.labels:
        cells = [
            " / ".join(words.number(summary.results.arithmetic_mean(label, h, measure)) for measure in MEASURES)
            for h in horizons
        ]
        rows.append([Cell(label), *map(Cell, cells)])
    title = "Mean training / final training / validation / test loss"
    note = "Arithmetic means over tasks and seeds; inf where a run diverged."
    return Table(title, note, ["optimizer", *(f"{h} steps" for h in horizons)], rows)


def medians(summary: Summary) -> Table:
    """Losses by task."""
    rows = []
    for task, runs in summary.results.runs.items():
        scores = [runs[label].scores[summary.horizon] for label in summary.labels]
        cells = [" / ".join(words.number(float(np.median(x))) for x in (s.final_loss, s.valid_loss)) for s in scores]
        rows.append([Cell(task), *map(Cell, cells)])
    return Table("", "", ["task", *summary.labels], rows)


def worst(summary: Summary) -> Table:
    """The tasks that the first contender loses, worst first."""
    label, names = summary.subjects[0], ("final_loss", "valid_loss", "test_loss")
    found = summary.compared(label, TUNED_ADAM, summary.horizon)
    lost = [i for i, task in enumerate(summary.tasks) if any(task in found.lost[name] for name in names)]
    ratios = {name: found.ratios[name] for name in names}
    lost.sort(key=lambda i: min(float(ratios[name].by_task.value[i]) for name in names))
    rows = [[Cell(summary.tasks[i]), *(_of_task(ratios[name], i, with_interval=True) for name in names)] for i in lost]
    note = f"Loss ratios to {TUNED_ADAM} after {summary.horizon} steps, 95 % intervals over seeds; below 1 is worse."
    return Table(f"The tasks that {label} loses", note, ["task", *(MEASURES[name] for name in names)], rows)


def _overall(found: Aggregated) -> Cell:
    return Cell(words.bounded(found.bound, words.interval(found.overall)), _kind(*map(float, found.overall)))


def _of_task(found: Aggregated, i: int, with_interval: bool = False) -> Cell:
    value, low, high = (float(x[i]) for x in found.by_task)
    diverged = int(found.ratios.diverged[i].sum())
    text = words.interval(Estimate(value, low, high)) if with_interval else words.ratio(value)
    text = words.bounded(found.bounds[i], text)
    return Cell(text + (f" ({diverged} diverged)" if diverged else ""), _kind(value, low, high))


def _kind(value: float, low: float, high: float) -> str:
    if low <= 1 <= high:
        return ""
    return "win" if value > 1 else "loss" if value < 1 else ""


def _beaten(summary: Summary, label: str, baseline: str) -> str:
    if label == baseline:
        return "-"
    won = summary.compared(label, baseline, summary.horizon).won
    return f"{len(won['final_loss'])}, {len(won['valid_loss'])}"
