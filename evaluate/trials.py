"""Trials, one optimizer on one task each, and their cells: read where they were run before, or else run and kept."""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from learned_opt.base import Theta
from learned_opt.evaluate import batch, cells
from learned_opt.evaluate.batch import Draws, Runs
from learned_opt.evaluate.cells import Cell, Store
from learned_opt.evaluate.contenders import Optimizer
from learned_opt.tasks.base import TaskFamily
from learned_opt.tasks.survey import survey

PIECE = 500  # inner steps at most between two reports of progress
POINTS, FIRST_POINT = 20, 10  # of a validation curve
# Side by side, small steps share what a step costs at least. But batched products are slow on a CPU, as is leaving its
# cache: one after another, 75 runs of a CNN, a ResNet or a mixer (6 to 30 million operations a gradient) take half the
# time, and those of a VAE (2 million) three quarters.
MEGAFLOPS_IN_TURN = 2.0

Progress = Callable[[int, int], None]  # inner steps of all runs: done, and in all


class Counter:
    """Inner steps of all runs, done and to be done; every change is reported."""

    def __init__(self, report: Progress) -> None:
        """At zero."""
        self.report, self.done, self.total = report, 0, 0

    def expect(self, steps: int) -> None:
        """More to do."""
        self.total += steps
        self.report(self.done, self.total)

    def advance(self, steps: int) -> None:
        """More done."""
        self.done += steps
        self.report(self.done, self.total)


def points(horizons: Sequence[int]) -> list[int]:
    """The inner steps after which validation losses are taken: the horizons, and others evenly on a log scale."""
    spread = np.geomspace(min(FIRST_POINT, *horizons), max(horizons), POINTS).round().astype(int)
    return sorted({*horizons, *spread.tolist()})


@dataclass(eq=False)
class Trial:
    """One optimizer on one task, read at `horizons`: thetas by name, and the cells that are there."""

    task: str
    optimizer: Optimizer
    horizons: tuple[int, ...]
    thetas: dict[Any, Theta] = field(default_factory=dict)
    cells: dict[Any, Cell] = field(default_factory=dict)

    @property
    def missing(self) -> list[Any]:
        """Names of the thetas without a cell."""
        return [name for name in self.thetas if name not in self.cells]


class Runner:
    """Gets the cells of trials on some task families, on all local devices."""

    def __init__(
        self,
        families: dict[str, TaskFamily],
        seeds: int,
        max_steps: int,
        key: jax.Array,
        store: Store,
        counter: Counter,
    ) -> None:
        """Seed i of a task has the same weights and batches in every trial, and in other benchmarks with this key."""
        self.families, self.seeds, self.max_steps = families, seeds, max_steps
        self.store, self.counter = store, counter
        self.devices = tuple(jax.local_devices())
        self.keys = {task: batch.task_key(key, task) for task in families}
        self.draws: dict[str, Draws] = {}
        self.names: dict[tuple[str, Optimizer], str] = {}
        self.heavy: dict[str, bool] = {}

    def complete(self, trials: Iterable[Trial]) -> None:
        """Fills in the cells that are missing."""
        batches = [(trial, names) for trial in trials for names in self._batches(trial)]
        for (trial, names), start in zip(batches, self._compiled(batches), strict=True):
            for name, cell in zip(names, self._trained(start(), trial.horizons), strict=True):
                trial.cells[name] = cell
                self.store.write(self._name(trial, name), cell)

    def _batches(self, trial: Trial) -> list[list[Any]]:
        """What must be run, in sets that share a program.

        Side by side, one theta goes by itself, so that all optimizers are timed alike, with as many runs as seeds.
        """
        for name in trial.missing:
            if (cell := self.store.read(self._name(trial, name))) is not None:
                trial.cells[name] = cell
                self.counter.advance(self.seeds * trial.horizons[-1])
        missing = trial.missing
        if len(missing) < 2 or trial.cells or self._in_turn(trial.task):
            return [missing] if missing else []
        alone = missing[len(missing) // 2]
        return [[alone], [name for name in missing if name != alone]]

    def _name(self, trial: Trial, name: Any) -> str:
        """Of the cell's file: the content of everything that it follows from."""
        return cells.digest(self._common(trial), trial.horizons, points(trial.horizons), trial.thetas[name])

    def _common(self, trial: Trial) -> str:
        """What all cells of an optimizer on a task have in common."""
        if (place := (trial.task, trial.optimizer)) not in self.names:
            family, theta = self.families[trial.task], next(iter(trial.thetas.values()))
            program = batch.text(trial.optimizer, family, theta)
            content = program, family, self.keys[trial.task], self.seeds, cells.platform(self.devices)
            self.names[place] = cells.digest(*content)
        return self.names[place]

    def _compiled(self, batches: Sequence[tuple[Trial, list[Any]]]) -> list[Callable[[], Runs]]:
        """What starts the runs of each batch, compiled.

        Programs are compiled in parallel, for XLA uses one core for each, and compiling can take longer than training.
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            tasks = list(dict.fromkeys(trial.task for trial, _ in batches if trial.task not in self.draws))
            drawn = pool.map(lambda task: batch.draw(self.families[task], self.keys[task], self.seeds), tasks)
            self.draws |= zip(tasks, drawn, strict=True)
            starts: list[Callable[[], Runs]] = [
                functools.partial(
                    Runs,
                    batch.program(trial.optimizer, self.devices, self._in_turn(trial.task)),
                    [trial.thetas[name] for name in names],
                    self.families[trial.task],
                    self.draws[trial.task],
                    self.max_steps,
                )
                for trial, names in batches
            ]
            for _ in pool.map(lambda start: start().compile(), starts):
                pass
        return starts

    def _in_turn(self, task: str) -> bool:
        """Whether runs are faster one after another."""
        if task not in self.heavy:
            on_cpu = all(device.platform == "cpu" for device in self.devices)
            self.heavy[task] = on_cpu and survey(self.families[task]).megaflops > MEGAFLOPS_IN_TURN
        return self.heavy[task]

    def _trained(self, runs: Runs, horizons: Sequence[int]) -> list[Cell]:
        """A cell for each theta, from step 0 to the last horizon."""
        evaluated = points(horizons)
        valid_losses, test_losses = [], []
        for step in sorted({*evaluated, *range(PIECE, horizons[-1], PIECE)}):
            taken = (step - runs.step) * runs.shape[0] * runs.shape[1]
            runs.train_to(step)
            if step in evaluated:
                valid_losses.append(runs.evaluated("valid"))
            if step in horizons:
                test_losses.append(runs.evaluated("test"))
            self.counter.advance(taken)
        losses = runs.training_losses()[..., : horizons[-1]]
        by_theta = zip(losses, np.stack(valid_losses, -1), np.stack(test_losses, -1), strict=True)
        timing = np.array(runs.seconds_per_step), np.array(runs.side_by_side)
        return [Cell(*arrays, *timing) for arrays in by_theta]
