"""Running statistics against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt import statistics

STARTS = {"momenta": [0.9, 0.99, 0.999], "second_moment": 0.999, "factored": [0.9, 0.99, 0.999]}


def decays_at(shift):
    return statistics.decays(jax.tree.map(lambda leaf: leaf + shift, statistics.init_decays()))


def test_decays_start_at_the_published_values(x64):
    for name, start in STARTS.items():
        np.testing.assert_allclose(getattr(decays_at(0.0), name), start, rtol=1e-15)


def test_decays_of_momenta_start_where_asked(x64):
    found = statistics.decays(statistics.init_decays((0.0, 0.6, 0.9999)))
    np.testing.assert_allclose(found.momenta, [0.0, 0.6, 0.9999], rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(found.factored, STARTS["factored"], rtol=1e-15)


@pytest.mark.parametrize("shift", [-0.3, -0.05, 0.02, 0.1])
def test_decays_move_by_their_formula(shift, x64):
    for name, start in STARTS.items():
        expected = np.clip(1 - (1 - np.asarray(start)) * np.exp(10 * shift), 0, 1)
        np.testing.assert_allclose(getattr(decays_at(shift), name), expected, rtol=1e-14)
    assert decays_at(0.02).second_moment < decays_at(0.0).second_moment < decays_at(-0.05).second_moment


@pytest.mark.parametrize("shift", [-100.0, -2.0, 5.0, 100.0])
def test_extreme_decays_stay_usable(shift):
    """In float32: within [0, 1), and with a bias correction that does not divide by zero."""
    decay = decays_at(shift)
    for leaf in jax.tree.leaves(decay):
        assert leaf.dtype == jnp.float32
        assert (leaf >= 0).all()
        assert (leaf < 1).all()
        assert (1 - leaf**1 > 0).all()
        np.testing.assert_allclose(leaf, 1 - 1e-6 if shift < 0 else 0, rtol=1e-7)


FALLING = 4000  # steps in which gradients fall, by e in each 20


def longest_step(decay):
    """The largest of momenta over the root of the second moment, both corrected, where gradients fall."""

    def step(stats, t):
        stats = statistics.update(stats, jnp.exp(-t / 20), decay)
        read = statistics.correct_bias(stats, decay, t)
        return stats, (jnp.abs(read.momenta) / jnp.sqrt(read.second_moment)).max()

    return jax.lax.scan(step, statistics.init(jnp.zeros(()), jnp.float64), jnp.arange(1.0, FALLING + 1))[1].max()


@pytest.mark.parametrize("seed", range(8))
def test_steps_are_bounded_where_gradients_fall(seed, x64):
    """Whatever theta is: by what Cauchy and Schwarz allow."""
    rng = np.random.default_rng(seed)
    theta = jax.tree.map(lambda leaf: leaf + rng.normal(scale=0.2, size=leaf.shape), statistics.init_decays())
    decay = statistics.decays(theta)
    beta, second, t = np.asarray(decay.momenta), float(decay.second_moment), np.arange(1, FALLING + 1)[:, None]
    assert second >= beta.max()
    ratio = beta**2 / second
    squares = (1 - beta) ** 2 / (1 - second) * (1 - ratio**t) / (1 - ratio)
    bound = np.sqrt(squares * (1 - second**t)) / (1 - beta**t)
    assert longest_step(decay) <= bound.max() * (1 + 1e-9)


def test_a_second_moment_that_forgets_sooner_does_not_bound_them(x64):
    """160 steps, below a momentum of a thousand: as meta-training has made them. With the same memory it is 1."""
    decay = statistics.decays(statistics.init_decays())
    assert longest_step(decay) <= 1 + 1e-9
    assert longest_step(decay._replace(second_moment=jnp.asarray(1 - 1 / 160))) > 100


@pytest.mark.parametrize("count", [1, 2, 50])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4)])
@pytest.mark.parametrize("shift", [0.0, 0.03])
def test_corrected_averages_of_a_constant_are_the_constant(shape, count, shift, x64):
    grad = jnp.asarray(np.random.default_rng(0).normal(size=shape))
    decay = decays_at(shift)
    stats = statistics.init(grad, grad.dtype)
    for _ in range(count):
        stats = statistics.update(stats, grad, decay)
    momenta, second_moment, rows, cols = statistics.correct_bias(stats, decay, jnp.asarray(float(count)))
    for i in range(3):
        np.testing.assert_allclose(momenta[i], grad, rtol=1e-10)
        np.testing.assert_allclose(rows[i], np.square(grad).mean(1, keepdims=True) if len(shape) > 1 else grad**2)
        if len(shape) > 1:
            np.testing.assert_allclose(cols[i], np.square(grad).mean(2, keepdims=True))
    np.testing.assert_allclose(second_moment, np.square(grad), rtol=1e-10)
    assert len(shape) > 1 or cols == ()


def test_one_float32_step_recovers_the_gradient():
    grad = jnp.asarray([1e-12, -3.0, 1e8])
    decay = decays_at(0.0)
    stats = statistics.update(statistics.init(grad, grad.dtype), grad, decay)
    corrected = statistics.correct_bias(stats, decay, jnp.float32(1))
    np.testing.assert_allclose(corrected.momenta, np.tile(grad, (3, 1)), rtol=1e-6)
    np.testing.assert_allclose(corrected.second_moment, np.square(grad), rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (4, 3), (7, 2, 5), (3, 3, 4, 8), (8, 1, 8), (40, 16), (40, 15)])
def test_wide_axis_last_and_back(shape):
    """The largest, where the last is narrow; others stay as they are."""
    tensor = jnp.arange(np.prod(shape, dtype=int)).reshape(shape)
    moved = statistics.wide_axis_last(tensor)
    assert not shape or moved.shape[-1] == (16 if shape == (40, 16) else max(shape))
    np.testing.assert_array_equal(statistics.restore_axes(moved, shape), tensor)


def test_memory_of_a_matrix():
    """Four floats for each parameter, and three for each row and column."""
    stats = statistics.init(jnp.zeros((30, 50)), jnp.float32)
    assert sum(leaf.size for leaf in jax.tree.leaves(stats)) == 4 * 30 * 50 + 3 * (30 + 50)
