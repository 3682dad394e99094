"""The best theta of every contender on every task, from a sweep that grows until its best is inside."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from learned_opt.evaluate import batch
from learned_opt.evaluate.cells import Store
from learned_opt.evaluate.contenders import SWEEP, Contender, Optimizer
from learned_opt.evaluate.hand_written import HandWritten
from learned_opt.evaluate.scores import Curves, Run, Score, score
from learned_opt.evaluate.trials import Counter, Runner, Trial, points
from learned_opt.tasks.base import TaskFamily

GROUP = 4  # tasks whose programs are compiled together; when a benchmark is interrupted, those before are kept
GROWTHS, GROWTH = 3, 2  # how often a sweep grows where its best is at an edge, and by how many half-decades


def runs(
    families: dict[str, TaskFamily],
    contenders: Sequence[Contender],
    seeds: int,
    horizons: tuple[int, ...],
    key: jax.Array,
    store: Store,
    counter: Counter,
    growths: int = GROWTHS,
) -> dict[str, dict[str, Run]]:
    """By task and label."""
    trials = {task: Trials(task, contenders, horizons) for task in families}
    counter.expect(seeds * sum(of_task.missing_steps() for of_task in trials.values()))
    for number, group in enumerate(_groups(list(families))):
        if number:
            batch.forget()
        runner = Runner({task: families[task] for task in group}, seeds, horizons[-1], key, store, counter)
        here = [trials[task] for task in group]
        runner.complete(trial for of_task in here for trial in of_task.trials.values())
        for _ in range(growths):
            for of_task in here:
                of_task.grow()
            counter.expect(seeds * sum(of_task.missing_steps() for of_task in here))
            runner.complete(trial for of_task in here for trial in of_task.trials.values())
    return {task: {c.label: of_task.run(c) for c in contenders} for task, of_task in trials.items()}


def _groups(tasks: list[str]) -> Iterator[list[str]]:
    return (tasks[i : i + GROUP] for i in range(0, len(tasks), GROUP))


class Trials:
    """All trials on one task. Contenders with one optimizer share them, and one for each horizon if it must know it."""

    def __init__(self, task: str, contenders: Sequence[Contender], horizons: tuple[int, ...]) -> None:
        """Of all thetas of all contenders."""
        self.contenders, self.horizons = contenders, horizons
        self.names = {contender.label: list(contender.thetas) for contender in contenders}
        self.spans = {contender.label: SWEEP for contender in contenders if contender.swept}
        self.trials: dict[tuple[Optimizer, tuple[int, ...]], Trial] = {}
        for contender in contenders:
            for read_at in self._read_at(contender).values():
                self.trials.setdefault((contender.optimizer, read_at), Trial(task, contender.optimizer, read_at))
            self._want(contender)

    def missing_steps(self) -> int:
        """The inner steps of the cells that are missing, for one seed."""
        return sum(len(trial.missing) * trial.horizons[-1] for trial in self.trials.values())

    def grow(self) -> None:
        """Adds learning rates to the sweeps whose best is the lowest or the highest, at any horizon."""
        for contender in self.contenders:
            if contender.swept and isinstance(contender.optimizer, HandWritten):
                names, span = self.names[contender.label], self.spans[contender.label]
                best = {score.best for score in self.run(contender).scores.values()}
                lower, higher = 0 in best, len(names) - 1 in best
                span = range(span.start - GROWTH * lower, span.stop + GROWTH * higher)
                self.spans[contender.label] = span
                self.names[contender.label] = [contender.optimizer.rate(k) for k in span]
                self._want(contender)

    def run(self, contender: Contender) -> Run:
        """What became of a contender whose trials are complete."""
        names = self.names[contender.label]
        trials = {h: self.trials[contender.optimizer, read_at] for h, read_at in self._read_at(contender).items()}
        rates = tuple(names) if contender.rates else ()
        scores = {horizon: _score(trial, names, rates, horizon) for horizon, trial in trials.items()}
        timed = min(trials[self.horizons[-1]].cells.values(), key=lambda cell: cell.side_by_side)
        return Run(
            scores=scores,
            curves={horizon: _curves(trial, names[scores[horizon].best]) for horizon, trial in trials.items()},
            rates=rates,
            seconds_per_step=float(timed.seconds_per_step),
            side_by_side=int(timed.side_by_side),
        )

    def _read_at(self, contender: Contender) -> dict[int, tuple[int, ...]]:
        """For each horizon, at which horizons the trial that serves it is read."""
        return {h: (h,) if contender.per_horizon else self.horizons for h in self.horizons}

    def _want(self, contender: Contender) -> None:
        for read_at in self._read_at(contender).values():
            thetas = self.trials[contender.optimizer, read_at].thetas
            for name in self.names[contender.label]:
                thetas.setdefault(name, contender.theta(name, read_at[-1]))


def _curves(trial: Trial, name: Any) -> Curves:
    cell = trial.cells[name]
    return Curves(losses=cell.losses, valid_steps=np.array(points(trial.horizons)), valid_losses=cell.valid_losses)


def _score(trial: Trial, names: list[Any], rates: tuple[float, ...], horizon: int) -> Score:
    cells = [trial.cells[name] for name in names]
    return score(
        np.stack([cell.losses for cell in cells]),
        np.stack([cell.valid_losses[:, points(trial.horizons).index(horizon)] for cell in cells]),
        np.stack([cell.test_losses[:, trial.horizons.index(horizon)] for cell in cells]),
        horizon,
        rates,
    )
