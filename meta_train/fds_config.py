"""What a run of forward-mode differentiation with sharing is: one frozen dataclass."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import optax
import tyro

from learned_opt import errors
from learned_opt.errors import UsageError
from learned_opt.meta_train.sign_descent import rprop, sign_descent
from learned_opt.schedules import BASES, Schedule, ScheduledStar


@dataclass(frozen=True, kw_only=True)
class FDSConfig:
    """Finds schedules: each outer step trains once to the end, and follows the sign of the derivative of its result."""

    preset: Annotated[str, tyro.conf.Suppress]
    """The preset that this configuration started from."""
    base: Literal["sgd", "adamw", "star"] = "sgd"
    """The optimizer to schedule."""
    weights: str = "digits"
    """Pretrained STAR, by name or directory, for --base star."""
    task: str = "digits-mlp"
    """The task family to train on."""
    windows: dict[str, int] = field(default_factory=dict)
    """Parts of the run with a value of their own, by hyperparameter."""
    start: dict[str, float] = field(default_factory=dict)
    """Starting values."""
    first_step: dict[str, float] = field(default_factory=dict)
    """How far the first outer steps move each; halved when a sign flips."""
    lowest: dict[str, float] = field(default_factory=dict)
    """Hard ranges: from."""
    highest: dict[str, float] = field(default_factory=dict)
    """Hard ranges: to."""
    steps: int = 1000
    """Inner steps of a run."""
    outer_steps: int = 10
    """Outer steps at most."""
    stop_at: float = 0.05
    """Stop when all steps are below this share of their values; 0 never stops."""
    outer: Literal["sign", "rprop", "adam"] = "sign"
    """Sign descent with halving; Rprop, whose steps grow too; or Adam, whose rates are the first steps."""
    seeds: int = 1
    """Runs side by side whose hypergradients are averaged in each outer step."""
    mode: Literal["auto", "forward", "reverse"] = "auto"
    """How hypergradients are computed; auto: by predicted cost."""
    clamp: float | None = None
    """Limit of the entries of Hessian times sensitivity, which makes hypergradients inexact; needs --mode forward."""
    gradient_clip: float | None = None
    """Largest magnitude of the entries of loss gradients in training."""
    evaluations: int = 8
    """Validation minibatches over which the loss at the end of a run is averaged."""
    retrain_steps: int | None = None
    """Inner steps of the final runs with the schedules found, stretched (default: as many)."""
    retrain_seeds: int = 4
    """Final runs, on fresh seeds."""
    seed: int = 0
    """Determines everything random."""

    def __post_init__(self) -> None:
        """Refuses values that no run could have."""
        for name in ("steps", "outer_steps", "seeds", "evaluations", "retrain_seeds", "retrain_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} was given {value}: a number from 1 is accepted")
        for name in ("clamp", "gradient_clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"--{name.replace('_', '-')} was given {value}: a number above 0 is accepted")
        if self.clamp is not None and self.mode != "forward":
            raise UsageError(f"--clamp was given {self.clamp} and --mode {self.mode}: it is accepted with forward")
        if not 0 <= self.stop_at < math.inf:
            raise UsageError(f"--stop-at was given {self.stop_at}: a number from 0 is accepted")
        if self.base != "star" and self.weights != FDSConfig.weights:
            raise UsageError(f"--weights was given {self.weights} and --base {self.base}: it is accepted with star")
        errors.check_seed(self.seed)
        for table in ("windows", "start", "first_step", "lowest", "highest"):
            given = getattr(self, table)
            for name in given:
                if name not in self.names:
                    raise errors.unknown(f"hyperparameter in --{table.replace('_', '-')}", name, self.names)
            for name in self.names:
                if name not in given:
                    raise UsageError(f"--{table.replace('_', '-')} was given no {name}: {self.base} has {self.names}")
        for name in self.names:
            if not 0 < self.first_step[name] < math.inf:
                raise UsageError(f"--first-step was given {name} {self.first_step[name]}: a number above 0 is accepted")
            if self.retrain_steps is not None and self.retrain_steps < self.windows[name]:
                raise UsageError(
                    f"--retrain-steps was given {self.retrain_steps}: {name} has {self.windows[name]} windows, "
                    "and as many steps or more are accepted"
                )
            if not self.lowest[name] <= self.start[name] <= self.highest[name]:
                raise UsageError(
                    f"--start was given {name} {self.start[name]}: "
                    f"{self.lowest[name]} to {self.highest[name]} are accepted"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The hyperparameters."""
        return ("direction", "nominal") if self.base == "star" else tuple(BASES[self.base].starts)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The one task family."""
        return (self.task,)

    def optimizer(self, steps: int | None = None, star_options: dict[str, Any] | None = None) -> Any:
        """The schedule over `steps` inner steps (default: those of this configuration), and its name and options."""
        windows = tuple(self.windows[name] for name in self.names)
        if self.base == "star":
            return ScheduledStar(**(star_options or {}), windows=windows, steps=steps or self.steps)
        return Schedule(base=self.base, windows=windows, steps=steps or self.steps)

    def outer_optimizer(self) -> optax.GradientTransformation:
        """On the windows."""
        first = {name: self.first_step[name] for name in self.names}
        if self.outer != "adam":
            return {"rprop": rprop, "sign": sign_descent}[self.outer](first)

        def scale(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
            return {name: first[name] * u for name, u in updates.items()}

        return optax.chain(optax.adam(1.0), optax.stateless(scale))
