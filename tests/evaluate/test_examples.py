"""The scripts whose figures stand in the documentation still run, at a size that takes seconds."""

import dataclasses
import itertools
import runpy
import types
from pathlib import Path

import numpy as np
import pytest

from learned_opt.evaluate import suites
from learned_opt.evaluate.suites import Suite
from learned_opt.tasks import registry

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
        tiny = Suite(name, "", lambda: {"beale-2d": registry.family("beale-2d")})
        monkeypatch.setitem(suites.SUITES, name, tiny)


@pytest.mark.usefixtures("quick_programs", "tiny_suites")
def test_ablation(tmp_path):
    """Two changes, the second one in two halves; the recipe beside itself is exactly as good."""
    script = example("ablation.py", OUT=tmp_path, META_SEEDS=2, SEEDS=1, HORIZON=20)
    tiny = {"steps": 2, "particles": 2, "truncation": 2, "min_horizon": 4, "max_horizon": 4}
    script["RECIPE"] = dataclasses.replace(script["RECIPE"], tasks=("beale-2d",), **tiny)
    script["VARIANTS"]["backprop"] = script["VARIANTS"]["recipe"]  # a first half that compiles in seconds
    effects = script["effects"](["recipe", "no-controller", "backprop-then-pes"])
    columns = set(itertools.product(script["SUITES"], script["MEASURES"]))
    assert all(set(row) == columns for row in effects.values())
    np.testing.assert_array_equal([*effects["recipe"].values()], 1)
    assert all(estimate[0] != 1 for estimate in effects["no-controller"].values())
    halves = {path.name for path in tmp_path.glob("backprop-then-pes-*")}
    assert halves == {f"backprop-then-pes-{seed}{half}" for seed in range(2) for half in ("-before", "")}
    lines = script["table"](effects).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {script['VARIANTS'][name][0]}" for name in effects]
    script["plot"](effects, tmp_path / "ablation.png")
    assert (tmp_path / "ablation.png").stat().st_size > 10_000


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
