"""Schedules of 250 steps on the noisy quadratic: greedy, fixed, optimised; and what a look k steps ahead prefers.

Wu et al. 2018, arXiv 1803.02021, figures 1 and 2; all in exact expectation.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize

from learned_opt.evaluate import noisy_quadratic as exact

STEPS = 250
LOOK_AHEAD = (10, 30, 100)  # of the paper's figure 2
RATES = np.geomspace(0.005, 0.198, 400)


class Schedule(NamedTuple):
    """Learning rates, momenta and the excess after each step, `[steps]` all."""

    rates: np.ndarray
    momenta: np.ndarray
    excess: np.ndarray

    @property
    def final(self) -> float:
        """The excess at the end."""
        return float(self.excess[-1])


def greedy() -> Schedule:
    """The best single step, again and again, on the paper's problem."""
    found = exact.follow_greedy(*exact.worst_case(), STEPS)[1]
    return Schedule(*(np.asarray(found[name]) for name in ("rate", "momentum", "excess")))


def optimised(optimizer: optax.GradientTransformation, steps: int = 500) -> Schedule:
    """All rates and momenta by gradient descent on the log of the final excess, from 0.1 and 0.5."""
    spectrum, start = exact.worst_case()
    cap = exact.largest_rate(spectrum, start)

    def project(x: Any) -> Any:
        return jnp.clip(x[0], 0, cap), jnp.clip(x[1], 0, 1)

    def objective(x: Any) -> jax.Array:
        return jnp.log(exact.follow(spectrum, start, *x)[1][-1])

    constant = jnp.full(STEPS, 0.1), jnp.full(STEPS, 0.5)
    return _schedule(*exact.descend(jax.grad(objective), constant, optimizer, steps, project))


def fixed() -> Schedule:
    """The best pair that never changes, by BFGS over its log and logit."""
    spectrum, start = exact.worst_case()

    def constant(x: Any) -> Any:
        return jnp.full(STEPS, jnp.exp(x[0])), jnp.full(STEPS, jax.nn.sigmoid(x[1]))

    def objective(x: Any) -> jax.Array:
        return jnp.log(exact.follow(spectrum, start, *constant(x))[1][-1])

    value, slope = jax.jit(objective), jax.jit(jax.jacfwd(objective))
    found = scipy.optimize.minimize(value, np.array([np.log(0.01), 1.0]), jac=slope, method="BFGS")
    return _schedule(*constant(found.x))


def _schedule(rates: jax.Array, momenta: jax.Array) -> Schedule:
    excess = exact.follow(*exact.worst_case(), rates, momenta)[1]
    return Schedule(np.asarray(rates), np.asarray(momenta), np.asarray(excess))


def schedules() -> dict[str, Schedule]:
    """Greedy, the best fixed pair, and two optimised ones, by name."""
    return {
        "greedy": greedy(),
        "fixed": fixed(),
        "optimised": optimised(optax.adam(0.003)),
        "optimised, decaying": optimised(optax.adam(optax.cosine_decay_schedule(0.02, 500))),
    }


def look_ahead() -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """For every k: the excess by learning rate `RATES` after k steps, and when 50 steps of decay by 0.9 follow them."""
    spectrum, start = exact.worst_case()
    rates, moments = RATES[:, None], start
    found = {}
    for k in range(1, max(LOOK_AHEAD) + 1):
        moments = exact.step(spectrum, moments, rates, 0.0)
        if k in LOOK_AHEAD:
            decayed = moments
            for j in range(1, 51):
                decayed = exact.step(spectrum, decayed, rates * 0.9**j, 0.0)
            found[k] = exact.excess(spectrum, moments), exact.excess(spectrum, decayed)
    return found
