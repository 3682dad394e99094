"""Stochastic meta-descent: hyperparameters tuned on simulated lookaheads (Wu et al. 2018, arXiv 1803.02021)."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from learned_opt import sensitivity
from learned_opt.online import meta_step
from learned_opt.tasks import training
from learned_opt.tasks.base import Task
from learned_opt.tasks.training import InnerState

Hyperparameters = Any  # a pytree of positive scalars
Decay = Callable[[Hyperparameters, jax.Array], Hyperparameters]


class SMDState(NamedTuple):
    """logs: of the hyperparameters. skipped: meta-updates whose gradient was not finite; bounded: that met a bound;
    clipped: whose gradient was clipped."""

    logs: Hyperparameters
    meta_state: optax.OptState
    skipped: jax.Array
    bounded: jax.Array
    clipped: jax.Array

    @property
    def values(self) -> Hyperparameters:
        """The hyperparameters."""
        return jax.tree.map(jnp.exp, self.logs)


class Trajectory(NamedTuple):
    """Along a run, one entry for every meta-update or block of training steps: hyperparameters and training loss."""

    values: Hyperparameters
    loss: jax.Array


@dataclass(frozen=True, kw_only=True)
class SMD:
    """One meta-update: a lookahead from the weights given, forward sensitivities along it, a step of the logarithms.

    The simulated weights are thrown away. Written for one task; `vmap` for several seeds.

    Attributes:
        make: from hyperparameters to the inner optimizer, such as `heavy_ball`.
        lookahead: inner steps of a simulation.
        meta: what moves the logarithms.
        bounds: lowest and highest value, in a tree like the hyperparameters.
        clip: largest magnitude of a derivative with respect to a hyperparameter itself, before it becomes one with
            respect to its logarithm.
        evaluations: minibatches over which the final training loss is averaged.
        same_batch: one minibatch for all steps of a lookahead and for its final loss, as if it had no noise.
    """

    make: Callable[[Hyperparameters], optax.GradientTransformation]
    lookahead: int
    meta: optax.GradientTransformation
    bounds: Any
    clip: float | None = None
    evaluations: int = 1
    same_batch: bool = False

    def init(self, values: Hyperparameters) -> SMDState:
        """Starts at `values`."""
        logs = jax.tree.map(lambda x: jnp.log(jnp.asarray(x, float)), values)
        zero = jnp.zeros((), jnp.int32)
        return SMDState(logs, self.meta.init(logs), zero, zero, zero)

    def start(self, task: Task, values: Hyperparameters, key: jax.Array) -> InnerState:
        """A fresh inner training run."""
        return training.start(task, self.make(values), key)

    def meta_update(self, task: Task, state: SMDState, inner: InnerState, key: jax.Array) -> tuple[SMDState, jax.Array]:
        """The state after one meta-update from the live `inner` state, and the loss at the end of its lookahead."""
        loss, gradient = self.meta_gradient(task, state.logs, inner, key)
        clipped = state.clipped
        if self.clip is not None:
            limits = jax.tree.map(functools.partial(jnp.multiply, self.clip), state.values)
            beyond = jax.tree.map(lambda g, limit: jnp.abs(g) > limit, gradient, limits)
            clipped = clipped + functools.reduce(jnp.logical_or, jax.tree.leaves(beyond))
            gradient = jax.tree.map(lambda g, limit: jnp.clip(g, -limit, limit), gradient, limits)
        moved = meta_step(self.meta, self.bounds)(gradient, state)
        return SMDState(moved.logs, moved.meta_state, moved.skipped, moved.bounded, clipped), loss

    def meta_gradient(
        self, task: Task, logs: Hyperparameters, inner: InnerState, key: jax.Array
    ) -> tuple[jax.Array, Hyperparameters]:
        """The loss at the end of a lookahead, and its derivative with respect to the logarithms."""

        def body(carry: Any, step_key: jax.Array) -> Any:
            def step(inner: InnerState, logs: Hyperparameters) -> Any:
                return self.train_step(task, jax.tree.map(jnp.exp, logs), inner, step_key)[0], (), None

            inner, sensitivities = carry
            advanced = sensitivity.advance(step, inner, sensitivities, logs)
            return (advanced.state, advanced.sensitivities), None

        keys = jax.random.split(key, self.lookahead + self.evaluations)
        if self.same_batch:
            keys = jnp.broadcast_to(key, keys.shape)
        carry = inner, sensitivity.start(inner, logs)
        (end, sensitivities), _ = jax.lax.scan(body, carry, keys[: self.lookahead])
        losses = functools.partial(self._loss, task, keys[self.lookahead :])
        loss, grads = jax.value_and_grad(losses)(end.params)
        flat = sensitivity.along(grads, sensitivities.params)
        return loss, jax.flatten_util.ravel_pytree(logs)[1](flat)

    def train_step(
        self, task: Task, values: Hyperparameters, inner: InnerState, key: jax.Array
    ) -> tuple[InnerState, jax.Array]:
        """One inner step, and the loss before it."""
        transform = optax.with_extra_args_support(self.make(values))
        inner, seen = training.step(task, transform, inner, key)
        return inner, seen.loss

    def _loss(self, task: Task, keys: jax.Array, params: Any) -> jax.Array:
        """The training loss, over minibatches drawn as `training.step` draws them."""

        def one(key: jax.Array) -> jax.Array:
            batch_key, loss_key = jax.random.split(key)
            return task.loss(params, loss_key, task.sample_batch(batch_key, "train"))

        return jax.vmap(one)(keys).mean()


def offline(
    smd: SMD, task: Task, state: SMDState, warm: InnerState, key: jax.Array, meta_steps: int
) -> tuple[SMDState, Trajectory]:
    """Meta-updates that all look ahead from the same `warm` start; the trajectory has one entry for each."""

    def body(state: SMDState, key: jax.Array) -> Any:
        state, loss = smd.meta_update(task, state, warm, key)
        return state, Trajectory(state.values, loss)

    return jax.lax.scan(body, state, jax.random.split(key, meta_steps))


def online(
    smd: SMD,
    task: Task,
    state: SMDState,
    inner: InnerState,
    key: jax.Array,
    *,
    steps: int,
    every: int,
    meta_steps: int,
) -> tuple[SMDState, InnerState, Trajectory]:
    """Training whose hyperparameters see `meta_steps` meta-updates from the live weights before every `every` steps.

    The trajectory has an entry for each `every` steps: hyperparameters after the meta-updates, mean training loss.
    """

    def body(carry: tuple[SMDState, InnerState], key: jax.Array) -> Any:
        state, inner = carry
        meta_key, train_key = jax.random.split(key)

        def adapt(state: SMDState, key: jax.Array) -> Any:
            return smd.meta_update(task, state, inner, key)

        state, _ = jax.lax.scan(adapt, state, jax.random.split(meta_key, meta_steps))
        step = functools.partial(smd.train_step, task, state.values)
        inner, losses = jax.lax.scan(step, inner, jax.random.split(train_key, every))
        return (state, inner), Trajectory(state.values, losses.mean())

    (state, inner), trajectory = jax.lax.scan(body, (state, inner), jax.random.split(key, steps // every))
    return state, inner, trajectory


def decay(
    smd: SMD,
    task: Task,
    values: Hyperparameters,
    inner: InnerState,
    key: jax.Array,
    *,
    steps: int,
    name: str = "learning_rate",
    last: float = 1e-4,
) -> tuple[InnerState, jax.Array]:
    """Training whose hyperparameter `name` falls exponentially to `last`, the others held; the loss of every step."""

    def step(inner: InnerState, at: tuple[jax.Array, jax.Array]) -> Any:
        share, key = at
        value = values[name] ** (1 - share) * last**share
        return smd.train_step(task, {**values, name: value}, inner, key)

    shares = jnp.arange(1, steps + 1) / steps
    return jax.lax.scan(step, inner, (shares, jax.random.split(key, steps)))


def heavy_ball(values: dict[str, jax.Array]) -> optax.GradientTransformation:
    """`v' = mu v - alpha g`, `w' = w + v'`, of `learning_rate` alpha / (1 - mu) and `one_minus_momentum`."""
    rate = values["learning_rate"] * values["one_minus_momentum"]
    return optax.chain(optax.scale(-rate), optax.trace(1 - values["one_minus_momentum"]))


def inverse_time(period: float, momentum: float) -> Callable[[dict[str, jax.Array]], optax.GradientTransformation]:
    """SGD with momentum at the rate `learning_rate / (1 + t / period) ^ exponent`."""

    def make(values: dict[str, jax.Array]) -> optax.GradientTransformation:
        def rate(count: jax.Array) -> jax.Array:
            return -values["learning_rate"] / (1 + count / period) ** values["exponent"]

        return optax.chain(optax.scale_by_schedule(rate), optax.trace(momentum))

    return make


# Published settings: of the online experiments on networks, and of the offline ones.
ONLINE_BOUNDS = {"learning_rate": (1e-4, 10.0), "one_minus_momentum": (1e-4, 1.0)}
OFFLINE_BOUNDS = {"learning_rate": (1e-4, 10.0), "exponent": (1e-4, 1e3)}


def published_online(same_batch: bool = False) -> SMD:
    """Lookahead of 5 steps, Adam at 0.01."""
    return SMD(make=heavy_ball, lookahead=5, meta=optax.adam(0.01), bounds=ONLINE_BOUNDS, same_batch=same_batch)


def published_offline(horizon: int, period: float = 5000.0) -> SMD:
    """The whole run as lookahead, an inverse-time schedule, momentum 0.9, Adam at 0.01, derivatives clipped at 10."""
    make = inverse_time(period, momentum=0.9)
    return SMD(make=make, lookahead=horizon, meta=optax.adam(0.01), bounds=OFFLINE_BOUNDS, clip=10.0)
