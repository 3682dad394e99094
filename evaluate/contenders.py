"""What takes part in a benchmark: an optimizer, and the meta-parameters or learning rates it is run at."""

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optax
import optax.contrib

from learned_opt import errors
from learned_opt.base import LearnedOptimizer, Theta
from learned_opt.checkpoints import artifact
from learned_opt.checkpoints.load import load_learned_optimizer
from learned_opt.errors import UsageError

DEFAULT_RATE = 1e-3  # for the optimizers to which optax gives no learning rate
SWEEP = tuple(10 ** (k / 2) for k in range(-7, 8))  # half-decades around the default rate
TUNED = "-tuned"

# Their signatures ask for a learning rate only, but they cannot run on gradients alone.
_NEED_MORE = {
    "lbfgs": "the objective, for its line search",
    "noisy_sgd": "a random key",
    "sophia": "the objective, for its Hessian",
}


@dataclass(frozen=True)
class HandWritten:
    """An optimizer of optax; its theta is the learning rate."""

    name: str

    def transform(self, theta: Theta) -> optax.GradientTransformationExtraArgs:
        """The optimizer at the learning rate `theta`, which may be traced."""
        return optax.with_extra_args_support(_optax_optimizers()[self.name](learning_rate=theta))

    @property
    def default_rate(self) -> float:
        """The learning rate that optax gives it, or 1e-3."""
        default = inspect.signature(_optax_optimizers()[self.name]).parameters["learning_rate"].default
        return default if isinstance(default, float) else DEFAULT_RATE


Optimizer = LearnedOptimizer | HandWritten  # hashable, and what a program is compiled for: `transform(theta)`


@dataclass(frozen=True)
class Contender:
    """An optimizer and the thetas it is run at, of which the best is scored.

    Attributes:
        label: its name in tables, unique in a benchmark.
        thetas: by learning rate for a hand-written optimizer; one, by label, for a learned one.
        card: the model card of a learned optimizer, or what is known of it.
        tuning: how its thetas came to be, in one line.
    """

    label: str
    optimizer: Optimizer
    thetas: dict[Any, Theta]
    card: dict[str, Any] = field(default_factory=dict)
    tuning: str = ""

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates it is run at; none for a learned optimizer."""
        return tuple(self.thetas) if isinstance(self.optimizer, HandWritten) else ()

    @property
    def max_horizon(self) -> int | None:
        """The longest horizon it was meta-trained on, if its card, or the config of its unfinished run, says."""
        return self.card.get("config", self.card).get("max_horizon")


def learned(label: str, optimizer: LearnedOptimizer, theta: Theta, card: dict[str, Any] | None = None) -> Contender:
    """A contender from meta-parameters in memory."""
    return Contender(label, optimizer, {label: theta}, card or {})


def parse(text: str) -> Contender:
    """The contender that `text` names: `star`, `runs/mine`, `adam`, `adam@3e-3` or `adam-tuned`.

    `NAME-tuned` is the best of 15 learning rates, half-decades around the default, chosen anew for every task and
    horizon with its score in sight. A directory called as an optimizer of optax is reached by `./NAME`.

    Raises:
        UsageError: there is no such optimizer or run directory, or the learning rate is not a positive number.
    """
    if text in artifact.pretrained_names():
        return learned(text, *load_learned_optimizer(text))
    name, at, rate = text.removeprefix("contrib.").partition("@")
    tuned = name.endswith(TUNED) and not at
    name = name.removesuffix(TUNED) if tuned else name
    if name in _NEED_MORE:
        raise UsageError(f"optimizer {text!r} needs {_NEED_MORE[name]}: accepted are those that need only gradients")
    if name in optax_names():
        optimizer = HandWritten(name)
        default = optimizer.default_rate
        rates = [default * factor for factor in SWEEP] if tuned else [_rate(text, rate) if at else default]
        return Contender(text, optimizer, {rate: np.float32(rate) for rate in rates})
    if text and Path(text).is_dir():
        return learned(text, *load_learned_optimizer(text))
    shapes = ["a run directory", "NAME@RATE", f"NAME{TUNED}"]
    raise errors.unknown("optimizer", text, [*artifact.pretrained_names(), *optax_names(), *shapes])


def optax_names() -> list[str]:
    """The optimizers of optax and `optax.contrib` that need a learning rate at most."""
    return sorted(_optax_optimizers())


@functools.cache
def _optax_optimizers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    members = vars(optax.contrib) | vars(optax)
    return {name: member for name, member in members.items() if name not in _NEED_MORE and _is_optimizer(name, member)}


def _is_optimizer(name: str, member: Any) -> bool:
    """Whether it can be called with a learning rate alone; the parts of an optimizer are called `scale_by_...`."""
    if not inspect.isroutine(member) and not isinstance(member, functools.partial):
        return False
    parameters = inspect.signature(member).parameters
    required = {p.name for p in parameters.values() if p.default is p.empty and p.kind != p.VAR_KEYWORD}
    return "learning_rate" in parameters and required <= {"learning_rate"} and not name.startswith(("scale_by_", "_"))


def _rate(text: str, rate: str) -> float:
    limits = np.finfo(np.float32)  # what the optimizer will see
    try:
        value = float(rate)
    except ValueError:
        value = math.nan
    if not float(limits.tiny) <= value <= float(limits.max):
        raise UsageError(f"learning rate {rate!r} in {text!r}: a positive number is accepted, as in adam@1e-3")
    return value
