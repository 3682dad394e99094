"""Inner problems whose meta-gradients are known."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from learned_opt.meta_train.objective import MetaObjective
from learned_opt.meta_train.unroll import Unroller


@dataclass(frozen=True)
class AddTheta:
    """Moves every parameter by theta, whatever its gradient."""

    def init(self, key: jax.Array) -> jax.Array:
        return jnp.zeros(())

    def transform(self, theta: jax.Array) -> optax.GradientTransformationExtraArgs:
        return optax.GradientTransformationExtraArgs(
            lambda params: optax.EmptyState(),
            lambda updates, state, params=None, **extra: (jax.tree.map(lambda p: theta, params), state),
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Chain:
    """s' = s + theta with the loss s, or NaN with probability `broken`. Its own task."""

    broken: float = field(default=0.0, metadata={"static": True})
    is_broken: Any = False

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.bernoulli(key, self.broken)

    def task(self, task_params: jax.Array) -> "Chain":
        return Chain(self.broken, task_params)

    def init(self, key: jax.Array) -> jax.Array:
        return jnp.zeros(())

    def loss(self, params: jax.Array, key: jax.Array, batch: Any) -> jax.Array:
        return jnp.where(self.is_broken, jnp.nan, params)

    def sample_batch(self, key: jax.Array, split: str) -> jax.Array:
        return jnp.zeros(())


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NoisyQuadratic:
    """Minimises 1/2 sum h (w - c)^2 with c drawn anew for every batch; starting weights and h differ by task."""

    dimension: int = field(default=3, metadata={"static": True})
    curvature: Any = None

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, (self.dimension,), minval=0.5, maxval=2.0)

    def task(self, task_params: jax.Array) -> "NoisyQuadratic":
        return NoisyQuadratic(self.dimension, task_params)

    def init(self, key: jax.Array) -> jax.Array:
        return 1 + jax.random.uniform(key, (self.dimension,))

    def loss(self, params: jax.Array, key: jax.Array, batch: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(self.curvature * jnp.square(params - batch))

    def sample_batch(self, key: jax.Array, split: str) -> jax.Array:
        scale = {"train": 0.1, "valid": 0.2, "test": 0.3}[split]
        return scale * jax.random.normal(key, (self.dimension,))


@pytest.fixture
def chain() -> Callable[..., Unroller]:
    """The exact gradient of the mean loss after each step is `(horizon + 1) / 2`: 2.5 for a horizon of 4."""

    def make(horizon: int, truncation: int, broken: float = 0.0) -> Unroller:
        return Unroller(
            family=Chain(broken),
            optimizer=AddTheta(),
            objective=MetaObjective(measured_on="same-batch-after"),
            truncation=truncation,
            min_horizon=horizon,
            max_horizon=horizon,
        )

    return make


@pytest.fixture
def quadratic() -> Callable[..., Unroller]:
    """A learned optimizer on noisy quadratics."""

    def make(optimizer: Any, horizon: int, truncation: int, **objective: Any) -> Unroller:
        return Unroller(
            family=NoisyQuadratic(),
            optimizer=optimizer,
            objective=MetaObjective(**objective),
            truncation=truncation,
            min_horizon=horizon,
            max_horizon=horizon,
        )

    return make
