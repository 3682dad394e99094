"""`learned-opt reproduce fds`: forward-mode differentiation with sharing (Micaelli and Storkey 2021, 2007.07869)."""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from learned_opt.evaluate.reproduce import fds_identities, fds_search, rows
from learned_opt.evaluate.reproduce.rows import Detail, Reproduction, Row


@dataclass(frozen=True)
class Settings(rows.SeededSettings):
    """Hypergradients over long horizons: exactness, memory, noise, and the schedules that they find."""


def run(settings: Settings, console: Console) -> Reproduction:
    """Measures every row, saying what is under way."""
    key = jax.random.key(settings.seed)
    console.print("forward against reverse mode, memory, the published recursions", style="dim")
    memory_rows, megabytes = fds_identities.memory()
    found: list[Row] = [*fds_identities.exactness(key), *memory_rows, *fds_identities.recursions(key)]
    console.print("the noise theorem", style="dim")
    found += fds_identities.noise_theorem(settings.seed)
    console.print(f"schedules by FDS and others, {settings.seeds} outer seeds", style="dim")
    search_rows, search = fds_search.search(settings.seed, settings.seeds)
    console.print("a run of 10,000 steps", style="dim")
    found += [*search_rows, *fds_identities.long_run(key, settings.seeds)]
    return Reproduction(
        "fds",
        found,
        figures={"memory": _memory_figure(megabytes), "schedules": _schedules(search)},
        details=[_detail(search)],
        extra={
            "megabytes": {"steps": list(fds_identities.LENGTHS), **megabytes},
            "test_losses": search.tests,
            "schedules": search.found,
        },
    )


def _detail(search: fds_search.Search) -> Detail:
    def cells() -> Iterator[list[str]]:
        for name, losses in search.tests.items():
            yield [name, f"{np.mean(losses):.3f}", f"{min(losses):.3f}", f"{max(losses):.3f}"]

    return Detail("Test loss after retraining, teacher task", ("search", "mean", "lowest", "highest"), list(cells()))


def _memory_figure(megabytes: dict[str, list[float]]) -> bytes:
    """Temporary memory of a hypergradient by the length of the run."""
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    panel = figure.subplots()
    for mode, sizes in megabytes.items():
        panel.loglog(fds_identities.LENGTHS, sizes, marker="o", label=f"{mode} mode")
    panel.set(xlabel="inner steps of the run", ylabel="temporary memory, MB")
    panel.set_title("5 hyperparameters, 1002 weights, float64", fontsize=10)
    panel.grid(alpha=0.25)
    panel.legend(frameon=False)
    return rows.to_png(figure)


def _schedules(search: fds_search.Search) -> bytes:
    """The learning rates found, and the test losses beside those of the other searches."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    for i, theta in enumerate(search.found):
        edges = np.linspace(0, fds_search.STEPS, len(theta["learning_rate"]) + 1)
        label = f"seed {i}: momentum {theta['momentum'][0]:.2f}, decay {theta['weight_decay'][0]:.1e}"
        left.stairs(theta["learning_rate"], edges, label=label, linewidth=1.5)
    left.set(xlabel="inner step", ylabel="learning rate found in 10 outer steps")
    left.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    names = list(search.tests)
    for y, name in enumerate(names):
        right.plot(search.tests[name], [y] * len(search.tests[name]), "o", color="#0072B2", alpha=0.6)
        right.plot(np.mean(search.tests[name]), y, "|", color="black", markersize=16)
    right.set(xlabel="test loss after retraining, by outer seed; bar: mean", yticks=range(len(names)))
    right.set_yticklabels(names)
    right.invert_yaxis()
    for panel in (left, right):
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    return rows.to_png(figure)
