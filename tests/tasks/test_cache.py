"""Decoded arrays are kept in a folder: used when they are whole, made again when they are not."""

import jax
import numpy as np
import pytest

from learned_opt.tasks import cache, datasets
from learned_opt.tasks.sources import OURS

LOADS = {
    "digits-1.0.0-full-v2": ("_read_images", lambda: datasets.load("digits")),
    "digits-1.0.0-6-v2": ("_read_images", lambda: datasets.load("digits", size=6)),
    "digits-1.0.0-full-grey-v2": ("_read_images", lambda: datasets.load("digits", grey=True)),
    f"python_docs-{OURS['python_docs']}-text-v2": ("_read_text", lambda: datasets.load_text("python_docs")),
    "wine-1.0.0-table-v2": ("_read_table", lambda: datasets.load_table("wine")),
}


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize(("name", "load"), [(k, v[1]) for k, v in LOADS.items()], ids=LOADS)
def test_is_where_it_was_asked_for_under_all_that_tells_it_apart(name, load, fresh_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    load()
    assert [path.name for path in fresh_cache.glob("*.npz")] == [f"{name}.npz"]
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "home").exists()


def test_default_folder_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.delenv("LEARNED_OPT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_dir() == tmp_path / "learned_opt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.cache_dir() == tmp_path / "home" / ".cache" / "learned_opt"


@pytest.mark.parametrize(("read", "load"), LOADS.values(), ids=LOADS)
def test_is_read_and_nothing_else(read, load, forget, monkeypatch):
    first = load()
    forget()
    with monkeypatch.context() as patch:
        patch.setattr(datasets, read, lambda *_: pytest.fail("the cache was not used"))
        again = load()
    assert again is not first
    assert same(again, first)


def flipped(content, i):
    return content[:i] + bytes([content[i] ^ 255]) + content[i + 1 :]


DAMAGE = {
    "empty": lambda content: b"",
    "text": lambda content: b"not an archive",
    "cut short": lambda content: content[: len(content) // 2],
    "a flipped byte in the data": lambda content: flipped(content, 5000),
    "an unknown compression": lambda content: flipped(content, content.index(b"PK\x01\x02") + 10),
    "another archive": lambda content: b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", [name for name in LOADS if "full-v" in name or "digits" not in name])
def test_is_made_again_when_damaged(name, damage, data_cache, forget):
    _, load = LOADS[name]
    whole = load()
    path = data_cache / f"{name}.npz"
    content = path.read_bytes()
    assert damage(content) != content
    path.write_bytes(damage(content))
    for _ in range(2):
        forget()
        assert same(load(), whole)
    assert path.read_bytes() == content
    assert not list(data_cache.glob("tmp*"))
