"""`w' = w - (a I + P) H (w - c)` in random centres c: the dynamics of STAR's analysis (arXiv 2209.11208, section 3)."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt.evaluate import stability
from learned_opt.evaluate.reproduce.rows import Row
from learned_opt.tasks.training import InnerState


def rows(seed: int) -> Iterator[Row]:
    """The spectral radius of a step, and where runs diverge."""
    rng = np.random.default_rng(seed)
    size, steps = stability.DENSE + 100, 4000  # so that no Jacobian is formed
    matrix = rng.standard_normal((size, size))
    hessian, preconditioner = matrix @ matrix.T / size, 0.1 + rng.uniform(0, 0.5, size)
    transform = optax.stateless(lambda updates, params: -jnp.asarray(preconditioner) * updates)
    state = InnerState(jnp.zeros(size), transform.init(jnp.zeros(size)))
    found = stability.spectral_radius(transform, lambda w: jnp.asarray(hessian) @ w, state)
    step = preconditioner[:, None] * hessian
    exact = float(np.abs(np.linalg.eigvals(np.eye(size) - step)).max())
    off = abs(found / exact - 1)
    what = f"spectral radius of I - (a I + P) H, {size} weights, Arnoldi against all eigenvalues"
    yield Row("STAR-1", what, "relative error <= 1e-8", f"{off:.0e}", off <= 1e-8)

    few = 40
    step = step[:few, :few]
    wanted = 2 / float(np.abs(np.linalg.eigvals(step)).max())

    def stable(scales: np.ndarray) -> np.ndarray:
        return np.asarray(distances(jnp.asarray(step), jnp.asarray(scales), jax.random.key(seed), steps)) < 1e6

    edge = stability.edge(stable, wanted * np.linspace(0.5, 1.5, 101))
    off = abs(edge / wanted - 1)
    what = (
        f"(a I + P) H in noise, {few} weights, {steps} steps: the scale of H at which the radius is 1 and runs diverge"
    )
    yield Row("STAR-2", what, "within 1 % of each other", f"{wanted:.4f}; {edge:.4f}", off <= 0.01)


@functools.partial(jax.jit, static_argnums=3)
def distances(matrix: jax.Array, scales: jax.Array, key: jax.Array, steps: int) -> jax.Array:
    """The largest squared distance on the way of `w' = w - scale * matrix (w - c)`, in random centres c."""

    def one(scale: jax.Array) -> jax.Array:
        def body(weights: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            weights = weights - scale * matrix @ (weights - jax.random.normal(key, weights.shape))
            return weights, jnp.square(weights).sum()

        return jax.lax.scan(body, jnp.zeros(len(matrix)), jax.random.split(key, steps))[1].max()

    return jax.vmap(one)(scales)
