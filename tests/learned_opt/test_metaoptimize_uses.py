"""What `metaoptimize` and `tune_online` meet in training scripts: donated states, Flax, labels that nothing has."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import learned_opt
from learned_opt import UsageError

PARAMS = {"w": jnp.linspace(-1, 1, 6).reshape(2, 3), "b": jnp.ones(3)}
GRADS = jax.tree.map(jnp.cos, PARAMS)
OPTIMIZERS = {
    "metaoptimize": learned_opt.metaoptimize(optax.scale_by_adam()),
    "tune_online": learned_opt.tune_online(lambda x: optax.sgd(x["rate"]), {"rate": 0.1}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_donated_state(name):
    optimizer = OPTIMIZERS[name]
    expected, _ = optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS)
    found, _ = jax.jit(optimizer.update, donate_argnums=1)(GRADS, optimizer.init(PARAMS), PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


@pytest.mark.parametrize("sharing", ["scalar", "tensor", "weight", lambda path: path.rsplit("/", 1)[-1]])
def test_in_nnx_optimizer(sharing):
    """Three steps as without it."""
    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    transform = learned_opt.metaoptimize(optax.scale_by_adam(), initial=1e-2, sharing=sharing)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    optimizer, state, inputs = nnx.Optimizer(model, transform, wrt=nnx.Param), transform.init(params), jnp.ones((2, 4))

    def loss(model):
        return jnp.square(model(inputs) - 1).mean()

    for _ in range(3):
        grads = nnx.grad(loss)(model)
        updates, state = transform.update(nnx.to_pure_dict(grads), state, params)
        params = optax.apply_updates(params, updates)
        optimizer.update(model, grads)
    found = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, params)


def test_a_label_that_no_parameter_has():
    both = {"own": OPTIMIZERS["metaoptimize"], "sgd": optax.sgd(0.1)}
    transform = optax.partition(both, jax.tree.map(lambda _: "sgd", PARAMS))
    updates, _ = transform.update(GRADS, transform.init(PARAMS), PARAMS)
    jax.tree.map(lambda u, g: np.testing.assert_allclose(u, -0.1 * g, rtol=1e-6), updates, GRADS)


def test_arrays_of_hyperparameters():
    """A rate for each row, as a function that makes the same tree gives."""
    rates = {"rate": jnp.array([[0.1], [0.2]])}
    params, grads = {"w": PARAMS["w"]}, {"w": GRADS["w"]}

    def make(values):
        return optax.stateless(lambda updates, _: jax.tree.map(lambda g: -values["rate"] * g, updates))

    for initial in (rates, lambda _: rates):
        transform = learned_opt.tune_online(make, initial)
        updates, _ = transform.update(grads, transform.init(params), params)
        np.testing.assert_allclose(updates["w"], -rates["rate"] * grads["w"], rtol=1e-6)


@pytest.mark.parametrize("initial", [50.0, 1e-13])
def test_a_start_outside_the_bounds(initial):
    with pytest.raises(UsageError, match=r"the bounds, are accepted"):
        learned_opt.metaoptimize(optax.identity(), initial=initial)
