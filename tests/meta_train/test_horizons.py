"""How long inner problems last."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt.meta_train.horizons import Horizons

COUNT = 40_000


def sample(horizons: Horizons, outer_step: int = 0) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), COUNT)
    return np.asarray(jax.vmap(lambda key: horizons.sample(key, jnp.asarray(outer_step)))(keys))


def test_log_uniform_and_inclusive() -> None:
    """Every horizon from 2 to 5 occurs, with the share log((h + 1) / h) / log(6 / 2)."""
    values, counts = np.unique(sample(Horizons(shortest=2, longest=5)), return_counts=True)
    np.testing.assert_array_equal(values, [2, 3, 4, 5])
    np.testing.assert_allclose(counts / COUNT, np.log((values + 1) / values) / np.log(3), atol=0.01)


@pytest.mark.parametrize("horizon", [1, 7, 2000, 100_000])
def test_constant(horizon: int) -> None:
    assert set(sample(Horizons(shortest=horizon, longest=horizon))) == {horizon}


def test_the_curriculum_grows_geometrically() -> None:
    """From 100 to 1600 over 8 outer steps: doubled every second one, and then no more."""
    horizons = Horizons(shortest=100, longest=1600, curriculum=8)
    for outer_step, longest in ((0, 100), (2, 200), (4, 400), (6, 800), (8, 1600), (80, 1600)):
        found = sample(horizons, outer_step)
        assert found.min() == 100
        assert 0.99 * longest <= found.max() <= longest


def test_out_of_phase_first_problems_are_a_uniform_share() -> None:
    """Of a constant horizon of 10 every length occurs equally often, and later problems are whole."""
    horizons = Horizons(shortest=10, longest=10, out_of_phase=True)
    first = jax.vmap(horizons.sample_first)(jax.random.split(jax.random.key(0), COUNT))
    values, counts = np.unique(first, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(1, 11))
    np.testing.assert_allclose(counts / COUNT, 0.1, atol=0.01)
    assert set(sample(horizons)) == {10}
