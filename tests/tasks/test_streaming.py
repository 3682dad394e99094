"""Streams of batches: complete, shuffled by seed, and continued exactly."""

import itertools
import json

import numpy as np
import pytest

from learned_opt.tasks import datasets
from learned_opt.tasks.streaming import stream, stream_text


def batches(count, *arguments, **options):
    return list(itertools.islice(stream("digits", *arguments, **options), count))


def assert_same(a, b):
    for (images, labels), (other_images, other_labels) in zip(a, b, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def test_same_seed_same_batches():
    first = batches(5, "train", 64, seed=3)
    for images, labels in first:
        assert (images.shape, images.dtype) == ((64, 8, 8, 1), np.uint8)
        assert (labels.shape, labels.dtype) == ((64,), np.int32)
        assert type(images) is type(labels) is np.ndarray
    assert_same(first, batches(5, "train", 64, seed=3))
    assert np.any(first[0][0] != batches(1, "train", 64, seed=4)[0][0])


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_an_epoch_is_the_split_and_the_next_another_shuffle(split):
    data = datasets.load("digits")
    n = len(data.labels[split])
    images, labels = (np.concatenate(x) for x in zip(*batches(2 * n // 100 + 1, split, 100, seed=0), strict=True))
    rows = np.concatenate([images.reshape(len(images), -1), labels[:, None]], axis=1)
    expected = np.concatenate([data.images[split].reshape(n, -1), data.labels[split][:, None]], axis=1)
    first, second = rows[:n], rows[n : 2 * n]
    assert np.any(first != expected)
    assert np.any(first != second)
    for epoch in (first, second):
        np.testing.assert_array_equal(epoch[np.lexsort(epoch.T)], expected[np.lexsort(expected.T)])


@pytest.mark.parametrize("taken", [0, 7, 30])
def test_a_restored_state_continues_with_the_very_next_batch(taken):
    """30 batches of 64 are in the second epoch of 1197 images."""
    whole = batches(taken + 5, "train", 64, seed=0)
    interrupted = stream("digits", "train", 64, seed=0)
    for _ in range(taken):
        next(interrupted)
    state = json.loads(json.dumps(interrupted.get_state()))
    for _ in range(3):  # read further than the state, as prefetching does
        next(interrupted)
    fresh = stream("digits", "train", 64, seed=0)
    fresh.set_state(state)
    assert_same(itertools.islice(fresh, 5), whole[taken:])
    interrupted.set_state(state)
    assert_same(itertools.islice(interrupted, 5), whole[taken:])


def test_images_are_decoded_as_load_does(prepare_images):
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 9, 3), dtype=np.uint8)
    prepare_images("tiny", {"train": images, "validation": images[:5], "test": images})
    for options in ({}, {"size": 4}, {"grey": True}, {"size": 4, "grey": True}):
        got, _ = next(stream("tiny", "valid", 5, seed=0, **options))
        expected = datasets.load("tiny", **options).images["valid"]
        assert sorted(x.tobytes() for x in got) == sorted(x.tobytes() for x in expected)


def windows(count, *arguments, **options):
    return list(itertools.islice(stream_text("python_docs", *arguments, **options), count))


def test_windows_of_text_are_in_it_and_follow_from_the_seed():
    tokens = datasets.load_text("python_docs").tokens["valid"]
    text = np.concatenate([tokens, tokens[:99]]).astype(np.uint8).tobytes()  # the last record reads on into the first
    found = windows(20, "valid", 8, 99, seed=0)
    assert {(w.shape, w.dtype) for w in found} == {((8, 100), np.dtype(np.int32))}
    rows = [row.astype(np.uint8).tobytes() for row in np.concatenate(found)]
    assert all(row in text for row in rows)
    places = [text.index(row) / len(tokens) for row in rows]
    assert min(places) < 0.1 < 0.9 < max(places)
    assert len(set(places)) > 150
    np.testing.assert_array_equal(found, windows(20, "valid", 8, 99, seed=0))
    assert np.any(found[0] != windows(1, "valid", 8, 99, seed=1)[0])


@pytest.mark.parametrize("taken", [0, 7])
def test_text_continues_with_the_very_next_batch(taken):
    whole = windows(taken + 5, "test", 4, 50, seed=0)
    interrupted = stream_text("python_docs", "test", 4, 50, seed=0)
    for _ in range(taken):
        next(interrupted)
    state = json.loads(json.dumps(interrupted.get_state()))
    next(interrupted)
    fresh = stream_text("python_docs", "test", 4, 50, seed=0)
    fresh.set_state(state)
    np.testing.assert_array_equal(list(itertools.islice(fresh, 5)), whole[taken:])
