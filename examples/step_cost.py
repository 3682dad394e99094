"""Milliseconds for an update of the shipped `star`, of optax's Adam and Muon, and for a gradient, of four MLPs.

taskset -c 0 python examples/step_cost.py   # one CPU core, a minute and a half; medians of rounds in turn
"""

import jax
import optax
from ten_million import BATCH, init, loss

import learned_opt
from learned_opt.benchmarks.timing import interleaved
from learned_opt.benchmarks.update import program

NETWORKS = ((64, 32, 10), (784, 128, 10), (784, 512, 512, 10), (1024, 1024, 1024, 10))
ROUNDS = 20


def costs(sizes: tuple[int, ...]) -> dict[str, float]:
    """Milliseconds by name."""
    params = init(jax.random.key(0), sizes)
    images = jax.random.normal(jax.random.key(1), (BATCH, sizes[0]))
    labels = jax.random.randint(jax.random.key(2), (BATCH,), 0, sizes[-1])
    gradient = jax.jit(jax.grad(loss))
    optimizers = {"star": learned_opt.load("star"), "Adam": optax.adam(1e-3), "Muon": optax.contrib.muon(1e-3)}
    shapes = tuple(x.shape for x in jax.tree.leaves(params))
    runs = {name: program(optax.with_extra_args_support(o), shapes).run for name, o in optimizers.items()}
    found = interleaved(runs | {"gradient": lambda: gradient(params, images, labels)}, "gradient", ROUNDS)
    seconds = {name: ratio.seconds for name, ratio in found.items()} | {"gradient": found["star"].floor_seconds}
    return {name: 1e3 * taken for name, taken in seconds.items()}


if __name__ == "__main__":
    for sizes in NETWORKS:
        found = ", ".join(f"{name} {ms:.3g} ms" for name, ms in costs(sizes).items())
        print(f"{'-'.join(map(str, sizes))}: {found}", flush=True)
