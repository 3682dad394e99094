"""Optimizers of the table inside optax's combinators and Flax's `nnx.Optimizer`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from learned_opt import LearnableAdam, Star

PARAMS = {"w": jnp.linspace(-1, 1, 12).reshape(4, 3), "b": jnp.linspace(-1, 1, 5)}
GRADS = [jax.tree.map(lambda p, s=s: s * jnp.cos(3 * p + s), PARAMS) for s in (1.0, -0.7, 2.0)]
# One vector, for combinators with conditionals, which compile both branches.
BIAS, BIAS_GRADS = {"b": PARAMS["b"]}, [{"b": g["b"]} for g in GRADS]


def follow(transform, grads, params=PARAMS, compiler=lambda update: update):
    """The updates for a sequence of gradients, each applied before the next; with an extra argument."""
    transform = optax.with_extra_args_support(transform)
    state, updates, update_of = transform.init(params), [], compiler(transform.update)
    for grad in grads:
        update, state = update_of(grad, state, params, value=1.0)
        params = optax.apply_updates(params, update)
        updates.append(update)
    return updates


def assert_same(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-8), actual, expected)


@pytest.fixture
def transform(optimizer, make_theta):
    return optimizer.transform(make_theta(optimizer))


def test_chain_with_clipping(transform):
    def clip(grad):
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in grad.values()))
        return {k: g * min(1, 0.5 / norm) for k, g in grad.items()}

    assert_same(
        follow(optax.chain(optax.clip_by_global_norm(0.5), transform), GRADS), follow(transform, map(clip, GRADS))
    )


def test_masked(transform):
    alone = follow(transform, [{"w": g["w"]} for g in GRADS], {"w": PARAMS["w"]})
    masked = follow(optax.masked(transform, {"w": True, "b": False}), GRADS)
    assert_same(masked, [{"w": u["w"], "b": g["b"]} for u, g in zip(alone, GRADS, strict=True)])


@pytest.mark.parametrize("partition", [optax.partition, optax.multi_transform])
def test_partition(transform, partition):
    alone = follow(transform, [{"w": g["w"]} for g in GRADS], {"w": PARAMS["w"]})
    parts = follow(partition({"learned": transform, "sgd": optax.sgd(0.1)}, {"w": "learned", "b": "sgd"}), GRADS)
    assert_same(parts, [{"w": u["w"], "b": -0.1 * g["b"]} for u, g in zip(alone, GRADS, strict=True)])


def test_multi_steps(representative, make_theta, quick_jit):
    transform = representative.transform(make_theta(representative))
    mean = {"b": (BIAS_GRADS[0]["b"] + BIAS_GRADS[1]["b"]) / 2}
    first, second = follow(optax.MultiSteps(transform, 2), BIAS_GRADS[:2], BIAS, quick_jit)
    assert_same(first, {"b": np.zeros(5)})
    assert_same([second], follow(transform, [mean], BIAS))


def test_apply_if_finite(representative, make_theta, quick_jit):
    transform = representative.transform(make_theta(representative))
    broken = {"b": BIAS_GRADS[0]["b"].at[0].set(jnp.nan)}
    grads = [BIAS_GRADS[0], broken, BIAS_GRADS[1]]
    first, skipped, second = follow(optax.apply_if_finite(transform, 5), grads, BIAS, quick_jit)
    assert_same([first, second], follow(transform, BIAS_GRADS[:2], BIAS))
    assert_same(skipped, {"b": np.zeros(5)})


class Regression(nnx.Module):
    def __init__(self):
        self.linear = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
        self.calls = nnx.Variable(jnp.zeros(()))  # not a parameter: `wrt=nnx.Param` must leave it alone

    def loss(self):
        x = jnp.sin(jnp.arange(32.0)).reshape(8, 4)
        return jnp.mean(jnp.square(self.linear(x) - x[:, :3] - 1))


def gradients_of(model):
    return nnx.grad(Regression.loss, argnums=nnx.DiffState(0, nnx.Param))(model)


def test_nnx_takes_the_same_steps(transform):
    model = Regression()
    optimizer = nnx.Optimizer(model, transform, wrt=nnx.Param)
    params = start = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    state = transform.init(params)
    for _ in range(2):
        grads = gradients_of(model)
        updates, state = transform.update(nnx.to_pure_dict(grads), state, params)
        params = optax.apply_updates(params, updates)
        optimizer.update(model, grads)
    assert_same(nnx.to_pure_dict(nnx.state(model, nnx.Param)), params)
    assert np.any(params["linear"]["kernel"] != start["linear"]["kernel"])


@pytest.mark.parametrize("optimizer", [Star(nominal_scale=0.03), LearnableAdam(learning_rate=0.03)], ids=type)
def test_nnx_decreases_a_regression_loss(optimizer):
    model = Regression()
    tuner = nnx.Optimizer(model, optimizer.transform(optimizer.init(jax.random.key(0))), wrt=nnx.Param)
    start = model.loss()
    for _ in range(30):
        tuner.update(model, gradients_of(model))
    assert model.loss() < 0.5 * start
