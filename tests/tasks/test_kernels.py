"""Starting values of kernels."""

import jax
import numpy as np
import pytest

from learned_opt.tasks.networks.kernels import lecun_normal


@pytest.mark.parametrize("shape", [(64, 32), (32, 10), (3, 3, 1, 16)])
def test_they_are_those_of_jax(shape):
    """To the bit, drawn as a vector or as they are."""
    key = jax.random.key(3)
    np.testing.assert_array_equal(lecun_normal(key, shape), jax.nn.initializers.lecun_normal()(key, shape))
