"""What every optimizer of the table promises, whatever the tensors and the transformations around it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt import LearnedOptimizer, Star, black_box_mlp

KINDS = {
    "scalar": jnp.float32(0.3),
    "vector": jnp.linspace(-1, 1, 5),
    "matrix": jnp.linspace(-1, 1, 12).reshape(4, 3),
    "convolution": jnp.linspace(-1, 1, 288).reshape(3, 3, 4, 8),
    "nested": {"layers": [{"kernel": jnp.full((4, 3), 0.1), "bias": None}, (jnp.zeros(5),)]},
    "no rows": jnp.zeros((0, 3)),
    "no elements": jnp.zeros((0,)),
    "none": None,
    "bfloat16": jnp.linspace(-1, 1, 12, dtype=jnp.bfloat16).reshape(4, 3),
    "float16": jnp.linspace(-1, 1, 5, dtype=jnp.float16),
}
PARAMS = {"w": KINDS["matrix"], "b": KINDS["vector"]}


def gradient(params):
    """Some gradient, with exact zeros in it."""
    return jax.tree.map(lambda p: jnp.where(p > 0.9, 0, jnp.sin(1 + 3 * p)).astype(p.dtype), params)


def kind(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def test_is_a_learned_optimizer(optimizer):
    assert isinstance(optimizer, LearnedOptimizer)
    assert hash(optimizer) == hash(type(optimizer)(**vars(optimizer)))


def test_every_kind_of_tensor(optimizer, make_theta, quick_jit):
    transform = optimizer.transform(make_theta(optimizer))
    state, update = transform.init(KINDS), quick_jit(transform.update)
    for _ in range(2):
        updates, new_state = update(gradient(KINDS), state, KINDS)
        assert kind(updates) == kind(KINDS)
        assert kind(new_state) == kind(state)
        for path, leaf in jax.tree.leaves_with_path((updates, new_state)):
            assert np.isfinite(np.asarray(leaf, np.float32)).all(), path
        state = new_state
    floating = [leaf.dtype for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert set(floating) <= {jnp.dtype(jnp.float32)}
    for path, update in jax.tree.leaves_with_path(updates):
        assert not update.size or np.any(update != 0), path


def test_the_start_does_not_depend_on_theta(optimizer, make_theta):
    """Estimators take the start of an inner problem as given."""
    theta = make_theta(optimizer)

    def start(theta):
        state = optimizer.transform(theta).init(PARAMS)
        return [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)]

    _, tangents = jax.jvp(start, (theta,), (jax.tree.map(jnp.ones_like, theta),))
    assert all((tangent == 0).all() for tangent in tangents)


def test_empty_tree(optimizer, make_theta):
    transform = optimizer.transform(make_theta(optimizer))
    updates, state = transform.update({}, transform.init({}), {})
    assert updates == {}
    assert all(leaf.dtype == jnp.int32 for leaf in jax.tree.leaves(state))


def test_jit_compiles_once_and_agrees(optimizer, make_theta, quick_jit):
    transform = optimizer.transform(make_theta(optimizer))
    traces = []

    @quick_jit
    def update(grads, state, params, value):
        traces.append(1)
        return transform.update(grads, state, params, value=value)

    params = {"w": PARAMS["w"]}
    state = expected_state = transform.init(params)
    for value in (1.0, 2.0, 3.0):
        updates, state = update(gradient(params), state, params, value)
        expected, expected_state = transform.update(gradient(params), expected_state, params)
        np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-4, atol=1e-8)
    assert len(traces) == 1


def test_wide_theta_leaves_state_as_it_was(representative, make_theta, x64):
    """Double-precision meta-parameters with float32 weights, as in a program that turned on x64."""
    transform = representative.transform(make_theta(representative))
    params = jax.tree.map(lambda p: p.astype(jnp.float32), PARAMS)
    state = jax.eval_shape(transform.init, params)
    updates, new_state = jax.eval_shape(transform.update, params, state, params)
    assert kind(updates) == kind(params)
    assert kind(new_state) == kind(state)


def test_scan_and_vmap_over_theta(representative, make_theta, quick_jit):
    thetas = [make_theta(representative, seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *thetas)

    def step(transform, carry):
        params, state = carry
        updates, state = transform.update(gradient(params), state, params)
        return (jax.tree.map(jnp.add, params, updates), state), None

    def unroll(theta):
        transform = representative.transform(theta)
        carry = (PARAMS, transform.init(PARAMS))
        return jax.lax.scan(lambda carry, _: step(transform, carry), carry, None, length=3)[0][0]

    trained = quick_jit(jax.vmap(unroll))(stacked)
    for i, theta in enumerate(thetas):
        transform = representative.transform(theta)
        carry = (PARAMS, transform.init(PARAMS))
        for _ in range(3):
            carry, _ = step(transform, carry)
        for name, start in PARAMS.items():
            moved = carry[0][name] - start
            np.testing.assert_allclose(trained[name][i] - start, moved, rtol=1e-3, atol=1e-7)
            assert np.abs(moved).max() > 1e-5


@pytest.mark.parametrize("star", [Star(), black_box_mlp()])
def test_star_says_that_it_needs_params(star):
    transform = star.transform(star.init(jax.random.key(0)))
    with pytest.raises(ValueError, match=r"update\(grads, state, params\)"):
        transform.update(PARAMS, transform.init(PARAMS))
