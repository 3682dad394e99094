"""`learned-opt list`."""

from collections.abc import Iterable
from typing import get_args

from rich.console import Console

from learned_opt import registry
from learned_opt.checkpoints import artifact
from learned_opt.errors import UsageError
from learned_opt.evaluate import suites
from learned_opt.meta_train.estimators import EstimatorName
from learned_opt.meta_train.presets import PRESETS
from learned_opt.tasks.registry import AUGMENTATIONS, tasks
from learned_opt.tasks.survey import survey


def main(args: list[str]) -> None:
    """Prints what there is, by name; `tasks` tells more of those."""
    console = Console(soft_wrap=True, highlight=False)
    if args and args[0] in ("-h", "--help"):
        print("usage: learned-opt list [tasks]\n\nWhat there is, by name; with tasks, their data sets and sizes.")
        return
    if args == ["tasks"]:
        show_tasks(console)
        return
    if args:
        raise UsageError(f"list was given {args[0]!r}: nothing, or tasks, is accepted")
    sections: dict[str, Iterable[str]] = {
        "presets": PRESETS,
        "learned optimizers": registry.OPTIMIZERS,
        "estimators": get_args(EstimatorName),
        "tasks": tasks(),
        "suites": [f"{s.name}: {s.description}" for s in suites.SUITES.values()],
        "pretrained weights": artifact.pretrained_names(),
    }
    for title, names in sections.items():
        console.print(f"[bold]{title}[/bold]")
        for name in names:
            console.print(f"  {name}", markup=False)


def show_tasks(console: Console) -> None:
    """A line for each task as soon as it is known; a data set that is not prepared says so."""
    console.print(f"{'task':34}{'data set':24}{'weights':>8}{'Mflop/step':>12}", style="bold")
    for name, entry in tasks().items():
        try:
            found = survey(entry.make())
            facts = f"{found.parameters:8,}{found.megaflops:12.3g}"
        except UsageError:
            facts = "  data set not prepared"
        console.print(f"{name:34}{entry.data:24}{facts}", markup=False)
    console.print("one gradient on one batch, by XLA's count, a loop counted once; augment any: NAME+AUGMENTATION")
    console.print(f"augmentations: {', '.join(AUGMENTATIONS)}")
