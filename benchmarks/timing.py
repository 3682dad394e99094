"""Timing programs against each other: interleaved, so that whatever else the machine does meets all of them."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

Clock = Callable[[], float]


class Ratio(NamedTuple):
    """Seconds of one call by those of its floor: median and quartiles over repeats; and the median seconds of each."""

    median: float
    lower: float
    upper: float
    seconds: float
    floor_seconds: float


def seconds_of(run: Callable[[], Any], clock: Clock = time.perf_counter) -> float:
    """Of one call, until its results are there."""
    started = clock()
    jax.block_until_ready(run())
    return clock() - started


def interleaved(
    runs: dict[str, Callable[[], Any]], floor: str, repeats: int, clock: Clock = time.perf_counter
) -> dict[str, Ratio]:
    """Every run but the floor against the floor: `repeats` rounds in which each is called once, after one to warm up.

    The order alternates: what comes first in one round comes last in the next. `time.process_time` as the clock leaves
    out the turns that other processes take, and counts the time of all threads.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name in list(runs)[:: -1 if repeat % 2 else 1]:
            taken = seconds_of(runs[name], clock)
            if repeat:
                seconds[name].append(taken)
    base = np.array(seconds.pop(floor))
    ratios = {}
    for name, times in seconds.items():
        middle, lower, upper = (float(q) for q in np.quantile(np.array(times) / base, (0.5, 0.25, 0.75)))
        ratios[name] = Ratio(middle, lower, upper, float(np.median(times)), float(np.median(base)))
    return ratios
