"""`learned-opt reproduce step-size`: how a step size is tuned by gradient descent, and on what it should be judged.

Wang, Yuan, Wu, Ge 2021, arXiv 2006.16495. The paper prints curves, no tables: criteria are what its theorems and
curves say, with figures of this library.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from learned_opt.evaluate.reproduce import least_squares, noisy_labels, step_size_figures
from learned_opt.evaluate.reproduce import quadratic_step_size as quadratic
from learned_opt.evaluate.reproduce.least_squares import Setting, Tuned
from learned_opt.evaluate.reproduce.quadratic_step_size import ETAS, Quadratic
from learned_opt.evaluate.reproduce.rows import Reproduction, Row, Settings

__all__ = ["Settings", "run"]

REFERENCE = (-22.595133, -0.592695, -0.461295, 125.756720, 55.704530, 23.281878, 10.758257, 2.028596, 0.200282)
BEST = (0.017706, 0.023282, 0.025566, 0.027227, 0.027891, 0.028077, 0.028157)
STARTS = (0.1, 1.0, 0.001)
NOISES = (1.0, 2.0, 4.0)
SIZES = (100, 400, 1600, 6400)
PROBLEMS = ("digits", "teacher")
BOTH = (False, True)  # train-by-train, train-by-validation


class Slopes(NamedTuple):
    """Meta-gradients at every eta of `ETAS` in one dtype."""

    exact: np.ndarray
    normalised: np.ndarray
    reverse: np.ndarray
    naive: np.ndarray
    estimator: list[tuple[float, bool]]


def run(settings: Settings, console: Console) -> Reproduction:
    """Every row; one quadratic first, then least squares."""
    problem = quadratic.quadratic()
    console.print("one quadratic", style="dim")
    slopes = {dtype: slopes_in(problem, dtype) for dtype in ("float32", "float64")}
    courses = {start: quadratic.meta_descent(problem, start) for start in STARTS}
    console.print("least squares", style="dim")
    by_noise, by_size, full = _least_squares(settings.seed)
    console.print("a learned optimizer, 4 times 200 outer steps", style="dim")
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda name: noisy_labels.both_ways(name, settings.seed), PROBLEMS)
        learned = dict(zip(PROBLEMS, found, strict=True))
    rows = [
        *_slope_rows(problem, slopes),
        *_descent_rows(problem, courses),
        *_noise_rows(by_noise),
        *_size_rows(by_size),
        _full_row(*full),
        *(_learned_row(name, *both) for name, both in learned.items()),
    ]
    return Reproduction(
        "step-size",
        rows,
        figures={
            "meta-gradients": step_size_figures.meta_gradients(problem, slopes),
            "meta-descent": step_size_figures.meta_descent(courses, quadratic.best_step_size(problem)),
            "least-squares": step_size_figures.least_squares(by_noise, by_size),
            "learned-optimizer": step_size_figures.learned(learned, noisy_labels.DEPLOYED),
        },
        extra={
            "slopes": {dtype: found._asdict() for dtype, found in slopes.items()},
            "by_noise": {str(k): [t._asdict() for t in both] for k, both in by_noise.items()},
            "by_size": {str(k): [t._asdict() for t in both] for k, both in by_size.items()},
        },
    )


def slopes_in(problem: Quadratic, dtype: str) -> Slopes:
    """The same derivative in closed form, by stable forward mode, by reverse mode, and by the estimator `forward`."""
    with jax.enable_x64(dtype == "float64"):
        arrays = jnp.asarray(problem.hessian, dtype), jnp.asarray(problem.start, dtype)
        every = jnp.asarray(ETAS, dtype)

        def all_etas(slope: Any) -> np.ndarray:
            return np.asarray(jax.jit(jax.vmap(slope, (None, None, 0)))(*arrays, every), float)

        return Slopes(
            exact=np.array([quadratic.log_slope(problem, eta) for eta in ETAS]),
            normalised=all_etas(quadratic.normalised_forward_slope),
            reverse=all_etas(jax.grad(quadratic.log_loss, 2)),
            naive=all_etas(jax.grad(quadratic.final_loss, 2)),
            estimator=[quadratic.estimated_slope(problem, eta, dtype) for eta in ETAS],
        )


def _slope_rows(problem: Quadratic, slopes: dict[str, Slopes]) -> Iterator[Row]:
    exact = slopes["float64"].exact
    off = float(np.abs(exact / REFERENCE - 1).max())
    yield Row("L2L-1", "closed form of the log objective, 9 etas", "the reference to 5e-6", f"{off:.0e}", off < 5e-6)
    for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-12)):
        off = float(np.abs(slopes[dtype].normalised / exact - 1).max())
        yield Row(
            "L2L-1", f"normalised forward mode, {dtype}", f"relative <= {tolerance:g}", f"{off:.0e}", off <= tolerance
        )
    large = np.array(ETAS) >= 0.05
    reverse = slopes["float32"].reverse[large]
    wrong = ~(np.abs(reverse / exact[large] - 1) <= 0.5)
    yield Row(
        "L2L-2",
        "reverse mode in float32 from eta = 0.05 on",
        "wrong by half or not finite, each",
        ", ".join(f"{value:g}" for value in reverse),
        bool(wrong.all()),
        published="over- and underflows",
    )
    for dtype, found in slopes.items():
        close = [abs(value / true - 1) < 1e-4 for (value, _), true in zip(found.estimator, exact, strict=True)]
        dropped = [drop for _, drop in found.estimator]
        good = all(a != b for a, b in zip(close, dropped, strict=True))
        what = f"this library's `log` objective with `forward`, {dtype}, 9 etas"
        yield Row(
            "L2L-2", what, "right to 1e-4, or dropped and counted", f"{sum(close)} right, {sum(dropped)} dropped", good
        )
    naive = slopes["float64"].naive
    ratio = abs(naive[ETAS.index(0.1)] / naive[ETAS.index(0.026)])
    flattest = max(abs(quadratic.log_slope(problem, eta)) for eta in np.geomspace(1e-6, 100, 4001))
    yield Row("L2L-3", "naive objective: slope at 0.1 by that at 0.026", ">= 1e100", f"{ratio:.1e}", ratio >= 1e100)
    yield Row("L2L-3", "log objective: largest slope in [1e-6, 100]", "<= 200", f"{flattest:.0f}", flattest <= 200)


def _descent_rows(problem: Quadratic, courses: dict[float, np.ndarray]) -> Iterator[Row]:
    best = quadratic.best_step_size(problem)
    for start, course in courses.items():
        early, late = abs(course[300] / best - 1), abs(course[1000] - best)
        yield Row(
            "L2L-4",
            f"meta-descent from {start:g}: off after 300 and 1000 steps",
            "<= 2 %, <= 1e-5",
            f"{early:.1%}, {late:.0e}",
            bool(early <= 0.02 and late <= 1e-5),
            published="converges within 300" if start == 0.1 else "",
        )
    found = [quadratic.best_step_size(problem, steps) for steps in quadratic.HORIZONS]
    limit = 2 / (problem.eigenvalues[0] + problem.eigenvalues[-1])
    close = bool(np.abs(np.array(found) - BEST).max() < 1e-6 and abs(found[-1] - limit) < 1e-5)
    yield Row(
        "L2L-5",
        f"best eta at horizons {', '.join(map(str, quadratic.HORIZONS))}",
        f"grows to 2 / (L + l) = {limit:.6f} within 1e-5",
        ", ".join(f"{eta:.6f}" for eta in found),
        close and found == sorted(found),
    )


def _least_squares(seed: int) -> tuple[dict[float, list[Tuned]], dict[int, list[Tuned]], list[Tuned]]:
    settings = [
        *(Setting(200, 100, noise, 60) for noise in NOISES),
        *(Setting(200, size, 1.0, 30) for size in SIZES),
        Setting(1000, 500, 1.0, 20),
    ]
    with ThreadPoolExecutor(2) as pool:
        jobs = [[pool.submit(least_squares.tune, setting, validate, seed) for validate in BOTH] for setting in settings]
        found = [[job.result() for job in both] for both in jobs]
    by_size = dict(zip(SIZES, found[len(NOISES) : -1], strict=True))
    return dict(zip(NOISES, found[: len(NOISES)], strict=True)), by_size, found[-1]


def _noise_rows(found: dict[float, list[Tuned]]) -> Iterator[Row]:
    gaps = []
    for noise, (train, valid) in found.items():
        gaps.append(train.error - valid.error)
        ratio = train.eta / valid.eta
        yield Row(
            "L2L-6",
            f"d = 200, n = 100, noise {noise:g}: ratio of etas, errors by train and by validation",
            "ratio >= 30; validation < 1 < train; train >= 0.8 noise^2",
            f"{ratio:.0f}x; {train.error:.2f}, {valid.error:.2f}",
            ratio >= 30 and valid.error < 1 < train.error and train.error >= 0.8 * noise**2,
        )
    what = f"gap between the errors, noise {', '.join(f'{noise:g}' for noise in found)}"
    yield Row("L2L-6", what, "grows", ", ".join(f"{gap:.2f}" for gap in gaps), gaps == sorted(gaps))


def _size_rows(found: dict[int, list[Tuned]]) -> Iterator[Row]:
    ratios = [train.error / valid.error for train, valid in found.values()]
    largest = max(found)
    yield Row(
        "L2L-7",
        f"d = 200, noise 1: train error by validation error, n = {', '.join(map(str, found))}",
        f"falls from n = {SIZES[1]} on; <= 1.1 at {largest}",
        ", ".join(f"{ratio:.2f}" for ratio in ratios),
        ratios[1:] == sorted(ratios[1:], reverse=True) and ratios[-1] <= 1.1,
    )
    optimum = 200 / largest
    error = found[largest][0].error
    what = f"train-by-train error at n = {largest} by d / n, the optimum"
    yield Row("L2L-7", what, "<= 1.1", f"{error / optimum:.2f}", error <= 1.1 * optimum)


def _full_row(train: Tuned, valid: Tuned) -> Row:
    return Row(
        "L2L-8",
        "d = 1000, n = 500: test RMSE by train and by validation; training RMSE",
        "validation at least 10 % lower in test, higher in training",
        f"{train.test:.3f}, {valid.test:.3f}; {train.train:.3f}, {valid.train:.3f}",
        valid.test <= 0.9 * train.test and valid.train > train.train,
        published="train-by-train overfits",
    )


def _learned_row(name: str, train: noisy_labels.Trained, valid: noisy_labels.Trained) -> Row:
    memorised, by_train, by_valid = train.train[:, -1].mean(), train.test[:, -1], valid.test[:, -1]
    return Row(
        "L2L-9",
        f"learned optimizer, {name}, 200 samples, 20 % label noise: test accuracy by train and by validation",
        "validation higher; training accuracy by train > 0.95",
        f"{by_train.mean():.3f}, {by_valid.mean():.3f}; {memorised:.3f}",
        bool(by_valid.mean() > by_train.mean() and memorised > 0.95),
        published="train-by-train overfits",
        spread=f"{by_train.std(ddof=1):.3f}, {by_valid.std(ddof=1):.3f} over {len(by_train)} seeds",
    )
