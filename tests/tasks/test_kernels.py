"""Starting values of kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from learned_opt.tasks.networks.kernels import lecun_normal, orthogonal
from learned_opt.tasks.networks.recurrent import Recurrent


@pytest.mark.parametrize("shape", [(64, 32), (32, 10), (3, 3, 1, 16)])
def test_they_are_those_of_jax(shape):
    """To the bit, drawn as a vector or as they are."""
    key = jax.random.key(3)
    np.testing.assert_array_equal(lecun_normal(key, shape), jax.nn.initializers.lecun_normal()(key, shape))


@pytest.mark.parametrize("shape", [(32, 32), (32, 96), (128, 32)])
def test_orthogonal_matrices_are_uniform(shape):
    """Orthonormal, all 1000 of them; moments of an entry are those of a unit vector's, 1 / m and 3 / m (m + 2)."""
    found = jax.jit(jax.vmap(lambda key: orthogonal(key, shape)))(jax.random.split(jax.random.key(0), 1000))
    wide = found if shape[0] <= shape[1] else jnp.swapaxes(found, 1, 2)
    np.testing.assert_allclose(wide @ jnp.swapaxes(wide, 1, 2), np.tile(np.eye(32), (1000, 1, 1)), atol=1e-5)
    m = max(shape)
    assert abs(float(found.mean())) < 3e-4
    np.testing.assert_allclose(float((found**2).mean()), 1 / m, rtol=1e-5)
    np.testing.assert_allclose(float((found**4).mean()), 3 / (m * (m + 2)), rtol=0.01)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_recurrent_networks_start_without_lapack(cell):
    """On two cores two of its decompositions at a time can wait for each other forever."""

    def start(key):
        return nnx.state(Recurrent((16,), 20, nnx.Rngs(key), cell=cell))

    assert "lapack" not in jax.jit(start).lower(jax.random.key(0)).as_text()
