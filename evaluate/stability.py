"""Stability of any optimizer, learned or not: does a small deviation of weights and optimizer state grow?

`x' = Phi(x)` with x the weights and the whole optimizer state. Its linearisation at a point is never formed: it is a
`jvp`, whose eigenvalue of largest magnitude Arnoldi iteration finds (`spectral_radius`), and whose products along a
run are followed by power iteration (`growth`). For gradient descent on curvature h the answer is `h < 2 / step`.

An optimizer that divides by running means has no fixed point to linearise at: where gradients vanish, so do the means.
What is asked instead is what theory asks of Adam (Cohen et al. 2022, arXiv 2207.14484): with its state as minibatch
noise of unit variance leaves it (`Bath`), which curvatures does it stand, in units of noise over distance?
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import scipy.sparse.linalg

from learned_opt import sensitivity
from learned_opt.tasks.base import Batch, Task
from learned_opt.tasks.training import InnerState

DENSE = 300  # Jacobians up to this size are formed
Transform: TypeAlias = optax.GradientTransformation
Gradient = Callable[[Any], Any]  # from weights to the gradient of the loss


class Bath(NamedTuple):
    """An optimizer that has seen nothing but noise: the weights, its state, and the noise that is to come.

    params: N(0, 1) `[dimension]`, the optimum. noise: gradients of unit variance `[window, dimension]`.
    """

    params: jax.Array
    opt_state: Any
    noise: jax.Array


def of_task(task: Task, batch: Batch, key: jax.Array) -> Gradient:
    """The gradient of a task's loss on one fixed batch."""
    return lambda params: jax.grad(task.loss)(params, key, batch)


def step(transform: Transform, gradient: Gradient, state: InnerState) -> InnerState:
    """One step of training, without anything random."""
    updates, opt_state = transform.update(gradient(state.params), state.opt_state, state.params)
    return InnerState(optax.apply_updates(state.params, updates), opt_state)


def spectral_radius(transform: Transform, gradient: Gradient, state: InnerState) -> float:
    """The largest magnitude of an eigenvalue of `d step / d (weights, optimizer state)` at `state`.

    By Arnoldi iteration on products with it, unless it is small. Counters are left as they are. Digits are those of the
    dtype of the state.
    """
    numbers, unravel = jax.flatten_util.ravel_pytree(sensitivity.floats(state))

    def flat(x: jax.Array) -> jax.Array:
        new = step(transform, gradient, sensitivity.merge(unravel(x), state))
        return jax.flatten_util.ravel_pytree(sensitivity.floats(new))[0]

    if numbers.size <= DENSE:
        return float(np.abs(np.linalg.eigvals(np.asarray(jax.jit(jax.jacfwd(flat))(numbers)))).max())
    product = jax.jit(lambda v: jax.jvp(flat, (numbers,), (v.astype(numbers.dtype),))[1])
    operator = scipy.sparse.linalg.LinearOperator(
        (numbers.size, numbers.size), lambda v: np.asarray(product(v.reshape(-1))), dtype=numbers.dtype
    )
    start = np.random.default_rng(0).standard_normal(numbers.size)
    size = min(64, numbers.size - 1)
    tolerance = 100 * float(jnp.finfo(numbers.dtype).eps)
    try:
        found = scipy.sparse.linalg.eigs(
            operator, k=1, ncv=size, v0=start, return_eigenvectors=False, maxiter=200, tol=tolerance
        )
    except scipy.sparse.linalg.ArpackNoConvergence:
        return _power(product, start.astype(numbers.dtype))
    return float(np.abs(found).max())


def _power(product: Callable[[Any], jax.Array], vector: Any, steps: int = 2000) -> float:
    """The mean growth of a vector: for many eigenvalues of one magnitude, which Arnoldi iteration cannot tell apart."""
    logs = []
    for _ in range(steps):
        vector = product(vector)
        norm = jnp.linalg.norm(vector)
        vector = vector / norm
        logs.append(jnp.log(norm))
    return float(jnp.exp(jnp.mean(jnp.stack(logs[steps // 2 :]))))


def bath(
    transform: Transform, dimension: int, steps: int, window: int, key: jax.Array, at: jax.Array | int | None = None
) -> Bath:
    """Runs an optimizer on pure noise for `steps`, its weights held; then says it is step `at`, if it counts."""
    params_key, past_key, key = jax.random.split(key, 3)
    params = jax.random.normal(params_key, (dimension,))

    def body(opt_state: Any, key: jax.Array) -> Any:
        return transform.update(jax.random.normal(key, params.shape), opt_state, params)[1], None

    opt_state, _ = jax.lax.scan(body, transform.init(params), jax.random.split(past_key, steps))
    if at is not None:
        opt_state = jax.tree.map(
            lambda x: jnp.full_like(x, at) if jnp.issubdtype(jnp.result_type(x), jnp.integer) else x, opt_state
        )
    return Bath(params, opt_state, jax.random.normal(key, (window, dimension)))


def growth(transform: Transform, at: Bath, curvatures: jax.Array) -> jax.Array:
    """The factor by which a small deviation from the optimum grows in one step, on average over the bath's noise.

    The loss is `1/2 sum h_i (w_i - optimum_i)^2`; below 1 is stable. For a linear optimizer this is the spectral
    radius. Weights are put back to the optimum after every step, so that the state stays as noise
    leaves it; deviations are followed for the window, the first quarter of which is for the direction to settle.
    """

    def one(opt_state: Any, tangent: Any, noise: jax.Array) -> Any:
        def flow(params: jax.Array, numbers: Any) -> Any:
            gradient = curvatures * (params - at.params) + noise
            updates, new = transform.update(gradient, sensitivity.merge(numbers, opt_state), params)
            return (params + updates, sensitivity.floats(new)), new

        primals = at.params, sensitivity.floats(opt_state)
        _, tangent, new = jax.jvp(flow, primals, tangent, has_aux=True)
        norm = optax.tree.norm(tangent)
        return new, jax.tree.map(lambda x: x / norm, tangent), jnp.log(norm)

    def body(carry: Any, noise: jax.Array) -> Any:
        opt_state, tangent = carry
        opt_state, tangent, log = one(opt_state, tangent, noise)
        return (opt_state, tangent), log

    start = jnp.ones_like(at.params), jax.tree.map(jnp.zeros_like, sensitivity.floats(at.opt_state))
    logs = jax.lax.scan(body, (at.opt_state, start), at.noise)[1]
    return jnp.exp(logs[len(logs) // 4 :].mean())


def separation(transform: Transform, at: Bath, curvatures: jax.Array) -> jax.Array:
    """The same measured: by what factor a step pulls apart two runs of training that see the same noise.

    Nothing is held or linearised: both start at the optimum, a hundred-thousandth apart, and move as training does.
    """
    distance = 1e-5 * jnp.sqrt(float(at.params.size))

    def body(states: InnerState, noise: jax.Array) -> Any:
        def one(state: InnerState) -> InnerState:
            return step(transform, lambda params: curvatures * (params - at.params) + noise, state)

        return jax.vmap(one)(states), None

    pair = jax.tree.map(lambda x: jnp.stack([x, x]), InnerState(at.params, at.opt_state))
    pair = pair._replace(params=pair.params.at[1].add(1e-5))
    end, _ = jax.lax.scan(body, pair, at.noise)
    return (jnp.linalg.norm(end.params[0] - end.params[1]) / distance) ** (1 / len(at.noise))


def on_grid(transform: Transform, at: Bath, grid: np.ndarray, measure: Callable[..., jax.Array] = growth) -> jax.Array:
    """`measure` for every curvature of the grid, the same for all coordinates. Traceable."""
    curvatures = jnp.asarray(grid, at.params.dtype)[:, None] * jnp.ones_like(at.params)
    return jax.vmap(lambda h: measure(transform, at, h))(curvatures)


def crossing(grid: np.ndarray, found: jax.Array, limit: float = 1.0) -> float:
    """The curvature at which a measure first exceeds `limit`, interpolated on an ascending grid.

    Below the grid: 0; above: infinity. What is not finite exceeds every limit.
    """
    values = np.asarray(found, float)
    over = ~(values <= limit)
    if not over.any():
        return float("inf")
    first = int(over.argmax())
    if first == 0:
        return 0.0
    if not np.isfinite(values[first]):
        return float(np.sqrt(grid[first - 1] * grid[first]))
    low, high = np.log(np.maximum(values[first - 1 : first + 1], 1e-3 * limit) / limit)
    share = low / (low - high)
    return float(np.exp((1 - share) * np.log(grid[first - 1]) + share * np.log(grid[first])))
