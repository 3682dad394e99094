"""`compare` on losses of users: the examples, and what is refused."""

import io
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from learned_opt.errors import UsageError
from learned_opt.evaluate import compare, contenders
from learned_opt.evaluate.problem import problem

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("compare_*.py")))
def test_examples(name):
    """With fewer steps and other optimizers than they show, for the time it takes to compile those: Adam learns."""
    example = runpy.run_path(str(EXAMPLES / name))
    data = next((example[k], example["labels"]) for k in ("features", "images") if k in example)
    console = Console(file=io.StringIO(), width=200)
    optimizers = [optax.sgd(0.1, momentum=0.9)]
    results = compare(
        example["loss"], example["init"], data, optimizers, steps=40, seeds=2, name="mine", console=console
    )
    runs = results.runs["mine"]
    assert list(runs) == ["optimizer 0", "adam", "adam-tuned"]
    for run in runs.values():
        assert run.scores[40].final_loss.shape == (2,)
        assert not run.scores[40].diverged.any()
    assert runs["adam-tuned"].longest.losses[:, -5:].mean() < 0.5 * runs["adam-tuned"].longest.losses[:, 0].mean()
    assert "adam-tuned" in console.file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("compare_*.py")))
def test_examples_as_they_are(name, tmp_path):
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "digits" in done.stdout
    assert not list(tmp_path.iterdir())


def loss(params, batch):
    return jnp.square(batch - params).mean()


def init(key):
    return jax.random.normal(key, (3,))


def test_it_is_a_plain_loop(tmp_path):
    """Rows, a function of a key, and an optax optimizer as it is."""

    def batches(key, split):
        return jax.random.normal(key, (4, 3)) + {"train": 0.0, "valid": 1.0, "test": 2.0}[split]

    mine = contenders.given("mine", optax.sgd(0.1))
    out = tmp_path / "out"
    console = Console(file=io.StringIO())
    results = compare(loss, init, batches, [mine, "sgd@0.1"], steps=30, seeds=2, out=out, console=console)
    assert {"results.json", "report.html"} <= {path.name for path in out.iterdir()}
    runs = results.runs["problem"]
    np.testing.assert_allclose(runs["mine"].longest.losses, runs["sgd@0.1"].longest.losses, rtol=1e-6)
    score = runs["mine"].scores[30]
    assert (score.final_loss + 0.5 < score.valid_loss).all()
    assert (score.valid_loss + 1 < score.test_loss).all()


@pytest.mark.parametrize("kind", ["tuple", "list", "generator"])
def test_rows_are_split_once(kind):
    x = np.arange(50.0)
    parts = [(x[i : i + 10], x[i : i + 10] ** 2) for i in range(0, 50, 10)]
    given = {"tuple": (x, x**2), "list": parts, "generator": iter(parts)}[kind]
    made = problem(lambda params, batch: (params * batch[0]).sum(), lambda key: jnp.ones(()), given, 7)
    splits = made.data.splits
    assert {split: len(rows[0]) for split, rows in splits.items()} == {"train": 40, "valid": 5, "test": 5}
    assert sorted(np.concatenate([rows[0] for rows in splits.values()])) == list(x)
    for rows in splits.values():
        np.testing.assert_array_equal(rows[0] ** 2, rows[1])
    drawn = made.sample_batch(jax.random.key(0), "valid")
    assert drawn[0].shape == (7,)
    assert set(np.asarray(drawn[0])) <= set(splits["valid"][0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros(9), r"rows: equally many, at least 10"),
        ((np.zeros(20), np.zeros(21)), r"\[20, 21\] rows"),
        (3, "batches was given a int"),
        ("abc", "batches was given a str"),
        ([], "batches was given a list"),
    ],
)
def test_bad_batches(given, message):
    with pytest.raises(UsageError, match=message):
        problem(loss, init, given, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size was given 0: a number from 1 is accepted"),
        ({"batch_size": -1}, "batch_size was given -1"),
        ({"optimizers": [3]}, "optimizers was given a int: names, optax optimizers and contenders are accepted"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(UsageError, match=message):
        compare(loss, init, np.zeros((20, 3)), **changes)


def test_a_loss_that_is_no_scalar():
    with pytest.raises(UsageError, match=r"array of shape \(3,\): a scalar is accepted"):
        problem(lambda params, batch: params, init, np.zeros((20, 3)), 8)
