"""`LearnableAdam` against `optax.adam`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt import LearnableAdam

PARAMS = {"w": np.linspace(-1, 1, 6).reshape(2, 3), "b": np.linspace(-1, 1, 3)}
THETAS = {
    "start": {},
    "learning_rate": {"learning_rate": 0.2},
    "one_minus_b1": {"one_minus_b1": 0.05},
    "one_minus_b2": {"one_minus_b2": 0.1},
    "eps": {"eps": 1.5},
    "all": {"learning_rate": -0.1, "one_minus_b1": -0.07, "one_minus_b2": 0.3, "eps": 0.4},
}


def trajectory(transform):
    params, state = PARAMS, transform.init(PARAMS)
    for step in range(6):
        grads = jax.tree.map(lambda p, step=step: np.sin(5 * p + step), params)
        updates, state = transform.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        yield updates


def assert_same(transform, expected, rtol):
    for ours, theirs in zip(trajectory(transform), trajectory(expected), strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12), ours, theirs)


def test_starts_at_optax_adam():
    optimizer = LearnableAdam(learning_rate=0.01)
    assert_same(optimizer.transform(optimizer.init(jax.random.key(0))), optax.adam(0.01), rtol=1e-5)


@pytest.mark.parametrize("changes", THETAS.values(), ids=THETAS)
def test_theta_changes_the_hyperparameters(changes, x64):
    optimizer = LearnableAdam(learning_rate=0.01, b1=0.8, b2=0.99, eps=1e-4, exponent_scale=5.0)
    theta = optimizer.init(jax.random.key(0)) | {name: jnp.asarray(value) for name, value in changes.items()}
    factor = {name: np.exp(5.0 * value) for name, value in theta.items()}
    expected = optax.adam(
        0.01 * factor["learning_rate"],
        b1=1 - 0.2 * factor["one_minus_b1"],
        b2=1 - 0.01 * factor["one_minus_b2"],
        eps=1e-4 * factor["eps"],
    )
    assert_same(optimizer.transform(theta), expected, rtol=1e-9)


@pytest.mark.parametrize(("value", "beta"), [(3.0, 0.0), (-3.0, 1 - 1e-6)])
def test_betas_stay_in_range(value, beta, x64):
    optimizer = LearnableAdam()
    theta = optimizer.init(jax.random.key(0)) | {
        "one_minus_b1": jnp.asarray(value),
        "one_minus_b2": jnp.asarray(value),
    }
    assert_same(optimizer.transform(theta), optax.adam(1e-3, b1=beta, b2=beta), rtol=1e-6)
