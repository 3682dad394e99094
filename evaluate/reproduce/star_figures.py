"""The figures of `learned-opt reproduce star`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from learned_opt.evaluate.reproduce.rows import dress, to_png

COLOURS = ("#000000", "#D55E00", "#E69F00", "#009E73", "#CC79A7")


def stable_region(regions: dict[str, Any], by_hand: dict[str, Any]) -> bytes:
    """Largest stable curvature by horizons, before and after meta-training: lines predicted, crosses measured.

    What does not hold the optimum has none, and is named; Adam as horizontal lines.
    """
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, when in zip(panels, ("before", "after"), strict=True):
        for (name, whens), colour in zip(regions.items(), COLOURS, strict=True):
            held = {times: region for times, region in whens[when].items() if region.holds}
            label = name if held else f"{name}: leaves the optimum"
            panel.plot(list(held), [region.predicted for region in held.values()], "-", color=colour, label=label)
            panel.plot(list(held), [region.measured for region in held.values()], "x", color=colour)
        for name, (exact, _) in by_hand.items():
            if name.startswith("Adam"):
                panel.axhline(exact, color="grey", linestyle="--", linewidth=0.8)
                panel.annotate(name, (1, exact), fontsize=8, color="grey", va="bottom")
        panel.set(xscale="log")
        dress(panel, f"largest stable curvature, {when} meta-training (x: measured)", "times the horizon", True)
        panel.legend(frameon=False, fontsize=8)
    return to_png(figure)


def beyond(losses: np.ndarray, horizon: int, times: tuple[int, ...]) -> bytes:
    """Training losses far beyond the meta-trained horizon, one line for each run."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    panel = figure.subplots()
    for course in losses:
        panel.plot(100 * np.arange(1, len(course) + 1), np.maximum(course, 1e-12), linewidth=0.8)
    for factor in times:
        panel.axvline(horizon * factor, color="grey", linestyle=":", linewidth=1)
        panel.annotate(f"{factor}x", (horizon * factor, panel.get_ylim()[1]), fontsize=8, color="grey", ha="right")
    panel.set(xscale="log")
    dress(panel, "training loss, means of 100 steps; dotted: times the meta-trained horizon", "inner step", True)
    return to_png(figure)
