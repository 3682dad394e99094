"""Cells are kept by content: read where they are right, run where they are missing, damaged or about something else."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_problem import OneProblem

from learned_opt.errors import UsageError
from learned_opt.evaluate import batch, benchmark, cells, contenders
from learned_opt.evaluate.cells import Store

ENTRANTS = ("adam@1e-2", "sgd")


@pytest.fixture(scope="module")
def family(suite):
    return suite.tasks["tiny"]


@pytest.fixture(scope="module")
def run(family, tmp_path_factory):
    """A benchmark of one task without a sweep, as it is run again and again."""

    def run(store, names=ENTRANTS, family=family, seeds=2, horizons=(4, 6), key=None):
        # A label of its own, and not Adam's sweep.
        entrants = [contenders.parse(name) for name in names]
        found = benchmark.sweeps.runs(
            {"tiny": family}, entrants, seeds, horizons, jax.random.key(0 if key is None else key), store, counter()
        )
        return found["tiny"]

    return run


def counter():
    return benchmark.Counter(lambda done, total: None)


def counts(ran, cached, damaged=0):
    return {"ran": ran, "cached": cached, "damaged": damaged}


@pytest.fixture(scope="module")
def kept(run, tmp_path_factory):
    """A folder with the cells of ENTRANTS, and the scores."""
    store = Store(tmp_path_factory.mktemp("kept"))
    runs = run(store)
    assert store.counts == counts(2, 0)
    return store.directory, runs


def copied(kept, directory):
    """The folder, which a test may add to, with the cells of `kept` in it."""
    for path in kept[0].glob("*.npz"):
        (directory / path.name).write_bytes(path.read_bytes())
    return directory


def same(a, b):
    np.testing.assert_array_equal(a.longest.losses, b.longest.losses)
    np.testing.assert_array_equal(a.longest.valid_losses, b.longest.valid_losses)
    assert a.seconds_per_step == b.seconds_per_step
    for horizon, score in a.scores.items():
        for field in ("mean_loss", "final_loss", "valid_loss", "test_loss", "sweep"):
            np.testing.assert_array_equal(getattr(score, field), getattr(b.scores[horizon], field))


def test_nothing_is_run_again(run, kept, monkeypatch):
    directory, runs = kept
    store = Store(directory)
    monkeypatch.setattr(batch, "Runs", None)
    again = run(store)
    assert store.counts == counts(0, 2)
    for name in ENTRANTS:
        same(again[name], runs[name])


def test_another_optimizer_runs_alone(run, kept, tmp_path):
    store = Store(copied(kept, tmp_path))
    runs = run(store, ("sgd", "adam@1e-3", "adam@1e-2"))
    assert store.counts == counts(1, 2)
    same(runs["sgd"], kept[1]["sgd"])


def test_what_was_interrupted_goes_on(run, kept, tmp_path, monkeypatch):
    """After the first cell."""
    store, write = Store(tmp_path), Store.write

    def stop(self, name, cell):
        write(self, name, cell)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            run(store)
    store = Store(tmp_path)
    runs = run(store)
    assert store.counts == counts(1, 1)
    for name in ENTRANTS:
        np.testing.assert_array_equal(runs[name].longest.losses, kept[1][name].longest.losses)


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [flipped, lambda content: content[:-30], lambda content: b""])
def test_damaged_files_are_run_again_and_counted(damage, run, kept, tmp_path):
    hurt = min(copied(kept, tmp_path).glob("*.npz"))
    hurt.write_bytes(damage(hurt.read_bytes()))
    store = Store(tmp_path)
    runs = run(store)
    assert store.counts == counts(1, 1, 1)
    for name in ENTRANTS:
        np.testing.assert_array_equal(runs[name].longest.losses, kept[1][name].longest.losses)
    assert Store(tmp_path).read(hurt.stem) is not None


@dataclasses.dataclass(frozen=True)
class Rules(OneProblem):
    """A problem of one weight whose definition can be changed, in code or in data."""

    power: int
    target: jax.Array

    def init(self, key):
        return jnp.ones(2)

    def loss(self, params, key, batch):
        return (jnp.abs(params - self.target) ** self.power).sum() + batch

    def sample_batch(self, key, split):
        return jax.random.normal(key)


jax.tree_util.register_dataclass(Rules, ["target"], ["power"])
RULES = Rules(2, np.zeros(2, np.float32))


@pytest.mark.parametrize(
    "change",
    [
        {"family": dataclasses.replace(RULES, power=3)},
        {"family": dataclasses.replace(RULES, target=np.float32([0, 1e-6]))},
        {"seeds": 3},
        {"horizons": (4, 7)},
        {"horizons": (5, 6)},
        {"key": 1},
        {"names": ("adam@1e-2", "sgd@2e-3")},
    ],
    ids=str,
)
def test_what_is_different_is_run(change, run, tmp_path):
    family = {"family": RULES}
    run(Store(tmp_path), **family)
    store = Store(tmp_path)
    run(store, **(family | change))
    assert store.counts == (counts(1, 1) if "names" in change else counts(2, 0))


def test_a_changed_loss_of_the_same_name_is_another_task(run, tmp_path, monkeypatch):
    """As when somebody edits a task between two benchmarks."""
    run(Store(tmp_path), family=RULES)
    batch.one_run.cache_clear()
    monkeypatch.setattr(Rules, "loss", lambda self, params, key, batch: jnp.abs(params).sum() + batch)
    store = Store(tmp_path)
    run(store, family=RULES)
    assert store.counts == counts(2, 0)


def test_versions_and_devices_count(run, tmp_path, monkeypatch):
    run(Store(tmp_path), family=RULES)
    monkeypatch.setattr(jax, "__version__", "0.0.0")
    store = Store(tmp_path)
    run(store, family=RULES)
    assert store.counts == counts(2, 0)
    one, two = (cells.platform(jax.local_devices()[:1] * n) for n in (1, 2))
    assert cells.digest(one) != cells.digest(two)


SCRIPT = """
import jax, numpy as np
from learned_opt.evaluate import batch, cells, contenders
from learned_opt.evaluate.hand_written import HandWritten
from learned_opt.tasks import registry
family = registry.family("digits-mlp+reparametrised")
for name in ("muon", "schedule-free"):
    print(cells.digest(batch.text(HandWritten(name), family, np.float32(1)), family))
star = contenders.parse("digits")
print(cells.digest(batch.text(star.optimizer, family, star.thetas["digits"]), star.thetas))
"""


def test_names_are_the_same_in_every_process():
    """Neither addresses nor the order of sets nor the number of devices enter them."""
    outputs = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "JAX_NUM_CPU_DEVICES": seed, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, check=True, capture_output=True, text=True
        )
        outputs.add(done.stdout)
    (text,) = outputs
    assert len(set(text.split())) == 3


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be made a directory for runs"):
        Store(tmp_path / "file" / "below")
