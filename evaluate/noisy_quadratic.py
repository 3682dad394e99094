"""The exact course of SGD with momentum on a noisy quadratic (Wu et al. 2018, arXiv 1803.02021, theorems 1 and 2).

`v' = mu v - alpha g`, `w' = w + v'`, with gradients `g = h (w - c)` and centres `c ~ N(0, sigma^2)` drawn anew for each
step: expected losses need nothing but second moments, and those follow from each other. `tasks/noisy_quadratic.py` is
the same problem, sampled.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt.tasks.noisy_quadratic import NoisyQuadratic

Array = Any  # of numpy or JAX, real or complex: the moments are polynomials in everything


class Spectrum(NamedTuple):
    """Curvatures h `[dimension]`, and variances sigma^2 of the centres `[dimension]`."""

    curvatures: Array
    variances: Array


class Moments(NamedTuple):
    """`E[w^2]`, `E[w v]` and `E[v^2]` of every coordinate, `[..., dimension]`."""

    weight: Array
    cross: Array
    velocity: Array


def exact(task: NoisyQuadratic) -> tuple[Spectrum, Moments]:
    """The spectrum of a task, and the moments at its start."""
    return Spectrum(task.curvatures, jnp.square(task.deviations)), at_rest(jnp.square(task.start))


def at_rest(weight: Array) -> Moments:
    """Moments of weights that do not move yet."""
    return Moments(weight, 0 * weight, 0 * weight)


def worst_case(dimension: int = 1000, low: float = 0.05, high: float = 10.0) -> tuple[Spectrum, Moments]:
    """The paper's problem: curvatures at Chebyshev nodes of [low, high], variances 1 / h, `E[w^2]` = 10; float64."""
    angles = (2 * np.arange(1, dimension + 1) - 1) * np.pi / (2 * dimension)
    curvatures = (high + low) / 2 - (high - low) / 2 * np.cos(angles)
    return Spectrum(curvatures, 1 / curvatures), at_rest(np.full(dimension, 10.0))


def step(spectrum: Spectrum, moments: Moments, rate: Array, momentum: Array) -> Moments:
    """After one step at learning rate alpha and momentum mu (theorem 1, in raw moments)."""
    h, variances = spectrum
    a, b, d = moments
    velocity = momentum**2 * d + (rate * h) ** 2 * (a + variances) - 2 * momentum * rate * h * b
    drift = momentum * b - rate * h * a
    return Moments(a + 2 * drift + velocity, drift + velocity, velocity)


def excess(spectrum: Spectrum, moments: Moments) -> Array:
    """The expected loss above `1/2 sum h sigma^2`, which no weights avoid: what the paper's figures show."""
    return 0.5 * (spectrum.curvatures * moments.weight).sum(-1)


def greedy(spectrum: Spectrum, moments: Moments) -> tuple[jax.Array, jax.Array]:
    """The rate and momentum with the least loss after one step (theorem 2); momentum 0 where nothing moves."""
    h, variances = spectrum
    a, b, d = moments
    p, q, r = jnp.sum(h**2 * a), jnp.sum(h**3 * (a + variances)), jnp.sum(h * d)
    s1, s2 = jnp.sum(h * b), jnp.sum(h**2 * b)
    still = r == 0
    safe = jnp.where(still, 1, r)
    rate = jnp.where(still, p / q, (p * r - s1 * s2) / jnp.where(still, 1, q * r - s2**2))
    return rate, jnp.where(still, 0, -(s1 - rate * s2) / safe)


def largest_rate(spectrum: Spectrum, moments: Moments) -> Array:
    """Beyond it a step without momentum raises the loss in some direction: `min 2 a / (h (a + s^2))`, the cap."""
    h, variances = spectrum
    return (2 * moments.weight / (h * (moments.weight + variances))).min()


def follow(spectrum: Spectrum, moments: Moments, rates: jax.Array, momenta: jax.Array) -> tuple[Moments, jax.Array]:
    """The moments at the end of schedules `[steps]`, and the excess after every step `[steps]`. Traceable."""

    def body(moments: Moments, now: tuple[jax.Array, jax.Array]) -> tuple[Moments, jax.Array]:
        moments = step(spectrum, moments, *now)
        return moments, excess(spectrum, moments)

    return jax.lax.scan(body, jax.tree.map(jnp.asarray, moments), (rates, momenta))


def follow_greedy(spectrum: Spectrum, moments: Moments, steps: int) -> tuple[Moments, dict[str, jax.Array]]:
    """The moments at the end of the greedy schedule, and its `rate`, `momentum` and `excess` at every step."""

    def body(moments: Moments, _: None) -> tuple[Moments, dict[str, jax.Array]]:
        rate, momentum = greedy(spectrum, moments)
        moments = step(spectrum, moments, rate, momentum)
        return moments, {"rate": rate, "momentum": momentum, "excess": excess(spectrum, moments)}

    return jax.lax.scan(body, jax.tree.map(jnp.asarray, moments), None, steps)


def descend(
    gradient: Callable[[Any], Any],
    start: Any,
    optimizer: optax.GradientTransformation,
    steps: int,
    project: Callable[[Any], Any] = lambda x: x,
) -> Any:
    """Where gradient descent on schedules arrives: all steps in one program, each followed by `project`."""

    def body(carry: Any, _: None) -> Any:
        x, state = carry
        updates, state = optimizer.update(gradient(x), state, x)
        return (project(optax.apply_updates(x, updates)), state), None

    return jax.jit(lambda x: jax.lax.scan(body, (x, optimizer.init(x)), None, steps)[0][0])(start)
