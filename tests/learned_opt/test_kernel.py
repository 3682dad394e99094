"""STAR's kernels against the plain path: in interpret mode, and lowered for a GPU that need not be there."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt import Star, kernel, statistics, steps

# Terms of comparable size, so that none hides the others' errors.
SCALES: dict[str, Any] = {"step_scale": 0.03, "nominal_scale": 0.02, "exponent_scale": 0.5}
OPTIONS: dict[str, dict[str, Any]] = {
    "published": {"weight_decay": 0.1},
    "aligned": {"weight_decay": 0.0, "aligned": True, "preconditioner": "rms", "clipping_threshold": 0.5},
    "bare": {"weight_decay": 0.0, "nominal": "none", "learned_magnitude": False, "bias_correction": False},
}
# Padded both ways; the largest dimension first; one block; convolutions whose largest dimensions are not next to each
# other, or not last; a row.
SHAPES = [(70, 200), (200, 70), (8, 128), (20, 3, 3, 130), (40, 20, 17), (1, 300)]


def arguments(star: Star, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Third step of a tensor: theta, decays, gradient, parameter, statistics, count."""
    key = jax.random.key(0)
    theta = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(key, x.shape), star.init(key))
    first, grad, param = (jax.random.normal(jax.random.key(i), shape) for i in range(3))
    decay = statistics.decays(theta["decays"])
    stats = statistics.update(statistics.init(param, jnp.dtype(jnp.float32)), first, decay)
    return theta["network"], decay, first + 0.3 * grad, param, stats, jnp.int32(3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS)
def test_equals_the_plain_path(options: str, shape: tuple[int, ...]) -> None:
    star = Star(**SCALES, **OPTIONS[options])
    args = arguments(star, shape)
    expected = jax.jit(functools.partial(steps.plain, star))(*args)
    found = jax.jit(functools.partial(kernel.fused, star, interpret=True))(*args)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert jnp.shape(a) == jnp.shape(b)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(np.abs(b).max()))


@pytest.mark.parametrize(("platform", "kernels"), [("cuda", 2), ("cpu", 0)])
def test_chosen_on_a_gpu_for_matrices_large_enough(platform: str, kernels: int) -> None:
    """Lowered, vmapped as particles are; the vector and the small matrix take the plain path."""
    star = Star(aligned=True)
    transform = star.transform(star.init(jax.random.key(0)))
    params = {"large": jnp.ones((128, 256)), "small": jnp.ones((8, 8)), "vector": jnp.ones(1 << 15)}
    args = jax.tree.map(lambda x: jnp.stack([x, x]), (params, transform.init(params), params))
    lowered = jax.jit(jax.vmap(transform.update)).trace(*args).lower(lowering_platforms=(platform,))
    assert lowered.as_text().count("custom_call @__gpu$xla.gpu.triton") == kernels


def test_derivatives_are_those_of_the_plain_path(quick_jit: Any) -> None:
    """Truncated backprop differentiates updates; a kernel has no derivative."""
    star = Star(**SCALES, **OPTIONS["published"])
    args = arguments(star, (128, 128))
    assert kernel.suits(star, args[3])

    def slope(run: Any) -> Any:
        return quick_jit(jax.grad(lambda network: run(star, network, *args[1:])[0].sum()))(args[0])

    chosen, expected = slope(kernel.propose), slope(steps.plain)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), chosen, expected)
