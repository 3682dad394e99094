"""The shipped `star` from optax on a network of ten million parameters, beside Adam at its default."""

import itertools
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import learned_opt

SIZES = (64, *[1024] * 11, 10)
BATCH = 128


def init(key: jax.Array, sizes: tuple[int, ...]) -> list[dict[str, jax.Array]]:
    """Starting weights for rectifiers."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        {"w": jax.random.normal(k, (i, o)) * jnp.sqrt(2 / i), "b": jnp.zeros(o)}
        for k, (i, o) in zip(keys, itertools.pairwise(sizes), strict=True)
    ]


def loss(params: list[dict[str, jax.Array]], images: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy in nats."""
    x = images
    for i, layer in enumerate(params):
        x = x @ layer["w"] + layer["b"]
        x = jax.nn.relu(x) if i + 1 < len(params) else x
    return optax.softmax_cross_entropy_with_integer_labels(x, labels).mean()


def train(optimizer: optax.GradientTransformation, steps: int) -> tuple[list[float], float]:
    """The losses before every step, and the seconds of one."""
    data = load_digits()
    images, labels = jnp.asarray(data.data / 16, jnp.float32), jnp.asarray(data.target)

    @jax.jit
    def step(params: Any, state: Any, key: jax.Array) -> Any:
        rows = jax.random.randint(key, (BATCH,), 0, len(labels))
        value, grads = jax.value_and_grad(loss)(params, images[rows], labels[rows])
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    params = init(jax.random.key(0), SIZES)
    state, losses, started = optimizer.init(params), [], 0.0
    for i in range(steps):
        params, state, value = step(params, state, jax.random.key(i))
        losses.append(float(value))
        started = started or time.perf_counter()  # after the first step, which compiles
    return losses, (time.perf_counter() - started) / max(steps - 1, 1)


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    params = jax.eval_shape(lambda key: init(key, SIZES), jax.random.key(0))
    print(f"{sum(x.size for x in jax.tree.leaves(params)):,} parameters")
    for name, optimizer in (("adam", optax.adam(1e-3)), ("star", learned_opt.load("star"))):
        losses, seconds = train(optimizer, steps)
        every = max(steps // 10, 1)
        shown = ", ".join(f"{value:.3g}" for value in losses[::every])
        print(f"{name}: {seconds:.2f} s a step; loss every {every} steps: {shown}; the last {losses[-1]:.3g}")
