"""The report on a terminal."""

import rich.box
import rich.table
from rich.console import Console
from rich.text import Text

from learned_opt.evaluate.report import tables, words
from learned_opt.evaluate.scores import Results
from learned_opt.evaluate.summary import Summary


def show(results: Results, console: Console | None = None) -> None:
    """Prints the verdict, where optimizers lose to tuned Adam, and the tables, a row for each optimizer."""
    console, summary = console or Console(), Summary(results)
    for line in lines(summary):
        console.print(line, highlight=False, markup=False)
    for table in (tables.main(summary), tables.other(summary), tables.by_horizon(summary), tables.means(summary)):
        console.print(_drawn(table))


def lines(summary: Summary) -> list[str]:
    """All sentences: the verdict, losses, edges of sweeps, losses that ratios cannot tell, skipped tasks."""
    below = words.below_floor(summary)
    return [
        words.verdict(summary),
        *(
            f"{label} loses to tuned Adam in " + "; ".join(f"{name}: {where}" for name, where in lost.items())
            for label, lost in words.losses(summary).items()
        ),
        *(f"{label}: best learning rate at an edge of its sweep: {at}" for label, at in words.edges(summary).items()),
        *([f"losses below 0, or the floor of their task, count as equal to it in ratios: {below}"] if below else []),
        *(f"{task} was skipped: {why}" for task, why in summary.results.skipped.items()),
    ]


def _drawn(table: tables.Table) -> rich.table.Table:
    drawn = rich.table.Table(
        title=table.title,
        title_justify="left",
        caption=table.note,
        caption_justify="left",
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for i, column in enumerate(table.columns):
        drawn.add_column(column, justify="right" if i else "left", overflow="fold", no_wrap=not i)
    for row in table.rows:
        drawn.add_row(*(Text(cell.text) for cell in row))
    return drawn
