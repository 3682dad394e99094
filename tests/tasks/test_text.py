"""Text: streams of bytes in order, cut at three places, and windows of them."""

import os
from pathlib import Path
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from learned_opt.errors import UsageError
from learned_opt.tasks import datasets
from learned_opt.tasks.base import SPLITS
from learned_opt.tasks.datasets import Text

DATA_DIR = Path(os.environ.get("TFDS_DATA_DIR", "no TFDS_DATA_DIR"))


def test_python_docs_are_the_paragraphs_of_pythons_topics():
    tokens = datasets.load_text("python_docs").tokens
    assert all(stream.dtype == np.uint8 and stream.ndim == 1 for stream in tokens.values())
    text = {split: stream.tobytes().decode() for split, stream in tokens.items()}
    paragraphs = {split: t.removesuffix("\n\n").split("\n\n") for split, t in text.items()}
    together = [paragraph for split in SPLITS for paragraph in paragraphs[split]]
    assert len(set(together)) == len(together)  # no paragraph of one split is in another
    source = [p.strip("\n") for key in sorted(topics) for p in topics[key].split("\n\n")]
    assert together == sorted(set(source), key=source.index)
    assert [len(paragraphs[s]) / len(together) for s in SPLITS] == pytest.approx([0.8, 0.1, 0.1], abs=1e-3)
    assert sum(map(len, tokens.values())) > 300_000
    assert len(tokens["train"]) / sum(map(len, tokens.values())) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("feature", ["text", "tokens"])
def test_records_are_joined_in_order_and_no_position_is_in_two_splits(feature, prepare):
    records = [f"{i:04d}: é{'x' * (i % 7)};".encode() for i in range(100)]
    records[50] = b""
    kind = tfds.features.Text() if feature == "text" else tfds.features.Tensor(shape=(None,), dtype=np.uint8)
    examples = [{feature: r if feature == "text" else np.frombuffer(r, np.uint8)} for r in records]
    prepare("tiny", {feature: kind}, {"train": examples})
    text = {split: stream.tobytes() for split, stream in datasets.load_text("tiny").tokens.items()}
    assert text == {"train": b"".join(records[:80]), "valid": b"".join(records[80:90]), "test": b"".join(records[90:])}


@pytest.fixture
def counting():
    """Text whose bytes tell their places and splits: the first 2000 places' pairs of digits to the base 250."""
    pairs = np.stack([np.arange(1000) // 250, np.arange(1000) % 250], axis=1)
    stream = pairs.ravel().astype(np.uint8)
    return Text({"train": stream[:1600], "valid": stream[1600:1800], "test": stream[1800:]})


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("length", [1, 9, 199])
def test_windows_are_contiguous_and_within_their_split(split, length, counting):
    windows = jax.jit(lambda text, key: text.sample_batch(key, split, 400, length))(counting, jax.random.key(0))
    assert (windows.shape, windows.dtype) == ((400, length + 1), jnp.int32)
    stream = counting.tokens[split]
    every = np.lib.stride_tricks.sliding_window_view(stream, length + 1)
    drawn, there = {tuple(w) for w in np.asarray(windows).tolist()}, {tuple(w) for w in every.tolist()}
    assert drawn <= there
    if len(every) <= 2:  # the first and the last place are drawn too
        assert drawn == there


def test_every_window_is_drawn_about_as_often():
    text = Text({split: np.arange(20, dtype=np.uint8) for split in SPLITS})
    windows = text.sample_batch(jax.random.key(1), "train", 17_000, 3)
    counts = np.bincount(np.asarray(windows[:, 0]), minlength=20)
    assert counts[17:].sum() == 0
    np.testing.assert_allclose(counts[:17], 1000, atol=5 * np.sqrt(1000))


def test_same_key_same_windows(counting):
    first, again, other = (counting.sample_batch(jax.random.key(k), "train", 64, 8) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_a_window_longer_than_its_split_is_refused(counting):
    assert counting.sample_batch(jax.random.key(0), "test", 3, 199).shape == (3, 200)
    with pytest.raises(
        UsageError, match=r"^a window of 200 \+ 1 bytes does not fit in the 200 bytes of the test split$"
    ):
        counting.sample_batch(jax.random.key(0), "test", 3, 200)


@pytest.mark.skipif(not (DATA_DIR / "sotu").is_dir(), reason=f"sotu is not in {DATA_DIR}")
def test_sotu_itself(fresh_cache):
    tokens = datasets.load_text("sotu").tokens
    source = {
        split: tfds.data_source("sotu", split=split, data_dir=DATA_DIR, builder_kwargs={"file_format": "array_record"})
        for split in ("train", "test")
    }
    joined = {split: np.concatenate([x["tokens"] for x in records]) for split, records in source.items()}
    np.testing.assert_array_equal(np.concatenate([tokens["train"], tokens["valid"]]), joined["train"])
    np.testing.assert_array_equal(tokens["test"], joined["test"])
    assert len(tokens["valid"]) / len(joined["train"]) == pytest.approx(0.1, abs=0.01)
