"""Hand-written optimizers by name: those of optax, at a learning rate."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from learned_opt.base import Theta

DEFAULT_RATE = 1e-3  # for the optimizers to which neither optax nor the table below gives one
RATES = {
    "lion": 1e-4,  # its paper: three to ten times below AdamW's (arXiv 2302.06675, section 5)
    "sgd-momentum": 1e-2,
}
_OURS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "schedule-free": optax.contrib.schedule_free_adamw,
    "sgd-momentum": functools.partial(optax.sgd, momentum=0.9),
}
WARM_UP = 0.1  # of the horizon

# Their signatures ask for a learning rate only, but they cannot run on gradients alone.
NEED_MORE = {
    "lbfgs": "the objective, for its line search",
    "noisy_sgd": "a random key",
    "sophia": "the objective, for its Hessian",
}


@dataclass(frozen=True)
class HandWritten:
    """An optimizer of optax; its theta is the learning rate."""

    name: str

    def theta(self, rate: float, horizon: int) -> Theta:
        """What it is run at for `horizon` steps."""
        return np.float32(rate)

    def transform(self, theta: Theta) -> optax.GradientTransformationExtraArgs:
        """The optimizer at the learning rate `theta`, which may be traced."""
        return optax.with_extra_args_support(_optimizers()[self.name](learning_rate=theta))

    @property
    def default_rate(self) -> float:
        """The learning rate of the table above, or that of optax, or 1e-3."""
        default = inspect.signature(_optimizers()[self.name]).parameters["learning_rate"].default
        return RATES.get(self.name, default if isinstance(default, float) else DEFAULT_RATE)

    def rate(self, half_decades: int) -> float:
        """A learning rate of the sweep, counted from the default."""
        return self.default_rate * 10 ** (half_decades / 2)


@dataclass(frozen=True)
class Cosine(HandWritten):
    """AdamW with a linear warm-up over a tenth of the horizon, and a cosine decay to 0 at its end.

    The schedule of `optax.warmup_cosine_decay_schedule`, which cannot be compiled once for all peaks and horizons.
    """

    name: str = "adamw-cosine"

    def theta(self, rate: float, horizon: int) -> Theta:
        """The peak of the learning rate, and the horizon."""
        return {"peak": np.float32(rate), "horizon": np.float32(horizon)}

    def transform(self, theta: Theta) -> optax.GradientTransformationExtraArgs:
        """The optimizer, from a peak and a horizon that may be traced."""
        decay = optax.cosine_decay_schedule(1.0, decay_steps=1)

        def learning_rate(step: jax.Array) -> jax.Array:
            done = step / theta["horizon"]
            falling = decay((done - WARM_UP) / (1 - WARM_UP))  # it takes fractions too
            return theta["peak"] * jnp.where(done < WARM_UP, done / WARM_UP, falling)

        return optax.with_extra_args_support(optax.adamw(learning_rate))

    @property
    def default_rate(self) -> float:
        """Of Adam."""
        return DEFAULT_RATE


def optimizer(name: str) -> HandWritten | None:
    """The optimizer called `name`, if there is one."""
    if name == Cosine.name:
        return Cosine()
    return HandWritten(name) if name in _optimizers() else None


def names() -> list[str]:
    """All of them: ours, and those of optax and `optax.contrib` that need a learning rate at most."""
    return sorted([*_optimizers(), Cosine.name])


@functools.cache
def _optimizers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    members = vars(optax.contrib) | vars(optax)
    accepted = {name: member for name, member in members.items() if name not in NEED_MORE and _is_one(name, member)}
    return accepted | _OURS


def _is_one(name: str, member: Any) -> bool:
    """Whether it can be called with a learning rate alone; the parts of an optimizer are called `scale_by_...`."""
    if not inspect.isroutine(member) and not isinstance(member, functools.partial):
        return False
    parameters = inspect.signature(member).parameters
    required = {p.name for p in parameters.values() if p.default is p.empty and p.kind != p.VAR_KEYWORD}
    return "learning_rate" in parameters and required <= {"learning_rate"} and not name.startswith(("scale_by_", "_"))
