"""FDS-1 to FDS-4 and FDS-6: exactness, memory, the published recursions, the noise theorem, a long run."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from learned_opt.base import Theta
from learned_opt.evaluate.reproduce.rows import Row, quick_jit
from learned_opt.evaluate.reproduce.sampling import temporary_bytes
from learned_opt.evaluate.reproduce.teacher_task import TeacherTask, teacher_task
from learned_opt.meta_train.hypergradient import WholeRun
from learned_opt.schedules import Schedule
from learned_opt.tasks import training

LEARNING_RATES = {3: (0.3, 0.2, 0.1), 5: (0.3, 0.2, 0.1, 0.05, 0.02)}
LENGTHS = (100, 1000, 10_000)
MEGABYTE = 1e6


class Case(NamedTuple):
    """A run on the teacher task at fixed hyperparameters."""

    run: WholeRun
    task: TeacherTask
    theta: Theta


def case(steps: int, dtype: str = "float64", windows: int = 3) -> Case:
    """SGD with that many windows of the learning rate, momentum 0.8 and decay 1e-4; full validation loss at the end."""
    theta = {"learning_rate": LEARNING_RATES[windows], "momentum": (0.8,), "weight_decay": (1e-4,)}
    run = WholeRun(optimizer=Schedule(windows=(windows, 1, 1), steps=steps), measure=validation_loss)
    return Case(run, teacher_task(dtype), {name: jnp.asarray(x, dtype) for name, x in theta.items()})


def validation_loss(task: TeacherTask, params: Any) -> jax.Array:
    """Over the whole split."""
    return task.full_loss(params, "valid")


def relative(found: Any, expected: Any) -> float:
    """The norm of the difference by the norm of what is expected."""
    found, expected = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def exactness(key: jax.Array) -> Iterator[Row]:
    """FDS-1: forward against reverse mode."""
    for steps, dtype, limit in ((50, "float64", 1e-10), (200, "float64", 1e-10), (1000, "float32", 1e-5)):
        with jax.enable_x64(dtype == "float64"):
            run, task, theta = case(steps, dtype)
            forward, reverse = (quick_jit(f)(task, theta, key).gradient for f in (run.forward, run.reverse))
        off = relative(forward, reverse)
        yield Row("FDS-1", f"forward = reverse, T = {steps}, {dtype}", f"<= {limit:g}", f"{off:.1e}", off <= limit)


def memory() -> tuple[list[Row], dict[str, list[float]]]:
    """FDS-2: temporary bytes of the programs, compiled quickly, and what they are at each length."""

    def temporary(job: tuple[str, int]) -> float:
        mode, steps = job
        with jax.enable_x64(True):
            run, task, theta = case(steps)
            program = quick_jit(getattr(run, mode)).lower(task, theta, jax.random.key(0)).compile()
            return temporary_bytes(program) / MEGABYTE

    jobs = [(mode, steps) for mode in ("forward", "reverse") for steps in LENGTHS]
    with ThreadPoolExecutor(2) as pool:  # compilation is most of this
        sizes = list(pool.map(temporary, jobs))
    found = {"forward": sizes[: len(LENGTHS)], "reverse": sizes[len(LENGTHS) :]}
    growth = {mode: sizes[-1] / sizes[0] for mode, sizes in found.items()}
    shown = {mode: ", ".join(f"{x:.3g}" for x in sizes) + " MB" for mode, sizes in found.items()}
    rows = [
        Row("FDS-2", "memory of forward mode, T = 100, 1000, 10000", "last <= 1.25x first", shown["forward"], False),
        Row("FDS-2", "memory of reverse mode, T = 100, 1000, 10000", "last >= 50x first", shown["reverse"], False),
    ]
    passed = growth["forward"] <= 1.25, growth["reverse"] >= 50
    return [row._replace(passed=ok) for row, ok in zip(rows, passed, strict=True)], found


def recursions(key: jax.Array) -> Iterator[Row]:
    """FDS-3: the published tangent recursions, written out, against the engine."""
    with jax.enable_x64(True):
        found = case(12)
        off = relative(quick_jit(found.run.forward)(found.task, found.theta, key).gradient, published(found, key))
    yield Row("FDS-3", "published recursions for Z and C, T = 12", "<= 1e-10", f"{off:.1e}", off <= 1e-10)


def published(found: Case, key: jax.Array) -> Theta:
    """The hypergradient by `Z = dw / dlam` and `C = dv / dlam` for each kind of hyperparameter, with full Hessians."""
    run, task, theta = found
    steps, flat = run.optimizer.steps, {n: np.asarray(x) for n, x in theta.items()}
    windows = len(flat["learning_rate"])
    start = training.start(task, run.transform(theta), jax.random.fold_in(key, steps))
    w, unravel = jax.flatten_util.ravel_pytree(start.params)

    @quick_jit
    def derivatives(w: jax.Array, step_key: jax.Array) -> Any:
        batch_key, loss_key = jax.random.split(step_key)
        batch = task.sample_batch(batch_key, "train")
        return [d(lambda w: task.loss(unravel(w), loss_key, batch))(w) for d in (jax.grad, jax.hessian)]

    v = np.zeros(w.size)
    z = {name: np.zeros((w.size, len(x))) for name, x in flat.items()}
    c = {name: np.zeros((w.size, len(x))) for name, x in flat.items()}
    for t in range(steps):
        grad, hessian = (np.asarray(x) for x in derivatives(w, jax.random.fold_in(key, t)))
        window = t * windows // steps
        alpha, beta, xi = flat["learning_rate"][window], flat["momentum"][0], flat["weight_decay"][0]
        direct = {  # of w and of v, beside what goes through the state
            "learning_rate": (-np.outer(beta * v + grad + xi * w, np.eye(windows)[window]), 0.0),
            "momentum": (-alpha * v[:, None], v[:, None]),
            "weight_decay": (-alpha * np.asarray(w)[:, None], np.asarray(w)[:, None]),
        }
        old = z
        z = {n: (1 - alpha * xi) * x - alpha * hessian @ x - alpha * beta * c[n] + direct[n][0] for n, x in old.items()}
        c = {n: beta * c[n] + hessian @ x + xi * x + direct[n][1] for n, x in old.items()}
        v = beta * v + grad + xi * np.asarray(w)
        w = w - alpha * v
    final = np.asarray(jax.grad(lambda w: run.measured(task, key, unravel(w)))(w))
    return run.averaged({name: jnp.asarray(final @ x) for name, x in z.items()})


def noise_theorem(seed: int, runs: int = 10_000) -> Iterator[Row]:
    """FDS-4: the mean squared error of hypergradients averaged over windows, against the bound of theorem 4.1."""
    steps, width, sigma, drift = 400, 40, 0.25, 0.08
    rng = np.random.default_rng(seed)
    means = {
        "no drift": np.zeros(steps),
        "largest drift": drift * np.arange(steps),
        "random drift": np.cumsum(rng.uniform(-drift, drift, steps)),
    }
    flat_bound = sigma**2 / width
    bounds = {"no drift": flat_bound, "largest drift": flat_bound + drift**2 * (width**2 - 1) / 12}
    for name, mean in means.items():
        noisy = mean + sigma * rng.standard_normal((runs, steps))
        shared = noisy.reshape(runs, -1, width).mean(2).repeat(width, 1)
        errors = np.square(shared - mean).mean(1)
        measured, error = errors.mean(), errors.std(ddof=1) / np.sqrt(runs)
        if name in bounds:
            criterion, passed = f"{bounds[name]:.6g} within 2 %", abs(measured / bounds[name] - 1) < 0.02
        else:
            criterion, passed = f"< {sigma**2 / 3:.3g}, a third of no sharing", measured < sigma**2 / 3
        what = f"error of a window's mean, {name}"
        published_bound = f"bound {bounds[name]:.6g}" if name in bounds else ""
        yield Row("FDS-4", what, criterion, f"{measured:.5g}", bool(passed), published_bound, f"± {error:.1g}")


def long_run(key: jax.Array, seeds: int) -> Iterator[Row]:
    """FDS-6: 10,000 steps with 7 hyperparameters, forward."""
    run, task, theta = case(10_000, "float32", windows=5)
    program = jax.jit(run.forward).lower(task, theta, key).compile()
    seconds, components = [], []
    for seed in range(seeds):
        started = time.perf_counter()
        found = jax.block_until_ready(program(task, theta, jax.random.fold_in(key, seed)))
        seconds.append(time.perf_counter() - started)
        components.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(found.gradient)]))
    sizes = np.abs(np.array(components))
    finite = bool(np.isfinite(sizes).all())
    yield Row(
        "FDS-6",
        f"10,000 steps, 7 hyperparameters, components from {sizes.min():.1e} to {sizes.max():.1e}",
        "finite, < 30 s",
        f"{'finite' if finite else 'not finite'}, {np.mean(seconds):.1f} s",
        finite and max(seconds) < 30,
        "about 1e4 steps",
        f"{min(seconds):.1f} to {max(seconds):.1f} s over {seeds} seeds",
    )
