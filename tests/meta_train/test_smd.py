"""Stochastic meta-descent against autodiff and a closed form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt.evaluate.reproduce.teacher_task import teacher_task
from learned_opt.meta_train import smd
from learned_opt.tasks.noisy_quadratic import NoisyQuadratic

START = {"learning_rate": 0.05, "one_minus_momentum": 0.3}


def quadratic(noise: float = 0.1) -> NoisyQuadratic:
    return NoisyQuadratic(jnp.array([2.0, 0.5]), noise * jnp.ones(2), jnp.array([1.0, -2.0]))


@pytest.mark.parametrize("same_batch", [False, True])
def test_the_meta_gradient_is_that_of_autodiff(same_batch: bool, x64: None) -> None:
    """Five steps of the teacher task: reverse mode through the same lookahead, velocity included."""
    descent, task, key = smd.published_online(same_batch), teacher_task("float64"), jax.random.key(2)
    state = descent.init(START)
    inner = descent.start(task, START, jax.random.key(0))
    for i in range(3):  # the live velocity is not zero
        inner, _ = descent.train_step(task, START, inner, jax.random.fold_in(key, i))

    def loss(logs: Any) -> jax.Array:
        values, end = jax.tree.map(jnp.exp, logs), inner
        keys = [key] * 6 if same_batch else list(jax.random.split(key, 6))
        for step_key in keys[:5]:
            end, _ = descent.train_step(task, values, end, step_key)
        batch_key, loss_key = jax.random.split(keys[5])
        return task.loss(end.params, loss_key, task.sample_batch(batch_key, "train"))

    expected, gradient = jax.jit(jax.value_and_grad(loss))(state.logs)
    found_loss, found = jax.jit(descent.meta_gradient, static_argnums=())(task, state.logs, inner, key)
    np.testing.assert_allclose(found_loss, expected, rtol=1e-12)
    for name in START:
        np.testing.assert_allclose(found[name], gradient[name], rtol=1e-10)


def test_offline_finds_the_best_rate_of_a_quadratic_without_noise(x64: None) -> None:
    """One step from (1, -2): minimising sum h (1 - a h)^2 w^2 / 2 has the closed form a = sum h^2 w^2 / sum h^3 w^2."""
    task = quadratic(noise=0.0)
    descent = smd.SMD(
        make=lambda v: optax.sgd(v["learning_rate"]),
        lookahead=1,
        meta=optax.adam(0.05),
        bounds={"learning_rate": (1e-4, 10.0)},
    )
    start = {"learning_rate": 0.01}
    warm = descent.start(task, start, jax.random.key(0))
    state, path = jax.jit(lambda s: smd.offline(descent, task, s, warm, jax.random.key(1), 400))(descent.init(start))
    h, w = np.array([2.0, 0.5]), np.array([1.0, -2.0])
    best = (h**2 * w**2).sum() / (h**3 * w**2).sum()
    np.testing.assert_allclose(state.values["learning_rate"], best, rtol=1e-3)
    assert path.values["learning_rate"].shape == (400,)
    assert path.loss[-1] < path.loss[0]


def test_online_trains_with_what_it_finds() -> None:
    """On the noisy quadratic a rate that is too small grows and the loss falls; the trajectory has all blocks."""
    task, start = quadratic(), {"learning_rate": 1e-3, "one_minus_momentum": 0.5}
    descent = smd.published_online()
    inner = descent.start(task, start, jax.random.key(0))

    def run(state: Any) -> Any:
        return smd.online(descent, task, state, inner, jax.random.key(1), steps=300, every=10, meta_steps=10)

    state, end, path = jax.jit(run)(descent.init(start))
    assert path.loss.shape == (30,)
    assert path.values["learning_rate"].max() > 10 * start["learning_rate"]
    assert path.loss[-1] < 0.2 * path.loss[0]
    last, losses = smd.decay(descent, task, state.values, end, jax.random.key(2), steps=50)
    assert losses.shape == (50,)
    assert np.isfinite(last.params).all()


def test_what_goes_wrong_is_counted() -> None:
    """Derivatives beyond the clip, values at a bound, gradients that are not finite."""
    descent = smd.published_offline(horizon=3, period=10.0)
    start = {"learning_rate": 0.9, "exponent": 0.1}
    task = NoisyQuadratic(jnp.array([50.0, 1.0]), jnp.zeros(2), jnp.ones(2))
    warm = descent.start(task, start, jax.random.key(0))
    state, _ = descent.meta_update(task, descent.init(start), warm, jax.random.key(1))
    assert int(state.clipped) == 1
    high = descent.init({"learning_rate": 10.0, "exponent": 1e-4})
    state, _ = descent.meta_update(quadratic(), high, warm, jax.random.key(1))
    assert int(state.bounded) + int(state.clipped) >= 1
    broken = warm._replace(params=jnp.array([jnp.nan, 1.0]))
    state, _ = descent.meta_update(task, descent.init(start), broken, jax.random.key(1))
    assert int(state.skipped) == 1
    assert state.logs == descent.init(start).logs
