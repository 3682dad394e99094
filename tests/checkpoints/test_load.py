import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import learned_opt
from learned_opt import registry
from learned_opt.checkpoints import artifact
from learned_opt.checkpoints.load import load, load_learned_optimizer
from learned_opt.checkpoints.store import CheckpointStore
from learned_opt.errors import UsageError

DESCRIPTION = {"optimizer": "star", "optimizer_options": {"hidden": [3, 5]}}


def make_theta(seed: int = 0, **options):
    return registry.make("star", DESCRIPTION["optimizer_options"] | options).init(jax.random.key(seed))


@pytest.fixture
def finished(tmp_path):
    artifact.write(tmp_path / "run", make_theta(), DESCRIPTION)
    return tmp_path / "run"


@pytest.fixture
def unfinished(tmp_path):
    directory = tmp_path / "run"
    with CheckpointStore(directory / "checkpoints") as store:
        for step in (10, 20):
            store.save(step, make_theta(step), {"step": np.int32(step)})
    (directory / "config.json").write_text(json.dumps(DESCRIPTION | {"preset": "quickstart"}))
    return directory


def same(a, b) -> bool:
    jax.tree.map(np.testing.assert_array_equal, a, b)
    return jax.tree.structure(a) == jax.tree.structure(b)


def train(optimizer: optax.GradientTransformationExtraArgs) -> np.ndarray:
    params = {"w": jax.numpy.arange(6.0).reshape(2, 3)}
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = jax.jit(optimizer.update)(params, state, params)  # the gradient of half the squared norm
        params = optax.apply_updates(params, updates)
    return np.asarray(params["w"])


def test_loads_what_was_written(finished):
    optimizer, theta, card = load_learned_optimizer(str(finished))
    assert optimizer == registry.make("star", {"hidden": (3, 5)})
    assert same(theta, make_theta())
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(theta))
    assert card["optimizer_options"] == {"hidden": [3, 5]}


def test_the_loaded_optimizer_trains_alike(finished):
    expected = train(registry.make("star", {"hidden": (3, 5)}).transform(make_theta()))
    np.testing.assert_array_equal(train(load(finished)), expected)
    np.testing.assert_array_equal(train(learned_opt.load(finished)), expected)
    assert not np.array_equal(expected, np.arange(6.0).reshape(2, 3))


def test_an_unfinished_run_gives_its_newest_checkpoint(unfinished):
    optimizer, theta, card = load_learned_optimizer(unfinished)
    assert same(theta, make_theta(20))
    assert card["preset"] == "quickstart"
    assert load(unfinished).init({"w": np.ones(2)}) is not None
    assert optimizer.hidden == (3, 5)


def test_a_name_is_of_what_came_with_the_package_wherever_one_stands(unfinished, monkeypatch):
    """A directory of that name is meant by its path."""
    unfinished.rename(unfinished.parent / "star")
    monkeypatch.chdir(unfinished.parent)
    shipped, _, _ = load_learned_optimizer("star")
    assert shipped.nominal == "orthogonal"
    for path in (Path("star"), "./star"):
        assert load_learned_optimizer(path)[0].hidden == (3, 5)


def test_an_unfinished_run_gives_an_older_checkpoint_if_the_newest_is_damaged(unfinished, caplog):
    (unfinished / "checkpoints" / "20" / "theta" / "_METADATA").unlink()
    _, theta, _ = load_learned_optimizer(unfinished)
    assert same(theta, make_theta(10))
    assert len(caplog.records) == 1
    assert (unfinished / "checkpoints" / "20").is_dir()  # loading changes nothing


def test_a_finished_run_gives_its_result(unfinished):
    artifact.write(unfinished, make_theta(99), DESCRIPTION)
    assert same(load_learned_optimizer(unfinished)[1], make_theta(99))


def test_weights_of_another_architecture(tmp_path):
    artifact.write(tmp_path, make_theta(hidden=[3, 6]), DESCRIPTION)
    with pytest.raises(UsageError) as error:
        load(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}/theta.npz: checkpoint of another architecture: "
        "'network/layer_1/biases' is float32[6], and float32[5] is expected"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda theta: {"network": theta["network"]}, r"'decays[^ ]*' is absent, and float32\[[0-9, ]*\] is expected"),
        (lambda theta: theta | {"more": np.ones(2, np.float32)}, r"'more' is float32\[2\], and absent is expected"),
        (lambda theta: jax.tree.map(lambda x: np.asarray(x, np.float16), theta), "float16"),
    ],
)
def test_weights_with_other_leaves(tmp_path, change, message):
    artifact.write(tmp_path, change(make_theta()), DESCRIPTION)
    with pytest.raises(UsageError, match=message):
        load(tmp_path)


def test_a_checkpoint_of_another_architecture(unfinished):
    (unfinished / "config.json").write_text(json.dumps(DESCRIPTION | {"optimizer_options": {"hidden": [3]}}))
    with pytest.raises(UsageError, match=r"^.*checkpoints/20: checkpoint of another architecture: 'network[^\n]*$"):
        load(unfinished)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"optimizer": "sta", "optimizer_options": {}}, "unknown learned optimizer 'sta': did you mean star"),
        ({"optimizer": "star", "optimizer_options": {"hiden": [4]}}, "unknown option of star 'hiden'"),
    ],
)
def test_a_card_that_names_nothing_known(tmp_path, description, message):
    artifact.write(tmp_path, make_theta(), description)
    with pytest.raises(UsageError, match=rf"^{tmp_path}/card\.json: {message}"):
        load(tmp_path)


def test_runs_with_nothing_to_load(unfinished, tmp_path, caplog):
    for step in (10, 20):
        (unfinished / "checkpoints" / str(step) / "theta" / "manifest.ocdbt").unlink()
    with pytest.raises(UsageError, match=r"checkpoints: holds no whole checkpoint$"):
        load(unfinished)
    (tmp_path / "new").mkdir()
    with pytest.raises(UsageError, match=r"new: holds no card\.json"):
        load(tmp_path / "new")
    (tmp_path / "new" / "config.json").write_text(json.dumps(DESCRIPTION))
    with pytest.raises(UsageError, match="new: an unfinished run without checkpoints"):
        load(tmp_path / "new")
    assert not (tmp_path / "new" / "checkpoints").exists()
    (tmp_path / "new" / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"config\.json: key 'optimizer' is missing"):
        load(tmp_path / "new")


def test_pretrained_weights_load_without_orbax(finished):
    code = f"import sys, learned_opt; learned_opt.load({str(finished)!r}); sys.exit('orbax.checkpoint' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
