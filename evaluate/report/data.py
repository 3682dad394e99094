"""A report as data: `results.json`."""

from typing import Any

from learned_opt.evaluate import statistics
from learned_opt.evaluate.batch import TEST_BATCHES
from learned_opt.evaluate.contenders import Contender
from learned_opt.evaluate.provenance import provenance
from learned_opt.evaluate.report import words
from learned_opt.evaluate.report.tables import TIMING
from learned_opt.evaluate.scores import MEASURES, TUNED_ADAM, Run, Score
from learned_opt.evaluate.statistics import Estimate
from learned_opt.evaluate.summary import TAUS, Aggregated, Comparison, Summary


def as_dict(summary: Summary) -> dict[str, Any]:
    """Everything but the curves, with infinities where runs diverged."""
    results, labels, horizons = summary.results, summary.labels, summary.results.horizons
    return {
        "suite": results.suite,
        "seeds": results.seeds,
        "horizons": horizons,
        "test_batches": TEST_BATCHES,
        "wall_seconds": results.wall_seconds,
        "seconds_per_step": TIMING,
        "ratios_are_clipped_to": [statistics.LOWEST, statistics.HIGHEST],
        "interval": {"confidence": statistics.CONFIDENCE, "draws": statistics.DRAWS},
        **provenance(),
        "verdict": words.verdict(summary),
        "loses_to_tuned_adam": words.losses(summary),
        "best_rate_at_edge": words.edges(summary),
        "skipped": results.skipped,
        "floors": results.floors,
        "cells": results.cells,
        "contenders": {c.label: _contender(c) for c in results.contenders},
        "summary": {label: {h: _summary(summary, label, h) for h in horizons} for label in labels},
        "comparisons": {
            label: {
                baseline: {h: _comparison(summary, summary.compared(label, baseline, h)) for h in horizons}
                for baseline in summary.baselines
                if baseline != label
            }
            for label in labels
        },
        "performance_profiles": {"tau": TAUS, **summary.profiles},
        "tasks": {
            task: {c.label: _run(runs[c.label]) for c in results.contenders} for task, runs in results.runs.items()
        },
    }


def _contender(contender: Contender) -> dict[str, Any]:
    return {
        "optimizer": repr(contender.optimizer),
        "tuning": contender.tuning,
        "rates": contender.rates,
        "sha256": contender.card.get("sha256"),
        "max_horizon": contender.max_horizon,
    }


def _summary(summary: Summary, label: str, horizon: int) -> dict[str, Any]:
    """What goes into the card of exported weights."""
    results, found = summary.results, summary.compared(label, TUNED_ADAM, horizon)
    means: dict[str, Any] = {
        measure: {
            "geometric_mean": results.geometric_mean(label, horizon, measure),
            "arithmetic_mean": results.arithmetic_mean(label, horizon, measure),
        }
        for measure in MEASURES
    }
    ratios = {name: _overall(aggregated) for name, aggregated in found.ratios.items()}
    return {
        **means,
        "against_tuned_adam": ratios | {"tasks_won": {m: len(won) for m, won in found.won.items()}},
        "tasks": len(summary.tasks),
        "mean_rank": summary.mean_ranks(horizon)[label],
        "cost_of_a_step": summary.relative_cost(label),
        "divergence_rate": results.divergence_rate(label, horizon),
    }


def _overall(found: Aggregated) -> dict[str, Any]:
    ratios = found.ratios
    counts = {name: getattr(ratios, name).sum() for name in ("clipped", "at_least", "at_most", "diverged")}
    return {"iqm": _estimate(found.overall), "bound": found.bound, **counts}


def _comparison(summary: Summary, found: Comparison) -> dict[str, Any]:
    ratios = {}
    for name, aggregated in found.ratios.items():
        by_task = {
            task: {
                "iqm": _estimate(Estimate(*(x[i] for x in aggregated.by_task))),
                **{field: values[i] for field, values in aggregated.ratios._asdict().items()},
            }
            for i, task in enumerate(summary.tasks)
        }
        ratios[name] = _overall(aggregated) | {"tasks": by_task}
    return {
        "ratios": ratios,
        "probability_of_improvement": {name: _estimate(x) for name, x in found.improvement.items()},
        "tasks_won": found.won,
        "tasks_lost": found.lost,
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return estimate._asdict()


def _run(run: Run) -> dict[str, Any]:
    return {
        "seconds_per_step": run.seconds_per_step,
        "runs_side_by_side": run.side_by_side,
        "horizons": {h: _score(score, run.rates) for h, score in run.scores.items()},
    }


def _score(score: Score, rates: tuple[float, ...]) -> dict[str, Any]:
    result: dict[str, Any] = {measure: getattr(score, measure).mean() for measure in MEASURES}
    result |= {f"{measure}_by_seed": getattr(score, measure) for measure in MEASURES}
    result |= {"diverged": score.diverged.sum(), "divergence_rate": score.diverged.mean()}
    if rates:
        result |= {"rate": score.rate, "rate_at_edge": score.at_edge, "rates": rates, "final_loss_by_rate": score.sweep}
    return result
