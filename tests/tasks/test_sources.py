"""Opening TFDS sets: which part is which split, and every refusal one line."""

import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from learned_opt.errors import UsageError
from learned_opt.tasks import datasets
from learned_opt.tasks.base import SPLITS
from learned_opt.tasks.sources import in_order, tfds_slices
from learned_opt.tasks.streaming import stream


@pytest.mark.parametrize(
    ("published", "train", "valid", "test"),
    [
        ("train validation test", "train[:100%]", "validation", "test"),
        ("train test extra", "train[:90%]", "train[90%:100%]", "test"),
        ("train validation", "train[:90%]", "validation", "train[90%:100%]"),
        ("train unsupervised", "train[:80%]", "train[80%:90%]", "train[90%:100%]"),
    ],
)
def test_every_set_has_three_disjoint_splits(published, train, valid, test, prepare_images):
    """Each image holds its number, of the split it was published in and of its place there."""
    names = published.split()
    assert tfds_slices("tiny", names) == {"train": train, "valid": valid, "test": test}
    images = {
        name: [np.full((2, 2, 1), 50 * i + place, np.uint8) for place in range(20)] for i, name in enumerate(names)
    }
    prepare_images("tiny", images)
    loaded = datasets.load("tiny")
    numbers = {split: loaded.images[split][:, 0, 0, 0].tolist() for split in SPLITS}
    everything = [number for split in SPLITS for number in numbers[split]]
    assert len(set(everything)) == len(everything)
    assert set(everything) == {
        50 * i + place for i, name in enumerate(names) if name not in ("extra", "unsupervised") for place in range(20)
    }
    for split in SPLITS:
        np.testing.assert_array_equal(loaded.labels[split], np.array(numbers[split]) % 50 % 10)
        assert numbers[split] == sorted(numbers[split])


@pytest.mark.parametrize("count", [10, 119, 4500])
def test_rows_of_our_own_are_cut_in_order(count):
    rows = {split: range(count)[cut] for split, cut in in_order(count).items()}
    assert [*rows["train"], *rows["valid"], *rows["test"]] == list(range(count))
    assert [len(rows[s]) / count for s in SPLITS] == pytest.approx([0.8, 0.1, 0.1], abs=1 / count)


def refusal(call):
    """The line that a call ends in."""
    with pytest.raises(UsageError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", [*datasets.OFFICIAL, "svhn_cropped", "emnist/letters", "imagenet_resized/8x8"])
@pytest.mark.parametrize("read", [datasets.load, lambda name: stream(name, "train", 8, 0)], ids=["load", "stream"])
def test_a_missing_set_says_how_to_get_it(name, read, tmp_path, fresh_cache, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    start = time.monotonic()
    message = refusal(lambda: read(name))
    assert time.monotonic() - start < 2
    for part in (repr(name), str(tmp_path / "data"), "TFDS_DATA_DIR", "learned-opt[data]", "tfds.data_source"):
        assert part in message
    assert not list(tmp_path.glob("cache/*.npz"))


def test_a_missing_text_says_how_to_get_it(tmp_path, fresh_cache, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    assert "'tiny_shakespeare' is not prepared" in refusal(lambda: datasets.load_text("tiny_shakespeare"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: datasets.load("minst"), "unknown data set 'minst': did you mean mnist or "),
        (lambda: datasets.load("qqqq"), "unknown data set 'qqqq': accepted: breast_cancer, diabetes, digits, "),
        (lambda: datasets.load_text("tiny_shakespear"), "did you mean tiny_shakespeare"),
        (lambda: datasets.load_table("win"), "unknown table 'win': did you mean wine? accepted: breast_cancer, "),
        (lambda: datasets.load_table("digits"), "unknown table 'digits': "),
        (lambda: datasets.load("mnist:9.9.9"), "cannot open the data set 'mnist:9.9.9': Dataset mnist cannot be"),
        (lambda: datasets.load("a b"), "cannot open the data set 'a b': Parsing builder name string"),
        (lambda: datasets.load("wine"), "'wine' is not one of labelled images: it has features, target; accepted: "),
        (lambda: datasets.load("imdb_reviews"), "'imdb_reviews' is not one of labelled images: it has "),
        (lambda: datasets.load("imagenet2012"), "'imagenet2012' has images of different sizes: give a size"),
        (lambda: datasets.load_text("digits"), "'digits' is not one of text: it has image, label; accepted: text"),
    ],
)
def test_refusals(call, message, tmp_path, fresh_cache, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    assert message in refusal(call)


IMAGES = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)


def test_a_set_without_a_training_split_is_refused(prepare_images):
    prepare_images("tiny", {"test": IMAGES})
    assert "'tiny' publishes no split train, only test" in refusal(lambda: datasets.load("tiny"))


def test_a_set_too_small_to_cut_is_refused(prepare_images):
    prepare_images("tiny", {"train": IMAGES[:3], "test": IMAGES[3:]})
    assert "'tiny' has no examples in train[90%:100%], its valid split" in refusal(lambda: datasets.load("tiny"))


def test_labels_that_were_never_published_are_refused(prepare):
    features = {
        "image": tfds.features.Tensor(shape=(4, 4, 3), dtype=np.uint8),
        "label": tfds.features.ClassLabel(num_classes=2),
    }
    labels = {"train": range(20), "test": [-1] * 20}
    examples = {
        split: [{"image": x, "label": min(y, 1)} for x, y in zip(IMAGES, ys, strict=True)]
        for split, ys in labels.items()
    }
    prepare("tiny", features, examples)
    assert "'tiny' has examples without a label in its test split" in refusal(lambda: datasets.load("tiny"))


def test_a_set_larger_than_the_limit_is_refused_and_streamed(prepare_images, monkeypatch):
    prepare_images("tiny", {"train": IMAGES, "test": IMAGES})
    monkeypatch.setattr(datasets, "LIMIT_BYTES", 40 * 4 * 4 * 3 - 1)
    message = refusal(lambda: datasets.load("tiny"))
    assert "'tiny' is 1.79e-06 GiB decoded, more than the " in message
    assert "learned_opt.tasks.streaming.stream" in message
    images, _ = next(stream("tiny", "train", 8, seed=0))
    assert images.shape == (8, 4, 4, 3)
    assert datasets.load("tiny", grey=True).shape == (4, 4, 1)  # a third of it fits
    monkeypatch.setattr(datasets, "LIMIT_BYTES", 40 * 4 * 4 * 3)
    assert datasets.load("tiny").shape == (4, 4, 3)


def test_text_larger_than_the_limit_is_refused(fresh_cache, monkeypatch):
    monkeypatch.setattr(datasets, "LIMIT_BYTES", 300_000)
    message = refusal(lambda: datasets.load_text("python_docs"))
    assert "'python_docs' is 0.0003" in message
    assert "learned_opt.tasks.streaming.stream_text" in message
