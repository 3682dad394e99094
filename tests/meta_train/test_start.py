"""Meta-training that goes on from a theta: what it starts at, what is written down, and what is refused."""

import dataclasses
import importlib.metadata
import json
import re
import runpy
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from learned_opt import LearnableAdam, cli, registry
from learned_opt.checkpoints import artifact
from learned_opt.commands import cores, train
from learned_opt.errors import UsageError
from learned_opt.meta_train import presets
from learned_opt.meta_train.config import Config
from learned_opt.meta_train.start import initial_theta, start_from
from learned_opt.tasks import registry as task_registry

TINY = ["--steps", "2", "--particles", "2", "--truncation", "2", "--min-horizon", "2", "--max-horizon", "20"]
TASK = ["--tasks", "iris-linear"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To be quick; devices have been looked at already."""
    monkeypatch.setattr(cores, "use_cores", lambda devices: None)
    monkeypatch.chdir(tmp_path)


def save(name: str, learning_rate: float = 0.5) -> Any:
    """Weights of learnable Adam that no meta-training starts at, in a directory; returns theta."""
    optimizer = LearnableAdam(learning_rate=0.01)
    theta = jax.tree.map(lambda x: np.full_like(x, learning_rate), optimizer.init(jax.random.key(0)))
    artifact.write(Path(name), theta, {"optimizer": "learnable-adam", "optimizer_options": {"learning_rate": 0.01}})
    return theta


def refused(*args: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main(["train", *args])
    assert end.value.code == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    return line


def same(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_hash_is_that_of_the_card() -> None:
    """So that it names shipped weights; optimizer and options are those of the card."""
    config = start_from(Config(preset="quickstart"), "digits")
    card = json.loads((artifact.resolve("digits") / "card.json").read_text())
    assert (config.init, config.init_sha256) == ("digits", card["sha256"])
    assert (config.optimizer, config.optimizer_options) == (card["optimizer"], card["optimizer_options"])
    optimizer = registry.make(config.optimizer, config.optimizer_options)
    same(initial_theta(config, optimizer, jax.random.key(0)), artifact.read(artifact.resolve("digits"))[0])


def test_it_starts_there_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """After two tiny outer steps theta is next to where it started, the report compares the two, and the card tells."""
    theta, seen = save("mine"), []
    monkeypatch.setattr(train, "score", lambda *args: seen.append(args))
    cli.main(["train", "finetune", "--init", "mine", *TINY, *TASK, "--run-dir", "run"])
    [(compared, flags, _, suite)] = seen
    after, before = compared
    assert [c.label for c in compared] == ["mine after", "mine before"]
    same(before.thetas["mine before"], theta)
    distance = jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), after.thetas["mine after"], theta))
    assert 0 < max(distance) < 2 * 3e-4 + 1e-6  # Adam's outer steps are at most its rate
    assert (flags.out, list(suite.tasks), suite.horizons) == (Path("run"), ["iris-linear"], (2, 20))
    card = json.loads(Path("run/card.json").read_text())
    assert card["init"] == {"name": "mine", "sha256": artifact.sha256(theta)}
    assert (card["optimizer"], card["optimizer_options"]) == ("learnable-adam", {"learning_rate": 0.01})
    config = json.loads(Path("run/config.json").read_text())
    assert (config["init"], config["init_sha256"]) == ("mine", artifact.sha256(theta))


def test_another_theta_of_the_same_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """By the content, when the run is resumed; so is none, or one of another name."""
    save("mine")
    command = [*TINY, *TASK, "--no-compare", "--run-dir", "run"]
    cli.main(["train", *command, "--init", "mine"])
    cli.main(["train", *command, "--init", "mine"])
    assert "run is complete" in capsys.readouterr().out
    save("mine", 0.6)
    assert "run holds a run with init-sha256" in refused(*command, "--init", "mine", capsys=capsys)
    assert "run holds a run with" in refused(*command, "--optimizer", "learnable-adam", capsys=capsys)
    save("other")
    assert 'run holds a run with init "mine", and "other" was given' in refused(
        *command, "--init", "other", capsys=capsys
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--optimizer", "star"], "--init mine is learnable-adam with the options {'learning_rate': 0.01}, and star"),
        (["--option", "learning_rate=0.02"], "learnable-adam with {'learning_rate': 0.02} was given"),
        (["--init", "min"], "unknown optimizer 'min': "),
    ],
)
def test_contradictions_are_refused(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the flag is the preset's own value."""
    save("mine")
    line = refused("--init", "mine", *TINY, *TASK, *given, "--run-dir", "run", capsys=capsys)
    assert message in line
    assert not Path("run").exists()


def test_what_does_not_contradict_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the task of a user's own file, the one of docs/tasks.md, which an entry point names."""
    code = re.search("```python\n(.*?)```", (ROOT / "docs/tasks.md").read_text(), re.DOTALL)
    module = types.ModuleType("my_package.tasks")
    monkeypatch.setitem(sys.modules, "my_package.tasks", module)
    exec(code.group(1) if code else "", module.__dict__)
    point = importlib.metadata.EntryPoint("my_package", "my_package.tasks", task_registry.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    monkeypatch.setattr(task_registry, "TASKS", dict(task_registry.TASKS))
    task_registry._add_installed.cache_clear()
    save("mine")
    flags = ["--tasks", "bowl-2d", "--optimizer", "learnable-adam", "--option", "learning_rate=0.01"]
    cli.main(["train", "--init", "mine", *TINY, *flags, "--no-compare", "--run-dir", "run"])
    assert json.loads(Path("run/card.json").read_text())["tasks"] == ["bowl-2d"]
    task_registry._add_installed.cache_clear()


def test_an_unfinished_run_can_be_gone_on_from() -> None:
    """From its newest checkpoint; it is not touched."""
    save("mine")
    command = [*TINY, *TASK, "--no-compare", "--checkpoint-every", "1"]
    cli.main(["train", *command, "--init", "mine", "--run-dir", "first"])
    theta, _ = artifact.read(Path("first"))
    Path("first/card.json").unlink()
    config = start_from(Config(preset="quickstart"), "first")
    same(initial_theta(config, LearnableAdam(learning_rate=0.01), jax.random.key(0)), theta)


def test_a_configuration_that_start_from_did_not_make_is_refused() -> None:
    """The preset alone names weights without their content."""
    save("mine")
    config = dataclasses.replace(
        presets.finetune(), init="mine", optimizer="learnable-adam", optimizer_options={"learning_rate": 0.01}
    )
    with pytest.raises(UsageError, match=r"and the configuration has none: start_from makes one that fits$"):
        initial_theta(config, LearnableAdam(learning_rate=0.01), jax.random.key(0))


def test_the_example_of_a_loss_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiny outer steps from other weights than it shows, which take long to compile: it moves theta."""
    theta = save("mine")
    monkeypatch.setattr(task_registry, "TASKS", dict(task_registry.TASKS))
    example = runpy.run_path(str(ROOT / "examples/finetune.py"))
    example["finetune"].__globals__["START"] = "mine"
    tiny = {"steps": 2, "particles": 2, "truncation": 2, "min_horizon": 2}
    found = example["finetune"]("runs/cells", **tiny)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(theta), strict=True))
    assert json.loads(Path("runs/cells/card.json").read_text())["tasks"] == ["cells-mine"]
