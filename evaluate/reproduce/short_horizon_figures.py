"""The figures of `learned-opt reproduce short-horizon-bias`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from learned_opt.evaluate.reproduce.rows import dress, to_png

COLOURS = ("#D55E00", "#E69F00", "#56B4E9", "#0072B2", "#009E73", "#000000")


def schedules(found: dict[str, Any], published: dict[str, float]) -> bytes:
    """Excess, learning rates and momenta by step, the published final excess as crosses."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    panels = figure.subplots(1, 3)
    for (name, schedule), colour in zip(found.items(), COLOURS, strict=False):
        steps = np.arange(1, len(schedule.rates) + 1)
        for panel, values in zip(panels, (schedule.excess, schedule.rates, schedule.momenta), strict=True):
            panel.plot(steps, values, color=colour, label=f"{name}: {schedule.final:.2f}", linewidth=1.2)
        if name in published:
            panels[0].plot(steps[-1], published[name], "x", color=colour, markersize=8)
    for panel, title in zip(panels, ("excess loss (x: published)", "learning rate", "momentum"), strict=True):
        dress(panel, title, "step", logarithmic=title != "momentum")
    panels[0].legend(frameon=False, fontsize=8)
    return to_png(figure)


def look_ahead(rates: np.ndarray, found: dict[int, tuple[np.ndarray, np.ndarray]]) -> bytes:
    """Excess by fixed learning rate after k steps (solid), and where a decay follows (dashed)."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    for (k, curves), colour in zip(found.items(), COLOURS, strict=False):
        for values, style in zip(curves, ("-", "--"), strict=True):
            best = values.argmin()
            name = f"{k} steps" + (", then a decay" if style == "--" else "")
            panel.plot(rates, values, style, color=colour, label=name, linewidth=1.2)
            panel.plot(rates[best], values[best], "o", color=colour)
    dress(panel, "excess loss (dots: preferred)", "learning rate", logarithmic=True)
    panel.set(xscale="log")
    panel.legend(frameon=False, fontsize=8)
    return to_png(figure)


def offline(chosen: dict[int, Any], remedies: dict[Any, Any]) -> bytes:
    """Schedules chosen at each horizon, used for the longest; beside them what estimators chose in truncations."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    named = {f"horizon {horizon}": c for horizon, c in chosen.items()}
    longest = list(named)[-1]
    truncated = {**{f"{name}, 100 at a time": c for name, c in remedies.items()}, longest: named[longest]}
    for panel, group in zip(panels, (named, truncated), strict=True):
        for (name, c), colour in zip(group.items(), COLOURS, strict=False):
            style = ":" if group is truncated and name == longest else "-"
            panel.plot(np.arange(1, len(c.course) + 1), c.course, style, color=colour, label=f"{name}: {c.final:.3g}")
        dress(panel, "excess loss", "step", logarithmic=True)
        panel.set(xscale="log")
        panel.legend(frameon=False, fontsize=8)
    return to_png(figure)


def online(fresh: dict[float, Any], same: dict[float, Any]) -> bytes:
    """Effective learning rates of online SMD by step, with noise in the lookahead and without."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    titles = "effective rate, fresh batches in the lookahead", "effective rate, one batch"
    for panel, found, title in zip(figure.subplots(1, 2, sharey=True), (fresh, same), titles, strict=True):
        for (start, outcome), colour in zip(found.items(), COLOURS, strict=False):
            panel.plot(10 * np.arange(1, len(outcome.rates) + 1), outcome.rates, color=colour, label=f"from {start:g}")
        dress(panel, title, "step", logarithmic=True)
        panel.legend(frameon=False, fontsize=8)
    return to_png(figure)
