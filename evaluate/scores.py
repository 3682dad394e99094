"""What a benchmark measured, and what follows from it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from learned_opt.evaluate.contenders import Contender

DEFAULT_ADAM, TUNED_ADAM = "adam", "adam-tuned"
MEASURES = {
    "mean_loss": "mean training loss",
    "final_loss": "final training loss",
    "valid_loss": "validation loss",
    "test_loss": "test loss",
}


@dataclass(frozen=True, kw_only=True)
class Score:
    """One optimizer on one task up to one horizon.

    Attributes:
        mean_loss, final_loss, valid_loss, test_loss: `[seeds]`; all are inf for a seed that diverged, and so are their
            means.
        best: the index of the theta scored, the one of the lowest final training loss, averaged over the seeds.
        sweep: `[thetas]`, that loss for each of them, in the order of the learning rates.
        rate: the learning rate scored, of a hand-written optimizer.
    """

    mean_loss: np.ndarray
    final_loss: np.ndarray
    valid_loss: np.ndarray
    test_loss: np.ndarray
    best: int
    sweep: np.ndarray
    rate: float | None = None

    @property
    def diverged(self) -> np.ndarray:
        """Which seeds diverged, `[seeds]`."""
        return ~np.isfinite(self.mean_loss)

    @property
    def at_edge(self) -> bool:
        """Whether a wider sweep might have found a better rate."""
        return len(self.sweep) > 1 and self.best in (0, len(self.sweep) - 1)


def score(
    losses: np.ndarray, valid_loss: np.ndarray, test_loss: np.ndarray, horizon: int, rates: Sequence[float] = ()
) -> Score:
    """Scores runs on their first `horizon` steps; of several thetas, that of the lowest final training loss.

    A run has diverged if one of these training losses, or the validation or test loss after them, is not finite.

    Args:
        losses: the training loss of every step, `[thetas, seeds, steps]`.
        valid_loss: after `horizon` steps, `[thetas, seeds]`.
        test_loss: the same.
        horizon: inner steps.
        rates: the thetas of a hand-written optimizer, ascending.
    """
    losses = losses[..., :horizon].astype(np.float64)
    diverged = ~(np.isfinite(losses).all(-1) & np.isfinite(valid_loss) & np.isfinite(test_loss))
    mean_loss, final_loss, valid_loss, test_loss = (
        np.where(diverged, np.inf, values)
        for values in (_mean(losses), _mean(losses[..., -max(10, horizon // 20) :]), valid_loss, test_loss)
    )
    sweep = final_loss.mean(-1)
    best = int(np.argmin(sweep))
    return Score(
        mean_loss=mean_loss[best],
        final_loss=final_loss[best],
        valid_loss=valid_loss[best],
        test_loss=test_loss[best],
        best=best,
        sweep=sweep,
        rate=rates[best] if rates else None,
    )


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The losses of one theta on one task.

    Attributes:
        losses: training losses of every step, before its update, `[seeds, steps]`, float32.
        valid_steps: after how many steps validation losses were taken, `[points]`; every horizon is one of them.
        valid_losses: those losses, each a mean over the same batches, `[seeds, points]`, float32.
    """

    losses: np.ndarray
    valid_steps: np.ndarray
    valid_losses: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Run:
    """One optimizer on one task.

    Attributes:
        scores: by horizon, ascending, each at its own best theta.
        curves: of the same thetas, by the same horizons; all but those of a theta that must know its horizon are as
            long as the longest.
        rates: the learning rates tried on this task, ascending; none for a learned optimizer.
        seconds_per_step: wall-clock seconds of inner training, compilation and evaluation left out, divided by the
            steps of all runs side by side: what one step costs, its batch and gradient included, with all devices busy.
        side_by_side: how many runs shared the devices meanwhile.
    """

    scores: dict[int, Score]
    curves: dict[int, Curves]
    rates: tuple[float, ...] = ()
    seconds_per_step: float
    side_by_side: int

    @property
    def longest(self) -> Curves:
        """The curves of the theta that is best at the longest horizon, up to it."""
        return self.curves[max(self.curves)]


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole benchmark.

    Attributes:
        runs: by task, then by label of the contender.
        floors: by task, a loss that no optimizer goes below.
        skipped: tasks of the suite that were left out, and why.
        cells: how many sets of seeds of one theta on one task were needed, by what became of them: `ran`, `cached`, and
            `damaged`, those of `ran` whose file in the cache could not be read.
    """

    suite: str
    contenders: Sequence[Contender]
    seeds: int
    horizons: tuple[int, ...]
    runs: dict[str, dict[str, Run]]
    wall_seconds: float
    floors: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    cells: dict[str, int] = field(default_factory=dict)

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
