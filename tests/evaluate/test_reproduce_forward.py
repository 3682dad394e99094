"""The reproductions of FDS and MetaOptimize: cheap rows here, the commands where slow tests run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from learned_opt.evaluate.reproduce import fds_identities, fds_search, metaoptimize_identities, metaoptimize_runs
from learned_opt.evaluate.reproduce.metaoptimize_runs import Moving
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
    for setting, passed in ((0, False), (1, True)):
        assert metaoptimize_runs._accuracy(found, setting, 3).passed == passed
        assert metaoptimize_runs._grown(found, setting, 3).passed == passed


def test_rows_of_a_search_can_fail() -> None:
    """A loss of 0.9 by those of greedy descent and of random search: the limits are 0.95, 0.88 and 1.03."""
    for greedy, searched, expected in ((1.0, 0.85, [True, False, False]), (1.1, 0.9, [True, True, True])):
        rows = list(fds_search._rows([0.8, 0.9, 1.0], greedy, searched))
        assert [row.passed for row in rows] == expected
        assert "with 20x the runs" in rows[2].what
    assert [row.passed for row in fds_search._rows([0.9, 1.0, 1.0], 1.1, 1.0)] == [False, True, True]


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
    ("name", "files"),
    [
        ("fds", ["fds.md", "memory.png", "results.json", "schedules.png"]),
        ("metaoptimize", ["metaoptimize.md", "results.json", "step_sizes.png", "switches.png"]),
    ],
)
def test_all_rows_pass(name: str, files: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "learned_opt.cli", "reproduce", name, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(os.listdir(tmp_path / "out")) == files
    assert json.loads((tmp_path / "out/results.json").read_text())["passed"]
    assert "all rows pass" in done.stdout
