"""Stability of any optimizer, learned or not: does a small deviation of weights and optimizer state grow?

`x' = Phi(x)` with x the weights and the whole optimizer state. Its linearisation at a point is never formed: it is a
`jvp`, whose eigenvalue of largest magnitude Arnoldi iteration finds (`spectral_radius`). For gradient descent on
curvature h the answer is `h < 2 / step`.

An optimizer that divides by running means has no fixed point to linearise at: where gradients vanish, so do the means.
What is asked instead is what theory asks of Adam (Cohen et al. 2022, arXiv 2207.14484): with its state as minibatch
noise of unit variance leaves it (`Bath`), which curvatures does it stand, in units of noise over distance? The
problem is one sharp direction spread evenly over n weights, `1/2 h n mean(w - optimum)^2`: noise in the other
directions keeps running means and a network's normalised inputs where they are, so that updates answer to a small
gradient as they do on no curvature (`response`), on average over many weights. Closing that loop is a prediction;
`trial` measures it: training along that direction, in which nothing is linearised or averaged. Both hold the weights
in all other directions, where a black box may carry them anywhere.
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
    """An optimizer at rest in noise: the weights `[dimension]`, its state, and the mean gradient there, its pull.

    The pull, in units of the noise, is what it takes to hold against updates that do not vanish on average. A state
    without it is not the one to linearise at: a tenth of the noise is much to a slow momentum.
    """

    params: jax.Array
    opt_state: Any
    pull: jax.Array


class Response(NamedTuple):
    """What the mean update owes to a gradient that was the same for all weights, k steps before: `kernel` `[steps]`.

    by_weight: to the weights at the same step.
    """

    kernel: jax.Array
    by_weight: jax.Array

    def limit(self, growth: float = 1.0) -> float:
        """The smallest curvature h at which deviations grow by this factor a step: infinity if none, 0 if not finite.

        Deviations z^t need `z - 1 = h sum_k kernel_k z^-k + by_weight`: where h is real on the circle of that radius.
        """
        if not np.isfinite(self.kernel).all():
            return 0.0
        size = 8 * len(self.kernel)
        circle = growth * np.exp(1j * np.linspace(0, np.pi, size // 2 + 1))
        gain = np.fft.rfft(np.asarray(self.kernel) * growth ** -np.arange(len(self.kernel)), size)
        with np.errstate(all="ignore"):  # no curvature reaches updates that do not answer
            curvature = (circle - 1 - float(self.by_weight)) / gain
        real, imaginary = curvature.real, curvature.imag
        crosses = np.flatnonzero((imaginary[1:-2] * imaginary[2:-1] < 0) & (real[1:-2] > 0) & (real[2:-1] > 0)) + 1
        found = [real[0], real[-1], *np.minimum(real[crosses], real[crosses + 1])]
        return float(min((h for h in found if h > 0), default=np.inf))


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
    transform: Transform, dimension: int, steps: int, key: jax.Array, rest: float, at: jax.Array | int | None = None
) -> Bath:
    """Trains for `steps` on a curvature `rest` that should be stable, up to inner step `at` for what counts them.

    Optima are N(0, 1). The pull is that of the last quarter.
    """
    params_key, key = jax.random.split(key)
    optimum = jax.random.normal(params_key, (dimension,))
    opt_state = transform.init(optimum)
    if at is not None:
        first = jnp.asarray(at) - steps
        opt_state = jax.tree.map(
            lambda x: jnp.full_like(x, first) if jnp.issubdtype(jnp.result_type(x), jnp.integer) else x, opt_state
        )
    state, course = _train(transform, InnerState(optimum, opt_state), lambda moved: rest * moved, steps, key)
    return Bath(state.params, state.opt_state, rest * course[-(steps // 4) :].mean())


def response(
    transform: Transform, at: Bath, steps: int, key: jax.Array, repeats: int = 2, apart: int = 200
) -> Response:
    """By a `jvp` along each of several stretches of noise, which begin `apart` steps after the bath."""

    def one(key: jax.Array) -> Response:
        lead, key = jax.random.split(key)

        def wait(opt_state: Any, key: jax.Array) -> Any:
            return transform.update(at.pull + _noise(key, at.params), opt_state, at.params)[1], None

        start, _ = jax.lax.scan(wait, at.opt_state, jax.random.split(lead, apart))

        def body(carry: Any, now: Any) -> Any:
            opt_state, tangent = carry
            key, pushed = now
            gradient = at.pull + _noise(key, at.params)

            def flow(numbers: Any, gradient: jax.Array) -> Any:
                updates, new = transform.update(gradient, sensitivity.merge(numbers, opt_state), at.params)
                return (updates.mean(), sensitivity.floats(new)), new

            primals, tangents = (sensitivity.floats(opt_state), gradient), (tangent, jnp.full_like(gradient, pushed))
            _, (answer, tangent), new = jax.jvp(flow, primals, tangents, has_aux=True)
            return (new, tangent), answer

        def by_weight(params: jax.Array) -> jax.Array:
            return transform.update(at.pull + _noise(key, at.params), start, params)[0].mean()

        impulse = jnp.zeros(steps, at.params.dtype).at[0].set(1)
        still = jax.tree.map(jnp.zeros_like, sensitivity.floats(start))
        kernel = jax.lax.scan(body, (start, still), (jax.random.split(key, steps), impulse))[1]
        return Response(kernel, jax.jvp(by_weight, (at.params,), (jnp.ones_like(at.params),))[1])

    return jax.tree.map(lambda x: x.mean(0), jax.vmap(one)(jax.random.split(key, repeats)))


def trial(transform: Transform, at: Bath, curvature: jax.Array, key: jax.Array, steps: int) -> jax.Array:
    """By what factor a small deviation grows at its worst, in training on from the bath on some curvature.

    Two runs see the same noise, one a billionth beside the other. What grew and was caught by second moments has grown.
    """

    def run(beside: jax.Array) -> jax.Array:
        def gradient(deviation: jax.Array) -> jax.Array:
            return at.pull + curvature * deviation

        return _train(transform, InnerState(at.params, at.opt_state), gradient, steps, key, beside)[1]

    still, beside = jax.vmap(run)(jnp.array([0.0, 1e-9]))
    return jnp.abs(beside - still).max() / 1e-9


def _train(
    transform: Transform,
    state: InnerState,
    gradient: Gradient,
    steps: int,
    key: jax.Array,
    start: jax.Array | float = 0.0,
) -> tuple[InnerState, jax.Array]:
    """Training along the direction that all weights share, in noise: the end, and deviations from `state` `[steps]`.

    gradient: its mean by the deviation, which begins at `start`.
    """
    origin = state.params

    def body(carry: Any, key: jax.Array) -> Any:
        deviation, opt_state = carry
        params = origin + deviation
        updates, opt_state = transform.update(gradient(deviation) + _noise(key, origin), opt_state, params)
        deviation = deviation + updates.mean()
        return (deviation, opt_state), deviation

    begin = jnp.asarray(start, origin.dtype), state.opt_state
    (deviation, opt_state), course = jax.lax.scan(body, begin, jax.random.split(key, steps))
    return InnerState(origin + deviation, opt_state), course


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
