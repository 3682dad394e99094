"""Milliseconds for an update of the shipped `star`, of optax's Adam and Muon, and for a gradient, of four MLPs.

taskset -c 0 python examples/step_cost.py   # one CPU core, two minutes; medians of rounds in turn
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import optax
from ten_million import BATCH, init, loss

import learned_opt

NETWORKS = ((64, 32, 10), (784, 128, 10), (784, 512, 512, 10), (1024, 1024, 1024, 10))
ROUNDS = 9


def updater(optimizer: optax.GradientTransformation, params: Any, grads: Any) -> Callable[[], Any]:
    """One more update whenever called, of a state that stays in place."""
    update = jax.jit(optimizer.update, donate_argnums=1)
    states = [optimizer.init(params)]

    def once() -> Any:
        updates, states[0] = update(grads, states[0], params)
        return updates

    return once


def seconds(once: Callable[[], Any], least: float = 0.05) -> float:
    """Of one call, over as many as take a twentieth of a second."""
    calls, started = 0, time.perf_counter()
    while not calls or time.perf_counter() - started < least:
        jax.block_until_ready(once())
        calls += 1
    return (time.perf_counter() - started) / calls


def costs(sizes: tuple[int, ...]) -> dict[str, float]:
    """Milliseconds by name."""
    params = init(jax.random.key(0), sizes)
    images = jax.random.normal(jax.random.key(1), (BATCH, sizes[0]))
    labels = jax.random.randint(jax.random.key(2), (BATCH,), 0, sizes[-1])
    gradient = jax.jit(jax.grad(loss))
    grads = gradient(params, images, labels)
    ways = {
        "star": updater(learned_opt.load("star"), params, grads),
        "Adam": updater(optax.adam(1e-3), params, grads),
        "Muon": updater(optax.contrib.muon(1e-3), params, grads),
        "gradient": lambda: gradient(params, images, labels),
    }
    for once in ways.values():
        jax.block_until_ready(once())  # compiles
    rounds = [{name: seconds(once) for name, once in ways.items()} for _ in range(ROUNDS)]
    return {name: 1e3 * statistics.median(took[name] for took in rounds) for name in ways}


if __name__ == "__main__":
    for sizes in NETWORKS:
        found = ", ".join(f"{name} {ms:.3g} ms" for name, ms in costs(sizes).items())
        print(f"{'-'.join(map(str, sizes))}: {found}", flush=True)
