"""The stability of optimizers whose limits are known in closed form."""

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
    """Predicted by power iteration along the noise, to a point of the grid, and measured by training in it.

    The limit of Adam is that at a fixed second moment: one that follows the gradients of a run that leaves, as at the
    usual 0.999, holds it back, and the measured limit is 1.45 times as high.
    """
    transform, limit = LIMITS[name]
    if name == "Adam":
        transform = optax.adam(STEP, b1=B1, b2=0.99999)
    grid = limit * np.geomspace(0.4, 2.5, 25)
    at = stability.bath(transform, 4, 30_000, 400, jax.random.key(0))
    predicted = stability.crossing(grid, stability.on_grid(transform, at, grid))
    np.testing.assert_allclose(predicted, limit, rtol=grid[1] / grid[0] - 1)
    measured = stability.crossing(grid, stability.on_grid(transform, at, grid, stability.separation))
    np.testing.assert_allclose(measured, limit, rtol=0.2)


def test_crossings() -> None:
    grid = np.array([1.0, 10.0, 100.0])
    np.testing.assert_allclose(stability.crossing(grid, np.array([0.5, 0.9, 1 / 0.9])), 10**1.5)
    assert stability.crossing(grid, np.array([0.5, 0.9, np.nan])) > 10
    assert stability.crossing(grid, np.array([0.5, 0.9, 0.99])) == float("inf")
    assert stability.crossing(grid, np.array([1.5, 0.9, 0.99])) == 0


def test_growth_of_a_learned_optimizer_is_the_derivative_of_its_steps() -> None:
    """One step in noise: a small deviation of the weights, followed by differences of two runs."""
    star = Star(preconditioner="rms", nominal_scale=0.1)
    transform = star.transform(star.init(jax.random.key(1)))
    with jax.enable_x64(True):
        at = stability.bath(transform, 5, 30, 1, jax.random.key(0))
        curvatures = jnp.geomspace(1, 10, 5)

        def run(deviation):
            gradient = lambda w: curvatures * (w - at.params) + at.noise[0]  # noqa: E731
            return stability.step(transform, gradient, InnerState(at.params + deviation, at.opt_state))

        moved, still = run(1e-6), run(0.0)
        gap = jax.tree.map(lambda a, b: (a - b) / 1e-6, moved, still)
        expected = optax.tree.norm(stability.sensitivity.floats(gap))
        np.testing.assert_allclose(stability.growth(transform, at, curvatures), expected, rtol=1e-4)
