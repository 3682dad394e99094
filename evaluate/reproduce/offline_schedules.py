"""Schedules of two meta-parameters, chosen on the exact noisy quadratic for one horizon and used for a longer one."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt.base import Theta
from learned_opt.evaluate import noisy_quadratic as exact
from learned_opt.evaluate.noisy_quadratic import Moments
from learned_opt.meta_train import estimators
from learned_opt.meta_train.estimators import EstimatorName
from learned_opt.meta_train.horizons import Horizons
from learned_opt.meta_train.objective import MetaObjective
from learned_opt.meta_train.parallel import Component, OuterSteps
from learned_opt.meta_train.perturbation import Perturbation
from learned_opt.meta_train.unroll import Unroller
from learned_opt.tasks.base import Batch, Params, Split, TaskParams

DIMENSION = 200
TIME_SCALE = 750  # K of the schedule
DEPLOYED = 3000  # inner steps
TRUNCATION, PARTICLES = 100, 16
SPECTRUM, START = exact.worst_case(DIMENSION)
CAP = float(exact.largest_rate(SPECTRUM, START))


def inverse_time(theta: Theta, step: jax.Array) -> jax.Array:
    """`alpha_t = alpha_0 / (1 + t / K)^beta`, never above the cap."""
    time = jnp.asarray(step, theta["log_rate"].dtype) / TIME_SCALE
    return jnp.minimum(jnp.exp(theta["log_rate"]) / (1 + time) ** jnp.exp(theta["log_decay"]), CAP)


def start() -> Theta:
    """alpha_0 = 0.03 and beta = 1, in float64."""
    return {"log_rate": jnp.asarray(np.log(0.03)), "log_decay": jnp.zeros(())}


def course(theta: Theta, steps: int) -> jax.Array:
    """The excess after every step, without momentum."""
    rates = inverse_time(theta, jnp.arange(steps))
    return exact.follow(SPECTRUM, START, rates, jnp.zeros(steps))[1]


class Chosen(NamedTuple):
    """What a meta-objective chooses: alpha_0, beta, and the excess of every step of the long run."""

    rate: float
    decay: float
    course: np.ndarray

    @property
    def final(self) -> float:
        """The excess at the end of the long run."""
        return float(self.course[-1])


def chosen(theta: Theta) -> Chosen:
    """The schedule that `theta` stands for, put to use."""
    excess = np.asarray(jax.jit(course, static_argnums=1)(theta, DEPLOYED))
    return Chosen(float(jnp.exp(theta["log_rate"])), float(jnp.exp(theta["log_decay"])), excess)


def at_horizon(horizon: int) -> Chosen:
    """Chosen by gradient descent on the log of the excess after `horizon` steps."""

    def objective(theta: Theta) -> jax.Array:
        return jnp.log(course(theta, horizon)[-1])

    return chosen(exact.descend(jax.jacfwd(objective), start(), optax.adam(0.03), 400))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ExpectedQuadratic:
    """The noisy quadratic in expectation: its "weights" are second moments, its loss the excess; a family of one."""

    loss_scale = 1.0

    def sample(self, key: jax.Array) -> TaskParams:
        """Nothing: there is one task."""
        return ()

    def task(self, task_params: TaskParams) -> "ExpectedQuadratic":
        """The task itself."""
        return self

    def init(self, key: jax.Array) -> Params:
        """The moments at the start."""
        return jax.tree.map(jnp.asarray, START)

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """The excess."""
        return exact.excess(SPECTRUM, params)

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """Nothing: the expectation is over all batches."""
        return ()


class ScheduleState(NamedTuple):
    """The number of steps so far."""

    step: jax.Array


@dataclass(frozen=True)
class InverseTime:
    """SGD on the schedule, as it acts on second moments; it has no use for the gradients of `ExpectedQuadratic`."""

    def init(self, key: jax.Array) -> Theta:
        """The schedule that all choices start from."""
        return start()

    def transform(self, theta: Theta) -> optax.GradientTransformationExtraArgs:
        """The optimizer on that schedule."""

        def update(updates: Any, state: ScheduleState, params: Any = None, **extra: Any) -> tuple[Any, ScheduleState]:
            del updates, extra
            new = exact.step(SPECTRUM, Moments(*params), inverse_time(theta, state.step), 0.0)
            return jax.tree.map(jnp.subtract, new, Moments(*params)), ScheduleState(state.step + 1)

        return optax.GradientTransformationExtraArgs(lambda params: ScheduleState(jnp.zeros((), jnp.int32)), update)


def in_truncations(estimator: EstimatorName, problems: int, seed: int) -> Chosen:
    """Chosen on the same objective by an estimator that unrolls `TRUNCATION` of the long run's steps at a time.

    `PARTICLES` runs of all ages side by side; as many updates as there are truncations in `problems` runs.
    """
    unroller = Unroller(
        family=ExpectedQuadratic(),
        optimizer=InverseTime(),
        objective=MetaObjective(measured_on="same-batch-after", aggregate="log"),
        truncation=TRUNCATION,
        horizons=Horizons(shortest=DEPLOYED, longest=DEPLOYED, out_of_phase=True),
    )
    updates = problems * DEPLOYED // TRUNCATION
    adam = optax.adam(optax.cosine_decay_schedule(0.05, updates))
    component = Component(estimators.make(estimator, unroller, Perturbation(sigma=0.1)), PARTICLES)
    steps = OuterSteps([component], adam, jax.devices()[:1])
    key = jax.random.key(seed)
    outer, states = steps.init_outer(start()), steps.init(key, start())
    for i in range(updates):
        outer, states, _ = steps.step(outer, states, key, i)
    return chosen(outer.theta)
