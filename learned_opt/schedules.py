"""Schedules as meta-parameters: each hyperparameter is constant within windows of the run (arXiv 2007.07869)."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt import errors
from learned_opt.base import EPS_ROOT, Theta
from learned_opt.star import Star

Values = dict[str, jax.Array]  # hyperparameters by name


def window_starts(windows: int, steps: int) -> np.ndarray:
    """The first step of each of `windows` equal parts of a run."""
    return -(-np.arange(windows) * steps // windows)


def as_schedule(theta: Any, steps: int) -> Any:
    """Found windows as plain `optax` schedules over a run of `steps` steps, for any training script.

    `theta` is the windows of one hyperparameter `[windows]`, or a dict of them, which gives a dict of schedules.
    Another number of steps than they were found with stretches them.
    """
    if isinstance(theta, Mapping):
        return {name: as_schedule(values, steps) for name, values in theta.items()}
    values = jnp.asarray(theta)
    starts = window_starts(len(values), steps)

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        return values[jnp.searchsorted(starts, jnp.asarray(count), side="right") - 1]

    return schedule


class WindowedState(NamedTuple):
    """Number of updates so far, and the state of the optimizer."""

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as optax's states do
    inner_state: optax.OptState


def windowed(
    make: Callable[[Values], optax.GradientTransformation], windows: Values, steps: int
) -> optax.GradientTransformationExtraArgs:
    """The optimizer `make(hyperparameters)`, whose hyperparameters change from window to window of `steps` steps."""
    schedules = as_schedule(windows, steps)

    def at(count: jax.typing.ArrayLike) -> optax.GradientTransformationExtraArgs:
        values = {name: schedule(count) for name, schedule in schedules.items()}
        return optax.with_extra_args_support(make(values))

    def init(params: optax.Params) -> WindowedState:
        return WindowedState(jnp.zeros((), jnp.int32), at(0).init(params))

    def update(
        updates: optax.Updates, state: WindowedState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, WindowedState]:
        updates, inner_state = at(state.count).update(updates, state.inner_state, params, **extra)
        return updates, WindowedState(optax.safe_increment(state.count), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def sgd(values: Values) -> optax.GradientTransformation:
    """`v' = momentum v + g + weight_decay w`, `w' = w - learning_rate v'`."""
    return optax.chain(
        optax.add_decayed_weights(values["weight_decay"]),
        optax.trace(values["momentum"]),
        optax.scale(-values["learning_rate"]),
    )


def adamw(values: Values) -> optax.GradientTransformation:
    """`optax.adamw` of `learning_rate`, `b1` and `weight_decay`."""
    return optax.adamw(values["learning_rate"], b1=values["b1"], weight_decay=values["weight_decay"], eps_root=EPS_ROOT)


class Base(NamedTuple):
    """An optimizer to schedule, and where its hyperparameters start."""

    make: Callable[[Values], optax.GradientTransformation]
    starts: dict[str, float]


BASES = {
    "sgd": Base(sgd, {"learning_rate": 0.0, "momentum": 0.0, "weight_decay": 0.0}),
    "adamw": Base(adamw, {"learning_rate": 0.0, "b1": 0.9, "weight_decay": 0.0}),
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A hand-written optimizer whose meta-parameters are the windows of its hyperparameters.

    Attributes:
        base: `sgd` (learning_rate, momentum, weight_decay) or `adamw` (learning_rate, b1, weight_decay).
        windows: of each hyperparameter, in that order.
        steps: of the run that the windows divide; the last window goes on beyond it.
    """

    base: str = "sgd"
    windows: tuple[int, ...] = (5, 1, 1)
    steps: int = 1000

    def __post_init__(self) -> None:
        """Refuses bases that do not exist, and windows that do not fit them."""
        if self.base not in BASES:
            raise errors.unknown("base of a schedule", self.base, BASES)
        _check(self.windows, self.names, self.steps)

    @property
    def names(self) -> tuple[str, ...]:
        """The hyperparameters: keys of theta that hold windows."""
        return tuple(BASES[self.base].starts)

    def init(self, key: jax.Array) -> Theta:
        """The starting values, the same in every window. `key` is not used."""
        starts = BASES[self.base].starts
        return {name: jnp.full(n, starts[name]) for name, n in zip(self.names, self.windows, strict=True)}

    def transform(self, theta: Theta) -> optax.GradientTransformationExtraArgs:
        """The optimizer with those windows."""
        return windowed(BASES[self.base].make, theta, self.steps)


@dataclass(frozen=True, kw_only=True)
class ScheduledStar(Star):
    """STAR whose two heads that move parameters, `direction` and `nominal`, are scaled window by window.

    Attributes:
        windows: of `direction` and of `nominal`.
        steps: as for `Schedule`.
    """

    windows: tuple[int, ...] = (5, 5)
    steps: int = 1000

    def __post_init__(self) -> None:
        """Refuses a STAR without a nominal term, and windows that do not fit."""
        super().__post_init__()
        if self.nominal == "none":
            raise errors.UsageError("nominal was given 'none': a schedule of it needs the nominal term")
        _check(self.windows, self.names, self.steps)

    @property
    def names(self) -> tuple[str, ...]:
        """As for `Schedule`."""
        return ("direction", "nominal")

    def init(self, key: jax.Array) -> Theta:
        """Those of STAR, and windows of 1, which change nothing."""
        windows = {name: jnp.ones(n) for name, n in zip(self.names, self.windows, strict=True)}
        return super().init(key) | windows

    def transform(self, theta: Theta) -> optax.GradientTransformationExtraArgs:
        """STAR with those windows."""
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(Star)}
        star = {key: leaf for key, leaf in theta.items() if key not in self.names}

        def make(values: Values) -> optax.GradientTransformation:
            scales = {
                "step_scale": self.step_scale * values["direction"],
                "nominal_scale": self.nominal_scale * values["nominal"],
            }
            return Star(**options | scales).transform(star)

        return windowed(make, {name: theta[name] for name in self.names}, self.steps)


def _check(windows: tuple[int, ...], names: tuple[str, ...], steps: int) -> None:
    if len(windows) != len(names) or not all(1 <= n <= steps for n in windows):
        accepted = f"{len(names)} numbers from 1 to {steps}, for {', '.join(names)}"
        raise errors.UsageError(f"windows was given {windows}: accepted are {accepted}")
