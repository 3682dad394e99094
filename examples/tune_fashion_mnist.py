"""FDS and MetaOptimize on real images: a small CNN on Fashion-MNIST at 8 x 8, against hand-tuned rates.

Needs `fashion_mnist` prepared in `TFDS_DATA_DIR`. Every method is told nothing but a starting point or a range; the
hand-tuned ones get the best of 5 values by validation loss. Prints test losses, mean over 3 seeds.

    python examples/tune_fashion_mnist.py
"""

import functools
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import learned_opt
from learned_opt.meta_train.fds import FDS
from learned_opt.meta_train.hypergradient import WholeRun
from learned_opt.meta_train.sign_descent import sign_descent
from learned_opt.schedules import Schedule
from learned_opt.tasks import datasets, training
from learned_opt.tasks.networks.architecture import architecture
from learned_opt.tasks.networks.convolutional import CNN
from learned_opt.tasks.supervised import Supervised

STEPS, SEEDS, OUTER_STEPS = 400, 3, 8
RATES = {"sgd": (0.01, 0.03, 0.1, 0.3, 1.0), "adamw": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)}
DECAY = 0.01
ADAMW = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(DECAY))
Maker = Callable[[Any], optax.GradientTransformation]


def family() -> Supervised:
    """The built-in task; sizes at which a step takes milliseconds on a CPU."""
    return Supervised(datasets.load("fashion_mnist", size=8), architecture(CNN, hidden=(16, 32)), batch_size=64)


@functools.partial(jax.jit, static_argnums=0)
def final_losses(make: Maker, setting: Any, task_family: Supervised, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Validation and test loss of one run."""
    task = task_family.task(task_family.sample(key))
    optimizer = optax.with_extra_args_support(make(setting))

    def body(inner: training.InnerState, i: jax.Array) -> Any:
        return training.step(task, optimizer, inner, jax.random.fold_in(key, i))[0], None

    inner, _ = jax.lax.scan(body, training.start(task, optimizer, key), jnp.arange(STEPS))

    def measured(split: Any) -> jax.Array:
        batches = jax.random.split(jax.random.key(0), 32)
        return jax.vmap(lambda k: task.loss(inner.params, k, task.sample_batch(k, split)))(batches).mean()

    return measured("valid"), measured("test")


def tuned(make: Maker, settings: tuple[float, ...], task_family: Supervised) -> tuple[float, list[float]]:
    """The setting with the lowest validation loss on one seed, and its test losses on the others."""
    valid = [float(final_losses(make, s, task_family, jax.random.key(100))[0]) for s in settings]
    best = settings[int(np.nanargmin(valid))]
    return best, tests(make, best, task_family)


def tests(make: Maker, setting: Any, task_family: Supervised) -> list[float]:
    """Test losses on fresh seeds."""
    return [float(final_losses(make, setting, task_family, jax.random.key(seed))[1]) for seed in range(SEEDS)]


def fds(task_family: Supervised) -> Any:
    """Schedules of SGD from zero: 5 windows of the learning rate, one of momentum and of weight decay."""
    run = WholeRun(optimizer=Schedule(windows=(5, 1, 1), steps=STEPS))
    search = FDS(
        run=run,
        outer=sign_descent({"learning_rate": 0.1, "momentum": 0.1, "weight_decay": 3e-4}),
        lowest={"learning_rate": 0.0, "momentum": 0.0, "weight_decay": 0.0},
        highest={"learning_rate": 1.0, "momentum": 0.999, "weight_decay": 5e-3},
    )
    step, theta = jax.jit(search.step), run.optimizer.init(jax.random.key(0))
    state = search.init(theta)
    for number in range(OUTER_STEPS):
        done = step(task_family, theta, state, jax.random.key(1000 + number))
        theta, state = done.theta, done.opt_state
        print(f"  outer step {number + 1}: loss {float(done.loss):.4f}", flush=True)
    return theta


def main() -> None:
    """Runs everything; one JSON object as the last line."""
    task_family, found, started = family(), {}, time.monotonic()

    def report(name: str, losses: list[float], setting: str) -> None:
        found[name] = {"test_loss": losses, "setting": setting}
        spread = f"{min(losses):.4f} to {max(losses):.4f}"
        print(f"{name:40} {np.mean(losses):.4f} ({spread})  {setting}  {time.monotonic() - started:.0f} s", flush=True)

    def cosine(rate: Any) -> Any:
        return lambda count: rate * optax.cosine_decay_schedule(1.0, STEPS)(count)

    for name, make in (
        ("SGD, momentum 0.9, best fixed rate", lambda rate: optax.sgd(rate, 0.9)),
        ("SGD, momentum 0.9, best cosine", lambda rate: optax.sgd(cosine(rate), 0.9)),
    ):
        best, losses = tuned(make, RATES["sgd"], task_family)
        report(name, losses, f"{best:g}, of {len(RATES['sgd'])}")
    theta = fds(task_family)
    windows = {k: [round(float(x), 5) for x in v] for k, v in theta.items()}
    report(
        "SGD, schedules by FDS",
        tests(Schedule(windows=(5, 1, 1), steps=STEPS).transform, theta, task_family),
        str(windows),
    )
    for name, make in (
        ("AdamW, best fixed rate", lambda rate: optax.adamw(rate, weight_decay=DECAY)),
        ("AdamW, best cosine", lambda rate: optax.adamw(cosine(rate), weight_decay=DECAY)),
    ):
        best, losses = tuned(make, RATES["adamw"], task_family)
        report(name, losses, f"{best:g}, of {len(RATES['adamw'])}")
    for meta, initial in ((1e-2, 1e-5), (1e-2, 1e-4), (1e-2, 1e-3), (1e-3, 1e-3)):

        def make_tuning(_: Any, meta: float = meta, initial: float = initial) -> optax.GradientTransformation:
            return learned_opt.metaoptimize(ADAMW, optax.adam(meta), initial=initial)

        name = f"AdamW, MetaOptimize at {meta:g} from {initial:g}"
        report(name, tests(make_tuning, 0.0, task_family), "no tuning")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
