"""What a benchmark measured, and what follows from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from learned_opt.evaluate.contenders import Contender

DEFAULT_ADAM, TUNED_ADAM = "adam", "adam-tuned"
MEASURES = {"mean_loss": "mean training loss", "final_loss": "final training loss", "test_loss": "test loss"}


@dataclass(frozen=True, kw_only=True)
class Score:
    """One optimizer on one task up to one horizon.

    Attributes:
        mean_loss, final_loss, test_loss: `[seeds]`; all three are inf for a seed that diverged, and so are their means.
        best: the index of the theta scored, the one of the lowest mean training loss over the seeds.
        sweep: `[thetas]`, that loss for each of them.
    """

    mean_loss: np.ndarray
    final_loss: np.ndarray
    test_loss: np.ndarray
    best: int
    sweep: np.ndarray

    @property
    def diverged(self) -> np.ndarray:
        """Which seeds diverged, `[seeds]`."""
        return ~np.isfinite(self.mean_loss)

    @property
    def at_edge(self) -> bool:
        """Whether a wider sweep might have found a better rate."""
        return len(self.sweep) > 1 and self.best in (0, len(self.sweep) - 1)


def score(losses: np.ndarray, test_loss: np.ndarray, horizon: int) -> Score:
    """Scores runs on their first `horizon` steps.

    A run has diverged if one of these training losses, or the test loss after them, is not finite.

    Args:
        losses: the training loss of every step, `[thetas, seeds, steps]`.
        test_loss: after `horizon` steps, `[thetas, seeds]`.
    """
    losses = losses[..., :horizon].astype(np.float64)
    diverged = ~(np.isfinite(losses).all(-1) & np.isfinite(test_loss))
    mean_loss, final_loss, test_loss = (
        np.where(diverged, np.inf, values)
        for values in (_mean(losses), _mean(losses[..., -max(10, horizon // 20) :]), test_loss)
    )
    sweep = mean_loss.mean(-1)
    best = int(np.argmin(sweep))
    return Score(
        mean_loss=mean_loss[best], final_loss=final_loss[best], test_loss=test_loss[best], best=best, sweep=sweep
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """One optimizer on one task.

    Attributes:
        scores: by horizon.
        curves: training losses at the theta that is best at the longest horizon, `[seeds, steps]`, float32.
        seconds_per_step: wall-clock seconds of inner training, compilation and tests left out, divided by the steps of
            all runs side by side: what one step costs, its batch and gradient included, with all devices busy.
        side_by_side: how many runs shared the devices: all thetas and seeds of one optimizer.
    """

    scores: dict[int, Score]
    curves: np.ndarray
    seconds_per_step: float
    side_by_side: int


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole benchmark; `runs` is by task, then by label of the contender."""

    suite: str
    contenders: Sequence[Contender]
    seeds: int
    horizons: tuple[int, ...]
    runs: dict[str, dict[str, Run]]
    wall_seconds: float

    def per_task(self, label: str, horizon: int, measure: str = "mean_loss") -> np.ndarray:
        """Means over seeds of one of `MEASURES`, `[tasks]`."""
        return np.array([getattr(runs[label].scores[horizon], measure).mean() for runs in self.runs.values()])

    def arithmetic_mean(self, label: str, horizon: int, measure: str = "mean_loss") -> float:
        """Over tasks."""
        return float(self.per_task(label, horizon, measure).mean())

    def geometric_mean(self, label: str, horizon: int, measure: str = "mean_loss") -> float:
        """Over tasks."""
        with np.errstate(divide="ignore"):
            return float(np.exp(np.log(self.per_task(label, horizon, measure)).mean()))

    def ratio(self, label: str, horizon: int, measure: str = "mean_loss") -> float:
        """The geometric mean over that of tuned Adam; below 1 is better. NaN if both diverged."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(
                np.divide(
                    self.geometric_mean(label, horizon, measure), self.geometric_mean(TUNED_ADAM, horizon, measure)
                )
            )

    def divergence_rate(self, label: str, horizon: int) -> float:
        """The share of all seeds of all tasks."""
        return float(np.mean([runs[label].scores[horizon].diverged for runs in self.runs.values()]))

    def lost_to_tuned_adam(self, label: str, measure: str = "mean_loss") -> dict[str, list[int]]:
        """The horizons at which the contender is worse than tuned Adam, by task."""
        lost: dict[str, list[int]] = {}
        for horizon in self.horizons:
            worse = self.per_task(label, horizon, measure) > self.per_task(TUNED_ADAM, horizon, measure)
            for task in np.array(list(self.runs))[worse]:
                lost.setdefault(str(task), []).append(horizon)
        return lost


def _mean(losses: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):  # of a run that diverged
        return losses.mean(-1)
