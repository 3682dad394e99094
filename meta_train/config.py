"""What a meta-training run is: one frozen dataclass, written to the run directory as JSON."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import optax
import tyro

from learned_opt.base import Theta
from learned_opt.checkpoints import artifact
from learned_opt.errors import UsageError
from learned_opt.meta_train.objective import MeasuredOn, MetaObjective

EstimatorName = Literal["pes", "truncated-backprop"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """A meta-training run."""

    preset: Annotated[str, tyro.conf.Suppress]
    """The preset that this configuration started from."""
    optimizer: str = "star"
    """The learned optimizer to meta-train."""
    optimizer_options: Annotated[dict[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Its options, by name."""
    tasks: tuple[str, ...] = ("digits-mlp-reparametrised",)
    """Task families; every one has its own particles, and gradients are averaged over them."""
    estimator: EstimatorName = "pes"
    """How meta-gradients are estimated."""
    measured_on: MeasuredOn = "train"
    """Which loss the meta-objective takes at each inner step."""
    loss_clip: float = 4.0
    """Losses above it count as it; how often is in the metrics. Digits start at 2.3."""
    steps: int = 1000
    """Outer steps."""
    seed: int = 0
    """Determines everything random."""
    particles: int = 32
    """Particles of each task family; for pes each is an antithetic pair."""
    truncation: int = 20
    """Inner steps for one outer step."""
    min_horizon: int = 100
    """The shortest inner problem, in inner steps."""
    max_horizon: int = 2000
    """The longest; horizons are log-uniform in between."""
    sigma: float = 0.01
    """Deviation of the perturbations of pes."""
    learning_rate: float = 7e-4
    """Peak rate of the outer AdamW, which decays along a cosine to zero."""
    weight_decay: float = 1e-4
    """Weight decay on the meta-parameters, their decay rates excepted."""
    gradient_clip: float = 0.3
    """Largest global norm of the meta-gradient; how often it is exceeded is in the metrics."""
    checkpoint_every: int = 50
    """Outer steps between checkpoints."""
    devices: int | None = None
    """Devices to use; None: all cores of a CPU, or all accelerators. A run may resume on another number."""

    def __post_init__(self) -> None:
        """Refuses values that no run could have."""
        positive = ("steps", "particles", "truncation", "min_horizon", "sigma", "learning_rate", "gradient_clip")
        for name in (*positive, "loss_clip", "checkpoint_every"):
            if not getattr(self, name) > 0:
                raise UsageError(f"--{_flag(name)} was given {getattr(self, name)}: a number above 0 is accepted")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"--weight-decay was given {self.weight_decay}: a number from 0 is accepted")
        if self.max_horizon < self.min_horizon:
            raise UsageError(f"--max-horizon was given {self.max_horizon}: at least {self.min_horizon} is accepted")
        if self.devices is not None and self.devices < 1:
            raise UsageError(f"--devices was given {self.devices}: a number from 1 is accepted")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed was given {self.seed}: a number from 0 to 2^32 - 1 is accepted")
        if not self.tasks:
            raise UsageError("--tasks was given nothing: at least one task family is accepted")

    @property
    def objective(self) -> MetaObjective:
        """The meta-objective."""
        return MetaObjective(measured_on=self.measured_on, clip=self.loss_clip)

    def outer_optimizer(self) -> optax.GradientTransformation:
        """Clipping by global norm, then AdamW on a cosine schedule."""
        return optax.chain(
            optax.clip_by_global_norm(self.gradient_clip),
            optax.adamw(
                optax.cosine_decay_schedule(self.learning_rate, self.steps),
                weight_decay=self.weight_decay,
                mask=_all_but_decays,
            ),
        )


def _all_but_decays(theta: Theta) -> Any:
    return {key: key != "decays" for key in theta}


def write(config: Config, path: Path) -> None:
    """Writes the configuration as JSON, whole or not at all."""
    artifact.replace(path, (json.dumps(dataclasses.asdict(config), indent=2) + "\n").encode())


def check_same(config: Config, path: Path) -> None:
    """Refuses to go on with a run under another configuration; only `devices` may differ.

    Raises:
        UsageError: names the first field that differs, with both values, or says what is wrong with the file.
    """
    given = json.loads(json.dumps(dataclasses.asdict(config)))
    found = artifact.read_json(path, artifact.ARCHITECTURE)
    for name in given | found:
        if name != "devices" and given.get(name) != found.get(name):
            raise UsageError(
                f"{path.parent} holds a run with {_flag(name)} {json.dumps(found.get(name))}, and "
                f"{json.dumps(given.get(name))} was given: accepted are the same values, or another --run-dir"
            )


def _flag(name: str) -> str:
    return name.replace("_", "-")
