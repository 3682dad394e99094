"""Derivatives of an unroll with respect to theta: reverse mode, forward mode and finite differences agree."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt import LearnableAdam, Star, StepSize

STEPS = 5


def final_loss(optimizer, theta):
    """The loss of a small curved problem after a few steps, in the precision of `theta`."""
    dtype = jax.tree.leaves(theta)[0].dtype
    target = jnp.linspace(-2, 2, 6, dtype=dtype).reshape(3, 2)

    def loss(params):
        return jnp.sum(jnp.square(params - target)) + jnp.sum(jnp.cos(params))

    transform = optimizer.transform(theta)

    def step(carry, _):
        params, state = carry
        updates, state = transform.update(jax.grad(loss)(params), state, params)
        return (params + updates, state), None

    start = jnp.zeros_like(target)
    return loss(jax.lax.scan(step, (start, transform.init(start)), None, length=STEPS)[0][0])


def directions_of(theta):
    """One random direction for each leaf of theta, zero elsewhere, stacked: no leaf hides behind another."""
    leaves, structure = jax.tree.flatten(theta)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    rows = [
        [jax.random.normal(keys[j], x.shape, x.dtype) * (i == j) for i in range(len(leaves))]
        for j, x in enumerate(leaves)
    ]
    return structure.unflatten([jnp.stack(row) for row in rows])


def strong(optimizer):
    """The same optimizer with large steps, so that every leaf of theta moves the loss by much more than rounding."""
    if isinstance(optimizer, LearnableAdam):
        return dataclasses.replace(optimizer, learning_rate=0.1, eps=1e-2)
    if isinstance(optimizer, StepSize):
        return optimizer
    decay = 0.1 if optimizer.weight_decay else 0.0
    return dataclasses.replace(
        optimizer, step_scale=0.1, nominal_scale=0.02, exponent_scale=0.5, weight_decay=decay, feature_eps=1e-3
    )


def unsaturate(theta):
    """Away from where a leaf does not count.

    The few steps taken here agree so well that the tanh of the controller is flat at its starting weights; and a second
    moment that would forget sooner than a momentum is held to that.
    """
    if "decays" in theta:
        theta["decays"]["second_moment"] -= 0.1
    if "controller" in theta:
        theta["controller"]["alignments"] -= 0.48


def test_reverse_forward_and_finite_differences_agree(representative, make_theta, quick_jit, x64):
    optimizer = strong(representative)
    theta = make_theta(optimizer)
    unsaturate(theta)
    directions = directions_of(theta)
    f = functools.partial(final_loss, optimizer)
    gradient = quick_jit(jax.grad(f))(theta)
    reverse = sum(
        jnp.tensordot(d, g, g.ndim) for d, g in zip(jax.tree.leaves(directions), jax.tree.leaves(gradient), strict=True)
    )
    forward = quick_jit(jax.vmap(lambda d: jax.jvp(f, (theta,), (d,))[1]))(directions)
    moved = quick_jit(lambda h: jax.vmap(lambda d: f(jax.tree.map(lambda t, x: t + h * x, theta, d)))(directions))
    h = 1e-5
    numeric = (moved(h) - moved(-h)) / (2 * h)
    assert (np.abs(forward) > 1e-5).all(), "a leaf of theta hardly matters here"
    np.testing.assert_allclose(reverse, forward, rtol=1e-9)
    np.testing.assert_allclose(numeric, forward, rtol=1e-4, atol=1e-8)


DEAD = [Star(), Star(aligned=True), Star(preconditioner="rms", average_magnitude=True), LearnableAdam()]


@pytest.mark.parametrize("optimizer", DEAD, ids=["star", "aligned", "rms", "adam"])
def test_parameters_without_gradient_leave_meta_gradients_finite(optimizer, quick_jit):
    """A dead tensor, a dead row, and a tensor without elements, in float32."""
    params = {"w": jnp.ones((2, 3)), "empty": jnp.zeros((0, 3))}

    def moved(theta, grad):
        transform = optimizer.transform(theta)
        grads = {"w": grad, "empty": params["empty"]}
        updates, state = transform.update(grads, transform.init(params), params)
        updates, state = transform.update(grads, state, params)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves((updates, state)))

    theta = jax.tree.map(lambda x: x + 0.01, optimizer.init(jax.random.key(0)))  # layers that start at zero hide others
    unsaturate(theta)
    grads = jnp.stack([jnp.zeros((2, 3)), jnp.ones((2, 3)).at[0].set(0), jnp.ones((2, 3))])
    for path, leaf in jax.tree.leaves_with_path(quick_jit(jax.vmap(jax.grad(moved), (None, 0)))(theta, grads)):
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf[-1] != 0), path
