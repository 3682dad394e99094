"""Official TFDS sets. TFDS reads TFDS_DATA_DIR when it is imported, so loading happens in programs of its own."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from learned_opt.tasks import datasets

SHARED = Path(__file__).parents[2] / "../shared/tensorflow_datasets"


def python(code: str, data_dir: Path, cache: Path) -> list[str]:
    """Runs a program that is expected to say nothing but what it prints; its lines."""
    environment = os.environ | {"TFDS_DATA_DIR": str(data_dir), "LEARNED_OPT_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def box_means(images: np.ndarray, size: int) -> np.ndarray:
    """Means over `size` x `size` boxes of whole pixels: for 28 -> 8, boxes of 4 and 3 pixels in turn."""
    for axis in (1, 2):
        n = images.shape[axis]
        edges = np.ceil(np.arange(size + 1) * n / size - 1e-9).astype(int)
        sums = np.add.reduceat(images.astype(float), edges[:-1], axis=axis)
        images = sums / np.diff(edges).reshape([-1 if a == axis else 1 for a in range(4)])
    return images


def small(name: str, shape: tuple[int, int, int], with_validation: bool):
    """A builder that poses as an official image set, with a few examples in it."""

    def split_generators(self, dl_manager):
        names = ("train", "validation", "test") if with_validation else ("train", "test")
        return {split: self._generate_examples(i) for i, split in enumerate(names)}

    def generate_examples(self, seed):
        rng = np.random.default_rng(seed)
        for i in range(20):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8).squeeze()).save(file, "PNG")
            yield i, {"image": file.getvalue(), "label": i % 10}

    def info(self):
        features = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(num_classes=10)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    methods = {
        "name": name,
        "VERSION": tfds.core.Version("3.0.2" if name == "cifar10" else "3.0.1"),
        "_info": info,
        "_split_generators": split_generators,
        "_generate_examples": generate_examples,
        "__module__": __name__,
    }
    return type(name, (tfds.core.GeneratorBasedBuilder,), methods, skip_registration=True)


@pytest.mark.parametrize(
    ("name", "shape", "with_validation"),
    [("mnist", (28, 28, 1), False), ("cifar10", (32, 32, 3), False), ("fashion_mnist", (28, 28, 1), True)],
)
def test_reads_and_resizes_a_small_set_of_that_name(name, shape, with_validation, tmp_path, fresh_cache):
    builder = small(name, shape, with_validation)(data_dir=tmp_path / "data", **datasets.FILE_FORMAT)
    builder.download_and_prepare()
    code = f"from learned_opt.tasks import datasets; datasets.load({name!r}); datasets.load({name!r}, size=8)"
    python(code, tmp_path / "data", fresh_cache)
    full, resized = datasets.load(name), datasets.load(name, size=8)  # from the cache that the program left
    assert (full.shape, resized.shape) == (shape, (8, 8, shape[2]))
    raw = {split: list(builder.as_data_source(split)) for split in builder.info.splits}
    expected = {"train": raw["train"][:18], "valid": raw["train"][18:], "test": raw["test"]}
    if with_validation:
        expected |= {"train": raw["train"], "valid": raw["validation"]}
    for split, examples in expected.items():
        np.testing.assert_array_equal(full.images[split], [e["image"] for e in examples])
        np.testing.assert_array_equal(full.labels[split], [e["label"] for e in examples])
        np.testing.assert_array_equal(resized.labels[split], full.labels[split])
        np.testing.assert_allclose(resized.images[split], box_means(full.images[split], 8), atol=1.01)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason=f"mnist is not in {SHARED}")
def test_mnist_itself(fresh_cache):
    code = "from learned_opt.tasks import datasets; datasets.load('mnist', size=8)"
    python(code, SHARED, fresh_cache)
    mnist = datasets.load("mnist", size=8)
    assert {split: len(y) for split, y in mnist.labels.items()} == {"train": 54000, "valid": 6000, "test": 10000}
    source = tfds.data_source("mnist", split="test", data_dir=SHARED, builder_kwargs=datasets.FILE_FORMAT)
    examples = [source[i] for i in range(0, 10000, 500)]
    np.testing.assert_array_equal(mnist.labels["test"][::500], [e["label"] for e in examples])
    expected = box_means(np.stack([e["image"] for e in examples]), 8)
    np.testing.assert_allclose(mnist.images["test"][::500], expected, atol=1.01)


@pytest.mark.parametrize("name", datasets.OFFICIAL)
def test_a_missing_set_says_how_to_get_it(name, tmp_path):
    code = (
        "import time, tensorflow_datasets\n"
        "from learned_opt.tasks import datasets\n"
        "from learned_opt.errors import UsageError\n"
        "start = time.monotonic()\n"
        f"try: datasets.load({name!r})\n"
        "except UsageError as error: print(error)\n"
        "print(time.monotonic() - start)"
    )
    (tmp_path / "data").mkdir()
    message, seconds = python(code, tmp_path / "data", tmp_path / "cache")
    assert float(seconds) < 2
    for part in (repr(name), str(tmp_path / "data"), "TFDS_DATA_DIR", "learned-opt[data]", "tfds.data_source"):
        assert part in message
    assert not list(tmp_path.glob("cache/*.npz"))


def test_unknown_names_are_refused():
    with pytest.raises(datasets.errors.UsageError, match="unknown data set 'minst': did you mean mnist"):
        datasets.load("minst")
