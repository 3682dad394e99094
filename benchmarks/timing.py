"""Timing programs against each other: interleaved, so that whatever else the machine does meets all of them."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np


class Ratio(NamedTuple):
    """Seconds of one call by those of its floor: median and quartiles over repeats; and the median seconds of each."""

    median: float
    lower: float
    upper: float
    seconds: float
    floor_seconds: float


def seconds_of(run: Callable[[], Any]) -> float:
    """Of one call, until its results are there."""
    started = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - started


def interleaved(runs: dict[str, Callable[[], Any]], floor: str, repeats: int) -> dict[str, Ratio]:
    """Every run but the floor against the floor: `repeats` rounds in which each is called once, after one to warm up.

    The order alternates: what comes first in one round comes last in the next.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name in list(runs)[:: -1 if repeat % 2 else 1]:
            taken = seconds_of(runs[name])
            if repeat:
                seconds[name].append(taken)
    base = np.array(seconds.pop(floor))
    found = {}
    for name, taken in seconds.items():
        lower, median, upper = (float(q) for q in np.quantile(np.array(taken) / base, (0.25, 0.5, 0.75)))
        found[name] = Ratio(median, lower, upper, float(np.median(taken)), float(np.median(base)))
    return found
