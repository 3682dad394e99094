"""Signs and ranks in place of differences."""

import jax.numpy as jnp
import numpy as np

from learned_opt.meta_train.shaping import shape

DIFFERENCES = jnp.array([0.5, -1e6, 2.0, 0.0, -1.0, 3.0])
WEIGHTS = jnp.array([1, 1, 1, 1, 1, 0])  # the last was dropped


def test_none_changes_nothing() -> None:
    assert shape(DIFFERENCES, WEIGHTS, "none") is DIFFERENCES


def test_signs_have_the_median_magnitude() -> None:
    """Of 0, 0.5, 1, 2 and 1e6 that is 1."""
    np.testing.assert_array_equal(shape(DIFFERENCES, WEIGHTS, "sign"), [1, -1, 1, 0, -1, 0])


def test_ranks_keep_order_and_sign() -> None:
    """Ranks 1 to 5 of the magnitudes, the middle one counting as the median."""
    np.testing.assert_allclose(shape(DIFFERENCES, WEIGHTS, "rank"), np.array([2, -5, 4, 0, -3, 0]) / 3, rtol=1e-6)


def test_ties_share_a_rank_and_order_does_not_matter() -> None:
    """Equal magnitudes among others, in two orders."""
    differences = jnp.array([1.0, -1.0, 4.0, 1.0])
    found = shape(differences, jnp.ones(4), "rank")
    np.testing.assert_allclose(found, np.array([2, -2, 4, 2]) / 2.5, rtol=1e-6)
    np.testing.assert_array_equal(shape(differences[::-1], jnp.ones(4), "rank"), found[::-1])


def test_nobody_left_is_zero() -> None:
    for shaping in ("sign", "rank"):
        np.testing.assert_array_equal(shape(DIFFERENCES, jnp.zeros(6), shaping), np.zeros(6))
