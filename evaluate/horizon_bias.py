"""Is a meta-training horizon too short? A look at what it prefers, and what it prefers where a decay follows.

A horizon that is too short prefers steps that are too small: it sees the noise that small steps remove, and not the
progress that large ones would have bought (Wu et al. 2018, arXiv 1803.02021, figure 2). Training ends with a decay
sooner or later; so the same steps are judged once as they stand at the horizon, and once after a decay has followed.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt.base import LearnedOptimizer, Theta
from learned_opt.tasks import training
from learned_opt.tasks.base import TaskFamily, TaskParams
from learned_opt.tasks.training import InnerState

MULTIPLIERS = 2.0 ** np.arange(-5, 5.5, 0.5)
EVALUATIONS = 16  # training minibatches that a final loss is averaged over
LAST = 0.01  # what the decay takes steps down to
FLOOR = 1e-10  # losses below it are as good
RESAMPLES = 2000
TOO_SHORT = 1.5


class Sweep(NamedTuple):
    """Final training losses `[multipliers, seeds]`, at the horizon and after the decay that follows it."""

    plain: np.ndarray
    decayed: np.ndarray


class Run(NamedTuple):
    """One training run: its task, where it stands, the multiplier of its steps, and its key."""

    task_params: TaskParams
    inner: InnerState
    multiplier: jax.Array
    key: jax.Array


class Preference(NamedTuple):
    """Multipliers of the steps preferred at the horizon and with a decay, their ratio and its 90 % interval.

    at_least, at_most: a preferred multiplier is the smallest or largest tried, so that the ratio is such a bound.
    diverged: runs whose loss is not finite, of all.
    """

    plain: float
    decayed: float
    ratio: float
    low: float
    high: float
    at_least: bool
    at_most: bool
    diverged: int
    runs: int


def sweep(
    family: TaskFamily, optimizer: LearnedOptimizer, theta: Theta, horizon: int, seeds: int, key: jax.Array
) -> Sweep:
    """Trains at every multiplier of the optimizer's steps; all see the same tasks, starts and batches.

    Two halves of the horizon, then a decay of the same length: one compiled program runs all three.
    """
    start_key, key = jax.random.split(key)
    keys = jnp.repeat(jax.random.split(start_key, seeds), len(MULTIPLIERS), 0)  # multipliers are the fastest axis
    multipliers = jnp.tile(jnp.asarray(MULTIPLIERS, jnp.float32), seeds)
    steps = max(horizon // 2, 1)

    def start(family: TaskFamily, theta: Theta, key: jax.Array) -> tuple[TaskParams, InnerState]:
        task_key, start_key = jax.random.split(key)
        task_params = family.sample(task_key)
        return task_params, training.start(family.task(task_params), optimizer.transform(theta), start_key)

    def run(
        family: TaskFamily, theta: Theta, factors: jax.Array, phase: jax.Array, run: Run
    ) -> tuple[InnerState, jax.Array]:
        task, base = family.task(run.task_params), optimizer.transform(theta)
        run_key, loss_key = jax.random.split(jax.random.fold_in(run.key, phase))

        def step(inner: InnerState, at: tuple[jax.Array, jax.Array]) -> tuple[InnerState, None]:
            factor, key = at
            scale = optax.scale(run.multiplier * factor)

            def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
                updates, state = base.update(grads, state, params, **extra)
                return scale.update(updates, optax.ScaleState(), params)[0], state

            return training.step(task, optax.GradientTransformationExtraArgs(base.init, update), inner, key)[0], None

        def loss(key: jax.Array) -> jax.Array:
            batch_key, loss_key = jax.random.split(key)
            return task.loss(inner.params, loss_key, task.sample_batch(batch_key, "train"))

        inner, _ = jax.lax.scan(step, run.inner, (factors, jax.random.split(run_key, steps)))
        return inner, jax.vmap(loss)(jax.random.split(loss_key, EVALUATIONS)).mean()

    task_params, inner = jax.jit(jax.vmap(start, (None, None, 0)))(family, theta, keys)
    program = jax.jit(jax.vmap(run, (None, None, None, None, 0)))
    plain, decay = jnp.ones(steps), LAST ** (jnp.arange(1, steps + 1) / steps)
    losses = []
    for phase, factors in enumerate((plain, plain, decay)):
        runs = Run(task_params, inner, multipliers, keys)
        inner, loss = program(family, theta, factors, jnp.asarray(phase), runs)
        losses.append(np.asarray(loss, float).reshape(seeds, len(MULTIPLIERS)).T)
    return Sweep(losses[1], losses[2])


def preference(sweeps: list[Sweep], seed: int = 0) -> Preference:
    """What the sweeps of all families prefer together: the least mean log loss.

    The interval resamples seeds within each family, one fewer than there are, as `statistics` does and says why.
    """
    plain, decayed = (np.concatenate([getattr(s, name) for s in sweeps], 1) for name in Sweep._fields)
    lost = int((~np.isfinite(plain)).sum() + (~np.isfinite(decayed)).sum())
    logs = [np.log(np.maximum(np.where(np.isfinite(x), x, np.inf), FLOOR)) for x in (plain, decayed)]
    preferred, decayed_preferred = (_best(x.mean(1)) for x in logs)
    rows = _resampled([s.plain.shape[1] for s in sweeps], np.random.default_rng(seed))
    ratios = [_best(logs[1][:, drawn].mean(1)) / _best(logs[0][:, drawn].mean(1)) for drawn in rows]
    low, high = np.quantile(ratios, (0.05, 0.95))
    lowest, highest = MULTIPLIERS[[0, -1]]
    return Preference(
        plain=preferred,
        decayed=decayed_preferred,
        ratio=decayed_preferred / preferred,
        low=float(low),
        high=float(high),
        at_least=bool(preferred == lowest or decayed_preferred == highest),
        at_most=bool(preferred == highest or decayed_preferred == lowest),
        diverged=lost,
        runs=2 * plain.size,
    )


def _resampled(seeds: list[int], rng: np.random.Generator) -> np.ndarray:
    """Columns of all families side by side, `[resamples, columns]`."""
    firsts = np.cumsum([0, *seeds[:-1]])
    return np.concatenate(
        [first + rng.integers(0, n, (RESAMPLES, max(1, n - 1))) for first, n in zip(firsts, seeds, strict=True)], 1
    )


def _best(losses: np.ndarray) -> float:
    """The multiplier of the least loss, between grid points by the parabola through it and its neighbours."""
    i = int(losses.argmin())
    shift = 0.0
    if 0 < i < len(losses) - 1 and np.isfinite(losses[i - 1 : i + 2]).all():
        before, here, after = losses[i - 1 : i + 2]
        bend = before - 2 * here + after
        shift = 0.5 * (before - after) / bend if bend > 0 else 0.0
    step = np.log(MULTIPLIERS[1] / MULTIPLIERS[0])
    return float(MULTIPLIERS[i] * np.exp(np.clip(shift, -0.5, 0.5) * step))


def advice(found: Preference, horizon: int) -> str:
    """One line: whether to meta-train on longer horizons."""
    if found.low >= TOO_SHORT and not found.at_most:
        return (
            f"a horizon of {horizon} is too short: it prefers steps {found.ratio:.1f}x smaller than training that ends "
            "with a decay. Use a longer --max-horizon with pes, noise-reuse-es or forward, whose cost does not grow "
            "with it, or meta-train with the decay appended"
        )
    if found.high < TOO_SHORT and not found.at_least:
        return f"a horizon of {horizon} shows little bias: within {TOO_SHORT:g}x of what a decay prefers"
    if found.at_least or found.at_most:
        return f"undecided at a horizon of {horizon}: the steps preferred may lie beyond those tried"
    return f"undecided at a horizon of {horizon}: the interval includes {TOO_SHORT:g}; use more --seeds"
