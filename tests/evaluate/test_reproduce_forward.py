"""The reproductions of FDS and MetaOptimize: cheap rows here, the commands where slow tests run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from learned_opt.evaluate.reproduce import fds_identities, fds_search, metaoptimize_identities
from learned_opt.evaluate.reproduce.metaoptimize_runs import Moving, _rows
from learned_opt.evaluate.reproduce.teacher_task import teacher_task


def test_the_noise_theorem_holds_and_its_rows_can_fail() -> None:
    rows = list(fds_identities.noise_theorem(seed=0, runs=2000))
    assert [row.passed for row in rows] == [True, True, True]
    assert rows[0].published.startswith("bound 0.0015625")
    assert rows[1].published.startswith("bound 0.85436")


def test_what_metaoptimize_keeps() -> None:
    rows = list(metaoptimize_identities.cost())
    assert len(rows) == 3
    for row in rows:
        assert row.passed, row


def test_rows_of_moving_data_can_fail() -> None:
    """Online accuracy below that of a fixed rate, and a step size that never grows; the other meta-rate does better."""
    accuracy = np.full((7, 3, 10), 0.5)
    accuracy[3], accuracy[1] = 0.6, 0.7
    falls = np.repeat(-np.arange(20_000)[None], 3, 0)
    found = Moving(accuracy, np.stack([falls, -falls]))
    assert [row.passed for row in _rows(found, 0, 3)] == [False, False]
    assert [row.passed for row in _rows(found, 1, 3)] == [True, True]


def test_rows_of_a_search_can_fail() -> None:
    """A loss of 0.9 by those of greedy descent and of random search: the limits are 0.95, 0.88 and 1.03."""
    for averaged, greedy, searched, expected in (
        (1, 1.0, 0.85, [True, False, False]),
        (4, 1.1, 0.9, [True, True, True]),
    ):
        rows = list(fds_search._rows(averaged, [0.8, 0.9, 1.0], greedy, searched))
        assert [row.passed for row in rows] == expected
        assert all(("as published" in row.what) and ("not as published" in row.what) == (averaged > 1) for row in rows)
        assert f"with {20 // averaged}x the runs" in rows[2].what


def test_the_teacher_task_is_the_published_one() -> None:
    """Disjoint splits of 2000, 500 and 2000; a tenth of the training labels redrawn, of which a tenth stay the same."""
    task = teacher_task()
    rng = np.random.RandomState(0)
    inputs, first, second = rng.randn(4500, 20), rng.randn(20, 16), rng.randn(16, 10)
    clean = np.argmax(np.tanh(inputs @ first) @ second, 1)
    assert {name: len(labels) for name, (_, labels) in task.splits.items()} == {
        "train": 2000,
        "valid": 500,
        "test": 2000,
    }
    np.testing.assert_allclose(task.splits["test"][0], inputs[2500:], rtol=1e-6)
    np.testing.assert_array_equal(task.splits["valid"][1], clean[2000:2500])
    assert 0.07 < (np.asarray(task.splits["train"][1]) != clean[:2000]).mean() < 0.11
    params = task.init(jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(params)) == 1002


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "files", "misses"),
    [
        ("fds", ["fds.md", "memory.png", "results.json", "schedules.png"], ("FDS-5", "a run each, as published")),
        (
            "metaoptimize",
            ["metaoptimize.md", "results.json", "step_sizes.png", "switches.png"],
            ("MO-7", "meta-rate 1e-3, as in the paper"),
        ),
    ],
)
def test_rows_that_fail_are_the_known_misses(
    name: str, files: list[str], misses: tuple[str, str], tmp_path: Path
) -> None:
    """The command says so, with exit status 1; docs/forward.md says why."""
    command = [sys.executable, "-m", "learned_opt.cli", "reproduce", name, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert sorted(os.listdir(tmp_path / "out")) == files, done.stdout + done.stderr
    results = json.loads((tmp_path / "out/results.json").read_text())
    failed = [row for row in results["rows"] if not row["passed"]]
    assert all(row["id"] == misses[0] and misses[1] in row["what"] for row in failed), done.stdout
    assert done.returncode == (1 if failed else 0)
    assert ("rows fail" if failed else "all rows pass") in done.stdout
    assert results["passed"] == (not failed)
