"""What a benchmark says of each contender: the statistics of `Results`, on matrices `[tasks, seeds]`."""

import functools
from dataclasses import dataclass

import numpy as np

from learned_opt.evaluate import curves, statistics
from learned_opt.evaluate.contenders import ONE_RATE, Contender
from learned_opt.evaluate.scores import DEFAULT_ADAM, MEASURES, TUNED_ADAM, Results, Run
from learned_opt.evaluate.statistics import Estimate, Ratios

BASELINES = (TUNED_ADAM, ONE_RATE, DEFAULT_ADAM)
SPEED_UPS = {"speed_up": "final_loss", "valid_speed_up": "valid_loss"}  # by the loss that is to be reached
RATIOS = {
    "final_loss": "final training loss",
    "valid_loss": "validation loss",
    "test_loss": "test loss",
    "speed_up": "steps to match, training loss",
    "valid_speed_up": "steps to match, validation loss",
    "one_sided_speed_up": "the same, of the baseline alone",
    "one_sided_valid_speed_up": "the same, validation loss",
}
TAUS = np.linspace(1, 4, 61)


@dataclass(frozen=True)
class Aggregated:
    """Ratios with their aggregates, over everything and over the seeds of each task.

    `bound` tells which way censored ratios hold the one over everything, as in `statistics.bounds`; `bounds`, each of
    the others.
    """

    ratios: Ratios
    overall: Estimate
    by_task: Estimate
    bound: str
    bounds: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """One contender beside one baseline at one horizon.

    Attributes:
        ratios: by name in `RATIOS`.
        improvement: the probability of it, by the training, validation or test loss.
        won, lost: tasks by the medians over seeds, by name in `MEASURES`.
    """

    ratios: dict[str, Aggregated]
    improvement: dict[str, Estimate]
    won: dict[str, list[str]]
    lost: dict[str, list[str]]


class Summary:
    """The statistics of a benchmark, each computed when first asked for."""

    def __init__(self, results: Results) -> None:
        """Nothing is computed yet."""
        self.results = results
        self.tasks = list(results.runs)
        self.labels = [contender.label for contender in results.contenders]
        self.baselines = [label for label in BASELINES if label in self.labels]
        self.floors = np.array([results.floors.get(task, 0.0) for task in self.tasks])
        self.compared = functools.cache(self._compared)
        self.steps_to_match = functools.cache(self._steps_to_match)

    @property
    def subjects(self) -> list[str]:
        """Every contender but the rows of Adam."""
        return [label for label in self.labels if label not in BASELINES]

    @property
    def horizon(self) -> int:
        """The longest, where losses are compared first."""
        return self.results.horizons[-1]

    @property
    def speed_horizon(self) -> int:
        """Where speed-ups are shown first: the longest that leaves both sides as many steps again, if there is one."""
        roomy = [h for h in self.results.horizons if 2 * h <= self.horizon]
        return roomy[-1] if roomy else self.horizon

    def contender(self, label: str) -> Contender:
        """The one called so."""
        return next(c for c in self.results.contenders if c.label == label)

    def losses(self, label: str, horizon: int, measure: str) -> np.ndarray:
        """`[tasks, seeds]`, inf where a run diverged."""
        return np.stack([getattr(runs[label].scores[horizon], measure) for runs in self.results.runs.values()])

    def _compared(self, label: str, baseline: str, horizon: int) -> Comparison:
        ratios: dict[str, Aggregated] = {}
        improvement: dict[str, Estimate] = {}
        won: dict[str, list[str]] = {}
        lost: dict[str, list[str]] = {}
        for measure in MEASURES:
            ours, theirs = (self.losses(x, horizon, measure) for x in (label, baseline))
            better, worse = statistics.wins(ours, theirs)
            won[measure], lost[measure] = ([self.tasks[i] for i in np.flatnonzero(x)] for x in (better, worse))
            if measure in RATIOS:
                ratios[measure] = _aggregated(statistics.loss_ratios(ours, theirs, self.floors))
                improvement[measure] = statistics.improvement(ours, theirs)
        for name, measure in SPEED_UPS.items():
            on_theirs = [self.steps_to_match(baseline, end, horizon, measure) for end in (label, baseline)]
            on_ours = [self.steps_to_match(label, end, horizon, measure) for end in (baseline, label)]
            diverged = [~np.isfinite(self.losses(x, horizon, measure)) for x in (label, baseline)]
            ratios[name] = _aggregated(statistics.speed_ups(on_theirs, on_ours, self.horizon, *diverged))
            one_sided = statistics.one_sided_speed_ups(on_theirs[0], horizon, self.horizon, *diverged)
            ratios[f"one_sided_{name}"] = _aggregated(one_sided)
        return Comparison(ratios, improvement, won, lost)

    def _steps_to_match(self, label: str, other: str, horizon: int, measure: str) -> np.ndarray:
        """The steps that one needs to reach the loss that another, or it itself, ends at, `[tasks, seeds]`."""
        ends = zip(self.losses(other, horizon, measure), self.results.runs.values(), strict=True)
        return np.stack([_steps_to_reach(loss, runs[label], measure) for loss, runs in ends])

    def mean_ranks(self, horizon: int, measure: str = "final_loss") -> dict[str, float]:
        """By label; 1 would be the best in every run."""
        ranks = statistics.mean_ranks(np.stack([self.losses(label, horizon, measure) for label in self.labels]))
        return dict(zip(self.labels, ranks.tolist(), strict=True))

    def seconds_per_step(self, label: str) -> np.ndarray:
        """`[tasks]`."""
        return np.array([runs[label].seconds_per_step for runs in self.results.runs.values()])

    def relative_cost(self, label: str) -> float:
        """What a step costs in seconds, by what one of tuned Adam's costs: geometric mean over tasks."""
        return float(np.exp(np.log(self.seconds_per_step(label) / self.seconds_per_step(TUNED_ADAM)).mean()))

    @functools.cached_property
    def profiles(self) -> dict[str, dict[str, np.ndarray]]:
        """Performance profiles at `TAUS`, in steps and in seconds, by label.

        A task is solved by reaching the final training loss of tuned Adam at the longest horizon, its cost is what it
        takes the median seed, and no run reaches it after that horizon.
        """
        matched = [self.steps_to_match(label, TUNED_ADAM, self.horizon, "final_loss") for label in self.labels]
        steps = np.median(matched, axis=-1)
        seconds = steps * np.stack([self.seconds_per_step(label) for label in self.labels])
        costs = {"steps": steps, "seconds": seconds}
        return {
            unit: dict(zip(self.labels, statistics.performance_profile(cost, TAUS), strict=True))
            for unit, cost in costs.items()
        }


def _aggregated(ratios: Ratios) -> Aggregated:
    return Aggregated(
        ratios,
        statistics.aggregate(ratios),
        statistics.per_task(ratios),
        str(statistics.bounds(ratios)),
        statistics.bounds(ratios, axis=-1),
    )


def _steps_to_reach(target: np.ndarray, run: Run, measure: str) -> np.ndarray:
    """When a run first reaches a loss, `[seeds]`; inf if it never does.

    A sweep has a best theta for each horizon, and may have the fastest of them: with the one of the longest alone it
    would be seen slower than it is, and who has one theta faster.
    """
    found = np.full(target.shape, np.inf)
    for horizon, score in run.scores.items():
        known = run.curves[horizon]
        if measure == "final_loss":
            losses = curves.smoothed(known.losses)
            at = statistics.steps_to_reach(target, np.arange(1, losses.shape[-1] + 1), losses)
        else:
            at = statistics.steps_to_reach(target, known.valid_steps, known.valid_losses)
        # A running mean is the final loss but for rounding, which must not keep a curve from its own end.
        ends = np.where(np.isfinite(target) & (getattr(score, measure) <= target), horizon, np.inf)
        found = np.minimum(found, np.minimum(at, ends))
    return found
