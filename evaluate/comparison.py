"""Scores optimizers on a problem of one's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optax
from rich.console import Console

from learned_opt.errors import UsageError
from learned_opt.evaluate import benchmark, report
from learned_opt.evaluate.contenders import Contender, given, parse
from learned_opt.evaluate.problem import Init, Loss, problem
from learned_opt.evaluate.scores import Results
from learned_opt.evaluate.suites import Suite


def compare(
    loss: Loss,
    init: Init,
    batches: Any,
    optimizers: Sequence[str | optax.GradientTransformation | Contender] = (),
    *,
    steps: int = 1000,
    seeds: int = 5,
    batch_size: int = 64,
    name: str = "problem",
    out: Path | str | None = None,
    console: Console | None = None,
) -> Results:
    """Scores optimizers on a loss, beside Adam at its default and tuned, as `learned-opt benchmark` does on a suite.

    Prints the tables, and writes the report to `out`, if it is given.

    Args:
        loss: `loss(params, batch) -> scalar`.
        init: `init(key) -> params`, a pytree of float arrays.
        batches: `batches(key, split) -> batch`, traceable, split being `train`, `valid` or `test`; or an array, or a
            tuple or dict of arrays, with equally many rows, or a list or other iterable of such batches: 80, 10 and
            10 % of the rows, at random, become the three splits.
        optimizers: names as the benchmark takes them (`"digits"`, `"runs/mine"`, `"adam-tuned"`, `"muon@0.02"`), or
            optax optimizers as they are.
        steps: inner steps of each run.
        seeds: runs of each optimizer, with weights and batches of their own.
        batch_size: rows of a batch, where `batches` are rows.
        name: of the problem in tables.
        out: a directory for the report.
        console: where tables are printed.

    Raises:
        UsageError: an argument is not as above.
    """
    if out is not None:
        report.prepare(Path(out))
    family = problem(loss, init, batches, batch_size)
    suite = Suite(name, "a problem of a user's", lambda: {name: family}, (steps,))
    contenders = [_contender(optimizer, i) for i, optimizer in enumerate(optimizers)]
    results = benchmark.run(suite, contenders, seeds, suite.horizons)
    report.show(results, console)
    if out is not None:
        report.write(results, Path(out))
    return results


def _contender(optimizer: str | optax.GradientTransformation | Contender, i: int) -> Contender:
    if isinstance(optimizer, Contender):
        return optimizer
    if isinstance(optimizer, str):
        return parse(optimizer)
    if isinstance(optimizer, optax.GradientTransformation):
        return given(f"optimizer {i}", optimizer)
    raise UsageError(
        f"optimizers was given a {type(optimizer).__name__}: names, optax optimizers and contenders are accepted"
    )
