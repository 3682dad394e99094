"""Every meta-gradient estimator sampled, beside what it should find: bias, variance, time and memory."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from learned_opt.base import Theta
from learned_opt.evaluate.reproduce.closed_forms import ClosedForm
from learned_opt.meta_train import estimators
from learned_opt.meta_train.estimator import MetaGradientEstimator
from learned_opt.meta_train.estimators import PERTURBING
from learned_opt.meta_train.horizons import Horizons
from learned_opt.meta_train.objective import MetaObjective
from learned_opt.meta_train.perturbation import Perturbation
from learned_opt.meta_train.unroll import Unroller

SIGMA = Perturbation().sigma
PROBLEMS = 3  # that every particle runs through, so that resets are part of what is measured
MAX_Z = 4.0
ROUNDING = 1e-9  # relative; float64, of a mean over many particles
WHOLE = ("full-es", "full-backprop")  # one estimate for each problem
TRUNCATED = ("truncated-es", "truncated-backprop")


class Sampled(NamedTuple):
    """Estimates of the meta-gradient, one for each inner problem run: their mean, its standard error, their variance.

    seconds: for one problem, many of them side by side. bytes: what the program keeps for one particle.
    """

    mean: float
    error: float
    variance: float
    seconds: float
    bytes: float


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One estimator on one problem at one horizon and truncation.

    exact: the meta-gradient. expected: what the estimator should find on average, by the closed form: exact for
    `forward` and `full-backprop`, smoothed or truncated or both for the others.
    """

    problem: str
    estimator: str
    horizon: int
    truncation: int
    exact: float
    expected: float
    sampled: Sampled

    @property
    def bias(self) -> float:
        """Against the exact gradient."""
        return self.sampled.mean - self.exact

    @property
    def z(self) -> float:
        """Standard errors between what was found and what was expected; rounding is not counted against it."""
        off = abs(self.sampled.mean - self.expected)
        rounding = ROUNDING * abs(self.expected)
        return 0.0 if off <= rounding else off / max(self.sampled.error, rounding)

    @property
    def passed(self) -> bool:
        """Whether the estimate is the expected one."""
        return self.z < MAX_Z


def lengths(horizon: int, truncation: int) -> list[int]:
    """Inner steps of the truncations of a problem; the last may be cut short."""
    return [min(truncation, horizon - start) for start in range(0, horizon, truncation)]


def expected_gradient(problem: ClosedForm, name: str, horizon: int, truncation: int, sigma: float = SIGMA) -> float:
    """What the estimator called `name` estimates."""
    deviation = sigma if name in PERTURBING else 0.0
    if name in TRUNCATED:
        return problem.truncated_gradient(lengths(horizon, truncation), deviation)
    if name == "pes":
        return problem.gradient(lengths(horizon, truncation), deviation)
    return problem.gradient([horizon], deviation)


def make(
    problem: ClosedForm, name: str, horizon: int, truncation: int, perturbation: Perturbation | None = None
) -> MetaGradientEstimator:
    """The estimator called `name`, on problems that all have that horizon."""
    unroller = Unroller(
        family=problem.family,
        optimizer=problem.optimizer,
        objective=MetaObjective(measured_on=problem.measured_on),
        truncation=truncation,
        horizons=Horizons(shortest=horizon, longest=horizon),
    )
    return estimators.make(name, unroller, perturbation or Perturbation())


def theta_of(problem: ClosedForm) -> Theta:
    """The meta-parameters at which a problem's gradients are taken."""
    return jax.tree.map(lambda x: jnp.full(x.shape, problem.theta), problem.optimizer.init(jax.random.key(0)))


def temporary_bytes(program: jax.stages.Compiled) -> int:
    """What a compiled program keeps besides its arguments and results."""
    memory = program.memory_analysis()
    if memory is None:
        raise RuntimeError(f"JAX does not tell the memory of programs on {jax.default_backend()}")
    return memory.temp_size_in_bytes


@dataclasses.dataclass(frozen=True)
class Case:
    """A row to be measured: compiled first, so that compilation does not run beside what is timed."""

    problem: ClosedForm
    name: str
    horizon: int
    truncation: int
    perturbation: Perturbation = dataclasses.field(default_factory=Perturbation)
    label: str = ""

    def compile(self, samples: int) -> Callable[[int], Measurement]:
        """A function of a seed, which runs `samples` particles through several problems each."""
        truncations = PROBLEMS * (1 if self.name in WHOLE else len(lengths(self.horizon, self.truncation)))
        estimator = make(self.problem, self.name, self.horizon, self.truncation, self.perturbation)
        with jax.enable_x64(True):
            sampler = Sampler(estimator, theta_of(self.problem), truncations, samples)

        def run(seed: int) -> Measurement:
            with jax.enable_x64(True):
                sampled = sampler(estimator, truncations, seed)
            return _row(self.problem, self.name, self.horizon, self.truncation, sampled, self.label or self.name)

        return run


def alignments(problem: ClosedForm, name: str, longest: int, samples: int, seed: int = 0) -> list[Measurement]:
    """Every horizon with every truncation up to `longest`."""
    rows = []
    for truncation in range(1, longest + 1):
        with jax.enable_x64(True):
            # Horizons are data: one program serves them all.
            most = PROBLEMS * len(lengths(longest, truncation))
            sampler = Sampler(make(problem, name, longest, truncation), theta_of(problem), most, samples)
            for horizon in range(1, longest + 1):
                count = PROBLEMS * len(lengths(horizon, truncation))
                sampled = sampler(make(problem, name, horizon, truncation), count, seed * longest + horizon)
                rows.append(_row(problem, name, horizon, truncation, sampled, name))
    return rows


def _row(problem: ClosedForm, name: str, horizon: int, truncation: int, sampled: Sampled, label: str) -> Measurement:
    exact = problem.gradient([horizon])
    expected = expected_gradient(problem, name, horizon, truncation)
    return Measurement(problem.name, label, horizon, truncation, exact, expected, sampled)


class Sampler:
    """A compiled program that runs particles, each through up to `longest` truncations."""

    def __init__(self, estimator: MetaGradientEstimator, theta: Theta, longest: int, samples: int) -> None:
        """Compiles for estimators of that structure."""
        self.theta, self.longest, self.samples = theta, longest, samples
        arguments = estimator, theta, longest, jax.random.key(0)
        self.program = jax.jit(self._run).lower(*arguments).compile()

    def __call__(self, estimator: MetaGradientEstimator, truncations: int, seed: int) -> Sampled:
        """The estimates of every particle over its first `truncations`."""
        started = time.perf_counter()
        found = jax.block_until_ready(self.program(estimator, self.theta, truncations, jax.random.key(seed)))
        seconds = time.perf_counter() - started
        gradients = np.asarray(found)
        variance = gradients.var(ddof=1)
        return Sampled(
            mean=float(gradients.mean()),
            error=float(np.sqrt(variance / len(gradients))),
            variance=float(variance * PROBLEMS),
            seconds=seconds / len(gradients) / PROBLEMS,
            bytes=temporary_bytes(self.program) / len(gradients),
        )

    def _run(self, estimator: MetaGradientEstimator, theta: Theta, truncations: int, key: jax.Array) -> jax.Array:
        def particle(key: jax.Array) -> jax.Array:
            def body(state: Any, i: jax.Array) -> Any:
                estimate, state = estimator.estimate(theta, state, jax.random.fold_in(key, i))
                weight = jnp.where(i < truncations, estimate.weight, 0)
                return state, (weight, weight * jax.tree.leaves(estimate.gradient)[0])

            _, (weights, gradients) = jax.lax.scan(body, estimator.init(key, theta), jnp.arange(self.longest))
            return gradients.sum() / weights.sum()

        return jax.vmap(particle)(jax.random.split(key, self.samples))
