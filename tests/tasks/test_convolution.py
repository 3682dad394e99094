"""A convolution as a product of matrices is XLA's convolution, and so are its derivatives."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from learned_opt.tasks.networks.convolution import Conv

CASES = list(itertools.product((1, 3), (1, 2), ("SAME", "VALID"), ((7, 10),)))


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), CASES)
def test_equals_flax(kernel, stride, padding, size):
    with jax.enable_x64(True):
        images = jax.random.normal(jax.random.key(1), (2, *size, 3), jnp.float64)
        options = {"strides": stride, "padding": padding, "param_dtype": jnp.float64}
        ours, flax = (kind(3, 4, (kernel, kernel), rngs=nnx.Rngs(0), **options) for kind in (Conv, nnx.Conv))
        results = []
        for module in (ours, flax):
            structure, params = nnx.split(module, nnx.Param)

            def loss(params, images, structure=structure):
                out = nnx.merge(structure, params)(images)
                return jnp.sum(jnp.sin(out) * jnp.arange(out.size).reshape(out.shape)), out

            grads, out = jax.grad(loss, (0, 1), has_aux=True)(params, images)
            results.append((out, jax.tree.leaves(grads)))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), *results)
