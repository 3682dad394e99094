"""MO-5 and MO-7: step sizes that tune themselves against the best fixed ones, on still and on moving data."""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt import metaoptimize, step_sizes
from learned_opt.evaluate.reproduce.metaoptimize_identities import decayed
from learned_opt.evaluate.reproduce.rows import Row
from learned_opt.evaluate.reproduce.teacher_task import CLASSES, INPUTS, TEACHER, TeacherTask, teacher_task

STEPS = 12_000
STARTS = (1e-6, 1e-5, 1e-4)
FIXED = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
BASES = {
    "AdamW": decayed(optax.scale_by_adam()),
    "Lion": decayed(optax.scale_by_lion(b1=0.9, b2=0.99)),
    "SGDm": decayed(optax.ema(0.9, debias=False)),
}
METAS = {"Adam": optax.adam(1e-3), "Lion": optax.lion(1e-3, b1=0.9, b2=0.99, weight_decay=0.0)}
LIMITS = {"AdamW": 1.02, "Lion": 1.05, "SGDm": 1.01}
EVERY = 100  # steps between the points of a curve
PHASES, PHASE = 10, 2000
# Starting step size and rate of the meta-optimizer on moving data.
SETTINGS = {
    "MetaOptimize at 1e-3": (1e-4, 1e-3),
    "MetaOptimize at 1e-2": (1e-4, 1e-2),
    **{f"fixed {rate:g}": (rate, 0.0) for rate in FIXED},
}
# In the published code the first moment of Adam is a plain sum, so that its 1e-3 acts like 1e-2: what it was run with.
# The accuracy is judged at that; at the rate that the paper prints it is in the table of all settings.
RATES = ("meta-rate 1e-3, as in the paper", "meta-rate 1e-2, as its code acts")
RUN_WITH = 1


class Runs(NamedTuple):
    """Final loss over the whole training set, by setting and seed; step sizes along the runs, by setting."""

    losses: np.ndarray
    curves: np.ndarray


def robustness(seed: int, seeds: int) -> tuple[list[Row], dict[str, Any]]:
    """MO-5: from step sizes off by up to 10^4, on the teacher task; each base with its own best fixed one."""
    task, keys = teacher_task(), jax.random.split(jax.random.key(seed), seeds)
    jobs = [(base, meta) for base in BASES for meta in (None, *METAS)]
    with ThreadPoolExecutor(2) as pool:
        done = dict(zip(jobs, pool.map(lambda job: _train(task, job[0], job[1], keys), jobs), strict=True))
    rows, extra = [], {}
    for base, limit in LIMITS.items():
        fixed = np.where(np.isfinite(done[base, None].losses), done[base, None].losses, np.inf).mean(1)
        best = float(fixed.min())
        extra[f"{base} fixed"] = dict(zip(map(str, FIXED), fixed.tolist(), strict=True))
        for meta in METAS:
            losses = done[base, meta].losses.mean(1)
            worst = float(losses.max())
            apart = float(np.ptp(losses) / losses.min())
            passed = worst <= limit * best and apart <= 0.15
            low, high = done[base, meta].losses.min(), done[base, meta].losses.max()
            what = f"{base} with {meta}, from 1e-6, 1e-5, 1e-4; best fixed {FIXED[int(fixed.argmin())]:g}: {best:.4g}"
            measured = f"{', '.join(f'{x:.4g}' for x in losses)}; apart {apart:.1%}"
            criterion = f"each <= {limit}x best fixed, apart <= 15 %"
            spread = f"{low:.4g} to {high:.4g} over {seeds} seeds"
            rows.append(Row("MO-5", what, criterion, measured, passed, "beats its fixed baseline", spread))
            extra[f"{base}, {meta}"] = {
                "losses": done[base, meta].losses.tolist(),
                "step_sizes": done[base, meta].curves.tolist(),
            }
    return rows, extra


def _train(task: TeacherTask, base: str, meta: str | None, keys: jax.Array) -> Runs:
    """All settings and seeds side by side: step sizes held without `meta`, else moved from each of `STARTS`."""
    move = METAS[meta] if meta else optax.sgd(0.0)

    def run(task: TeacherTask, start: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        optimizer = metaoptimize(BASES[base], move)
        params = task.init(key)
        state = optimizer.init(params)
        state = state._replace(logs={"all": jnp.log(start)})

        def step(carry: Any, key: jax.Array) -> Any:
            params, state = carry
            grads = jax.grad(task.loss)(params, key, task.sample_batch(key, "train"))
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        def block(carry: Any, key: jax.Array) -> Any:
            carry, _ = jax.lax.scan(step, carry, jax.random.split(key, EVERY))
            return carry, step_sizes(carry[1])["all"]

        (params, _), curve = jax.lax.scan(block, (params, state), jax.random.split(key, STEPS // EVERY))
        return task.full_loss(params, "train"), curve

    starts = jnp.array(STARTS if meta else FIXED)
    program = jax.jit(jax.vmap(jax.vmap(run, (None, None, 0)), (None, 0, None)))
    losses, curves = program(task, starts, keys)
    return Runs(np.asarray(losses), np.asarray(curves.mean(1)))


class Moving(NamedTuple):
    """Online accuracy by setting of `SETTINGS`, seed and phase; log step sizes by setting of `RATES`, seed and step."""

    accuracy: np.ndarray
    logs: np.ndarray


def switches(seed: int, seeds: int) -> tuple[list[Row], Moving]:
    """MO-7: the teacher's last layer redrawn every 2000 steps; AdamW with Adam, gamma 0.999, against 5 fixed rates."""
    tasks = _phases(seed)
    keys = jax.random.split(jax.random.key(seed), seeds)

    def run(tasks: TeacherTask, start: jax.Array, eta: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        optimizer = metaoptimize(BASES["AdamW"], optax.inject_hyperparams(optax.adam)(1e-3), gamma=0.999)
        task = jax.tree.map(lambda x: x[0], tasks)
        params = task.init(key)
        state = optimizer.init(params)
        state.meta_state.hyperparams["learning_rate"] = eta
        state = state._replace(logs={"all": jnp.log(start)})

        def step(carry: Any, at: tuple[jax.Array, jax.Array]) -> Any:
            (params, state), (index, key) = carry, at
            task = jax.tree.map(lambda x: x[index // PHASE], tasks)
            batch = task.sample_batch(key, "train")
            accuracy = task.accuracy(params, batch)
            updates, state = optimizer.update(jax.grad(task.loss)(params, key, batch), state, params)
            return (optax.apply_updates(params, updates), state), (accuracy, state.logs["all"])

        steps = jnp.arange(PHASES * PHASE)
        return jax.lax.scan(step, (params, state), (steps, jax.random.split(key, len(steps))))[1]

    starts, etas = jnp.array(list(SETTINGS.values())).T
    accuracy, logs = jax.jit(jax.vmap(jax.vmap(run, (None, None, None, 0)), (None, 0, 0, None)))(
        tasks, starts, etas, keys
    )
    by_phase = np.asarray(accuracy).reshape(len(starts), seeds, PHASES, PHASE).mean(3)
    found = Moving(by_phase, np.asarray(logs[: len(RATES)]))
    return [_accuracy(found, RUN_WITH, seeds), *(_grown(found, i, seeds) for i in range(len(RATES)))], found


def _accuracy(found: Moving, setting: int, seeds: int) -> Row:
    ours, fixed = found.accuracy[setting].mean(1), found.accuracy[len(RATES) :].mean(2)
    best = int(fixed.mean(1).argmax())
    return Row(
        "MO-7",
        f"mean online accuracy, {PHASES} phases, {RATES[setting]}, against the best of 5 fixed, {FIXED[best]:g}",
        ">= best fixed",
        f"{ours.mean():.4f} against {fixed[best].mean():.4f}",
        bool(ours.mean() >= fixed[best].mean()),
        "above best fixed",
        f"{ours.min():.4f} to {ours.max():.4f} over {seeds} seeds",
    )


def _grown(found: Moving, setting: int, seeds: int) -> Row:
    at = [PHASE * phase for phase in range(1, PHASES)]
    grown = np.array([[x[t : t + 200].max() > x[t - 1] for t in at] for x in found.logs[setting]]).sum(1)
    return Row(
        "MO-7",
        f"switches after which the step size is larger than before, within 200 steps, {RATES[setting]}",
        f">= 7 of {len(at)}",
        f"{', '.join(map(str, grown))} by seed",
        bool(grown.min() >= 7),
        "",
        f"{grown.min()} to {grown.max()} over {seeds} seeds",
    )


def _phases(seed: int) -> TeacherTask:
    """The teacher task once for each phase, with a leading axis: the same inputs, and labels of another last layer."""
    first = teacher_task()
    inputs, hidden = first.splits["train"][0], np.random.RandomState(0)
    hidden.randn(4500, INPUTS)
    outputs = np.tanh(np.asarray(inputs) @ hidden.randn(INPUTS, TEACHER))
    rng = np.random.default_rng(seed)
    labels: Sequence[np.ndarray] = [
        _noisy(rng, np.argmax(outputs @ rng.standard_normal((TEACHER, CLASSES)), 1)) for _ in range(PHASES)
    ]
    rows = (jnp.broadcast_to(inputs, (PHASES, *inputs.shape)), jnp.asarray(np.stack(labels), jnp.int32))
    return dataclasses.replace(first, splits={"train": rows})


def _noisy(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """A tenth replaced by a uniform draw."""
    return np.where(rng.uniform(size=len(labels)) < 0.1, rng.integers(0, CLASSES, len(labels)), labels)
