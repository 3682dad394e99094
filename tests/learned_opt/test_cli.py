"""The command line: fast help, and one line with exit status 2 for every kind of bad input."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from learned_opt import cli
from learned_opt.commands import cores
from learned_opt.commands import list as list_command

pytestmark = pytest.mark.usefixtures("quick_programs")
TINY = ["--steps", "2", "--particles", "2", "--truncation", "2", "--min-horizon", "2", "--max-horizon", "2"]


def run(*args: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "learned_opt.cli", *args]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=120, env={**os.environ, **environment}
    )


def refused(*args: str, cwd: Path, **environment: str) -> str:
    """The one line on standard error; nothing may be written."""
    before = sorted(cwd.rglob("*"))
    done = run(*args, cwd=cwd, **environment)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.strip().splitlines()
    assert sorted(cwd.rglob("*")) == before
    return line


def test_help_answers_at_once(tmp_path: Path) -> None:
    """Half a second, the best of three: without JAX."""
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        done = run("--help", cwd=tmp_path)
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 0.5
    for command in ("train", "benchmark", "reproduce", "export", "list"):
        assert command in done.stdout
    assert "learned-opt list [tasks]" in run("list", "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize(("given", "width"), [("", "512"), ("--xla_cpu_prefer_vector_width=128", "128")])
def test_commands_make_long_vectors_unless_told_otherwise(given: str, width: str, tmp_path: Path) -> None:
    """As LLVM is told for each function; every core is a device."""
    code = (
        "import jax; from learned_opt.commands import cores; cores.use_cores(3); print(jax.device_count());"
        "jax.jit(lambda x: x * x + 1)(jax.numpy.ones(64))"
    )
    flags = f"--xla_dump_to={tmp_path} --xla_dump_hlo_module_re=.*lambda.* {given}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=120, check=True, env={**os.environ, "XLA_FLAGS": flags},
    )  # fmt: skip
    assert done.stdout == "3\n"
    made = "".join(path.read_text() for path in tmp_path.glob("*with-opt.ll"))
    assert f'"prefer-vector-width"="{width}"' in made


def test_list_names_what_there_is(tmp_path: Path) -> None:
    output = run("list", cwd=tmp_path).stdout
    for name in ("quickstart", "digits", "star", "black-box-mlp", "learnable-adam", "pes", "truncated-backprop"):
        assert f"  {name}" in output
    assert "digits-mlp-reparametrised" in output


def test_list_tasks_tells_what_each_costs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A linear model on digits has 64 * 10 + 10 weights, and its gradient on 64 examples takes 2 * 2 * 64 * 64 * 10."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("LEARNED_OPT_CACHE", str(tmp_path / "cache"))
    some = {name: list_command.tasks()[name] for name in ("digits-linear", "mnist-mlp")}
    monkeypatch.setattr(list_command, "tasks", lambda: some)
    cli.main(["list", "tasks"])
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    data, weights, megaflops = lines["digits-linear"]
    assert (data, weights) == ("digits", "650")
    assert 0.16 < float(megaflops) < 0.25
    assert lines["mnist-mlp"] == ["mnist", "data", "set", "not", "prepared"]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["trian"], "unknown command 'trian': did you mean train?"),
        (["train", "quikstart"], "unknown preset 'quikstart': did you mean quickstart or star?"),
        (["train", "--tasks", "digit-mlp"], "unknown task 'digit-mlp': did you mean digits-mlp"),
        (["train", "--drop", "digits-cnn"], "unknown task of the mixture 'digits-cnn'"),
        (["train", "--optimizer", "sta"], "unknown learned optimizer 'sta': did you mean star?"),
        (["train", "--option", "nominl=none"], "unknown option of star 'nominl': did you mean nominal"),
        (["train", "--option", "nominal=adma"], "did you mean adam"),
        (["train", "--option", "hidden=wide"], "star.hidden was given 'wide': a value like (4, 4) is accepted"),
        (["train", "--estimator", "pess"], "invalid choice 'pess'"),
        (["train", "--stesp", "3"], "--steps"),
        (["train", "--steps", "many"], "many"),
        (["train", "--steps", "0"], "--steps was given 0: a number above 0 is accepted"),
        (["train", "--steps", "-5"], "-5"),
        (["train", "--devices", "0"], "--devices was given 0: a number from 1 is accepted"),
        (["train", "--max-horizon", "50"], "--max-horizon was given 50: at least 100 is accepted"),
        (["benchmark", "adma"], "unknown optimizer 'adma': did you mean"),
        (["benchmark", "adam", "--suite", "digit"], "unknown suite 'digit': did you mean digits"),
        (["benchmark", "adam@fast"], "learning rate 'fast'"),
        (["benchmark"], "optimizer"),
        (["benchmark", "adam", "--tasks", "--steps", "9"], "--tasks was given nothing: at least one value is accepted"),
        (["speed", "--parts"], "--parts was given nothing"),
        (["train", "--drop", "--steps", "2"], "--drop was given nothing"),
        (["export", "nowhere", "mine"], "nowhere"),
        (["list", "presets"], "list was given 'presets': nothing, or tasks, is accepted"),
        (["train", "--tasks", "quadratic-noisy+small-batches"], "a task whose batches are of more than 4 examples"),
        (["train", "--option", "hidden=[0]"], "Star.hidden was given (0,): widths from 1 are accepted"),
        (["train", "--option", "weight_decay=-0.1"], "Star.weight_decay was given -0.1: a number from 0 is accepted"),
        (
            ["train", "fds-sgd", "--weights", "nope"],
            "--weights was given nope and --base sgd: it is accepted with star",
        ),
        (["train", "fds-sgd", "--no-retrain", "--retrain-steps", "9"], "--retrain-steps was given with --no-retrain"),
        (["diagnose", "horizon", "quickstart", "--seed", "-1"], "--seed was given -1"),
        (["train", "--tasks", "digits-mlp+nois"], "unknown augmentation 'nois': did you mean noise"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    expected: str,
) -> None:
    """In this process, to be quick, where devices have been looked at already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cores, "use_cores", lambda devices: None)
    with pytest.raises(SystemExit) as end:
        cli.main(args)
    assert end.value.code == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert expected in line
    assert not list(tmp_path.iterdir())


def test_devices_must_share_the_particles(tmp_path: Path) -> None:
    assert "32 particles cannot be shared equally by 5 devices" in refused(
        "train", "--devices", "5", "--particles", "32", cwd=tmp_path
    )


def test_a_missing_data_set_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    places = {"TFDS_DATA_DIR": str(tmp_path / "data"), "LEARNED_OPT_CACHE": str(tmp_path / "cache")}
    line = refused("train", "--tasks", "mnist-mlp", cwd=tmp_path, **places)
    assert "data set 'mnist' is not prepared" in line
    assert "pip install 'learned-opt[data]'" in line
    (tmp_path / "file").touch()
    line = refused("train", cwd=tmp_path, LEARNED_OPT_CACHE=str(tmp_path / "file"))
    assert "file/tensorflow_datasets: cannot be made: Not a directory; LEARNED_OPT_CACHE may name another" in line


def test_a_directory_that_is_no_run_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "is no run directory" in refused("train", *TINY, "--run-dir", str(tmp_path), cwd=tmp_path)


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    for preset in ([], ["fds-sgd"]):
        line = refused("train", *preset, "--run-dir", "notes/run", cwd=tmp_path)
        assert "notes/run cannot be written: Not a directory; another --run-dir is accepted" in line


def test_what_was_asked_for_is_what_ran(tmp_path: Path) -> None:
    """Another estimator, another number of devices and steps, another seed."""
    flags = [*TINY, "--steps", "3", "--seed", "5", "--devices", "2", "--estimator", "truncated-backprop"]
    flags += ["--no-out-of-phase"]
    done = run("train", *flags, "--optimizer", "learnable-adam", "--no-compare", "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "on 2 devices" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["inner_steps"] for line in lines] == [2 * 2] * 3
    card = json.loads((tmp_path / "run/card.json").read_text())
    assert (card["config"]["estimator"], card["config"]["seed"]) == ("truncated-backprop", 5)


OBJECTIVE = ["--aggregate", "final-window", "--window", "3", "--measured-on", "valid", "--normalise"]
MORE = {
    "pes": ["--shaping", "rank", "--sigma-of", "eps", "0.1", "--gradient-clip-value", "1e-6"],
    "noise-reuse-es": ["--no-common-random-numbers", "--curriculum", "2"],
    "full-es": ["--no-antithetic", "--aggregate", "log"],
    "truncated-es": OBJECTIVE,
    "full-backprop": ["--aggregate", "log", "--measured-on", "same-batch-after"],
    "forward": [*OBJECTIVE, "--loss-clip", "None"],
}


@pytest.mark.parametrize("estimator", MORE)
def test_every_estimator_meta_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, estimator: str) -> None:
    """With flags of every kind; in this process, to be quick."""
    monkeypatch.setattr(cores, "use_cores", lambda devices: None)
    flags = ["--steps", "3", "--particles", "2", "--truncation", "3", "--min-horizon", "4", "--max-horizon", "8"]
    flags += ["--optimizer", "learnable-adam", "--no-compare", "--run-dir", str(tmp_path / "run"), *MORE[estimator]]
    flags += ["--tasks", "teacher_classification-linear"]
    cli.main(["train", *flags, "--estimator", estimator])
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert all(line["dropped"] == 0 and line["theta_norm"] > 0 for line in lines)
    assert 2 < lines[0]["loss"] * (math.log(10) if "--normalise" in MORE[estimator] else 1) < 4
    assert (lines[0]["gradient_value_clipped"] == 1) == (estimator == "pes")


def test_a_mixture_has_metrics_for_each_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of different shape share an outer step; particles differ; one family is dropped."""
    monkeypatch.setattr(cores, "use_cores", lambda devices: None)
    tasks = ["iris-mlp", "diabetes-linear", "wine-mlp"]
    flags = ["--tasks", *tasks, "--weight-of", "diabetes-linear", "0.5", "--particles-of", "diabetes-linear", "3"]
    flags += ["--drop", "wine-mlp", "--normalise-gradients", "--no-out-of-phase"]
    flags += ["--optimizer", "learnable-adam", "--no-compare", "--run-dir", str(tmp_path / "run")]
    cli.main(["train", *TINY, *flags])
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line["inner_steps/iris-mlp"] == 2 * 2 * 2
        assert line["inner_steps/diabetes-linear"] == 3 * 2 * 2
        assert all(line[f"{name}/{task}"] is not None for name in ("loss", "dropped") for task in tasks[:2])
        assert f"loss/{tasks[2]}" not in line
        assert 0 < line["gradient_norm"] <= 1


def test_train_export_load(tmp_path: Path) -> None:
    """A tiny run, exported, is loaded by its directory and refuses to be overwritten or misread."""
    import jax.numpy as jnp
    import numpy as np

    import learned_opt
    from learned_opt.adam import LearnableAdam
    from learned_opt.checkpoints.load import load_learned_optimizer

    done = run("train", *TINY, "--optimizer", "learnable-adam", "--no-compare", "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("export", "run", "mine", "--out", "weights", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    params = {"w": jnp.ones(3)}
    updates = []
    for directory in ("run", "weights/mine"):
        optimizer = learned_opt.load(tmp_path / directory)
        updates.append(optimizer.update(params, optimizer.init(params), params)[0]["w"])
    np.testing.assert_array_equal(*updates)
    assert "weights/mine exists" in refused("export", "run", "mine", "--out", "weights", cwd=tmp_path)
    (tmp_path / "file").touch()
    assert "--out was given file: " in refused("export", "run", "mine", "--out", "file", cwd=tmp_path)

    for flags, name in (((), "second"), (("--description", "better"), "third")):
        assert run("export", "weights/mine", name, "--out", "weights", *flags, cwd=tmp_path).returncode == 0
        card = json.loads((tmp_path / "weights" / name / "card.json").read_text())
        assert (card["name"], card["description"]) == (name, "better" if flags else "")

    assert run("export", "run", "slower", "--out", "weights", "--option", "b1=0.95", cwd=tmp_path).returncode == 0
    optimizer, _, card = load_learned_optimizer(tmp_path / "weights/slower")
    assert optimizer == LearnableAdam(b1=0.95)
    assert "b1" not in card["config"]["optimizer_options"]
    assert "unknown option" in refused("export", "run", "none", "--out", "weights", "--option", "b=1", cwd=tmp_path)
    assert not (tmp_path / "weights/none").exists()

    card = tmp_path / "weights/mine/card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"optimizer": "star"}))
    assert "checkpoint of another architecture" in refused("benchmark", "weights/mine", cwd=tmp_path)
