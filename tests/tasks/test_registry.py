"""Tasks that users add."""

import importlib.metadata
import re
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from learned_opt.errors import UsageError
from learned_opt.tasks import registry
from learned_opt.tasks.augmentations import GradientNoise, LossRescaled
from learned_opt.tasks.entry import Entry
from learned_opt.tasks.functions import FunctionFamily

DOCS = Path(__file__).parents[2] / "docs" / "tasks.md"


def entry(name):
    return Entry(name, lambda: FunctionFamily("sphere", 2), "none", (0, 2), 0)


@pytest.fixture(autouse=True)
def _own_table(monkeypatch):
    monkeypatch.setattr(registry, "TASKS", dict(registry.TASKS))
    registry._add_installed.cache_clear()
    yield
    registry._add_installed.cache_clear()


def install(monkeypatch, value):
    points = [importlib.metadata.EntryPoint("mine", value, registry.GROUP)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if group == registry.GROUP else [])


def test_a_registered_task_is_found_by_name():
    mine = entry("sphere-mine")
    registry.register(mine)
    registry.register(mine)  # a module imported twice
    assert registry.family("sphere-mine") == FunctionFamily("sphere", 2)


def test_tasks_of_an_installed_package_are_found(monkeypatch):
    module = types.ModuleType("a_users_tasks")
    module.TASKS = {"sphere-mine": entry("sphere-mine")}
    monkeypatch.setitem(sys.modules, "a_users_tasks", module)
    install(monkeypatch, "a_users_tasks")
    assert registry.tasks()["sphere-mine"] is module.TASKS["sphere-mine"]
    assert registry.family("sphere-mine") == FunctionFamily("sphere", 2)


def test_the_file_of_the_docs_is_a_task_that_trains(monkeypatch):
    """Taken from docs/tasks.md as it stands, found through an entry point, and as its entry states."""
    code = re.search("```python\n(.*?)```", DOCS.read_text(), re.DOTALL).group(1)
    module = types.ModuleType("my_package.tasks")
    monkeypatch.setitem(sys.modules, "my_package.tasks", module)
    exec(code, module.__dict__)
    install(monkeypatch, "my_package.tasks")
    family, key, entry = registry.family("bowl-2d"), jax.random.key(0), registry.tasks()["bowl-2d"]
    task = family.task(family.sample(key))
    starts = jax.vmap(lambda k: task.loss(task.init(k), k, task.sample_batch(k, "train")))(jax.random.split(key, 500))
    assert entry.initial_loss[0] < float(starts.mean()) < entry.initial_loss[1]
    at_best = jax.vmap(lambda k: task.loss(jnp.zeros(2), k, task.sample_batch(k, "test")))(jax.random.split(key, 5000))
    assert float(at_best.mean()) == pytest.approx(entry.floor, rel=0.05)
    assert entry.pair == ("bowl", "2d")


def test_augmentations_by_name():
    """From left to right, the last one outermost."""
    found = registry.family("sphere-10d+loss-rescaled+noise")
    assert found == GradientNoise(LossRescaled(FunctionFamily("sphere", 10)))
    with pytest.raises(UsageError, match=r"^unknown augmentation 'nois': did you mean noise"):
        registry.family("sphere-10d+nois")


def test_a_name_clash_is_refused(monkeypatch):
    with pytest.raises(UsageError, match=r"^task 'digits-mlp' exists already: another name is accepted$"):
        registry.register(entry("digits-mlp"))
    module = types.ModuleType("a_users_tasks")
    module.TASKS = {"digits-cnn": entry("digits-cnn")}
    monkeypatch.setitem(sys.modules, "a_users_tasks", module)
    install(monkeypatch, "a_users_tasks")
    with pytest.raises(UsageError, match="task 'digits-cnn' exists already"):
        registry.family("digits-mlp")


@pytest.mark.parametrize("value", ["no_such_module", "math"])
def test_an_entry_point_without_a_table_is_refused_in_one_line(value, monkeypatch):
    install(monkeypatch, value)
    with pytest.raises(UsageError, match=f"^entry point 'mine' of learned_opt.tasks was given '{value}': .*$"):
        registry.tasks()


def test_making_the_table_loads_no_data(monkeypatch):
    monkeypatch.setattr("learned_opt.tasks.datasets.load", None)
    assert all(e.data for e in registry.tasks().values())
