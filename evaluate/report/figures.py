"""The pictures of the page, as SVG that can stand in HTML: nothing in it is loaded, and no two ids are alike."""

import html
import io
import re
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from learned_opt.evaluate import curves
from learned_opt.evaluate.scores import TUNED_ADAM
from learned_opt.evaluate.statistics import HIGHEST, LOWEST
from learned_opt.evaluate.summary import TAUS, Aggregated, Summary

STYLE: Any = {"font.size": 9, "axes.linewidth": 0.6, "axes.edgecolor": "#555555", "svg.fonttype": "path"}
WIDTH = 5.2  # inches: on a phone the text stays readable
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)
BOUNDED = {"": "o", "\u2265": ">", "\u2264": "<", "\u2277": "D"}  # markers, by the signs of `statistics.bounds`


def training_curves(summary: Summary, task: str) -> str:
    """One task's panel."""
    figure, panel = _figure(3.5, 2.5)
    curves.draw(panel, summary.results, task)
    return _svg(figure, f"train-{task}", f"Training loss on {task} by inner step, a line for each optimizer")


def validation_curves(summary: Summary, task: str) -> str:
    """One task's panel."""
    figure, panel = _figure(3.5, 2.5)
    curves.draw_validation(panel, summary.results, task)
    return _svg(figure, f"valid-{task}", f"Validation loss on {task} by inner step, a line for each optimizer")


def profile(summary: Summary, unit: str) -> str:
    """The performance profile in `steps` or `seconds`."""
    figure, panel = _figure(WIDTH, 3.1)
    for label, (colour, style) in curves.styles(summary.results).items():
        panel.step(TAUS, summary.profiles[unit][label], style, where="post", color=colour, linewidth=1.8)
    panel.set(xlim=(1, TAUS[-1]), ylim=(-0.02, 1.02), ylabel="share of tasks solved")
    panel.set_xlabel(f"within tau times the fewest {unit} of any optimizer")
    panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))
    panel.grid(alpha=0.25)
    return _svg(figure, f"profile-{unit}", f"Performance profile in {unit}")


def dots(summary: Summary, name: str, horizon: int) -> str:
    """A ratio to tuned Adam of each task: a dot with its interval for every contender, the first one's worst on top."""
    labels, styles = summary.subjects, curves.styles(summary.results)
    found = {label: summary.compared(label, TUNED_ADAM, horizon).ratios[name] for label in labels}
    order = np.argsort(-found[labels[0]].by_task.value, kind="stable")
    figure, panel = _figure(WIDTH, 0.8 + len(order) * (0.16 + 0.11 * len(labels)))
    panel.axvline(1, color="#000000", linewidth=0.9)
    if "speed" in name and horizon < summary.horizon:
        panel.axvline(summary.horizon / horizon, color="#555555", linestyle=":", linewidth=1)
    for k, label in enumerate(labels):
        offset = (0.5 * (len(labels) - 1) - k) * 0.7 / len(labels)
        _dots(panel, found[label], order, offset, styles[label][0])
    panel.set_yticks(range(len(order)), [summary.tasks[i] for i in order])
    panel.set(xscale="log", xlim=(LOWEST * 0.9, HIGHEST * 1.1), ylim=(-0.6, len(order) - 0.4))
    panel.set_xticks(TICKS, [f"{x:g}" for x in TICKS])
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(axis="x", alpha=0.25)
    panel.tick_params(axis="y", length=0)
    worse, better = ("slower than tuned Adam", "faster") if "speed" in name else ("worse than tuned Adam", "better")
    panel.set_xlabel(f"\u2190 {worse}      {better} \u2192")
    return _svg(figure, f"dots-{name}", f"{name} of each task after {horizon} steps")


def _dots(panel: Axes, found: Aggregated, order: np.ndarray, offset: float, colour: str) -> None:
    for y, i in enumerate(order):
        value, low, high = (float(x[i]) for x in found.by_task)
        if np.isfinite(low):
            panel.plot([low, high], [y + offset] * 2, color=colour, linewidth=1.3, alpha=0.7)
        gone = found.ratios.diverged[i].any()
        marker = "X" if gone else BOUNDED[str(found.bounds[i])]
        face = "white" if found.bounds[i] else colour
        panel.plot(value, y + offset, marker, color=colour, markerfacecolor=face, markersize=5)


def horizons(summary: Summary, name: str) -> str:
    """The aggregated ratio by horizon, in multiples of the longest of meta-training if the first contender has one."""
    figure, panel = _figure(WIDTH, 3.1)
    at = np.array(summary.results.horizons, float)
    known = summary.contender(summary.subjects[0]).max_horizon
    unit = known or 1
    panel.axhline(1, color="#000000", linewidth=0.9)
    for label, (colour, style) in curves.styles(summary.results).items():
        if label != TUNED_ADAM:
            found = [summary.compared(label, TUNED_ADAM, h).ratios[name].overall for h in summary.results.horizons]
            value, low, high = np.array(found).T
            panel.plot(at / unit, value, style, marker="o", markersize=4, color=colour, linewidth=1.6)
            panel.fill_between(at / unit, low, high, color=colour, alpha=0.15, linewidth=0)
    panel.set(xscale="log", yscale="log", ylabel="loss ratio to tuned Adam")
    panel.set_xlabel(f"horizon in multiples of {known}, the longest of meta-training" if known else "horizon in steps")
    low, high = panel.get_ylim()
    panel.set_ylim(max(LOWEST * 0.9, min(low, 0.8)), min(HIGHEST * 1.1, max(high, 1.25)))
    ticks = [x for x in (*TICKS, 0.3, 0.7, 1.5, 3) if panel.get_ylim()[0] <= x <= panel.get_ylim()[1]]
    panel.set_yticks(ticks, [f"{x:g}" for x in ticks])
    panel.set_xticks(at / unit, [f"{x:.3g}" for x in at / unit])
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.25)
    return _svg(figure, f"horizons-{name}", f"{name} ratio to tuned Adam by horizon")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        panel = figure.subplots()
    panel.spines[["top", "right"]].set_visible(False)
    return figure, panel


def _svg(figure: Figure, name: str, description: str) -> str:
    buffer = io.StringIO()
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=NO_METADATA)
    prefix = re.sub(r"\W", "-", name)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', text).replace("url(#", f"url(#{prefix}-")
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None
    return f'<svg {view[0]} role="img" aria-label="{html.escape(description)}">' + text[text.index(">") + 1 :]
