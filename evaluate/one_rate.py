"""Adam with one learning rate for all tasks, found on the families that optimizers are meta-trained on."""

import jax
import numpy as np

from learned_opt.evaluate import suites, sweeps
from learned_opt.evaluate.cells import Store
from learned_opt.evaluate.contenders import Contender, at_rate, sweep
from learned_opt.evaluate.hand_written import HandWritten
from learned_opt.evaluate.suites import Suite
from learned_opt.evaluate.trials import Counter

SUITE = "in-distribution"
KEY = 2718  # other tasks, weights and batches than any benchmark scores on
WORST = 10.0  # a ratio to the best rate's loss counts as no more; it is that of a run that diverged


def found(contender: Contender, seeds: int, store: Store, counter: Counter, suite: Suite | None = None) -> Contender:
    """The contender at the learning rate that is best over the suite at its longest horizon.

    The best has the lowest geometric mean over tasks of the final training loss, divided by that of the best rate.
    """
    adam, suite = HandWritten("adam"), suite or suites.suite(SUITE)
    horizon = suite.horizons[-1]
    swept = sweep(contender.label, adam)
    key = jax.random.key(KEY)
    runs = sweeps.runs(suite.tasks, [swept], seeds, (horizon,), key, store, counter, growths=0)
    losses = np.stack([run[contender.label].scores[horizon].sweep for run in runs.values()])
    floors = np.array([suite.floor(task) for task in runs])
    best = int(np.argmin(mean_ratio(losses, floors)))
    edge = ", at the edge of them" * (best in (0, len(swept.rates) - 1))
    where = f"suite {suite.name} ({len(runs)} tasks, {seeds} seeds, {horizon} steps, other keys than here)"
    text = f"the best of {len(swept.rates)} learning rates{edge} by final training loss on {where}"
    rate = swept.rates[best]
    return at_rate(contender.label, adam, rate, f"learning rate {rate:.3g} on all tasks: {text}; nothing chosen here")


def mean_ratio(losses: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """The geometric mean over tasks of each rate's loss by the best rate's, both above the floor, `[rates]`.

    Args:
        losses: `[tasks, rates]`, inf where a run diverged.
        floors: `[tasks]`, what no loss goes below.
    """
    above = np.maximum(losses - floors[:, None], np.finfo(np.float32).tiny)
    ratios = np.full(above.shape, WORST)
    np.divide(above, above.min(1, keepdims=True), out=ratios, where=np.isfinite(above))
    return np.exp(np.log(np.minimum(ratios, WORST)).mean(0))
