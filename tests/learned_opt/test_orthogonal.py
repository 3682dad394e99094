"""Orthogonal factors against the singular value decomposition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt import Star, orthogonal


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (2, 3, 7), (40, 30)])
def test_singular_vectors_stay_and_values_become_alike(shape, x64):
    tensor = np.random.default_rng(0).normal(size=shape)
    u, values, v = np.linalg.svd(tensor.reshape(-1, shape[-1]), full_matrices=False)
    found = np.asarray(orthogonal.factor(jnp.asarray(tensor))).reshape(-1, shape[-1])
    inside = u.T @ found @ v.T
    np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-12)
    counted = values > 0.01 * np.linalg.norm(values)
    assert counted.sum() >= 3
    assert (np.diag(inside)[counted] > 0.67).all()
    assert (np.diag(inside) < 1.22).all()


def test_turns_with_the_tensor(x64):
    """The factor of Q M is Q times that of M: no coordinates are preferred, as they are by Adam."""
    rng = np.random.default_rng(0)
    tensor, (turn, _) = rng.normal(size=(6, 8)), np.linalg.qr(rng.normal(size=(6, 6)))
    expected = turn @ orthogonal.factor(jnp.asarray(tensor))
    np.testing.assert_allclose(orthogonal.factor(jnp.asarray(turn @ tensor)), expected, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1.0, 1e30])
def test_scale_does_not_matter(scale):
    """In float32, whose squares of 1e-30 are zero and of 1e30 are infinite."""
    tensor = jnp.asarray(np.random.default_rng(0).normal(size=(6, 8)), jnp.float32)
    found, expected = orthogonal.factor(scale * tensor), orthogonal.factor(tensor)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_of_nothing_is_nothing():
    zeros = jnp.zeros((4, 5))
    np.testing.assert_array_equal(orthogonal.factor(zeros), zeros)
    np.testing.assert_array_equal(orthogonal.direction(zeros, 1e-18), zeros)
    assert np.isfinite(jax.grad(lambda x: orthogonal.direction(x, 1e-18).sum())(zeros)).all()


def test_derivative_is_that_of_differences(x64):
    """Truncated backprop goes through it; what the tensor is scaled by first takes no part."""
    tensor, along = np.random.default_rng(0).normal(size=(2, 4, 6))
    _, found = jax.jvp(orthogonal.factor, (jnp.asarray(tensor),), (jnp.asarray(along),))
    there, back = (orthogonal.factor(jnp.asarray(tensor + h * along)) for h in (1e-6, -1e-6))
    np.testing.assert_allclose(found, (there - back) / 2e-6, rtol=1e-6, atol=1e-8)


def test_direction_has_a_root_mean_square_of_one(x64):
    found = orthogonal.direction(jnp.asarray(np.random.default_rng(0).normal(size=(3, 20))), 1e-18)
    np.testing.assert_allclose(np.mean(np.square(found)), 1, rtol=1e-12)


@pytest.mark.parametrize(("shape", "suits"), [((3, 3), True), ((2, 9), False), ((9, 2), False), ((2, 2, 9), True)])
def test_narrow_matrices_and_vectors_are_left_to_adam(shape, suits, make_theta, quick_jit, x64):
    assert orthogonal.suits(shape) == suits
    params = {"it": np.random.default_rng(0).normal(size=shape), "vector": np.ones(9)}
    updates = {}
    for nominal in ("orthogonal", "adam-aggmo"):
        star = Star(nominal=nominal, preconditioner="rms")
        transform = star.transform(make_theta(star))
        updates[nominal], _ = quick_jit(transform.update)(params, transform.init(params), params)
    np.testing.assert_allclose(updates["orthogonal"]["vector"], updates["adam-aggmo"]["vector"], rtol=1e-12)
    assert np.allclose(updates["orthogonal"]["it"], updates["adam-aggmo"]["it"], rtol=1e-12) != suits


@pytest.mark.parametrize("shape", [(8, 8), (64, 10), (3, 200), (4, 4, 6)])
def test_the_largest_singular_value_is_alike_for_all_widths(shape, x64):
    """An orthogonal matrix with a root mean square of 1, times the length: that of 32 rows."""
    u, _, v = np.linalg.svd(np.random.default_rng(0).normal(size=(np.prod(shape[:-1]), shape[-1])), full_matrices=False)
    step = u @ v / np.sqrt(np.mean((u @ v) ** 2)) * orthogonal.length(shape)
    np.testing.assert_allclose(np.linalg.svd(step, compute_uv=False), np.sqrt(32), rtol=1e-12)


def test_other_tensors_are_as_long_as_ever():
    assert orthogonal.length((200,)) == orthogonal.length((2, 200)) == 1
