import hashlib
import io
import json
import time

import jax
import numpy as np
import pytest

from learned_opt.checkpoints import artifact, trees
from learned_opt.errors import UsageError

CARD = {"optimizer": "star", "optimizer_options": {"hidden": [4, 4]}, "recipe": "steps: 3"}


def make_theta() -> dict:
    generator = np.random.default_rng(0)
    return {
        "network": {
            "layer_0": {"weights": generator.normal(size=(3, 4)).astype(np.float32), "biases": np.zeros(4, np.float32)},
            "layer_1": {"weights": generator.normal(size=(4, 2)).astype(np.float32), "biases": np.zeros(2, np.float32)},
        },
        "decays": {"momentum": np.array([0.1, 0.5, 0.9], np.float32), "scale": np.float32(1e-3)},
    }


@pytest.fixture
def written(tmp_path):
    directory = tmp_path / "run"
    artifact.write(directory, make_theta(), CARD)
    return directory


def test_reads_back_every_bit(written):
    theta, card = artifact.read(written)
    assert jax.tree.structure(theta) == jax.tree.structure(make_theta())
    for leaf, original in zip(jax.tree.leaves(theta), jax.tree.leaves(make_theta()), strict=True):
        assert leaf.dtype == np.float32
        assert leaf.shape == original.shape
        assert leaf.tobytes() == original.tobytes()
    assert card == CARD | {"sha256": hashlib.sha256((written / "theta.npz").read_bytes()).hexdigest()}


def test_leaves_no_other_files(written):
    artifact.write(written, make_theta(), CARD)
    assert sorted(path.name for path in written.iterdir()) == ["card.json", "theta.npz"]


def test_equal_thetas_give_equal_bytes(written, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 2e9)  # a zip archive can hold dates
    theta = jax.tree.map(lambda x: np.asfortranarray(x) if x.ndim else x, make_theta())
    artifact.write(tmp_path / "again", dict(reversed(theta.items())), CARD)
    for name in ("theta.npz", "card.json"):
        assert (tmp_path / "again" / name).read_bytes() == (written / name).read_bytes()


def test_lists_read_as_dicts_and_rebuild(tmp_path):
    theta = {"layers": [{"w": np.ones((2, 3))}, {"w": np.full((3, 1), 2.0)}]}
    artifact.write(tmp_path, theta, CARD)
    read, _ = artifact.read(tmp_path)
    assert read["layers"]["1"]["w"].tolist() == [[2.0], [2.0], [2.0]]
    rebuilt = trees.rebuild(theta, trees.to_arrays(read), tmp_path)
    assert jax.tree.structure(rebuilt) == jax.tree.structure(theta)


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ({"n": np.arange(3)}, "int64 at 'n'"),
        ({"n": np.array([{}], object)}, "object at 'n'"),
        ({"n": jax.numpy.ones(2, jax.numpy.bfloat16)}, "bfloat16 at 'n'"),  # npz would lose its type
        ({"a/b": np.ones(2)}, "slash"),
    ],
)
def test_refuses_what_it_could_not_read_back(tmp_path, theta, message):
    with pytest.raises(ValueError, match=message):
        artifact.write(tmp_path, theta, CARD)
    assert not any(tmp_path.iterdir())


def test_an_interrupted_write_keeps_the_old_weights(written, monkeypatch):
    monkeypatch.setattr(artifact.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        artifact.write(written, jax.tree.map(np.zeros_like, make_theta()), CARD)
    theta, _ = artifact.read(written)
    np.testing.assert_array_equal(theta["decays"]["momentum"], make_theta()["decays"]["momentum"])


@pytest.mark.parametrize("name", ["theta.npz", "card.json"])
def test_names_a_missing_file(written, name):
    (written / name).unlink()
    with pytest.raises(UsageError, match=rf"^{written / name}: cannot be read: No such file or directory$"):
        artifact.read(written)


@pytest.mark.parametrize("position", [0, 100, -1])
def test_names_damaged_weights(written, position):
    content = bytearray((written / "theta.npz").read_bytes())
    content[position] ^= 1
    (written / "theta.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"^.*theta\.npz: damaged.*sha256.*$"):
        artifact.read(written)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("{'a': 1}", "not JSON"),
        ("[]", "holds a list"),
        (b"\xff\xfe\xff", "not JSON"),
        ({}, "key 'optimizer' is missing, a str is expected"),
        ({"optimizer": 3}, "key 'optimizer' is 3, a str"),
        ({"optimizer": "star", "optimizer_options": []}, r"key 'optimizer_options' is \[\], a dict"),
        ({"optimizer": "star", "optimizer_options": {}}, "key 'sha256' is missing"),
    ],
)
def test_names_a_bad_card(written, content, message):
    text = json.dumps(content) if isinstance(content, dict) else content
    (written / "card.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=rf"^.*card\.json: .*{message}[^\n]*$"):
        artifact.read(written)


def _npz_with_pickle() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w=np.array([{"a": 1}], dtype=object))
    return buffer.getvalue()


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


@pytest.mark.parametrize("weights", [_npz_with_pickle(), _npy(), b"", b"\x80\x04K\x01.", b"PK\x03\x04 and nonsense"])
def test_never_unpickles(tmp_path, weights):
    (tmp_path / "theta.npz").write_bytes(weights)
    card = CARD | {"sha256": hashlib.sha256(weights).hexdigest()}
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(UsageError, match=r"^.*theta\.npz: not an npz file of plain arrays$"):
        artifact.read(tmp_path)


def test_a_card_must_name_its_architecture(tmp_path):
    with pytest.raises(UsageError, match="key 'optimizer_options' is missing, a dict is expected"):
        artifact.write(tmp_path, make_theta(), {"optimizer": "star"})


def test_pretrained_weights_that_ship_are_whole():
    for name in artifact.pretrained_names():
        artifact.read(artifact.resolve(name))


@pytest.fixture
def pretrained(tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "_pretrained", lambda: tmp_path / "pretrained")
    for name in ("star", "adamlike"):
        artifact.write(tmp_path / "pretrained" / name, make_theta(), CARD)
    (tmp_path / "pretrained" / "unfinished").mkdir()
    return tmp_path / "pretrained"


def test_resolves_names_and_directories(pretrained, tmp_path, monkeypatch):
    assert artifact.pretrained_names() == ["adamlike", "star"]
    assert artifact.resolve("star") == pretrained / "star"
    artifact.write(tmp_path / "star", make_theta(), CARD)
    monkeypatch.chdir(tmp_path)
    assert artifact.resolve("star") == pretrained / "star"  # a name comes before a directory of the same name
    for directory in ("./star", artifact.Path("star"), str(tmp_path / "star")):
        assert artifact.resolve(directory).resolve() == tmp_path / "star"


def test_what_resolves_to_nothing(pretrained):
    with pytest.raises(UsageError) as error:
        artifact.resolve("stra")
    assert str(error.value) == "unknown optimizer 'stra': did you mean star? accepted: a run directory, adamlike, star"
    with pytest.raises(UsageError, match=r"unfinished: holds no card\.json"):
        artifact.resolve(pretrained / "unfinished")


def test_resolves_without_any_pretrained_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "_pretrained", lambda: tmp_path / "absent")
    assert artifact.pretrained_names() == []
    with pytest.raises(UsageError, match=r"^unknown optimizer 'star': accepted: a run directory$"):
        artifact.resolve("star")
