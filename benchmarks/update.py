"""What STAR's `update` costs, beside optax's Adam and a copy of as many bytes."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt import Star
from learned_opt.benchmarks.target import Target
from learned_opt.benchmarks.timing import Clock, interleaved

Shapes = tuple[tuple[int, ...], ...]

BLOCK: Shapes = ((32, 32), (32, 128), (128, 32), (32,), (128,))
TREES: dict[str, Shapes] = {
    "1e4 parameters": ((64, 100), (100,), (100, 32), (32,), (32, 10), (10,)),
    "120 small tensors": BLOCK * 24,
    "1e6 parameters": ((784, 512), (512,), (512, 768), (768,), (768, 128), (3, 3, 64, 128), (128,), (512, 64)),
    "1e7 parameters": (
        *((8192, 512), (512,), (512, 2048), (2048,), (2048, 512), (512,), (512, 2048), (2048,), (2048, 512)),
        *((3, 3, 256, 256), (256,), (1024, 1024), (16, 1024)),
    ),
}
LIMITS = {"120 small tensors": 3.0, "1e6 parameters": 4.0, "1e7 parameters": 4.0}  # of the ratio to Adam
SHORTEST = 0.01  # seconds that are timed at once


class Cost(NamedTuple):
    """One tree: STAR by Adam in seconds of the clock given, median and quartiles; and what it takes.

    moved_bytes: arguments and results, each once. copy_share: the seconds of a copy that moves as many, by STAR's.
    peak_bytes: arguments, results and temporaries.
    """

    tree: str
    parameters: int
    tensors: int
    ratio: float
    lower: float
    upper: float
    seconds: float
    adam_seconds: float
    ns_per_parameter: float
    adam_ns_per_parameter: float
    moved_bytes: int
    gigabytes_per_second: float
    copy_share: float
    compile_seconds: float
    adam_compile_seconds: float
    peak_bytes: int
    adam_peak_bytes: int

    def targets(self) -> list[Target]:
        """The ratio to Adam, on trees that have a limit."""
        if self.tree not in LIMITS:
            return []
        detail = f"quartiles {self.lower:.2f}, {self.upper:.2f}"
        return [Target(f"update by Adam's, {self.tree}", self.ratio, LIMITS[self.tree], detail=detail)]

    def line(self) -> str:
        """For the screen."""
        return (
            f"      {self.tree} ({self.parameters:,} in {self.tensors} tensors): {self.ns_per_parameter:.1f} ns per "
            f"parameter, Adam {self.adam_ns_per_parameter:.1f}; {self.gigabytes_per_second:.1f} GB/s, "
            f"{self.copy_share:.0%} of a copy's; compiled in {self.compile_seconds:.1f} s, Adam in "
            f"{self.adam_compile_seconds:.1f}; peak memory {self.peak_bytes / 2**20:.1f} MiB, Adam "
            f"{self.adam_peak_bytes / 2**20:.1f}"
        )


class Program(NamedTuple):
    """A compiled update with its state donated, as a user's loop has it."""

    run: Callable[[], Any]
    compile_seconds: float
    moved_bytes: int
    peak_bytes: int


def measure(repeats: int, most_parameters: int, clock: Clock, star: Star | None = None) -> Iterator[Cost]:
    """Every tree with at most that many parameters, the smallest first."""
    star = star or Star()
    transform = star.transform(star.init(jax.random.key(0)))
    for tree, shapes in TREES.items():
        if sum(map(math.prod, shapes)) <= 1.1 * most_parameters:
            yield _cost(tree, shapes, transform, repeats, clock)


def _cost(
    tree: str, shapes: Shapes, transform: optax.GradientTransformationExtraArgs, repeats: int, clock: Clock
) -> Cost:
    ours, adam = (program(o, shapes, clock) for o in (transform, optax.with_extra_args_support(optax.adam(1e-3))))
    runs = {"adam": adam.run, "star": ours.run, "copy": _copy(ours.moved_bytes)}
    started = time.perf_counter()
    jax.block_until_ready([run() for run in runs.values()])
    calls = max(1, round(SHORTEST / (time.perf_counter() - started)))
    found = interleaved({name: _several(run, calls) for name, run in runs.items()}, "adam", repeats, clock)
    star, parameters = found["star"], sum(map(math.prod, shapes))
    seconds, adam_seconds = star.seconds / calls, star.floor_seconds / calls
    return Cost(
        tree=tree,
        parameters=parameters,
        tensors=len(shapes),
        ratio=star.median,
        lower=star.lower,
        upper=star.upper,
        seconds=seconds,
        adam_seconds=adam_seconds,
        ns_per_parameter=1e9 * seconds / parameters,
        adam_ns_per_parameter=1e9 * adam_seconds / parameters,
        moved_bytes=ours.moved_bytes,
        gigabytes_per_second=ours.moved_bytes / seconds / 1e9,
        copy_share=found["copy"].median / star.median,
        compile_seconds=ours.compile_seconds,
        adam_compile_seconds=adam.compile_seconds,
        peak_bytes=ours.peak_bytes,
        adam_peak_bytes=adam.peak_bytes,
    )


def program(
    optimizer: optax.GradientTransformationExtraArgs, shapes: Shapes, clock: Clock = time.perf_counter
) -> Program:
    """The update of a tree of tensors of these shapes, compiled."""
    rng = np.random.default_rng(0)
    params, grads = ([jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes] for _ in range(2))
    state = [jax.jit(optimizer.init)(params)]
    started = clock()
    update = jax.jit(optimizer.update, donate_argnums=1).lower(grads, state[0], params).compile()
    taken = clock() - started
    memory: Any = update.memory_analysis()

    def run() -> Any:
        updates, state[0] = update(grads, state[0], params)
        return updates

    moved = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return Program(run, taken, moved, moved + memory.temp_size_in_bytes - memory.alias_size_in_bytes)


def _copy(moved_bytes: int) -> Callable[[], Any]:
    """Reads half of the bytes and writes the other half, in place as an update does: fresh memory costs far more."""
    held = [jnp.ones(max(moved_bytes // 8, 1), jnp.float32)]
    add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def run() -> Any:
        held[0] = add(held[0])
        return held[0]

    return run


def _several(run: Callable[[], Any], calls: int) -> Callable[[], Any]:
    return lambda: [run() for _ in range(calls)][-1]
