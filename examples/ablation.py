"""What matters in STAR and its meta-training: one change at a time from a small recipe, with several seeds of each.

    python examples/ablation.py                  # everything, then docs/ablation.md's table and plot into runs/ablation
    python examples/ablation.py recipe no-nominal   # these alone, and their table
    python examples/ablation.py no-nominal          # this alone, and no table: runs share the work; one stopped goes on
    python examples/ablation.py recipe recipe-long no-nominal-long   # some of them meta-trained twelve times as long

A score is the loss of the recipe by that of the variant, both meta-trained with the same seed and equally long: above
1, the change helps.
"""

import dataclasses
import itertools
import sys
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from learned_opt.checkpoints import artifact
from learned_opt.checkpoints.load import load_learned_optimizer
from learned_opt.evaluate import batch, scores, statistics, suites
from learned_opt.evaluate.benchmark import KEY
from learned_opt.meta_train import start
from learned_opt.meta_train.config import Config
from learned_opt.meta_train.presets import star
from learned_opt.meta_train.trainer import MetaTrainer
from learned_opt.tasks.survey import survey

OUT = Path("runs/ablation")
META_SEEDS, SEEDS, HORIZON = 3, 2, 1000
SUITES = ("in-distribution", "ood-small")
MEASURES = {"final_loss": "training", "valid_loss": "validation"}
HEAVY = 2.0  # megaflops of a gradient from which runs are faster one after another
AUGMENTED = ("digits-mlp", "teacher_regression-mlp", "breast_cancer-linear")
RECIPE = dataclasses.replace(
    star(),
    preset="ablation",
    tasks=(*(f"{name}+reparametrised" for name in AUGMENTED), "quadratic-noisy"),
    measured_on="train",
    aggregate="mean",
    steps=1000,
    max_horizon=1000,
    checkpoint_every=200,
    devices=1,
)
# name: what it says in the table, changes of the recipe, and of the options of STAR
VARIANTS: dict[str, tuple[str, dict, dict]] = {
    "recipe": ("the recipe", {}, {}),
    "no-controller": ("no controller of step sizes", {}, {"aligned": False}),
    "adam-aggmo": ("the nominal term not orthogonal", {}, {"nominal": "adam-aggmo"}),
    "no-nominal": ("no nominal term", {}, {"nominal": "none"}),
    "no-magnitude": ("no learned magnitude", {}, {"learned_magnitude": False}),
    "normalised": (
        "RMS-normalised direction in its place",
        {},
        {"learned_magnitude": False, "normalised": True},
    ),
    "both": ("both: magnitude, RMS-normalised direction", {}, {"normalised": True}),
    "relative": ("steps relative to the tensor's RMS", {}, {"relative": True, "nominal_scale": 0.03}),
    "no-clipping": ("steps not shortened where gradients surge", {}, {"clipping_threshold": 0.0}),
    "no-early-decay": ("no early decay", {}, {"early_decay": 0.0}),
    "random-start": ("last layer starts at random", {}, {"zero_start": False}),
    "no-augmentation": ("no augmentation", {"tasks": (*AUGMENTED, "quadratic-noisy")}, {}),
    "decay-0": ("meta weight decay 0 for 0.1", {"weight_decay": 0.0}, {}),
    "decay-1": ("meta weight decay 1 for 0.1", {"weight_decay": 1.0}, {}),
    "valid": ("validation loss as meta-objective", {"measured_on": "valid"}, {}),
    "mean-log": ("mean of logarithms as meta-objective", {"aggregate": "mean-log"}, {}),
    "mean-log-valid": ("mean of logarithms of validation loss", {"measured_on": "valid", "aggregate": "mean-log"}, {}),
    "longer": ("four times as many outer steps", {"steps": 4 * RECIPE.steps}, {}),
    "backprop": ("truncated backprop for PES", {"estimator": "truncated-backprop"}, {}),
    "backprop-then-pes": ("truncated backprop for the first half, PES for the second", {}, {}),
}
FIRST_HALF = {"backprop-then-pes": "backprop"}  # whose recipe it has; each half on a schedule of its own
LONG, TIMES = "-long", 12  # ends the name of a variant that is meta-trained so many times as long
TIMES_OF_SLOW = {"backprop": 1}  # in about equal time: an outer step of it takes as long as ten of PES
RECIPE_LONG = f"recipe{LONG}"


def config(variant: str, seed: int) -> Config:
    """Of one meta-training."""
    name = variant.removesuffix(LONG)
    _, changes, options = VARIANTS[name]
    options = RECIPE.optimizer_options | options
    found = dataclasses.replace(RECIPE, seed=seed, optimizer_options=options, **changes)
    times = 1 if name == variant else TIMES_OF_SLOW.get(name, TIMES)
    return dataclasses.replace(found, steps=times * found.steps)


def beside(variant: str) -> str:
    """What it is scored by: the recipe, meta-trained equally long."""
    return RECIPE_LONG if variant.endswith(LONG) and variant != RECIPE_LONG else "recipe"


def says(variant: str) -> str:
    """What it is, in the table and the plot."""
    if variant == RECIPE_LONG:
        return f"{TIMES} times as many outer steps"
    name = variant.removesuffix(LONG)
    text = VARIANTS[name][0]
    if name == variant:
        return text
    slow = FIRST_HALF.get(name, name) in TIMES_OF_SLOW
    return f"{text}, in equal time" if slow else f"{text}, both {TIMES} times as long"


def meta_train(variant: str) -> list[Path]:
    """The run directories of all seeds; runs that ended are left as they are."""
    directories = [OUT / f"{variant}-{seed}" for seed in range(META_SEEDS)]
    for seed, directory in enumerate(directories):
        own, name = config(variant, seed), variant.removesuffix(LONG)
        if name in FIRST_HALF:
            first = config(FIRST_HALF[name] + variant.removeprefix(name), seed)
            before = directory.with_name(f"{directory.name}-before")
            MetaTrainer(dataclasses.replace(first, steps=first.steps // 2), before).train()
            own = start.start_from(dataclasses.replace(own, steps=own.steps // 2), str(before))
        MetaTrainer(own, directory).train()
    return directories


def minutes(variant: str) -> float:
    """Of one meta-training, compilation included: the median over seeds."""
    found = []
    for seed in range(META_SEEDS):
        halves = OUT.glob(f"{variant}-{seed}*")  # or the whole
        found.append(sum(artifact.read(run)[1]["compute"]["seconds"] for run in halves))
    return float(np.median(found)) / 60


def score(variant: str) -> dict[str, np.ndarray]:
    """Losses after `HORIZON` steps on every task of both suites, `[tasks, meta-seeds]`: medians over seeds."""
    kept = OUT / f"{variant}.npz"
    if kept.exists():
        return dict(np.load(kept))
    found = [load_learned_optimizer(str(directory)) for directory in meta_train(variant)]
    losses: dict[str, list[np.ndarray]] = {measure: [] for measure in MEASURES}
    for task, family in tasks().items():
        draws = batch.draw(family, batch.task_key(jax.random.key(KEY), task), SEEDS)
        program = batch.program(found[0][0], tuple(jax.local_devices()[:1]), survey(family).megaflops > HEAVY)
        runs = batch.Runs(program, [theta for _, theta, _ in found], family, draws, HORIZON)
        runs.train_to(HORIZON)
        ends = runs.evaluated("valid"), runs.evaluated("test")
        per_theta = [
            scores.score(x[None], v[None], t[None], HORIZON)
            for x, v, t in zip(runs.training_losses(), *ends, strict=True)
        ]
        for measure in MEASURES:
            losses[measure].append(np.array([np.median(getattr(s, measure)) for s in per_theta]))
        print(f"{variant}: {task}", flush=True)
    arrays = {measure: np.stack(values) for measure, values in losses.items()}
    np.savez(kept, **arrays)
    batch.forget()
    return arrays


def tasks() -> dict:
    """Of both suites, those of the first one first."""
    return dict(itertools.chain.from_iterable(suites.suite(name).tasks.items() for name in SUITES))


def effects(variants: list[str]) -> dict[str, dict[tuple[str, str], statistics.Estimate]]:
    """By variant, then by suite and measure: the recipe's loss by its own, over tasks and meta-seeds."""
    found: dict[str, dict[tuple[str, str], statistics.Estimate]] = {}
    names = list(tasks())
    for variant in variants:
        recipe, own, found[variant] = score(beside(variant)), score(variant), {}
        for suite, measure in itertools.product(SUITES, MEASURES):
            rows = [names.index(task) for task in suites.suite(suite).tasks]
            floors = np.array([suites.suite(suite).floor(names[i]) for i in rows])
            ratios = statistics.loss_ratios(own[measure][rows], recipe[measure][rows], floors)
            found[variant][suite, measure] = statistics.aggregate(ratios)
    return found


def table(found: dict) -> str:
    """In Markdown; bold where the interval is on one side of 1."""
    columns = list(itertools.product(SUITES, MEASURES))
    head = " | ".join(f"{suite}, {MEASURES[measure]}" for suite, measure in columns)
    lines = [f"| change | {head} | diverged | minutes |", "|---|" + "---:|" * (len(columns) + 2)]
    for variant, row in found.items():
        cells = []
        for column in columns:
            value, low, high = row[column]
            text = f"{value:.2f} [{low:.2f}, {high:.2f}]"
            cells.append(f"**{text}**" if low > 1 or high < 1 else text)
        diverged = np.isinf(score(variant)["final_loss"]).mean()
        lines.append(f"| {says(variant)} | {' | '.join(cells)} | {diverged:.0%} | {minutes(variant):.1f} |")
    return "\n".join(lines) + "\n"


def plot(found: dict, path: Path) -> None:
    """Effects with their intervals, the two suites beside each other."""
    figure = Figure(figsize=(9, 0.42 * len(found) + 1.2), layout="constrained")
    panels = figure.subplots(1, len(SUITES), sharey=True)
    for suite, panel in zip(SUITES, panels, strict=True):
        for offset, (measure, word) in zip((-0.13, 0.13), MEASURES.items(), strict=True):
            ends = np.array([row[suite, measure] for row in found.values()])
            errors = np.abs(ends[:, 1:] - ends[:, :1]).T
            panel.errorbar(ends[:, 0], np.arange(len(found)) + offset, xerr=errors, fmt="o", ms=4, label=f"{word} loss")
        panel.axvline(1, color="0.7", lw=0.8)
        panel.set(xscale="log", title=suite, xlabel="loss ratio (above 1: helps)")
        panel.set_xticks(ticks := [0.1, 0.2, 0.5, 1, 2], labels=map(str, ticks))
        panel.minorticks_off()
    panels[0].set_yticks(range(len(found)), labels=[says(name) for name in found])
    panels[0].invert_yaxis()
    panels[0].legend(loc="lower left", frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    chosen = sys.argv[1:] or list(VARIANTS)
    for name in chosen:
        score(name)
    changes = [name for name in chosen if beside(name) in chosen and name != "recipe"]
    if changes:
        result = effects(changes)
        (OUT / "ablation.md").write_text(table(result))
        plot(result, OUT / "ablation.png")
        print(table(result))
        for name in sorted({beside(change) for change in changes}):
            print(f"{name} took {minutes(name):.1f} minutes.")
