"""Images resized and made grey, against NumPy."""

import numpy as np
import pytest

from learned_opt.tasks import datasets

RNG = np.random.default_rng(0)
LUMA = [0.299, 0.587, 0.114]


def test_grey_is_the_luma(prepare_images):
    extremes = np.stack([np.zeros((6, 6, 3), np.uint8), np.full((6, 6, 3), 255, np.uint8)])
    images = np.concatenate([extremes, RNG.integers(0, 256, (18, 6, 6, 3), dtype=np.uint8)])
    prepare_images("tiny", {"train": images, "validation": images[:9], "test": images[9:]})
    grey = datasets.load("tiny", grey=True)
    assert grey.shape == (6, 6, 1)
    for split, source in (("train", images), ("valid", images[:9]), ("test", images[9:])):
        assert grey.images[split].dtype == np.uint8
        exact = sum(weight * source[..., c].astype(float) for c, weight in enumerate(LUMA))
        np.testing.assert_allclose(grey.images[split][..., 0], exact, atol=0.5 + 1e-9)
    assert (grey.images["train"][:2].min((1, 2, 3)).tolist(), grey.images["train"][1].max()) == ([0, 255], 255)
    np.testing.assert_array_equal(datasets.load("tiny").images["train"], images)
    small = datasets.load("tiny", size=3, grey=True)
    means = np.asarray(grey.images["train"], float).reshape(20, 3, 2, 3, 2, 1).mean((2, 4))
    np.testing.assert_allclose(small.images["train"], means, atol=1.01)  # rounded along each axis


def test_grey_images_stay_as_they_are():
    for split, images in datasets.load("digits", grey=True).images.items():
        np.testing.assert_array_equal(images, datasets.load("digits").images[split])


@pytest.mark.parametrize(("size", "grey"), [(4, False), (4, True)])
def test_images_of_many_sizes_become_one(size, grey, prepare_images):
    """Each is of one colour, which no resizing changes."""
    colours = RNG.integers(0, 256, (20, 3), dtype=np.uint8)
    images = [np.broadcast_to(c, (5 + i, 9 + 2 * i, 3)).copy() for i, c in enumerate(colours)]
    prepare_images("tiny", {"train": images, "validation": images[:10], "test": images[10:]})
    loaded = datasets.load("tiny", size=size, grey=grey)
    expected = np.rint(colours @ np.array(LUMA))[:, None] if grey else colours
    for split, rows in (("train", slice(None)), ("valid", slice(10)), ("test", slice(10, None))):
        np.testing.assert_array_equal(loaded.images[split].min((1, 2)), expected[rows])
        np.testing.assert_array_equal(loaded.images[split].max((1, 2)), expected[rows])
