"""The overhead of `metaoptimize` over its base, in a training step of an MLP."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt import metaoptimize
from learned_opt.benchmarks.target import Target
from learned_opt.benchmarks.timing import interleaved

SIZES = (304, 768, 768, 256, 10)  # 1,024,010 weights
BATCH = 128
LIMIT = 1.13  # the paper's best case
BASE = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.1))


class Measured(NamedTuple):
    """One line of the report."""

    name: str
    ratio: float
    lower: float
    upper: float
    step_seconds: float
    floor_seconds: float

    def targets(self) -> list[Target]:
        """The ratio."""
        return [
            Target(
                f"step of {self.name} by AdamW's",
                self.ratio,
                LIMIT,
                detail=f"quartiles {self.lower:.3f}, {self.upper:.3f}",
            )
        ]

    def line(self) -> str:
        """For the screen."""
        return f"      {self.step_seconds * 1e3:.2f} ms against {self.floor_seconds * 1e3:.2f} ms of processor time"


def measure(repeats: int, steps: int) -> Iterator[Measured]:
    """AdamW as floor; with one step size, and with one for each tensor; the ratio of whole training steps.

    In processor time: the difference is smaller than what other processes do to the time on the clock.
    """
    optimizers = {
        "AdamW": optax.chain(BASE, optax.scale(-1e-3)),
        "metaoptimize(AdamW, Adam)": metaoptimize(BASE, optax.adam(1e-3)),
        "metaoptimize(AdamW, Lion), one step size for each tensor": metaoptimize(
            BASE, optax.lion(1e-3), sharing="tensor"
        ),
    }
    runs = {name: _training(optax.with_extra_args_support(o), steps) for name, o in optimizers.items()}
    for name, ratio in interleaved(runs, "AdamW", repeats, time.process_time).items():
        seconds = ratio.seconds / steps, ratio.floor_seconds / steps
        yield Measured(name, ratio.median, ratio.lower, ratio.upper, *seconds)


def _training(optimizer: optax.GradientTransformationExtraArgs, steps: int) -> Callable[[], Any]:
    """Goes on training by that many steps, each a program of its own, as a user's loop has it."""
    rng = np.random.default_rng(0)
    params = [
        {"w": jnp.asarray(rng.normal(size=(i, o)) / np.sqrt(i), jnp.float32), "b": jnp.zeros(o)}
        for i, o in itertools.pairwise(SIZES)
    ]
    batch = jnp.asarray(rng.normal(size=(BATCH, SIZES[0])), jnp.float32), jnp.asarray(rng.integers(0, 10, BATCH))

    def loss(params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        for i, layer in enumerate(params):
            inputs = inputs @ layer["w"] + layer["b"]
            inputs = jax.nn.relu(inputs) if i + 1 < len(params) else inputs
        return optax.softmax_cross_entropy_with_integer_labels(inputs, labels).mean()

    @jax.jit
    def init(params: Any) -> Any:
        return optimizer.init(params)

    def step(params: Any, state: Any, batch: Any) -> Any:
        grads = jax.grad(loss)(params, *batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    program = jax.jit(step, donate_argnums=(0, 1))
    carry = [(jax.tree.map(jnp.copy, params), init(params))]

    def run() -> Any:
        for _ in range(steps):
            carry[0] = program(*carry[0], batch)
        return carry[0]

    return run
