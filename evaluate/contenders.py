"""What takes part in a benchmark: an optimizer, and the meta-parameters or learning rates it is run at."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optax

from learned_opt import errors, knobs
from learned_opt.base import LearnedOptimizer, Theta
from learned_opt.checkpoints import artifact
from learned_opt.checkpoints.load import load_learned_optimizer
from learned_opt.errors import UsageError
from learned_opt.evaluate import hand_written
from learned_opt.evaluate.hand_written import Cosine, HandWritten

SWEEP = range(-7, 8)  # half-decades around the default rate
TUNED = "-tuned"
COOLDOWN = "+cooldown"
ONE_RATE = "adam-one-lr"

ORACLE = (
    "the best of {count} {rates}, half-decades around {default:.3g}, more where the best is at an edge, for each task "
    "and horizon: that of the lowest final training loss, its score in sight (an oracle)"
)
COSINE = "; warm-up over a tenth of the horizon, then a cosine to 0 at its end: each horizon is a run of its own"
COOLED_DOWN = "; steps fall linearly to 0 over the last {share:.0%} of the horizon: each horizon is a run of its own"


@dataclass(frozen=True)
class Given:
    """An optax optimizer as it is, with nothing to choose; its theta is empty."""

    name: str
    optimizer: optax.GradientTransformation

    def transform(self, theta: Theta) -> optax.GradientTransformationExtraArgs:
        """That optimizer."""
        return optax.with_extra_args_support(self.optimizer)


@dataclass(frozen=True)
class CooledDown:
    """A learned optimizer that knows the horizon, over whose last part its steps fall linearly to 0."""

    optimizer: LearnedOptimizer

    def theta(self, theta: Theta, horizon: int) -> Theta:
        """What it is run at for `horizon` steps."""
        return {"theta": theta, "horizon": np.float32(horizon)}

    def transform(self, theta: Theta) -> optax.GradientTransformationExtraArgs:
        """The optimizer, from a horizon that may be traced."""
        return knobs.with_knobs(
            self.optimizer.transform(theta["theta"]), step_multiplier=knobs.cooldown_schedule(theta["horizon"])
        )


Optimizer = (
    LearnedOptimizer | HandWritten | Given | CooledDown
)  # hashable, and what a program is compiled for: `transform(theta)`


@dataclass(frozen=True)
class Contender:
    """An optimizer and the thetas it is run at, of which the best is scored.

    Attributes:
        label: its name in tables, unique in a benchmark.
        thetas: by learning rate, ascending, for a hand-written optimizer; one, by label, for others.
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
        """The learning rates it is run at first; none unless hand-written."""
        return tuple(self.thetas) if isinstance(self.optimizer, HandWritten) else ()

    @property
    def swept(self) -> bool:
        """Whether the best of several learning rates is scored."""
        return len(self.rates) > 1

    @property
    def per_horizon(self) -> bool:
        """Whether each horizon is a run of its own."""
        return isinstance(self.optimizer, Cosine | CooledDown)

    def theta(self, name: Any, horizon: int) -> Theta:
        """The theta called `name`, or a learning rate, for runs of `horizon` steps."""
        if isinstance(self.optimizer, HandWritten):
            return self.optimizer.theta(name, horizon)
        theta = self.thetas[name]
        return self.optimizer.theta(theta, horizon) if isinstance(self.optimizer, CooledDown) else theta

    @property
    def max_horizon(self) -> int | None:
        """The longest horizon it was meta-trained on, if its card, or the config of its unfinished run, says."""
        return self.card.get("config", self.card).get("max_horizon")


def learned(label: str, optimizer: LearnedOptimizer, theta: Theta, card: dict[str, Any] | None = None) -> Contender:
    """A contender from meta-parameters in memory."""
    card = card or {}
    tuning = f"meta-trained{_used_with(card)}; nothing chosen for these tasks"
    return Contender(label, optimizer, {label: theta}, card, tuning)


def _used_with(card: dict[str, Any]) -> str:
    """The options that are not those of its meta-training."""
    trained = card.get("config", {}).get("optimizer_options")
    if trained is None:
        return ""
    used = card["optimizer_options"]
    others = [name for name in used if used[name] != trained.get(name)]
    return "".join(f", used with {name} {used[name]} for {trained.get(name, 'its default')}" for name in others)


def cooled_down(contender: Contender) -> Contender:
    """A meta-trained contender with a cooldown.

    Raises:
        UsageError: it is hand-written.
    """
    if isinstance(contender.optimizer, HandWritten | Given | CooledDown):
        raise UsageError(f"{contender.label}{COOLDOWN}: a cooldown is accepted on pretrained names and run directories")
    label, (theta,) = contender.label + COOLDOWN, contender.thetas.values()
    return Contender(
        label,
        CooledDown(contender.optimizer),
        {label: theta},
        contender.card,
        contender.tuning + COOLED_DOWN.format(share=knobs.COOLDOWN),
    )


def given(label: str, optimizer: optax.GradientTransformation) -> Contender:
    """A contender from an optax optimizer in memory."""
    return Contender(label, Given(label, optimizer), {label: np.zeros(0, np.float32)}, {}, "as given")


def at_rate(label: str, optimizer: HandWritten, rate: float, tuning: str) -> Contender:
    """A hand-written optimizer at one learning rate."""
    return Contender(label, optimizer, {rate: np.float32(rate)}, {}, tuning)


def sweep(label: str, optimizer: HandWritten) -> Contender:
    """The best of 15 learning rates, half-decades around the default, for every task and horizon."""
    cosine = isinstance(optimizer, Cosine)
    rates = "peak learning rates" if cosine else "learning rates"
    text = ORACLE.format(count=len(SWEEP), rates=rates, default=optimizer.default_rate)
    thetas = {optimizer.rate(k): np.float32(optimizer.rate(k)) for k in SWEEP}
    return Contender(label, optimizer, thetas, {}, text + COSINE * cosine)


def parse(text: str) -> Contender:
    """The contender that `text` names: `star`, `runs/mine`, `star+cooldown`, `adam`, `adam@3e-3`, `adam-tuned`.

    `NAME-tuned` is the best of 15 learning rates, half-decades around the default, chosen anew for every task and
    horizon with its score in sight; so is the peak of `adamw-cosine`, which knows each horizon, as `NAME+cooldown` of a
    learned optimizer does. `adam-one-lr` comes without its rate, which `one_rate` finds. A directory called as an
    optimizer of optax is reached by `./NAME`.

    Raises:
        UsageError: there is no such optimizer or run directory, or the learning rate is not a positive number.
    """
    if text.endswith(COOLDOWN):
        return cooled_down(parse(text.removesuffix(COOLDOWN)))
    if text in artifact.pretrained_names():
        return learned(text, *load_learned_optimizer(text))
    if text == ONE_RATE:
        return Contender(text, HandWritten("adam"), {})
    name, at, rate = text.removeprefix("contrib.").partition("@")
    tuned = name.endswith(TUNED) and not at
    name = name.removesuffix(TUNED) if tuned else name
    if name in hand_written.NEED_MORE:
        more = hand_written.NEED_MORE[name]
        raise UsageError(f"optimizer {text!r} needs {more}: accepted are those that need only gradients")
    optimizer = hand_written.optimizer(name)
    if optimizer and (tuned or (isinstance(optimizer, Cosine) and not at)):
        return sweep(text, optimizer)
    if optimizer and at:
        return at_rate(text, optimizer, _rate(text, rate), f"learning rate {rate} as given")
    if optimizer:
        default = optimizer.default_rate
        return at_rate(text, optimizer, default, f"learning rate {default:.3g}, its default; not tuned")
    if text and Path(text).is_dir():
        return learned(text, *load_learned_optimizer(text))
    accepted = [*artifact.pretrained_names(), ONE_RATE, *hand_written.names()]
    raise errors.unknown(
        "optimizer", text, [*accepted, "a run directory", "NAME@RATE", f"NAME{TUNED}", f"NAME{COOLDOWN}"]
    )


def _rate(text: str, rate: str) -> float:
    limits = np.finfo(np.float32)  # what the optimizer will see
    try:
        value = float(rate)
    except ValueError:
        value = math.nan
    if not float(limits.tiny) <= value <= float(limits.max):
        raise UsageError(f"learning rate {rate!r} in {text!r}: a positive number is accepted, as in adam@1e-3")
    return value
