"""What a meta-training run is: one frozen dataclass, written to the run directory as JSON."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import optax
import tyro

from learned_opt import errors
from learned_opt.base import Theta
from learned_opt.checkpoints import artifact
from learned_opt.errors import UsageError
from learned_opt.meta_train.estimators import PERTURBING, EstimatorName
from learned_opt.meta_train.horizons import Horizons
from learned_opt.meta_train.objective import Aggregate, MeasuredOn, MetaObjective
from learned_opt.meta_train.perturbation import Perturbation
from learned_opt.meta_train.shaping import Shaping


@dataclass(frozen=True, kw_only=True)
class Config:
    """A meta-training run."""

    preset: Annotated[str, tyro.conf.Suppress]
    """The preset that this configuration started from."""
    optimizer: str = "star"
    """The learned optimizer to meta-train."""
    optimizer_options: Annotated[dict[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Its options, by name."""
    init: str | None = None
    """Where meta-training starts (default: at new meta-parameters): pretrained weights or a run directory, whose
    optimizer and options it takes."""
    init_sha256: Annotated[str | None, tyro.conf.Suppress] = None
    """Of the meta-parameters there."""
    tasks: tuple[str, ...] = ("digits-mlp-reparametrised",)
    """Task families; each has particles of its own, and meta-gradients are averaged over the families."""
    weight_of: dict[str, float] = field(default_factory=dict)
    """Weights in that average other than 1: --weight-of digits-cnn 0.5."""
    particles_of: dict[str, int] = field(default_factory=dict)
    """Particles of families other than --particles: --particles-of digits-cnn 8."""
    normalise_gradients: bool = False
    """Scale the meta-gradient of every family to a norm of 1 before the average."""
    estimator: EstimatorName = "pes"
    """How meta-gradients are estimated."""
    measured_on: MeasuredOn = "train"
    """Which loss the meta-objective takes at each inner step."""
    aggregate: Aggregate = "mean"
    """What it makes of them: their mean, the last, the mean of the last --window, log(last) / horizon, the mean log, or
    that by the logarithm of time."""
    window: int | None = None
    """Inner steps of final-window."""
    normalise: bool = False
    """Divide losses by the loss scale of their task, ln(classes) for classification."""
    loss_clip: float | None = 4.0
    """Losses above it count as it; how often is in the metrics. Digits start at 2.3."""
    steps: int = 1000
    """Outer steps."""
    seed: int = 0
    """Determines everything random."""
    particles: int = 32
    """Particles of each task family; for estimators that perturb theta each is a pair."""
    truncation: int = 20
    """Inner steps for one outer step, or between the states that full-backprop keeps."""
    min_horizon: int = 100
    """The shortest inner problem, in inner steps."""
    max_horizon: int = 2000
    """The longest; horizons are log-uniform in between, or constant where both are the same."""
    curriculum: int = 0
    """Outer steps over which the longest horizon grows from --min-horizon to --max-horizon."""
    out_of_phase: bool = True
    """Cut the first problem of every particle short, so that particles do not all restart at once."""
    sigma: float = 0.01
    """Deviation of the perturbations of theta."""
    sigma_of: dict[str, float] = field(default_factory=dict)
    """Other deviations for parts of theta, by its keys: --sigma-of decays 0.1."""
    antithetic: bool = True
    """Pairs of theta + eps and theta - eps; otherwise of theta + eps and theta."""
    common_random_numbers: bool = True
    """Both members of a pair see the same batches."""
    shaping: Shaping = "none"
    """Replace the differences of pairs by their signs or ranks among the particles, which biases the meta-gradient."""
    learning_rate: float = 7e-4
    """Peak rate of the outer AdamW, which decays along a cosine to zero."""
    weight_decay: float = 1e-4
    """Weight decay on the meta-parameters, their decay rates excepted."""
    gradient_clip: float | None = 0.3
    """Largest global norm of the meta-gradient; how often it is exceeded is in the metrics."""
    gradient_clip_value: float | None = None
    """Largest magnitude of its entries, applied first; the same."""
    checkpoint_every: int = 50
    """Outer steps between checkpoints."""
    devices: int | None = None
    """Devices to use; None: all cores of a CPU, or all accelerators. A run may resume on another number."""

    def __post_init__(self) -> None:
        """Refuses values that no run could have."""
        positive = ("steps", "particles", "truncation", "min_horizon", "sigma", "learning_rate", "gradient_clip")
        for name in (*positive, "gradient_clip_value", "loss_clip", "window", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"--{_flag(name)} was given {value}: a number above 0 is accepted")
        for name in ("weight_decay", "curriculum"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"--{_flag(name)} was given {getattr(self, name)}: a number from 0 is accepted")
        if self.max_horizon < self.min_horizon:
            raise UsageError(f"--max-horizon was given {self.max_horizon}: at least {self.min_horizon} is accepted")
        if self.devices is not None and self.devices < 1:
            raise UsageError(f"--devices was given {self.devices}: a number from 1 is accepted")
        errors.check_seed(self.seed)
        self._check_tasks()
        if (self.window is None) != (self.aggregate != "final-window"):
            raise UsageError(
                f"--window was given {self.window} and --aggregate {self.aggregate}: "
                "a window is accepted with final-window, which needs one"
            )
        self._check_perturbation()

    def _check_tasks(self) -> None:
        if not self.tasks:
            raise UsageError("--tasks was given nothing: at least one task family is accepted")
        if len(set(self.tasks)) < len(self.tasks):
            raise UsageError(f"--tasks was given {' '.join(self.tasks)}: each task family is accepted once")
        for name in ("weight_of", "particles_of"):
            for task, value in getattr(self, name).items():
                if task not in self.tasks:
                    raise UsageError(f"--{_flag(name)} was given {task}: accepted are {', '.join(self.tasks)}")
                if not 0 < value < math.inf:
                    raise UsageError(f"--{_flag(name)} was given {task} {value}: a number above 0 is accepted")

    def _check_perturbation(self) -> None:
        """Flags that an estimator would ignore are refused."""
        for key, value in self.sigma_of.items():
            if not 0 < value < math.inf:
                raise UsageError(f"--sigma-of was given {key} {value}: a number above 0 is accepted")
        if self.estimator in PERTURBING:
            return
        for spec in dataclasses.fields(self):
            if spec.name in ("sigma", "sigma_of", "antithetic", "common_random_numbers", "shaping"):
                default = spec.default if spec.default is not dataclasses.MISSING else {}
                if getattr(self, spec.name) != default:
                    raise UsageError(
                        f"--{_flag(spec.name)} was given {getattr(self, spec.name)} and --estimator {self.estimator}, "
                        f"which perturbs nothing: it is accepted with {', '.join(PERTURBING)}"
                    )

    def objective(self) -> MetaObjective:
        """The meta-objective."""
        return MetaObjective(
            measured_on=self.measured_on,
            aggregate=self.aggregate,
            window=self.window or 1,
            clip=math.inf if self.loss_clip is None else self.loss_clip,
            normalise=self.normalise,
        )

    def horizons(self) -> Horizons:
        """The lengths of inner problems."""
        return Horizons(
            shortest=self.min_horizon,
            longest=self.max_horizon,
            curriculum=self.curriculum,
            out_of_phase=self.out_of_phase,
        )

    def perturbation(self, theta: Theta) -> Perturbation:
        """The perturbations of theta.

        Raises:
            UsageError: `sigma_of` names what theta has not.
        """
        for key in self.sigma_of:
            if key not in theta:
                raise UsageError(f"--sigma-of was given {key}: accepted are {', '.join(theta)}")
        return Perturbation(
            sigma={key: self.sigma_of.get(key, self.sigma) for key in theta},
            antithetic=self.antithetic,
            common_random_numbers=self.common_random_numbers,
        )

    def outer_optimizer(self) -> optax.GradientTransformation:
        """Clipping by value and by global norm, then AdamW on a cosine schedule."""
        return optax.chain(
            optax.identity() if self.gradient_clip_value is None else optax.clip(self.gradient_clip_value),
            optax.identity() if self.gradient_clip is None else optax.clip_by_global_norm(self.gradient_clip),
            optax.adamw(
                optax.cosine_decay_schedule(self.learning_rate, self.steps),
                weight_decay=self.weight_decay,
                mask=_all_but_decays,
            ),
        )


def _all_but_decays(theta: Theta) -> Any:
    return {key: key != "decays" for key in theta}


def write(config: dict[str, Any], path: Path) -> None:
    """Writes the configuration as JSON, whole or not at all."""
    artifact.replace(path, (json.dumps(config, indent=2) + "\n").encode())


def check_same(config: dict[str, Any], path: Path) -> None:
    """Refuses to go on with a run under another configuration; only `devices` may differ.

    Raises:
        UsageError: names the first field that differs, with both values, or says what is wrong with the file.
    """
    given = json.loads(json.dumps(config))
    found = artifact.read_json(path, artifact.ARCHITECTURE)
    for name in given | found:
        if name != "devices" and given.get(name) != found.get(name):
            raise UsageError(
                f"{path.parent} holds a run with {_flag(name)} {json.dumps(found.get(name))}, and "
                f"{json.dumps(given.get(name))} was given: accepted are the same values, or another --run-dir"
            )


def _flag(name: str) -> str:
    return name.replace("_", "-")
