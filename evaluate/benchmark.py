"""Scores optimizers on a suite: every optimizer trains the same weights on the same batches."""

import functools
import os
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from learned_opt.base import Theta
from learned_opt.errors import UsageError
from learned_opt.evaluate import batch
from learned_opt.evaluate.batch import Runs
from learned_opt.evaluate.contenders import Contender, Optimizer, parse
from learned_opt.evaluate.scores import DEFAULT_ADAM, TUNED_ADAM, Results, Run, score
from learned_opt.evaluate.suites import Suite

KEY = 1729  # of the benchmark's randomness, so that two benchmarks can be compared
POINTS, FIRST_POINT = 20, 10  # of a validation curve

Thetas = dict[Any, Theta]  # by learning rate, or by the label of a learned contender
Progress = Callable[[int, int], None]  # inner steps of all runs: done, and in all


def run(
    suite: Suite,
    contenders: Sequence[Contender],
    seeds: int = 4,
    horizons: Sequence[int] = (200, 1000, 4000),
    key: jax.Array | None = None,
    progress: Progress = lambda done, total: None,
) -> Results:
    """Trains the contenders, and Adam at its default and tuned, on every task from every seed, on all local devices.

    Seed i of a task has the same weights and batches for every contender, on any number of devices and in any suite.
    `key` replaces the benchmark's own. Nothing is run twice: a rate within a sweep is a part of it.

    Raises:
        UsageError: two contenders have one label, or there are no seeds, horizons or steps.
    """
    if seeds < 1 or min(horizons, default=0) < 1:
        raise UsageError(f"{seeds} seeds and horizons {list(horizons)} were given: one or more of each, all positive")
    began = time.perf_counter()
    contenders, horizons = _with_baselines(contenders), tuple(sorted(set(horizons)))
    thetas = _by_optimizer(contenders)
    steps = len(suite.tasks) * sum(map(len, thetas.values())) * seeds * horizons[-1]
    done = 0
    progress(done, steps)
    starts = _compiled(suite, thetas, seeds, horizons[-1], jax.random.key(KEY) if key is None else key)
    scored: dict[str, dict[str, Run]] = {task: {} for task in suite.tasks}
    for (task, optimizer), start in starts.items():
        runs, names = start(), list(thetas[optimizer])
        valid_losses, test_losses = {}, {}
        for step in points(horizons):
            done += (step - runs.step) * len(names) * seeds
            runs.train_to(step)
            valid_losses[step] = runs.evaluated("valid")
            if step in horizons:
                test_losses[step] = runs.evaluated("test")
            progress(done, steps)
        for contender in contenders:
            if contender.optimizer == optimizer:
                rows = [names.index(name) for name in contender.thetas]
                scored[task][contender.label] = _scored(runs, rows, contender.rates, valid_losses, test_losses)
    return Results(
        suite=suite.name,
        contenders=contenders,
        seeds=seeds,
        horizons=horizons,
        runs=scored,
        wall_seconds=time.perf_counter() - began,
    )


def _with_baselines(contenders: Sequence[Contender]) -> list[Contender]:
    labels = [contender.label for contender in contenders]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"optimizer {label!r} is given {labels.count(label)} times: each may be given once")
    return [*contenders, *(parse(name) for name in (DEFAULT_ADAM, TUNED_ADAM) if name not in labels)]


def points(horizons: Sequence[int]) -> list[int]:
    """The inner steps after which validation losses are taken: the horizons, and others evenly on a log scale."""
    spread = np.geomspace(min(FIRST_POINT, *horizons), max(horizons), POINTS).round().astype(int)
    return sorted({*horizons, *spread.tolist()})


def _scored(
    runs: Runs,
    rows: list[int],
    rates: Sequence[float],
    valid_losses: dict[int, np.ndarray],
    test_losses: dict[int, np.ndarray],
) -> Run:
    """One contender: the `rows` of the thetas in `runs`."""
    losses = runs.training_losses()[rows]
    by_horizon = {
        horizon: score(losses, valid_losses[horizon][rows], test_loss[rows], horizon, rates)
        for horizon, test_loss in test_losses.items()
    }
    best = by_horizon[max(by_horizon)].best
    return Run(
        scores=by_horizon,
        curves=losses[best],
        valid_steps=np.array(list(valid_losses)),
        valid_curves=np.stack([loss[rows][best] for loss in valid_losses.values()], -1),
        rates=tuple(rates),
        seconds_per_step=runs.seconds_per_step,
        side_by_side=runs.count,
    )


def _by_optimizer(contenders: Sequence[Contender]) -> dict[Optimizer, Thetas]:
    """All thetas of each optimizer: they share a compiled program, and one asked for twice runs once."""
    thetas: dict[Optimizer, Thetas] = {}
    for contender in contenders:
        thetas.setdefault(contender.optimizer, {}).update(contender.thetas)
    return thetas


def _compiled(
    suite: Suite, thetas: dict[Optimizer, Thetas], seeds: int, max_steps: int, key: jax.Array
) -> dict[tuple[str, Optimizer], Callable[[], Runs]]:
    """What starts the runs of each optimizer on each task, compiled.

    Programs are compiled in parallel, for XLA uses one core for each, and compiling can take longer than the training.
    """
    devices = tuple(jax.local_devices())
    programs = {
        optimizer: batch.program(optimizer, devices)  # type: ignore[arg-type]  # a frozen dataclass, so it has a hash
        for optimizer in thetas
    }
    keys = {task: jax.random.fold_in(key, zlib.crc32(task.encode())) for task in suite.tasks}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(lambda task: batch.draw(suite.tasks[task], keys[task], seeds), suite.tasks)
        draws = dict(zip(suite.tasks, drawn, strict=True))
        starts: dict[tuple[str, Optimizer], Callable[[], Runs]] = {
            (task, optimizer): functools.partial(
                Runs, programs[optimizer], list(thetas[optimizer].values()), family, draws[task], max_steps
            )
            for task, family in suite.tasks.items()
            for optimizer in thetas
        }
        for _ in pool.map(lambda start: start().compile(), starts.values()):
            pass
    return starts
