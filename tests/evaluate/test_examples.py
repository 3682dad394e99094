"""The scripts whose figures stand in the documentation still run, at a size that takes seconds."""

import dataclasses
import itertools
import runpy
import types
from pathlib import Path

import numpy as np
import pytest

from learned_opt import registry
from learned_opt.evaluate import suites
from learned_opt.evaluate.suites import Suite
from learned_opt.tasks import registry as task_registry

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name, **constants):
    """The names of a script as its functions see them, with other constants."""
    defined = runpy.run_path(str(EXAMPLES / name))
    own = (value for value in defined.values() if isinstance(value, types.FunctionType))
    names = next(value.__globals__ for value in own if value.__globals__["__name__"] == "<run_path>")
    names.update(constants)
    return names


@pytest.fixture
def tiny_suites(monkeypatch):
    """One function of two variables in place of every suite that the scripts name."""
    for name in ("in-distribution", "ood-small", "ood"):
        tiny = Suite(name, "", lambda: {"beale-2d": task_registry.family("beale-2d")})
        monkeypatch.setitem(suites.SUITES, name, tiny)


@pytest.mark.usefixtures("quick_programs", "tiny_suites")
def test_ablation(tmp_path):
    """Two changes of a recipe with one meta-parameter, one of them in two halves; beside itself it is as good."""
    script = example("ablation.py", OUT=tmp_path, META_SEEDS=2, SEEDS=1, HORIZON=20)
    tiny = {"steps": 2, "particles": 2, "truncation": 2, "min_horizon": 4, "max_horizon": 4, "tasks": ("beale-2d",)}
    small = {"optimizer": "step-size", "optimizer_options": {"start": 1e-4}, "learning_rate": 1e-5}
    script["RECIPE"] = dataclasses.replace(script["RECIPE"], **tiny, **small)
    script["VARIANTS"]["faster"] = ("a higher outer learning rate", {"learning_rate": 3e-5}, {})
    effects = script["effects"](["recipe", "faster", "backprop-then-pes"])
    columns = set(itertools.product(script["SUITES"], script["MEASURES"]))
    assert all(set(row) == columns for row in effects.values())
    np.testing.assert_array_equal([*effects["recipe"].values()], 1)
    assert all(estimate[0] != 1 for estimate in effects["faster"].values())
    halves = {path.name for path in tmp_path.glob("backprop-then-pes-*")}
    assert halves == {f"backprop-then-pes-{seed}{half}" for seed in range(2) for half in ("-before", "")}
    lines = script["table"](effects).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {script['VARIANTS'][name][0]}" for name in effects]
    script["plot"](effects, tmp_path / "ablation.png")
    assert (tmp_path / "ablation.png").stat().st_size > 10_000


def test_changes_of_the_ablation():
    """Every one is a STAR unlike the recipe's, or a meta-training unlike its; meta-trained longer, in its own units."""
    script = example("ablation.py")
    configs = {name: script["config"](name, 0) for name in script["VARIANTS"]}
    for name, config in configs.items():
        registry.make(config.optimizer, config.optimizer_options)
        assert (config == configs["recipe"]) == (name in ("recipe", *script["FIRST_HALF"]))
        times = 1 if name == "backprop" else 12
        assert script["config"](f"{name}-long", 0).steps == times * config.steps
        assert script["beside"](f"{name}-long") == ("recipe" if name == "recipe" else "recipe-long")
    assert len({script["says"](name + long) for name in configs for long in ("", "-long")}) == 2 * len(configs)


@pytest.mark.usefixtures("tiny_suites")
def test_ten_times(capsys):
    """A run that does not diverge, and ends no lower than at its lowest."""
    example("ten_times.py", STEPS=200, WINDOW=10)["main"]()
    name, diverged, final, lowest = capsys.readouterr().out.splitlines()[1].split()
    assert (name, diverged) == ("beale-2d", "False")
    assert 0 <= float(lowest) <= float(final)


def test_ten_million():
    """A small one: both optimizers learn."""
    script = example("ten_million.py", SIZES=(64, 32, 32, 10))
    for optimizer in (script["optax"].adam(1e-3), script["learned_opt"].load("star")):
        losses, seconds = script["train"](optimizer, 60)
        assert losses[-1] < 0.8 * losses[0]
        assert seconds > 0


@pytest.mark.usefixtures("quick_programs")
def test_step_cost(monkeypatch):
    """One of everything, on a small network."""
    monkeypatch.syspath_prepend(EXAMPLES)
    found = example("step_cost.py", ROUNDS=1)["costs"]((64, 16, 10))
    assert set(found) == {"star", "Adam", "Muon", "gradient"}
    assert all(milliseconds > 0 for milliseconds in found.values())
