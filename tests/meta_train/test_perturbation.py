"""Perturbations of theta."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt.meta_train.perturbation import Perturbation


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_every_leaf_has_the_numbers_of_its_own_key(dtype, x64):
    """Whatever the size of the largest one."""
    theta = {"a": jnp.zeros((39, 4), dtype), "b": jnp.zeros((), dtype), "c": jnp.zeros(7, dtype)}
    key = jax.random.key(1)
    found = Perturbation(sigma={"a": 0.5, "b": 1.0, "c": 2.0}).draw(theta, key)
    for (name, x), own, sigma in zip(theta.items(), jax.random.split(key, 3), (0.5, 1.0, 2.0), strict=True):
        np.testing.assert_array_equal(found[name], sigma * jax.random.normal(own, x.shape, dtype))
