"""The figures of `learned-opt reproduce step-size`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from learned_opt.evaluate.reproduce import quadratic_step_size as quadratic
from learned_opt.evaluate.reproduce.rows import dress, to_png

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"


def meta_gradients(problem: quadratic.Quadratic, slopes: dict[str, Any]) -> bytes:
    """Magnitudes of meta-gradients by step size: exact, and what ways of finding them find."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    every = np.geomspace(5e-4, 20, 600)
    exact = np.abs([quadratic.log_slope(problem, eta) for eta in every])
    for panel, (dtype, found) in zip(panels, slopes.items(), strict=True):
        panel.plot(every, exact, color="black", linewidth=1, label="log objective, exact")
        panel.plot(quadratic.ETAS, np.abs(found.normalised), "o", color=GREEN, label="normalised forward mode")
        with np.errstate(over="ignore"):
            for name, values, colour, marker in (
                ("reverse mode (at the foot: 0 or not finite)", found.reverse, ORANGE, "x"),
                ("naive objective (at the top: 1e6 or more)", found.naive, BLUE, "^"),
            ):
                shown = np.clip(
                    np.where(np.isfinite(values), np.abs(values), 0 if marker == "x" else np.inf), 2e-3, 1e6
                )
                panel.plot(quadratic.ETAS, shown, marker, color=colour, label=name, markersize=7)
        panel.set(xscale="log", ylim=(1e-3, 2e6))
        dress(panel, f"magnitude of the meta-gradient, {dtype}", "step size", logarithmic=True)
    panels[0].legend(frameon=False, fontsize=8)
    return to_png(figure)


def meta_descent(courses: dict[float, np.ndarray], best: float) -> bytes:
    """The step size by meta-step, from every start."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    for (start, course), colour in zip(courses.items(), (BLUE, ORANGE, GREEN), strict=True):
        panel.plot(np.arange(1, len(course) + 1), np.maximum(course, 1e-4), color=colour, label=f"from {start:g}")
    panel.axhline(best, color="black", linestyle=":", label=f"best: {best:.6f}")
    panel.set(xscale="log")
    dress(panel, "step size (0 drawn at 1e-4)", "meta-step", logarithmic=True)
    panel.legend(frameon=False, fontsize=8)
    return to_png(figure)


def least_squares(by_noise: dict[float, Any], by_size: dict[int, Any]) -> bytes:
    """Test RMSE by noise and by sample size, of both ways to choose."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    sweeps: list[tuple[dict[Any, Any], str, str]] = [
        (by_noise, "d = 200, n = 100", "noise"),
        (by_size, "d = 200, noise 1", "samples"),
    ]
    for panel, (found, title, x) in zip(figure.subplots(1, 2), sweeps, strict=True):
        for i, (name, colour) in enumerate((("train-by-train", ORANGE), ("train-by-validation", BLUE))):
            panel.plot(list(found), [both[i].test for both in found.values()], "o-", color=colour, label=name)
        panel.set(xscale="log")
        dress(panel, f"test RMSE, {title}", x, logarithmic=True)
        panel.legend(frameon=False, fontsize=8)
    return to_png(figure)


def learned(found: dict[str, Any], steps: int) -> bytes:
    """Accuracies along training by the two learned optimizers: in test, and on the training samples."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    for panel, (name, both) in zip(figure.subplots(1, 2), found.items(), strict=True):
        for way, trained, colour in zip(("train", "validation"), both, (ORANGE, BLUE), strict=True):
            at = np.linspace(0, steps, trained.test.shape[1] + 1)[1:]
            panel.plot(at, trained.test.mean(0), "-", color=colour, label=f"train-by-{way}, test")
            panel.plot(at, trained.train.mean(0), ":", color=colour, label=f"train-by-{way}, training")
        dress(panel, f"accuracy, {name}, 200 samples, 20 % wrong labels", "inner step", logarithmic=False)
        panel.legend(frameon=False, fontsize=8)
    return to_png(figure)
