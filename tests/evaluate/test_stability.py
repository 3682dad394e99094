"""The stability of optimizers whose limits are known in closed form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt.evaluate import stability
from learned_opt.star import Star
from learned_opt.tasks.training import InnerState

STEP, MU, B1 = 0.1, 0.9, 0.9
# name: (optimizer, largest stable curvature; of Adam divided by the root of its second moment)
LIMITS = {
    "gradient descent": (optax.sgd(STEP), 2 / STEP),
    "heavy ball": (optax.sgd(STEP, momentum=MU), 2 * (1 + MU) / STEP),
    "Adam": (optax.adam(STEP, b1=B1), 2 * (1 + B1) / ((1 - B1) * STEP)),
}


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def radius(transform, curvatures, second_moment=4.0):
    """At the optimum of a quadratic, moments as a long run in noise leaves them."""
    curvatures = jnp.asarray(curvatures)
    params = jnp.zeros(curvatures.shape[0])
    state = transform.init(params)
    if "nu" in str(state):
        state = optax.tree.set(state, nu=jnp.full_like(params, second_moment), count=jnp.array(10**6, jnp.int32))
    hessian = jnp.diag(curvatures) if curvatures.ndim == 1 else curvatures
    return stability.spectral_radius(transform, lambda w: hessian @ w, InnerState(params, state))


@pytest.mark.parametrize("dense", [0, 300])  # Arnoldi iteration, and a matrix that is formed
@pytest.mark.parametrize("name", LIMITS)
def test_limits(name: str, dense: int, float64, monkeypatch) -> None:
    """Stable at 0.999 of the limit and not at 1.001; Adam sees curvature over the root of its second moment, here 2."""
    monkeypatch.setattr(stability, "DENSE", dense)
    transform, limit = LIMITS[name]
    limit = limit * (2.0 if name == "Adam" else 1.0)
    below, above = (radius(transform, np.geomspace(0.1, 1, 20) * limit * share) for share in (0.999, 1.001))
    # The other eigenvalues of Adam are its decay rates, and 1 - step * curvature of the flattest direction.
    assert below < 1 < above


@pytest.mark.parametrize(("dense", "tolerance"), [(0, 0.01), (300, 1e-10)])
def test_radius_of_the_heavy_ball(dense: int, tolerance: float, float64, monkeypatch) -> None:
    """Complex eigenvalues, all of magnitude sqrt(mu), on which Arnoldi iteration does not converge."""
    monkeypatch.setattr(stability, "DENSE", dense)
    found = radius(optax.sgd(STEP, momentum=MU), np.linspace(1, 30, 40))
    np.testing.assert_allclose(found, np.sqrt(MU), rtol=tolerance)


def test_a_fixed_preconditioner(float64, monkeypatch) -> None:
    """`w' = w - (a I + P) H w`, as STAR is analysed in its paper: the spectral radius of `I - (a I + P) H`."""
    monkeypatch.setattr(stability, "DENSE", 0)
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((40, 40))
    hessian, diagonal = matrix @ matrix.T / 40, jnp.asarray(rng.uniform(0, 0.5, 40))
    transform = optax.stateless(lambda updates, params: -(0.1 * updates + diagonal * updates))
    expected = np.abs(np.linalg.eigvals(np.eye(40) - (0.1 + np.asarray(diagonal))[:, None] * hessian)).max()
    np.testing.assert_allclose(radius(transform, hessian), expected, rtol=1e-9)


@pytest.mark.parametrize("name", LIMITS)
def test_largest_stable_curvature_in_noise(name: str, float64) -> None:
    """Predicted from the response, and in training: a deviation dies out below the limit and grows above it."""
    transform, limit = LIMITS[name]

    def both(key: jax.Array) -> tuple[stability.Response, jax.Array]:
        at = stability.bath(transform, 256, 2000, key, rest=1.0)
        run = jax.vmap(lambda h: stability.trial(transform, at, h, key, 200))
        return stability.response(transform, at, 200, key), run(limit * jnp.array([0.9, 1.1]))

    found, (below, above) = jax.jit(both)(jax.random.key(0))
    np.testing.assert_allclose(found.limit(), limit, rtol=0.02)
    assert below < 10 < above


def test_limit_of_a_kernel() -> None:
    """In closed form: gradient descent, delayed by one step, is lost at `1 / step`, on a circle at 60 degrees."""
    for kernel, limit in (([-STEP], 2 / STEP), ([0, -STEP], 1 / STEP), ([STEP], 0.001 / STEP)):
        found = stability.Response(np.array(kernel + [0.0] * 500), jnp.zeros(()))
        growth = 1.001 if limit < 1 else 1.0  # the wrong way is lost at once, by as little as it is steep
        np.testing.assert_allclose(found.limit(growth), limit, rtol=1e-3)
    assert stability.Response(np.zeros(9), jnp.zeros(())).limit() == float("inf")
    assert stability.Response(np.full(9, np.nan), jnp.zeros(())).limit() == 0


def test_response_is_the_derivative_of_updates(quick_jit: Any) -> None:
    """Of a learned optimizer: the mean update 0 and 2 steps after all of the gradient moved alike, by differences."""
    star = Star(preconditioner="rms", nominal_scale=0.1)
    transform = star.transform(star.init(jax.random.key(1)))
    key = jax.random.key(0)

    def both(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        at = stability.bath(transform, 6, 30, key, rest=1.0)
        lead, own = jax.random.split(jax.random.split(key, 1)[0])

        def updates(pushed: jax.Array) -> jax.Array:
            def body(state: Any, now: Any) -> Any:
                key, push = now
                noise = jax.random.normal(key, at.params.shape)
                gradient = at.pull + noise - noise.mean() + push
                update, state = transform.update(gradient, state, at.params)
                return state, update.mean()

            state, _ = jax.lax.scan(body, at.opt_state, (jax.random.split(lead, 2), jnp.zeros(2)))
            return jax.lax.scan(body, state, (jax.random.split(own, 3), pushed * jnp.array([1.0, 0, 0])))[1]

        plus, minus = jax.vmap(updates)(jnp.array([1e-6, -1e-6]))
        return stability.response(transform, at, 3, key, repeats=1, apart=2).kernel, (plus - minus) / 2e-6

    with jax.enable_x64(True):
        found, expected = quick_jit(both)(key)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-10)


def test_pull(float64) -> None:
    """Of an optimizer that adds 0.3 to every gradient: training rests where the gradient is -0.3, at any curvature."""
    biased = optax.chain(optax.stateless(lambda updates, params: updates + 0.3), optax.sgd(STEP, momentum=MU))
    run = jax.jit(lambda rest: stability.bath(biased, 8, 1000, jax.random.key(0), rest).pull)
    np.testing.assert_allclose([run(1.0), run(10.0)], -0.3, rtol=1e-6)


def test_edges() -> None:
    grid = np.geomspace(1, 1e4, 5)
    np.testing.assert_allclose(stability.edge(lambda h: h < 77, grid), 77, rtol=0.05)
    assert stability.edge(lambda h: np.full(h.shape, np.nan) < 1, grid) == 0
    assert stability.edge(lambda h: h < 1e5, grid) == float("inf")
