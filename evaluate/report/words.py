"""What a report says in sentences, and how it writes numbers."""

import math

import numpy as np

from learned_opt.evaluate.scores import MEASURES, TUNED_ADAM
from learned_opt.evaluate.statistics import Estimate
from learned_opt.evaluate.summary import Aggregated, Summary


def verdict(summary: Summary) -> str:
    """One sentence on the first contender that is not a row of Adam."""
    if not summary.subjects:
        return f"Only rows of Adam took part: {', '.join(summary.labels)}."
    label, horizon = summary.subjects[0], summary.horizon
    found = summary.compared(label, TUNED_ADAM, horizon)
    training, validation = (_compared(summary, found.ratios[m], found.won[m], m) for m in ("final_loss", "valid_loss"))
    same = (found.ratios["final_loss"].overall.value > 1) == (found.ratios["valid_loss"].overall.value > 1)
    return (
        f"After {horizon} steps, {label} has {training} {'and' if same else 'but'} {validation} than Adam with the "
        f"best learning rate for each task; {_speed(summary, label)}; {diverged(summary, label)} of its runs diverged."
    )


def _compared(summary: Summary, found: Aggregated, won: list[str], measure: str) -> str:
    value, low, high = found.overall
    if low <= 1 <= high:
        what = f"a {MEASURES[measure]} not certainly lower or higher"
    else:
        what = f"a {'lower' if value > 1 else 'higher'} {MEASURES[measure]}"
    return f"{what} (ratio {interval(found.overall)}; lower on {len(won)} of {len(summary.tasks)} tasks)"


def _speed(summary: Summary, label: str) -> str:
    found = summary.compared(label, TUNED_ADAM, summary.speed_horizon).ratios["speed_up"]
    worth = bounded(found.bound, interval(found.overall))
    return f"until step {summary.speed_horizon}, one of its steps is worth {worth} of that Adam's"


def diverged(summary: Summary, label: str) -> str:
    """The share of runs at the longest horizon."""
    rate = summary.results.divergence_rate(label, summary.horizon)
    return f"{rate:.0%}" if rate in (0, 1) or rate >= 0.01 else "under 1%"


def losses(summary: Summary) -> dict[str, dict[str, str]]:
    """Where every contender but the rows of Adam loses to tuned Adam: by label and name of the measure."""
    return {
        label: {name: _lost(summary, label, measure) for measure, name in MEASURES.items()}
        for label in summary.subjects
    }


def _lost(summary: Summary, label: str, measure: str) -> str:
    places: dict[str, list[int]] = {}
    for horizon in summary.results.horizons:
        for task in summary.compared(label, TUNED_ADAM, horizon).lost[measure]:
            places.setdefault(task, []).append(horizon)
    return listed(summary, places)


def edges(summary: Summary) -> dict[str, str]:
    """Where the best rate of a sweep is the lowest or highest tried, by label: there the sweep was too narrow."""
    found = {}
    for contender in summary.results.contenders:
        if len(contender.rates) > 1:
            at_edge = {
                task: [h for h, score in runs[contender.label].scores.items() if score.at_edge]
                for task, runs in summary.results.runs.items()
            }
            found[contender.label] = listed(summary, {task: at for task, at in at_edge.items() if at})
    return found


def below_floor(summary: Summary) -> str:
    """On which tasks losses went below the floor, 0 where none is stated, and how many; empty if none did.

    Ratios take them for losses at the floor.
    """
    counts = np.zeros(len(summary.tasks), int)
    for label in summary.labels:
        for horizon in summary.results.horizons:
            for measure in ("final_loss", "valid_loss", "test_loss"):
                counts += (summary.losses(label, horizon, measure) < summary.floors[:, None]).sum(1)
    scores = len(summary.labels) * len(summary.results.horizons) * 3 * summary.results.seeds
    found = [f"{task} ({n} of {scores})" for task, n in zip(summary.tasks, counts, strict=True) if n]
    return ", ".join(found)


def listed(summary: Summary, places: dict[str, list[int]]) -> str:
    """Tasks with their horizons, or where it is not, if that is shorter to say."""
    horizons = summary.results.horizons
    left = {task: [h for h in horizons if h not in places.get(task, [])] for task in summary.tasks}
    others = {task: at for task, at in left.items() if at}
    if not places or not others:
        return "everywhere" if places else "nowhere"

    def named(found: dict[str, list[int]]) -> str:
        when = {task: f" ({', '.join(map(str, at))})" if len(horizons) > 1 else "" for task, at in found.items()}
        return ", ".join(task + after for task, after in when.items())

    return min(named(places), f"everywhere but {named(others)}", key=len)


def limits(summary: Summary, label: str) -> str:
    """How many ratios of a contender to tuned Adam were clipped or censored, at the horizons shown first."""
    loss = summary.compared(label, TUNED_ADAM, summary.horizon).ratios
    speed = summary.compared(label, TUNED_ADAM, summary.speed_horizon).ratios
    clipped = sum(int(loss[m].ratios.clipped.sum()) for m in ("final_loss", "valid_loss"))
    clipped += sum(int(speed[m].ratios.clipped.sum()) for m in ("speed_up", "valid_speed_up"))
    censored = sum(int(speed[m].ratios.censored.sum()) for m in ("speed_up", "valid_speed_up"))
    return f"{clipped}, {censored}"


def tuning(summary: Summary) -> dict[str, str]:
    """The tuning budget of every row, by label."""
    return {contender.label: contender.tuning or "not stated" for contender in summary.results.contenders}


def number(value: float, form: str = ".3g") -> str:
    """Three digits; a word where it is not finite."""
    return format(value, form) if math.isfinite(value) else ("-" if math.isnan(value) else "inf")


def ratio(value: float) -> str:
    """Two decimals below 10."""
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}"


def bounded(bound: str, text: str) -> str:
    """With the sign of `statistics.bounds` before it."""
    return f"{bound} {text}".lstrip()


def interval(estimate: Estimate) -> str:
    """`1.20 [1.10, 1.30]`, without an interval where one seed allows none."""
    value, low, high = map(float, estimate)
    return ratio(value) if np.isnan(low) else f"{ratio(value)} [{ratio(low)}, {ratio(high)}]"
