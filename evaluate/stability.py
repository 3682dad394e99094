"""Stability of any optimizer, learned or not: does a small deviation of weights and optimizer state grow?

`x' = Phi(x)` with x the weights and the whole optimizer state. Its linearisation at a point is never formed: it is a
`jvp`, whose eigenvalue of largest magnitude Arnoldi iteration finds (`spectral_radius`). For gradient descent on
curvature h the answer is `h < 2 / step`.

An optimizer that divides by running means has no fixed point to linearise at: where gradients vanish, so do the means.
What is asked instead is what theory asks of Adam (Cohen et al. 2022, arXiv 2207.14484): with its state as minibatch
noise of unit variance leaves it (`Bath`), which curvatures does it stand, in units of noise over distance? The
problem is one sharp direction spread evenly over many weights, `1/2 h n mean(w - optimum)^2` over n weights:

- noise in the other directions keeps every running mean and every normalised input of a network where it is, so that
  a small deviation, the same for all weights, follows the derivative of a step averaged over the noise (`mean_step`);
- it becomes exact with many weights and slow statistics, in which it holds second moments: it leaves out that what the
  deviation does to them is correlated with the noise that they have seen, a part `1 - decay` of it;
- `trial` is the same measured: nothing is held, linearised or averaged.
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


class MeanStep(NamedTuple):
    """A step, linearised about a bath and averaged over its noise, for what is the same for all weights.

    The k numbers are the weight, and what the state holds for each weight. state: `[k, k]`, their derivatives with
    respect to each other at a fixed gradient, new by old. gradient: `[k]`, with respect to the gradient. drift: `[]`,
    the mean update.
    """

    state: jax.Array
    gradient: jax.Array
    drift: jax.Array

    def radius(self, curvatures: np.ndarray) -> np.ndarray:
        """The spectral radius at each curvature."""
        matrices = np.repeat(np.asarray(self.state)[None], len(curvatures), 0)
        matrices[:, :, 0] += curvatures[:, None] * np.asarray(self.gradient)
        return np.abs(np.linalg.eigvals(matrices)).max(-1)

    @property
    def pull(self) -> float:
        """The mean gradient at which training comes to rest, in units of the noise: what holds against the drift."""
        state, gradient = np.asarray(self.state, float), np.asarray(self.gradient, float)
        settled = np.linalg.solve(np.eye(len(state) - 1) - state[1:, 1:], gradient[1:])
        return float(-self.drift / (gradient[0] + state[0, 1:] @ settled))


class Trial(NamedTuple):
    """Training in the bath: by what factor a deviation grew at its worst; the mean gradient at the end."""

    growth: jax.Array
    pull: jax.Array


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
        return transform.update(_noise(key, params), opt_state, params)[1], None

    opt_state, _ = jax.lax.scan(body, transform.init(params), jax.random.split(past_key, steps))
    if at is not None:
        opt_state = jax.tree.map(
            lambda x: jnp.full_like(x, at) if jnp.issubdtype(jnp.result_type(x), jnp.integer) else x, opt_state
        )
    return Bath(params, opt_state, jax.vmap(lambda key: _noise(key, params))(jax.random.split(key, window)))


def mean_step(transform: Transform, at: Bath) -> MeanStep:
    """The mean over the window and over the weights, one `jvp` for each of the numbers and one for the gradient.

    Every floating-point array of the optimizer's state must have the weights as its last axis.
    """
    leaves, structure = jax.tree.flatten(sensitivity.floats(InnerState(at.params, at.opt_state)))
    size = at.params.size
    ends = np.cumsum([leaf.size // size for leaf in leaves])

    def spread(numbers: jax.Array) -> Any:
        parts = zip(jnp.split(numbers, ends[:-1]), leaves, strict=True)
        return jax.tree.unflatten(structure, [jnp.repeat(part, size).reshape(leaf.shape) for part, leaf in parts])

    def body(opt_state: Any, noise: jax.Array) -> Any:
        state = InnerState(at.params, opt_state)

        def flow(numbers: Any, gradient: jax.Array) -> Any:
            updates, new = transform.update(gradient, sensitivity.merge(numbers.opt_state, opt_state), numbers.params)
            return sensitivity.floats(InnerState(numbers.params + updates, new)), (new, updates)

        def push(column: jax.Array) -> Any:
            tangent = spread(column[:-1]), jnp.full_like(noise, column[-1])
            _, pushed, aux = jax.jvp(flow, (sensitivity.floats(state), noise), tangent, has_aux=True)
            return jnp.concatenate([leaf.reshape(-1, size).mean(1) for leaf in jax.tree.leaves(pushed)]), aux

        columns = jnp.eye(int(ends[-1]) + 1, dtype=at.params.dtype)
        pushed, (new, updates) = jax.vmap(push, out_axes=(0, None))(columns)
        return new, (pushed.T, updates.mean())

    found, drift = jax.tree.map(lambda x: x.mean(0), jax.lax.scan(body, at.opt_state, at.noise)[1])
    return MeanStep(found[:, :-1], found[:, -1], drift)


def trial(transform: Transform, at: Bath, curvature: jax.Array, key: jax.Array, steps: int) -> Trial:
    """Two runs of training on the sharp direction that see the same noise, all weights of one a little beside.

    How far apart their mean weights come, by how far they were, at the worst of all steps: what grew and was caught by
    second moments has grown. The pull is that of the second half.
    """
    beside = 1e-6

    def body(states: InnerState, key: jax.Array) -> Any:
        noise = _noise(key, at.params)

        def one(state: InnerState) -> InnerState:
            return step(transform, lambda params: curvature * (params - at.params).mean() + noise, state)

        states = jax.vmap(one)(states)
        return states, (states.params - at.params).mean(1)

    pair = jax.tree.map(lambda x: jnp.stack([x, x]), InnerState(at.params, at.opt_state))
    pair = pair._replace(params=pair.params.at[1].add(beside))
    course = jax.lax.scan(body, pair, jax.random.split(key, steps))[1]
    growth = jnp.abs(course[:, 1] - course[:, 0]) / beside
    return Trial(growth.max(), curvature * course[steps // 2 :, 0].mean())


def edge(stable: Callable[[np.ndarray], np.ndarray], grid: np.ndarray) -> float:
    """Where, going up an ascending grid, stability is first lost; by finer and finer grids of as many points, to 5 %.

    0: the first point is unstable; infinity: none is.
    """
    points = len(grid)
    while True:
        lost = ~np.asarray(stable(grid), bool)
        if not lost.any():
            return float("inf")
        first = int(lost.argmax())
        if first == 0:
            return 0.0
        below, above = grid[first - 1 : first + 1]
        if above / below < 1.05:
            return float(np.sqrt(below * above))
        grid = np.geomspace(below, above, points)


def _noise(key: jax.Array, params: jax.Array) -> jax.Array:
    """Of unit variance, and none in the direction that all weights share."""
    noise = jax.random.normal(key, params.shape, params.dtype)
    return noise - noise.mean()
