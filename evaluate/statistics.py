"""Statistics of optimizers on matrices `[tasks, seeds]`: what was clipped, censored or diverged stays in sight.

Aggregates follow Agarwal et al. (2021, arXiv 2108.13264), with two changes. Ratios are averaged as logarithms: swapping
the optimizer and the baseline then inverts the aggregate, and neither is favoured. Resamples have one seed less than
there are (Rao and Wu, 1988, section 2): of four seeds, as many as there are cover 90 % where 95 % is claimed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

LOWEST, HIGHEST = 0.1, 10.0  # of a ratio before it is averaged
CONFIDENCE = 0.95
DRAWS = 10_000


class Ratios(NamedTuple):
    """Above 1 is in the optimizer's favour; all are `[tasks, seeds]`.

    values: within `LOWEST` and `HIGHEST`. clipped: the ratio lies beyond. at_least, at_most: it is censored, for a run
    ended too early to tell. diverged: the optimizer's run did: the value is `LOWEST`, or 1 if the baseline's did too.
    """

    values: np.ndarray
    clipped: np.ndarray
    at_least: np.ndarray
    at_most: np.ndarray
    diverged: np.ndarray

    @property
    def censored(self) -> np.ndarray:
        """Either way."""
        return self.at_least | self.at_most


class Estimate(NamedTuple):
    """An aggregate and its 95 % interval, whose ends are NaN where there is one seed. Numbers, or `[tasks]`."""

    value: Any
    low: Any
    high: Any


def loss_ratios(ours: np.ndarray, baseline: np.ndarray, floor: np.ndarray | float = 0.0) -> Ratios:
    """The baseline's loss over ours, both above `floor`.

    Args:
        ours: `[tasks, seeds]`; not finite where a run diverged.
        baseline: the same.
        floor: what no loss goes below, `[tasks]`; two losses there have the ratio 1.
    """
    floor = np.reshape(floor, (-1, 1))
    above, baseline_above = (np.maximum(np.where(np.isfinite(x), x, np.inf) - floor, 0) for x in (ours, baseline))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(above == baseline_above, 1.0, baseline_above / above)
    known = np.zeros(ratios.shape, bool)
    return _limited(ratios, at_least=known, at_most=known, diverged=~np.isfinite(ours))


def steps_to_reach(target: np.ndarray, steps: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """After how many steps a curve is first at or below its target, `[seeds]`; inf if it never is.

    Between two points, the loss is taken to be linear in the logarithm of the step.

    Args:
        target: a loss, `[seeds]`.
        steps: where the curves are known, `[points]`, ascending.
        curves: losses, `[seeds, points]`; one that is not finite reaches nothing.
    """
    reached, seeds = np.isfinite(curves) & (curves <= target[:, None]), np.arange(len(curves))
    after = reached.argmax(-1)
    before = np.maximum(after - 1, 0)
    high, low = curves[seeds, before], curves[seeds, after]
    between = reached.any(-1) & np.isfinite(high) & (high > target)  # else it is at the target on a point, or never
    share = np.ones(len(curves))
    share[between] = (high[between] - target[between]) / (high[between] - low[between])
    at = steps[after] * (steps[before] / steps[after]) ** (1 - share)
    return np.where(reached.any(-1), at, np.inf)


def speed_ups(
    on_baseline: Sequence[np.ndarray],
    on_ours: Sequence[np.ndarray],
    length: int,
    diverged: np.ndarray,
    baseline_diverged: np.ndarray,
) -> Ratios:
    """How many steps of the baseline one of ours is worth: how far apart the losses they end at lie on both curves.

    On a curve, this is the ratio of the steps after which it first reaches them. A noisy curve does so early, but both
    alike. Of the two curves, the geometric mean: swapped, it is inverted, and of equals it is 1.

    Args:
        on_baseline: the steps that it needs to reach the loss we end at, and its own, `[tasks, seeds]`; inf where it
            never does: that is censored at `length`.
        on_ours: the same of our curve, for the loss the baseline ends at, and for our own.
        length: for how many steps both were trained.
        diverged: our runs that did, `[tasks, seeds]`.
        baseline_diverged: the same for the baseline.
    """
    (ahead, baseline_end), (behind, end) = on_baseline, on_ours
    ratios = np.sqrt(np.minimum(ahead, length) / baseline_end * end / np.minimum(behind, length))
    return _of_steps(ratios, ~np.isfinite(ahead), ~np.isfinite(behind), diverged, baseline_diverged)


def one_sided_speed_ups(
    baseline_steps: np.ndarray, steps: int, length: int, diverged: np.ndarray, baseline_diverged: np.ndarray
) -> Ratios:
    """The steps that the baseline needs to reach the loss we end at, over our own steps.

    So VeLO's authors count (2211.09760, figure 1). Equals are below 1, as a noisy curve reaches its own end early.

    Args:
        baseline_steps: `[tasks, seeds]`; inf where it never reaches it: that is censored at `length`.
        steps: our own.
        length: for how many steps the baseline was trained.
        diverged: our runs that did, `[tasks, seeds]`.
        baseline_diverged: the same for the baseline.
    """
    ratios, known = np.minimum(baseline_steps, length) / steps, np.zeros(baseline_steps.shape, bool)
    return _of_steps(ratios, ~np.isfinite(baseline_steps), known, diverged, baseline_diverged)


def iqm(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Interquartile mean: of the middle half, along an axis or of everything."""
    return scipy.stats.trim_mean(values, 0.25, axis=axis)


def aggregate(ratios: Ratios) -> Estimate:
    """Over tasks and seeds: the exponential of the interquartile mean of the logarithms."""
    logs = np.log(ratios.values)
    drawn = _resampled(logs)
    return Estimate(np.exp(iqm(logs)), *np.exp(_ends(iqm(drawn.reshape(len(drawn), -1), axis=-1))))


def per_task(ratios: Ratios) -> Estimate:
    """The same over the seeds of each task, `[tasks]`."""
    logs = np.log(ratios.values)
    return Estimate(np.exp(iqm(logs, axis=-1)), *np.exp(_ends(iqm(_resampled(logs), axis=-1))))


def bounds(ratios: Ratios, axis: int | None = None) -> np.ndarray:
    """What censored ratios make of an interquartile mean, as a sign, or an empty text where nothing.

    "\u2265": it may be higher; "\u2264": lower; "\u2277": either.
    """
    mean = iqm(np.log(ratios.values), axis)
    higher = iqm(np.log(np.where(ratios.at_least, HIGHEST, ratios.values)), axis) > mean
    lower = iqm(np.log(np.where(ratios.at_most, LOWEST, ratios.values)), axis) < mean
    return np.select([higher & lower, higher, lower], ["\u2277", "\u2265", "\u2264"], "")


def improvement(ours: np.ndarray, baseline: np.ndarray) -> Estimate:
    """The probability that a run of ours on a task ends lower than one of the baseline, ties half; mean over tasks.

    For one task, it is the Mann-Whitney U statistic by the number of pairs. Runs that diverged are infinitely bad.

    Args:
        ours: losses, `[tasks, seeds]`.
        baseline: the same.
    """
    a, b = (np.where(np.isfinite(x), x, np.inf) for x in (ours, baseline))
    wins = (a[..., :, None] < b[..., None, :]) + 0.5 * (a[..., :, None] == b[..., None, :])
    if ours.shape[-1] < 2:
        return Estimate(wins.mean(), *_ends(np.full(1, np.nan)))
    random = np.random.default_rng(0)
    counts, baseline_counts = _counts(random, *ours.shape), _counts(random, *ours.shape)
    drawn = np.einsum("dti,tij,dtj->d", counts, wins, baseline_counts, optimize=True)
    return Estimate(wins.mean(), *_ends(drawn / len(ours) / (ours.shape[-1] - 1) ** 2))


def performance_profile(costs: np.ndarray, taus: np.ndarray) -> np.ndarray:
    """The share of tasks solved at no more than tau times the lowest cost, `[contenders, taus]` (Dolan and More, 2002).

    Args:
        costs: of solving each task, `[contenders, tasks]`; inf for a miss, within no tau.
        taus: 1 or more.
    """
    best = costs.min(0)
    with np.errstate(invalid="ignore"):
        relative = np.where(np.isfinite(costs), costs / best, np.inf)
    return (relative[..., None] <= taus).mean(1)


def mean_ranks(losses: np.ndarray) -> np.ndarray:
    """1 is the lowest loss, ties share their ranks; means over tasks and seeds, `[contenders]`.

    Args:
        losses: `[contenders, tasks, seeds]`; ones that are not finite share the last ranks.
    """
    return scipy.stats.rankdata(np.where(np.isfinite(losses), losses, np.inf), axis=0).mean((1, 2))


def wins(ours: np.ndarray, baseline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tasks on which the median of our losses is below the baseline's, and those where it is above, `[tasks]`."""
    a, b = (np.median(np.where(np.isfinite(x), x, np.inf), axis=-1) for x in (ours, baseline))
    return a < b, a > b


def _of_steps(
    ratios: np.ndarray, at_least: np.ndarray, at_most: np.ndarray, diverged: np.ndarray, baseline_diverged: np.ndarray
) -> Ratios:
    """Where only one side diverged it has lost by as much as can be, and nothing is censored."""
    sound = ~(diverged | baseline_diverged)
    ratios = np.where(baseline_diverged, np.inf, ratios)
    ratios = np.where(diverged, np.where(baseline_diverged, 1.0, 0.0), ratios)
    return _limited(ratios, at_least & sound, at_most & sound, diverged)


def _limited(ratios: np.ndarray, at_least: np.ndarray, at_most: np.ndarray, diverged: np.ndarray) -> Ratios:
    clipped = ((ratios < LOWEST) | (ratios > HIGHEST)) & ~diverged
    return Ratios(np.clip(ratios, LOWEST, HIGHEST), clipped, at_least, at_most, diverged)


def _resampled(values: np.ndarray) -> np.ndarray:
    """Seeds drawn with replacement within each task, `[DRAWS, tasks, seeds - 1]`; the same draws in every call."""
    tasks, seeds = values.shape
    if seeds < 2:
        return np.full((1, tasks, 1), np.nan)
    index = np.random.default_rng(0).integers(0, seeds, (DRAWS, tasks, seeds - 1))
    return values[np.arange(tasks)[:, None], index]


def _counts(random: np.random.Generator, tasks: int, seeds: int) -> np.ndarray:
    """How often each seed is in each resample, `[DRAWS, tasks, seeds]`."""
    return random.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=(DRAWS, tasks)).astype(np.float64)


def _ends(drawn: np.ndarray) -> np.ndarray:
    """The ends of the interval, `[2, ...]`, from draws along the first axis."""
    return np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
