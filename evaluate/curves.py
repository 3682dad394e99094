"""Learning curves as a picture."""

import io
import itertools
import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learned_opt.evaluate.contenders import ONE_RATE
from learned_opt.evaluate.scores import DEFAULT_ADAM, TUNED_ADAM, Results

# Okabe and Ito's colours, told apart by colour-blind readers; black and grey are the baselines'.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASELINES = {DEFAULT_ADAM: ("#8C8C8C", "-"), ONE_RATE: ("#8C8C8C", "--"), TUNED_ADAM: ("#000000", "-")}
COLUMNS = 2
HEADROOM = 10  # times the loss at the start: what runs away higher would squeeze the rest
POINTS = 400  # of a curve, evenly spaced on its logarithmic axis


def png(results: Results) -> bytes:
    """One panel per task: the smoothed training loss, as the median over seeds and the band of all of them."""
    rows = math.ceil(len(results.runs) / COLUMNS)
    figure = Figure(figsize=(5.5 * COLUMNS, 0.9 + 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, sharex=True, squeeze=False).ravel()
    for panel, task in zip(panels, results.runs, strict=False):
        draw(panel, results, task)
        panel.set_title(task)
    for panel in panels[len(results.runs) :]:
        panel.remove()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=10)
    figure.supxlabel("inner step (running mean over the last twentieth of the steps; band: all seeds)", fontsize=10)
    figure.supylabel("training loss", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def smoothed(losses: np.ndarray) -> np.ndarray:
    """The final training loss, had a run ended there: `[seeds, steps]`; inf from the step at which it diverges."""
    steps = np.arange(1, losses.shape[-1] + 1)
    width = np.minimum(steps, np.maximum(10, steps // 20))
    finite = np.logical_and.accumulate(np.isfinite(losses), axis=-1)
    sums = np.cumsum(np.where(finite, losses, 0.0), axis=-1, dtype=np.float64)
    sums = np.concatenate([np.zeros((len(losses), 1)), sums], axis=-1)
    return np.where(finite, (sums[:, steps] - sums[:, steps - width]) / width, np.inf)


def draw(panel: Axes, results: Results, task: str) -> None:
    """Smoothed training losses: the median over seeds and the band of all of them."""
    steps = np.unique(np.geomspace(1, results.horizons[-1], POINTS).astype(int))
    losses = {label: smoothed(run.longest.losses)[:, steps - 1] for label, run in results.runs[task].items()}
    start = np.median([run.longest.losses[:, 0] for run in results.runs[task].values()])
    _lines(panel, results, {label: (steps, x) for label, x in losses.items()}, start)


def draw_validation(panel: Axes, results: Results, task: str) -> None:
    """The same for validation losses, where they were taken."""
    drawn = {label: run.longest for label, run in results.runs[task].items()}
    _lines(panel, results, {label: (x.valid_steps, x.valid_losses) for label, x in drawn.items()}, np.inf)


def styles(results: Results) -> dict[str, tuple[str, str]]:
    """Colour and line style of every contender by label; colours come back dashed, then dotted."""
    free = itertools.cycle(itertools.product(("-", "--", ":"), COLOURS))
    found = {}
    for contender in results.contenders:
        style, colour = next(free) if contender.label not in BASELINES else ("", "")
        found[contender.label] = BASELINES.get(contender.label, (colour, style))
    return found


def _lines(panel: Axes, results: Results, drawn: dict[str, tuple[np.ndarray, np.ndarray]], start: float) -> None:
    """Steps and losses `[seeds, points]` of every contender."""
    for label, (colour, style) in styles(results).items():
        steps, losses = drawn[label]
        # Matplotlib leaves out what is not finite: the line ends where half of the runs have diverged.
        panel.plot(steps, np.median(losses, axis=0), style, color=colour, linewidth=1.8, label=_legend(results, label))
        panel.fill_between(steps, losses.min(0), losses.max(0), color=colour, alpha=0.15, linewidth=0)
    for horizon in sorted({c.max_horizon for c in results.contenders if c.max_horizon}):
        label = f"longest horizon of meta-training ({horizon})"
        panel.axvline(horizon, color="#555555", linestyle=":", linewidth=1.2, label=label)
    panel.set(xscale="log", yscale="log", xlim=(min(x[0][0] for x in drawn.values()), results.horizons[-1]))
    panel.set_ylim(top=min(panel.get_ylim()[1], HEADROOM * start))
    panel.grid(which="major", alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _legend(results: Results, label: str) -> str:
    diverged = results.divergence_rate(label, results.horizons[-1])
    return f"{label} ({diverged:.0%} diverged)" if diverged else label
