"""Benchmarks of Adam against Adam with other seeds find nothing, as often as their intervals claim, and favour neither.

Every run is a real one: seeds of one large benchmark are dealt out to small ones, none to two of them.
"""

import jax
import numpy as np
import pytest
import scipy.stats

from learned_opt.evaluate import statistics, sweeps
from learned_opt.evaluate.cells import Store
from learned_opt.evaluate.contenders import parse
from learned_opt.evaluate.trials import Counter
from learned_opt.tasks import registry

TASKS = ("quadratic-noisy", "regression-logistic", "iris-linear", "rosenbrock-2d")
MEASURES = ("final_loss", "valid_loss", "test_loss")
STEPS = 50
SURE = 0.999  # that a test that should pass does


def run(benchmarks, tasks, seeds, directory):
    """Losses by measure, `[benchmarks, 2, tasks, seeds]`, and floors."""
    adam = parse("adam@1e-2")
    found = sweeps.runs(
        {task: registry.family(task) for task in tasks},
        [adam],
        benchmarks * 2 * seeds,
        (STEPS,),
        jax.random.key(3),
        Store(directory),
        Counter(lambda done, total: None),
    )
    scores = [runs[adam.label].scores[STEPS] for runs in found.values()]
    losses = {
        measure: np.stack([getattr(score, measure).reshape(benchmarks, 2, seeds) for score in scores], axis=2)
        for measure in MEASURES
    }
    return losses, np.array([registry.floor(task) for task in tasks])


def check(benchmarks, measures, directory, tasks=TASKS, seeds=5):
    """Both ways in which a benchmark says that one is better."""
    losses, floors = run(benchmarks, tasks, seeds, directory)
    low, high = scipy.stats.binom.interval(SURE, benchmarks, statistics.CONFIDENCE)
    for measure in measures:
        values = losses[measure]
        ratios = [statistics.aggregate(statistics.loss_ratios(*pair, floors)) for pair in values]
        improved = [statistics.improvement(*pair) for pair in values]
        for name, null, estimates in (("ratio", 1.0, ratios), ("improvement", 0.5, improved)):
            below, above = (np.array([getattr(e, end) for e in estimates]) for end in ("low", "high"))
            covered = int(((below <= null) & (null <= above)).sum())
            lost, won = int((above < null).sum()), int((below > null).sum())
            print(f"{name} of {measure}: {covered} of {benchmarks} contain {null}; {lost} below, {won} above")
            assert low <= covered <= high, (name, measure)
            assert scipy.stats.binomtest(won, max(won + lost, 1)).pvalue > 1 - SURE, (name, measure)
        logs = np.log([estimate.value for estimate in ratios])
        assert scipy.stats.ttest_1samp(logs, 0.0).pvalue > 1 - SURE, measure


def test_forty_benchmarks(tmp_path):
    check(40, MEASURES[:1], tmp_path)


@pytest.mark.slow
def test_two_hundred_benchmarks(tmp_path):
    """Seen: 189, 189 and 187 ratios of training, validation and test loss, 197, 195 and 192 probabilities."""
    check(200, MEASURES, tmp_path)
