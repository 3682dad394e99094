"""Ways through STAR's update that small trees do not take, against the plain ones."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt import Star, reductions, statistics, together

ALIKE = {"a": (4, 3), "b": (5,), "c": (4, 3), "d": (3, 4), "e": (5,), "f": (4, 3), "g": (), "h": ()}


@pytest.mark.parametrize("aligned", [False, True])
def test_tensors_of_one_shape_are_as_alone(aligned, make_theta, quick_jit, x64, monkeypatch):
    """Their stack gives what each of them alone does, in the same state; so under `vmap`, as particles are."""
    optimizer = Star(aligned=aligned)
    transform = optimizer.transform(make_theta(optimizer))
    rng = np.random.default_rng(0)
    params, *grads = ({name: rng.normal(size=(2, *shape)) for name, shape in ALIKE.items()} for _ in range(3))

    def run(params, grads):
        state = transform.init(params)
        for grad in grads:
            updates, state = transform.update(grad, state, params)
        return updates, state

    stacked = quick_jit(jax.vmap(run))(params, grads)
    monkeypatch.setattr(together, "SMALL", 0)
    run_alone = quick_jit(run)
    for i in range(2):
        alone = run_alone(*jax.tree.map(lambda x: x[i], (params, grads)))  # noqa: B023
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x[i], y, rtol=1e-10, atol=1e-12),  # noqa: B023
            stacked,
            alone,
        )


@pytest.mark.parametrize("shape", [(96, 12), (97, 12), (12, 96), (3, 48, 5)])
def test_large_matrices_are_moved_by_strips(shape, monkeypatch):
    """What moves them is the same, and there and back again nothing has changed."""
    monkeypatch.setattr(statistics, "LARGE", 100)
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    moved = statistics.wide_axis_last(x)
    np.testing.assert_array_equal(moved, x if shape == (12, 96) else np.moveaxis(x, np.argmax(shape), -1))
    np.testing.assert_array_equal(statistics.restore_axes(moved, shape), x)
    np.testing.assert_array_equal(jax.grad(lambda x: (statistics.wide_axis_last(x) * moved).sum())(x), x)


@pytest.mark.parametrize("shape", [(32, 10), (17, 7), (16, 1), (4, 3), (10, 40)])
def test_narrow_matrices_are_restored_by_strips(shape):
    """Ten columns are five and five, seven are one by one; those as short as they are narrow are left to XLA."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    moved = statistics.wide_axis_last(x)
    np.testing.assert_array_equal(statistics.restore_axes(moved, shape), x)
    program = str(jax.make_jaxpr(lambda y: statistics.restore_axes(y, shape))(moved))
    assert ("scan" in program) == (shape[1] < statistics.NARROW <= shape[0])


def test_a_group_is_one_program(make_theta, plainly):
    """Forty tensors of two shapes take no more code than two."""
    optimizer = Star()
    transform = optimizer.transform(make_theta(optimizer))

    def exponentials(count):
        params = [jnp.zeros((4, 3)), jnp.zeros(5)] * count
        return str(jax.make_jaxpr(transform.update)(params, transform.init(params), params)).count(" exp ")

    assert plainly(exponentials, 20) == plainly(exponentials, 1) > 0


def test_the_network_of_a_group_runs_once(make_theta, plainly):
    """XLA makes what has two results in a loop twice: there are eight rectifiers, one for each hidden unit."""
    optimizer = Star()
    transform = optimizer.transform(make_theta(optimizer))
    params = [jnp.zeros((12, 20))] * 4
    lowered = plainly(jax.jit(transform.update).lower, params, transform.init(params), params)
    compiled = lowered.compile().as_text()
    assert len(re.findall(r"\[(?:\d+,)*12,20\]\S* maximum\(", compiled)) == 8


@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 0), (2, 3, 5), (70_001,), (2, 70_001)])
def test_sums_are_plain_sums(shape, x64):
    x, y = np.random.default_rng(0).normal(size=(2, *shape))
    np.testing.assert_allclose(reductions.sums((x, y)), (x.sum(), y.sum()), rtol=1e-10, atol=1e-10)


def test_float32_sums_of_many_numbers_keep_their_digits():
    x = np.random.default_rng(0).exponential(size=3_000_001).astype(np.float32)
    np.testing.assert_allclose(reductions.sums((jnp.asarray(x),))[0], x.sum(dtype=np.float64), rtol=1e-5)


def test_means_of_reduced_arrays(x64):
    x, y = np.random.default_rng(0).normal(size=(2, 4, 3))
    found = reductions.means([jnp.asarray(x), jnp.asarray(y[:1]), jnp.asarray(y)])
    np.testing.assert_allclose(found, (x.mean(), y[:1].mean(), y.mean()), rtol=1e-12)


def test_derivatives_of_sums(x64):
    x = np.random.default_rng(0).normal(size=(4, 3))

    def function(x):
        first, second = reductions.sums((x, x**3))
        return first * second

    expected = (x**3).sum() + 3 * x.sum() * x**2
    np.testing.assert_allclose(jax.grad(function)(x), expected, rtol=1e-10)
    np.testing.assert_allclose(jax.jacfwd(function)(x), expected, rtol=1e-10)
