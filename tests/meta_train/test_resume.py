"""Runs that are stopped in every way end bit for bit as the run that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from learned_opt.errors import UsageError
from learned_opt.meta_train.metrics import MetricsWriter

STEPS = 40
FLAGS = {
    "steps": STEPS,
    "particles": 4,
    "truncation": 5,
    "min-horizon": 10,
    "max-horizon": 40,
    "checkpoint-every": 7,
}


def command(run_dir: Path, devices: int = 2, optimizer: str = "learnable-adam", *more: str) -> list[str]:
    flags = [text for name, value in FLAGS.items() for text in (f"--{name}", str(value))]
    fixed = ["--no-compare", "--run-dir", str(run_dir), "--devices", str(devices), "--optimizer", optimizer]
    return [sys.executable, "-m", "learned_opt.cli", "train", *flags, *fixed, *more]


def finish(run_dir: Path, devices: int = 2, optimizer: str = "learnable-adam") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(run_dir, devices, optimizer), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def checkpoints(run_dir: Path) -> list[int]:
    return sorted(int(p.name) for p in (run_dir / "checkpoints").glob("*") if p.name.isdigit())


def stop_after(run_dir: Path, step: int, signum: int, delay: float = 0.0, optimizer: str = "learnable-adam") -> str:
    """Starts the run, waits for the checkpoint of a step, sends the signal, and returns standard error."""
    process = subprocess.Popen(
        command(run_dir, 2, optimizer), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 240
    while not any(done >= step for done in checkpoints(run_dir)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(signum)
    _, error = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if signum == signal.SIGKILL else 128 + signum), error
    return error


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("uninterrupted") / "run"
    finish(run_dir)
    return run_dir


def metrics(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_metrics_have_one_line_a_step(uninterrupted: Path) -> None:
    lines = metrics(uninterrupted)
    assert [line["step"] for line in lines] == list(range(STEPS))
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert all(4 * 2 <= line["inner_steps"] <= 4 * 2 * 5 for line in lines)  # fewer where a horizon ends in between
    assert all(line["dropped"] == line["skipped"] == 0 for line in lines)
    assert list(uninterrupted.glob("events.out.tfevents.*"))


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    """And nothing of the file is lost."""
    content = '{"step": 0}\n{"step"\n{"step": 2}\n'
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(UsageError, match=r"metrics.jsonl:2: not the metrics of an outer step"):
        MetricsWriter(tmp_path, 3)
    assert (tmp_path / "metrics.jsonl").read_text() == content


def test_kill_9_twice_then_resume_is_bit_identical(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once just after a checkpoint, once between two; metrics too, without gaps or repetitions.

    The last process compiles its program anew.
    """
    run_dir = tmp_path / "run"
    stop_after(run_dir, 7, signal.SIGKILL)
    stop_after(run_dir, 21, signal.SIGKILL, delay=0.03)
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
    done = finish(run_dir)
    assert "resuming" in done.stdout
    assert (run_dir / "theta.npz").read_bytes() == (uninterrupted / "theta.npz").read_bytes()
    assert metrics(run_dir) == metrics(uninterrupted)


def test_sigterm_saves_and_exits_143(uninterrupted: Path, tmp_path: Path) -> None:
    """It saves where it is, which need not be a multiple of checkpoint-every."""
    run_dir = tmp_path / "run"
    error = stop_after(run_dir, 14, signal.SIGTERM)
    [line] = error.strip().splitlines()
    assert line.startswith("learned-opt: SIGTERM: saved after outer step ")
    assert f"outer step {checkpoints(run_dir)[-1]} of {STEPS}" in line
    finish(run_dir)
    assert (run_dir / "theta.npz").read_bytes() == (uninterrupted / "theta.npz").read_bytes()


@pytest.mark.slow
def test_resume_on_another_number_of_devices(uninterrupted: Path, tmp_path: Path) -> None:
    """Two devices, then one, then four: the same to 1e-5."""
    run_dir = tmp_path / "run"
    stop_after(run_dir, 7, signal.SIGTERM)
    finish(run_dir, devices=4)
    with np.load(run_dir / "theta.npz") as found, np.load(uninterrupted / "theta.npz") as expected:
        assert sorted(found) == sorted(expected)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-7)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(uninterrupted: Path, tmp_path: Path) -> None:
    """The newest is truncated: a warning names it, and the end is the same to the bit."""
    run_dir = tmp_path / "run"
    stop_after(run_dir, 14, signal.SIGTERM)
    newest = checkpoints(run_dir)[-1]
    largest = max((run_dir / "checkpoints" / str(newest)).rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    os.truncate(largest, largest.stat().st_size // 2)
    done = finish(run_dir)
    assert f"checkpoints/{newest}: not whole" in done.stderr
    assert (run_dir / "theta.npz").read_bytes() == (uninterrupted / "theta.npz").read_bytes()


@pytest.mark.slow
def test_star_resumes_to_the_bit(tmp_path: Path) -> None:
    """The same with STAR, whose particles carry far more state."""
    finish(tmp_path / "whole", optimizer="star")
    stop_after(tmp_path / "killed", 14, signal.SIGKILL, optimizer="star")
    finish(tmp_path / "killed", optimizer="star")
    assert (tmp_path / "killed/theta.npz").read_bytes() == (tmp_path / "whole/theta.npz").read_bytes()


def test_another_configuration_is_refused(uninterrupted: Path) -> None:
    """One line with both values, exit status 2, and the run as it was."""
    before = {p: p.read_bytes() for p in uninterrupted.iterdir() if p.is_file()}
    done = subprocess.run(command(uninterrupted, 2, "learnable-adam", "--seed", "1"), capture_output=True, text=True)
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert "holds a run with seed 0, and 1 was given" in line
    assert {p: p.read_bytes() for p in uninterrupted.iterdir() if p.is_file()} == before


def test_a_finished_run_is_left_alone(uninterrupted: Path) -> None:
    """Run again, it says so."""
    before = (uninterrupted / "theta.npz").stat().st_mtime_ns
    assert "is complete" in finish(uninterrupted).stdout
    assert (uninterrupted / "theta.npz").stat().st_mtime_ns == before
