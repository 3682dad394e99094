"""Minibatches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt.tasks.base import SPLITS


@pytest.mark.parametrize("split", SPLITS)
def test_draws_images_of_that_split_with_their_labels(make_data, split):
    data = make_data()
    images, labels = jax.jit(lambda data, key: data.sample_batch(key, split, 500))(data, jax.random.key(0))
    assert images.dtype == jnp.float32
    assert (images.min(), images.max()) == (0, 1)
    n = len(data.labels[split])
    rows = np.rint(np.asarray(images[:, 0, 1, 0]) * 255).astype(int)
    assert set(rows) == set(range(n))  # 500 draws miss one of 40 with probability 1e-4, and the key is fixed
    np.testing.assert_allclose(images * 255, data.images[split][rows], atol=1e-4)
    np.testing.assert_array_equal(labels, data.labels[split][rows])


def test_same_key_same_batch(make_data):
    data = make_data()
    first, again, other = (data.sample_batch(jax.random.key(k), "train", 64)[0] for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
