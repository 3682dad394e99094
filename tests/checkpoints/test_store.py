import logging
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt.checkpoints.store import CheckpointStore
from learned_opt.errors import UsageError


class Particles(NamedTuple):
    params: dict
    keys: np.ndarray
    done: np.ndarray
    halves: np.ndarray
    count: np.ndarray


def content(step: int):
    """A theta and a state of all the types that a run holds, different at each step."""
    rng = np.random.default_rng(step)
    theta = {"net": {"w": rng.normal(size=(4, 3)).astype(np.float32)}, "decays": np.float32(rng.normal(size=2))}
    particles = Particles(
        params={"layers": [rng.normal(size=(2, 5)).astype(np.float32), rng.normal(size=3)]},
        keys=rng.integers(0, 2**32, size=(5, 2), dtype=np.uint32),
        done=rng.random(5) > 0.5,
        halves=rng.normal(size=7).astype(jnp.bfloat16),
        count=np.asarray(step, np.int32),
    )
    particles.params["layers"][1][:2] = np.nan, -0.0
    return theta, (optax.adam(1e-3).init(theta), particles, None)


LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), content(0))


def assert_is(checkpoint, step: int) -> None:
    """Every bit of `checkpoint` is that of `step`."""
    assert checkpoint.step == step
    for found, expected in zip((checkpoint.theta, checkpoint.state), content(step), strict=True):
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for a, b in zip(jax.tree.leaves(found), map(np.asarray, jax.tree.leaves(expected)), strict=True):
            assert type(a) is np.ndarray
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def passed_over(caplog) -> list[str]:
    """The damaged checkpoints that were warned of, in order."""
    lines = [record.getMessage() for record in caplog.records if record.name == "learned_opt.checkpoints.store"]
    assert all("\n" not in line and "not whole, passed over: " in line for line in lines)
    caplog.clear()
    return [Path(line.partition(":")[0]).name for line in lines]


def fill(directory: Path, *steps: int, keep: int = 3) -> Path:
    with CheckpointStore(directory, keep) as store:
        for step in steps:
            store.save(step, *content(step))
    return directory


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    return fill(tmp_path_factory.mktemp("pristine"), 1, 2)


@pytest.fixture
def directory(pristine, tmp_path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "checkpoints"))


def test_reads_back_every_bit(directory, caplog):
    with CheckpointStore(directory) as store:
        assert_is(store.newest(*LIKE), 2)
        assert_is(store.newest(*content(0)), 2)  # arrays serve as templates too
        theta = store.newest_theta(LIKE[0])
    np.testing.assert_array_equal(theta["net"]["w"], content(2)[0]["net"]["w"])
    assert passed_over(caplog) == []


def test_an_empty_store_holds_nothing(tmp_path, caplog):
    with CheckpointStore(tmp_path / "a" / "b") as store:
        assert store.newest(*LIKE) is None
        assert store.newest_theta(LIKE[0]) is None
    assert passed_over(caplog) == []


def test_keeps_the_newest(tmp_path):
    fill(tmp_path, 3, 10, 11, 200, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["11", "200"]


def test_a_step_is_not_saved_twice(directory):
    with CheckpointStore(directory) as store:
        for step in (1, 2):
            with pytest.raises(ValueError, match=f"step {step} does not come after step 2"):
                store.save(step, *content(7))
        assert_is(store.newest(*LIKE), 2)


def test_theta_is_read_alone(directory, caplog):
    shutil.rmtree(directory / "2" / "state")
    with CheckpointStore(directory) as store:
        theta = store.newest_theta(LIKE[0])
        np.testing.assert_array_equal(theta["decays"], content(2)[0]["decays"])
        assert passed_over(caplog) == []
        assert_is(store.newest(*LIKE), 1)
    assert passed_over(caplog) == ["2"]


def flip(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_survives_damage_to_any_file(directory, damage, caplog, capfd):
    """Orbax keeps some files that it does not need; damage to those may pass, but only with every bit right."""
    files = [path for path in (directory / "2").rglob("*") if path.is_file()]
    noticed = set()
    for path in files:
        original = path.read_bytes()
        damage(path)
        with CheckpointStore(directory) as store:
            checkpoint = store.newest(*LIKE)
        assert_is(checkpoint, 1 if passed_over(caplog) == ["2"] else 2)
        if checkpoint.step == 1:
            noticed.add(path)
        path.write_bytes(original)
    needed = {p for item in ("theta", "state") for p in (directory / "2" / item / "d").iterdir()}
    needed |= {directory / "2" / item / "manifest.ocdbt" for item in ("theta", "state")}
    needed |= {directory / "2" / item for item in ("theta/_METADATA", "state/_METADATA", "digests/metadata")}
    assert needed <= noticed
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "content_of_metadata", ["", "[]", "{}", '{"item_handlers": 3, "commit_timestamp_nsecs": 1e99}']
)
def test_orbax_metadata_do_not_matter(directory, content_of_metadata, caplog):
    (directory / "2" / "_CHECKPOINT_METADATA").write_text(content_of_metadata)
    flip(directory / "1" / "_CHECKPOINT_METADATA")
    (directory / "4").mkdir()
    with CheckpointStore(directory) as store:
        assert_is(store.newest(*LIKE), 2)
        store.save(3, *content(3))
        assert_is(store.newest(*LIKE), 3)
    assert passed_over(caplog) == ["4"]


@pytest.mark.parametrize("item", ["theta", "state"])
def test_a_mixture_of_two_checkpoints_is_damage(directory, item, caplog):
    shutil.rmtree(directory / "2" / item)
    shutil.copytree(directory / "1" / item, directory / "2" / item)
    with CheckpointStore(directory) as store:
        assert_is(store.newest(*LIKE), 1)
    assert f"ValueError: the sha256 of its {item} differs" in caplog.text
    assert passed_over(caplog) == ["2"]


def test_survives_what_a_kill_leaves(directory, caplog):
    for step in (3, 7):  # killed while writing them
        shutil.copytree(directory / "2", directory / f"{step}.orbax-checkpoint-tmp")
    (directory / "4").mkdir()
    (directory / "5").write_text("not a directory")
    with CheckpointStore(directory) as store:
        assert_is(store.newest(*LIKE), 2)
        assert passed_over(caplog) == ["4"]
        assert (directory / "3.orbax-checkpoint-tmp").exists()  # reading touches nothing: a run may be writing
        store.save(3, *content(3))
        store.save(4, *content(4))
        assert_is(store.newest(*LIKE), 4)
    assert sorted(path.name for path in directory.iterdir()) == ["2", "3", "4", "5", "corrupt-4"]


def test_a_damaged_step_is_saved_again(directory, caplog):
    for _ in range(2):  # the same step is damaged twice
        flip(directory / "2" / "state" / "manifest.ocdbt")
        with CheckpointStore(directory) as store:
            assert_is(store.newest(*LIKE), 1)
            store.save(2, *content(2))
        assert passed_over(caplog) == ["2"]
        with CheckpointStore(directory) as store:
            assert_is(store.newest(*LIKE), 2)
        assert passed_over(caplog) == []
        assert sorted(path.name for path in directory.iterdir()) == ["1", "2", "corrupt-2"]


def test_damaged_checkpoints_do_not_crowd_out_a_new_one(tmp_path, caplog):
    fill(tmp_path, 28, 29, 30)
    for step in (28, 29, 30):
        flip(tmp_path / str(step) / "theta" / "_METADATA")
        (tmp_path / str(step) / "digests" / "metadata").write_text("{}")
    with CheckpointStore(tmp_path) as store:
        assert store.newest(*LIKE) is None
        assert passed_over(caplog) == ["30", "29", "28"]
        store.save(5, *content(5))
        assert_is(store.newest(*LIKE), 5)
    assert passed_over(caplog) == []


def test_another_architecture_is_not_damage(directory, caplog):
    theta, state = LIKE
    wide = theta | {"net": {"w": jax.ShapeDtypeStruct((4, 8), np.float32)}}
    with CheckpointStore(directory) as store:
        with pytest.raises(UsageError) as error:
            store.newest(wide, state)
        with pytest.raises(UsageError, match=r"1/done' is bool\[5\], and int32\[5\] is expected"):
            store.newest(theta, (state[0], state[1]._replace(done=jax.ShapeDtypeStruct((5,), np.int32)), None))
        with pytest.raises(UsageError, match=r"'net/w' is float32\[4, 3\], and absent is expected"):
            store.newest_theta({"decays": theta["decays"]})
        store.save(3, *content(3))
    assert str(error.value) == (
        f"{directory}/2: checkpoint of another architecture: 'net/w' is float32[4, 3], and float32[4, 8] is expected"
    )
    assert passed_over(caplog) == []
    assert sorted(path.name for path in directory.iterdir()) == ["1", "2", "3"]


def test_is_quiet_and_leaves_no_threads(tmp_path, caplog, capfd):
    caplog.set_level(logging.INFO)
    before = threading.enumerate()
    fill(tmp_path, 1, 2, 3, 4)
    with CheckpointStore(tmp_path) as store:
        assert_is(store.newest(*LIKE), 4)
    left = set(threading.enumerate()) - set(before)
    for thread in left:
        thread.join(10)  # Orbax closes its event loop without waiting for the loop's own threads, which end then
    assert not any(thread.is_alive() for thread in left)
    assert [record for record in caplog.records if record.name == "absl"] == []
    assert capfd.readouterr() == ("", "")


SAVE_FOREVER = """
    import sys, itertools
    from pathlib import Path
    import numpy as np
    from learned_opt.checkpoints.store import CheckpointStore

    with CheckpointStore(Path(sys.argv[1])) as store:
        start = store.newest({"w": np.zeros(4)}, {"big": np.zeros((8, 50_000))})
        for step in itertools.count(start.step + 1 if start else 1):
            store.save(step, {"w": np.full(4, float(step))}, {"big": np.full((8, 50_000), float(step))})
            print(step, flush=True)
"""


def test_survives_kill_9(tmp_path, caplog):
    last = 0
    for wait in (0.01, 0.04):
        command = [sys.executable, "-c", textwrap.dedent(SAVE_FOREVER)]
        with subprocess.Popen([*command, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
            resumed = int(process.stdout.readline())
            assert resumed >= last + 1
            for _ in range(3):
                saved = int(process.stdout.readline())
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(wait)
            process.send_signal(signal.SIGKILL)
        with CheckpointStore(tmp_path) as store:
            checkpoint = store.newest({"w": np.zeros(4)}, {"big": np.zeros((8, 50_000))})
        assert checkpoint.step >= saved  # what save has returned for is on disk
        assert (checkpoint.theta["w"] == checkpoint.step).all()
        assert (checkpoint.state["big"] == checkpoint.step).all()
        last = checkpoint.step
    assert passed_over(caplog) == []
