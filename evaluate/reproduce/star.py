"""`learned-opt reproduce star`: what STAR's stabilisers do for the stability of training (arXiv 2209.11208, section 3).

The paper prints no table of it. Rows hold the tools to closed forms, and predictions to measurements: where training
on a noisy quadratic is lost, and what a learned optimizer does far beyond the horizon of its meta-training.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from learned_opt.base import Theta
from learned_opt.checkpoints.load import load_learned_optimizer
from learned_opt.evaluate import stability
from learned_opt.evaluate.reproduce import fixed_preconditioner, star_figures, star_runs
from learned_opt.evaluate.reproduce.rows import Detail, Reproduction, Row, Settings
from learned_opt.evaluate.stability import Bath, Response
from learned_opt.star import Star
from learned_opt.statistics import MOMENTUM_DECAYS

__all__ = ["Settings", "run"]

WEIGHTS = "digits"
DIMENSION, PAST = 2048, 3000  # of the bath: weights that share a sharp direction, steps
STEPS, GROWS = 200, 10  # training is lost if a deviation grows tenfold within so many steps
GRID = np.geomspace(10.0, 1e5, 5)  # curvatures
REST = 100.0  # the curvature of the bath
HELD = 0.5  # of the noise: beyond such a pull the optimum is not held
DRIFT = 10.0  # times the pull of STAR: what is left without the nominal term
BEYOND = (1, 10, 25)  # times the longest horizon of meta-training
STARTS = 8  # random initialisations
SWITCHES: dict[str, dict[str, Any]] = {
    "STAR": {},
    "no nominal term": {"nominal": "none"},
    "no preconditioner": {"preconditioner": "none"},
    "no magnitude head": {"learned_magnitude": False},
    "black box": {"nominal": "none", "preconditioner": "none", "weight_decay": 0.0},
}


class Region(NamedTuple):
    """Of one optimizer at one inner step: its pull, and the largest stable curvature, predicted and measured.

    measured: NaN where it was not asked for.
    """

    pull: float
    predicted: float
    measured: float = float("nan")

    @property
    def holds(self) -> bool:
        """Whether training stays at the optimum of the curvature `REST`."""
        return self.predicted > REST and abs(self.pull) < HELD


Regions = dict[str, dict[str, dict[int, Region]]]  # by switches, by "before" or "after" meta-training, by horizons


def run(settings: Settings, console: Console) -> Reproduction:
    """Every row, two at a time."""
    optimizer, theta, card = load_learned_optimizer(WEIGHTS)
    assert isinstance(optimizer, Star)
    horizon = int(card["config"]["max_horizon"])
    thetas = {"before": optimizer.init(jax.random.key(settings.seed)), "after": theta}
    jobs: dict[str, Callable[[], Any]] = {
        "hand-written": functools.partial(hand_written, optimizer, settings.seed),
        **{
            name: functools.partial(regions_of, optimizer, thetas, switches, horizon, settings.seed)
            for name, switches in SWITCHES.items()
        },
        "beyond": functools.partial(star_runs.losses, optimizer, theta, horizon * BEYOND[-1], settings.seed),
    }

    def measured(name: str) -> Any:
        with jax.enable_x64(name != "beyond"):
            result = jobs[name]()
        console.print(f"{name}: done", style="dim")
        return result

    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(jobs, pool.map(measured, jobs), strict=True))
    regions: Regions = {name: found[name][0] for name in SWITCHES}
    with jax.enable_x64(True):
        rows = [*fixed_preconditioner.rows(settings.seed), *_hand_written_rows(found["hand-written"])]
    rows += [
        *_start_rows({name: found[name][1] for name in SWITCHES}),
        *_region_rows(regions),
        *_horizon_rows(found["beyond"], horizon),
    ]
    return Reproduction(
        "star",
        rows,
        figures={
            "stable-region": star_figures.stable_region(regions, found["hand-written"]),
            "beyond-the-horizon": star_figures.beyond(found["beyond"], horizon, BEYOND),
        },
        details=[_detail(regions, horizon)],
        extra={
            "hand_written": {name: region._asdict() for name, (_, region) in found["hand-written"].items()},
            "regions": {
                name: {when: {str(at): region._asdict() for at, region in by.items()} for when, by in whens.items()}
                for name, whens in regions.items()
            },
            "starts": {name: [region._asdict() for region in found[name][1]] for name in SWITCHES},
            "losses": found["beyond"][:, :: max(1, found["beyond"].shape[1] // 500)],
        },
    )


class Instrument:
    """Predicts and measures an optimizer that depends on theta; compiled once for all thetas and inner steps."""

    def __init__(self, transform: Callable[[Any], optax.GradientTransformation], seed: int) -> None:
        past, future = jax.random.split(jax.random.key(seed))

        def prepare(theta: Any, at: jax.Array) -> tuple[Bath, Response]:
            bath = stability.bath(transform(theta), DIMENSION, PAST, past, REST, at)
            return bath, stability.response(transform(theta), bath, STEPS, future)

        def trials(theta: Any, bath: Bath, curvatures: jax.Array) -> jax.Array:
            return jax.vmap(lambda h: stability.trial(transform(theta), bath, h, future, STEPS))(curvatures)

        self._prepare, self._trials = jax.jit(prepare), jax.jit(trials)

    def predict(self, theta: Any, at: int) -> tuple[Region, Bath]:
        """The pull at inner step `at`, and where the response says that a deviation grows tenfold."""
        bath, found = self._prepare(theta, jnp.asarray(at))
        return Region(float(bath.pull), found.limit(GROWS ** (1 / STEPS))), bath

    def measure(self, theta: Any, at: int) -> Region:
        """The same, and where it does so in training."""
        region, bath = self.predict(theta, at)
        if not region.holds:
            return region

        def stable(curvatures: np.ndarray) -> np.ndarray:
            return np.asarray(self._trials(theta, bath, jnp.asarray(curvatures))) < GROWS

        return region._replace(measured=stability.edge(stable, GRID))


def hand_written(optimizer: Star, seed: int) -> dict[str, tuple[float, Region]]:
    """Optimizers whose largest stable curvature in noise of unit variance is known in closed form, and that."""
    zeros = jax.tree.map(jnp.zeros_like, optimizer.init(jax.random.key(0)))
    nominal = 2 / (optimizer.nominal_scale * float(np.mean([(1 - b) / (1 + b) for b in MOMENTUM_DECAYS])))
    cases: dict[str, tuple[float, Callable[[Any], optax.GradientTransformation], Any]] = {
        "gradient descent at 0.01": (2 / 0.01, lambda _: optax.sgd(0.01), ()),
        "heavy ball at 0.01": (2 * 1.9 / 0.01, lambda _: optax.sgd(0.01, momentum=0.9), ()),
        **{f"Adam at {rate:g}": (2 * 1.9 / (0.1 * rate), optax.adam, rate) for rate in (1e-3, 1e-2, 1e-1)},
        "the nominal term of STAR": (nominal, optimizer.transform, zeros),
    }
    return {name: (exact, Instrument(make, seed).measure(theta, PAST)) for name, (exact, make, theta) in cases.items()}


def regions_of(
    optimizer: Star, thetas: dict[str, Theta], switches: dict[str, Any], horizon: int, seed: int
) -> tuple[dict[str, dict[int, Region]], list[Region]]:
    """STAR under some switches: regions by meta-parameters and by horizons, and predictions for `STARTS` other inits.

    Measured at the horizon; STAR itself after meta-training beyond it, too.
    """
    changed = dataclasses.replace(optimizer, **switches)
    instrument = Instrument(changed.transform, seed)
    regions: dict[str, dict[int, Region]] = {}
    for when, theta in thetas.items():
        theta = without_heads(optimizer, changed, theta)
        everywhere = not switches and when == "after"
        regions[when] = {
            times: instrument.measure(theta, times * horizon)
            if times == 1 or everywhere
            else instrument.predict(theta, times * horizon)[0]
            for times in BEYOND
        }
    keys = jax.random.split(jax.random.key(seed + 1), STARTS)
    starts = [without_heads(optimizer, changed, optimizer.init(key)) for key in keys]
    return regions, [instrument.predict(theta, horizon)[0] for theta in starts]


def without_heads(optimizer: Star, changed: Star, theta: Theta) -> Theta:
    """Theta for the same optimizer with fewer heads, in float64: their columns of the last layer go."""
    kept = np.array([optimizer.heads.index(head) for head in changed.heads])
    last = max(theta["network"])
    layer = {name: values[..., kept] for name, values in theta["network"][last].items()}
    cut = {**theta, "network": {**theta["network"], last: layer}}
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), cut)


def _hand_written_rows(found: dict[str, tuple[float, Region]]) -> Iterator[Row]:
    for name, (exact, region) in found.items():
        yield Row(
            "STAR-3",
            f"largest stable curvature of {name}: predicted, and measured in training",
            f"{exact:.4g} within 2 %; within 10 %",
            f"{region.predicted:.4g}; {region.measured:.4g}",
            abs(region.predicted / exact - 1) <= 0.02 and abs(region.measured / exact - 1) <= 0.1,
        )


def _start_rows(found: dict[str, list[Region]]) -> Iterator[Row]:
    held = {name: sum(region.holds for region in regions) for name, regions in found.items()}
    for name, switches in SWITCHES.items():
        if "nominal" in switches:
            criterion, passed = "at most half: nothing says which way is down", 2 * held[name] <= STARTS
        else:
            criterion, passed = "more than without the nominal term", held[name] > held["no nominal term"]
        what = f"{name}: of {STARTS} random initialisations, how many hold the optimum on curvature {REST:g}"
        yield Row("STAR-4", what, criterion, str(held[name]), passed)


def _region_rows(regions: Regions) -> Iterator[Row]:
    for name, whens in regions.items():
        for when, by_horizon in whens.items():
            for times, region in by_horizon.items():
                what = f"{name}, {when} meta-training, at {times} times its horizon"
                if "nominal" in SWITCHES[name] and times == 1:
                    yield _pull_row(what, region, regions["STAR"][when][times])
                # A random initialisation that leaves the optimum is counted above: there is no edge to compare.
                elif (times == 1 and when == "after") or not np.isnan(region.measured):
                    yield _edge_row(what, region)


def _pull_row(what: str, region: Region, star: Region) -> Row:
    """Without the nominal term little holds the optimum."""
    return Row(
        "STAR-5",
        f"{what}: the pull away from the optimum, in units of the noise; that of STAR with these weights",
        f">= {DRIFT:g} times that of STAR",
        f"{region.pull:.2g}; {star.pull:.2g}",
        not abs(region.pull) < DRIFT * abs(star.pull),
    )


def _edge_row(what: str, region: Region) -> Row:
    """What holds the optimum loses it at the predicted curvature."""
    return Row(
        "STAR-5",
        f"{what}: largest stable curvature, predicted and measured in training",
        "within 25 % of each other",
        f"{region.predicted:.4g}, {region.measured:.4g} (pull {region.pull:.2g})",
        abs(region.measured / region.predicted - 1) <= 0.25,
    )


def _horizon_rows(losses: np.ndarray, horizon: int) -> Iterator[Row]:
    at = [losses[:, horizon * times // 100 - 10 : horizon * times // 100].mean(1) for times in BEYOND]
    for times, now in zip(BEYOND[1:], at[1:], strict=True):
        diverged = int((~(now < losses[:, 0])).sum())
        yield Row(
            "STAR-6",
            f"{len(losses)} runs at {times} times the meta-trained horizon of {horizon}: training loss; at the horizon",
            "no run diverges: loss finite and below that of the first 100 steps",
            f"{diverged} diverge; {now.mean():.2g}, {at[0].mean():.2g}",
            diverged == 0,
            spread=f"{now.min():.1g} to {now.max():.1g}",
        )


def _detail(regions: Regions, horizon: int) -> Detail:
    def cell(region: Region) -> str:
        return f"{region.predicted:.4g} ({region.pull:+.2f})" if region.holds else f"leaves ({region.pull:+.3g})"

    cells = [
        [f"{name}, {when}", *map(cell, by_horizon.values())]
        for name, whens in regions.items()
        for when, by_horizon in whens.items()
    ]
    title = "Largest stable curvature (and pull), predicted, before and after meta-training"
    return Detail(title, ("optimizer", *(f"step {times * horizon}" for times in BEYOND)), cells)
