"""`learned-opt reproduce metaoptimize`: step sizes that tune themselves (Sharifnassab et al. 2025, 2402.02342)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from learned_opt.evaluate.reproduce import metaoptimize_identities, metaoptimize_runs, rows
from learned_opt.evaluate.reproduce.rows import Detail, Reproduction


@dataclass(frozen=True)
class Settings(rows.SeededSettings):
    """Step sizes tuned during one run: what the trace is, special cases, cost, robustness, data that change."""


def run(settings: Settings, console: Console) -> Reproduction:
    """Measures every row, saying what is under way."""
    console.print("identities", style="dim")
    found = [*metaoptimize_identities.rows()]
    console.print(f"from step sizes off by up to 10^4, {settings.seeds} seeds", style="dim")
    robust, curves = metaoptimize_runs.robustness(settings.seed, settings.seeds)
    console.print("cost, and data that change", style="dim")
    changing, moving = metaoptimize_runs.switches(settings.seed, settings.seeds)
    found += [*robust, *metaoptimize_identities.cost(), *changing]
    return Reproduction(
        "metaoptimize",
        found,
        figures={"step_sizes": _step_sizes(curves), "switches": _switches(moving)},
        details=[_detail(moving)],
        extra={"robustness": curves, "accuracy": moving.accuracy.tolist()},
    )


def _detail(moving: metaoptimize_runs.Moving) -> Detail:
    """The accuracy of every setting, over all phases and in the first two and the rest."""
    means = moving.accuracy.mean(1)
    cells = [
        [name, f"{phases.mean():.3f}", f"{phases[:2].mean():.3f}", f"{phases[2:].mean():.3f}"]
        for name, phases in zip(metaoptimize_runs.SETTINGS, means, strict=True)
    ]
    columns = ("setting", "all phases", "first two", "the others")
    return Detail("Online accuracy on labels that change every 2000 steps", columns, cells)


def _step_sizes(curves: dict[str, Any]) -> bytes:
    """Step size against time, from each start, by base and meta-optimizer."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for panel, base in zip(panels, metaoptimize_runs.BASES, strict=True):
        for meta, style in zip(metaoptimize_runs.METAS, ("-", "--"), strict=True):
            for start, curve in zip(metaoptimize_runs.STARTS, curves[f"{base}, {meta}"]["step_sizes"], strict=True):
                steps = metaoptimize_runs.EVERY * np.arange(1, len(curve) + 1)
                panel.semilogy(steps, curve, style, linewidth=1, label=f"{meta}, from {start:g}")
        panel.set(title=base, xlabel="step")
        panel.grid(alpha=0.25)
    panels[0].set(ylabel="step size, mean over seeds")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return rows.to_png(figure)


def _switches(moving: metaoptimize_runs.Moving) -> bytes:
    """Step size and accuracy while the labels change."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    every = 20
    for rate, style, by_seed in zip(metaoptimize_runs.RATES, ("--", "-"), moving.logs, strict=True):
        for seed, logs in enumerate(by_seed):
            steps = every * np.arange(len(logs[::every]))
            label = None if seed else rate
            left.semilogy(steps, np.exp(logs[::every]), style, color=f"C{seed}", linewidth=1, label=label)
    for phase in range(1, metaoptimize_runs.PHASES):
        left.axvline(phase * metaoptimize_runs.PHASE, color="gray", linewidth=0.5)
    left.set(xlabel="step (lines: the labels change)", ylabel="step size, by seed")
    left.legend(frameon=False, fontsize=8)
    for name, accuracy in zip(metaoptimize_runs.SETTINGS, moving.accuracy.mean(1), strict=True):
        right.plot(range(1, metaoptimize_runs.PHASES + 1), accuracy, marker=".", label=name)
    right.set(xlabel="phase", ylabel="online accuracy, mean over seeds")
    right.legend(frameon=False, fontsize=8)
    for panel in (left, right):
        panel.grid(alpha=0.25)
    return rows.to_png(figure)
