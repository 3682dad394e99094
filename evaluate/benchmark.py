"""Scores optimizers on a suite: every optimizer trains the same weights on the same batches."""

import time
from collections.abc import Sequence

import jax

from learned_opt.errors import UsageError
from learned_opt.evaluate import one_rate, sweeps
from learned_opt.evaluate.cells import Store
from learned_opt.evaluate.contenders import ONE_RATE, Contender, parse
from learned_opt.evaluate.scores import DEFAULT_ADAM, TUNED_ADAM, Results
from learned_opt.evaluate.suites import Suite
from learned_opt.evaluate.trials import Counter, Progress

KEY = 1729  # of the benchmark's randomness, so that two benchmarks can be compared


def run(
    suite: Suite,
    contenders: Sequence[Contender],
    seeds: int = 5,
    horizons: Sequence[int] = (200, 1000, 4000),
    key: jax.Array | None = None,
    progress: Progress = lambda done, total: None,
    store: Store | None = None,
) -> Results:
    """Trains the contenders, and Adam at its default and tuned, on every task from every seed, on all local devices.

    Seed i of a task has the same weights and batches for every contender, on any number of devices and in any suite.
    `key` replaces the benchmark's own. Nothing is run twice: a rate within a sweep is a part of it, and what this or
    another benchmark left in `store`, by default that of the user's cache folder, is read from there.

    Raises:
        UsageError: two contenders have one label, or there are no seeds, horizons or steps.
    """
    if seeds < 1 or min(horizons, default=0) < 1:
        raise UsageError(f"{seeds} seeds and horizons {list(horizons)} were given: one or more of each, all positive")
    began, store, counter = time.perf_counter(), store or Store(), Counter(progress)
    contenders, horizons = _with_baselines(contenders), tuple(sorted(set(horizons)))
    contenders = [one_rate.found(c, seeds, store, counter) if c.label == ONE_RATE else c for c in contenders]
    key = jax.random.key(KEY) if key is None else key
    return Results(
        suite=suite.name,
        contenders=contenders,
        seeds=seeds,
        horizons=horizons,
        runs=sweeps.runs(suite.tasks, contenders, seeds, horizons, key, store, counter),
        wall_seconds=time.perf_counter() - began,
        floors={task: suite.floor(task) for task in suite.tasks},
        cells=store.counts,
    )


def _with_baselines(contenders: Sequence[Contender]) -> list[Contender]:
    labels = [contender.label for contender in contenders]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"optimizer {label!r} is given {labels.count(label)} times: each may be given once")
    return [*contenders, *(parse(name) for name in (DEFAULT_ADAM, TUNED_ADAM) if name not in labels)]
