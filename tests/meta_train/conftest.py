"""Inner problems whose meta-gradients are known."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt.evaluate.reproduce.closed_forms import Drift
from learned_opt.meta_train.horizons import Horizons
from learned_opt.meta_train.objective import MetaObjective
from learned_opt.meta_train.unroll import Unroller


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BreakableChain:
    """s' = s + theta with the loss s, or NaN with probability `broken`, or above `ceiling`. Its own task."""

    broken: float = field(default=0.0, metadata={"static": True})
    ceiling: float = field(default=1e30, metadata={"static": True})
    is_broken: Any = False
    loss_scale = 2.0

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.bernoulli(key, self.broken)

    def task(self, task_params: jax.Array) -> "BreakableChain":
        return BreakableChain(self.broken, self.ceiling, task_params)

    def init(self, key: jax.Array) -> jax.Array:
        return jnp.zeros(())

    def loss(self, params: jax.Array, key: jax.Array, batch: Any) -> jax.Array:
        return jnp.where(self.is_broken, jnp.nan, params) + 0 * jnp.sqrt(self.ceiling - params)

    def sample_batch(self, key: jax.Array, split: str) -> jax.Array:
        return jnp.zeros(())


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RandomQuadratic:
    """Minimises 1/2 sum h (w - c)^2 with c drawn anew for every batch; starting weights and h differ by task."""

    dimension: int = field(default=3, metadata={"static": True})
    curvature: Any = None
    loss_scale = 2.0

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, (self.dimension,), minval=0.5, maxval=2.0)

    def task(self, task_params: jax.Array) -> "RandomQuadratic":
        return RandomQuadratic(self.dimension, task_params)

    def init(self, key: jax.Array) -> jax.Array:
        return 1 + jax.random.uniform(key, (self.dimension,))

    def loss(self, params: jax.Array, key: jax.Array, batch: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(self.curvature * jnp.square(params - batch))

    def sample_batch(self, key: jax.Array, split: str) -> jax.Array:
        scale = {"train": 0.1, "valid": 0.2, "test": 0.3}[split]
        return scale * jax.random.normal(key, (self.dimension,))


def constant(horizon: int) -> Horizons:
    return Horizons(shortest=horizon, longest=horizon)


@pytest.fixture
def chain() -> Callable[..., Unroller]:
    """The exact gradient of the mean loss after each step is `(horizon + 1) / 2`: 2.5 for a horizon of 4."""

    def make(horizon: int, truncation: int, broken: float = 0.0, ceiling: float = 1e30, **objective: Any) -> Unroller:
        return Unroller(
            family=BreakableChain(broken, ceiling),
            optimizer=Drift(),
            objective=MetaObjective(measured_on="same-batch-after", **objective),
            truncation=truncation,
            horizons=constant(horizon),
        )

    return make


@pytest.fixture
def quadratic() -> Callable[..., Unroller]:
    """A learned optimizer on noisy quadratics."""

    def make(optimizer: Any, horizon: int, truncation: int, **objective: Any) -> Unroller:
        return Unroller(
            family=RandomQuadratic(),
            optimizer=optimizer,
            objective=MetaObjective(**objective),
            truncation=truncation,
            horizons=constant(horizon),
        )

    return make


@pytest.fixture
def mean_gradient() -> Callable[..., Any]:
    """Mean and standard error, over particles, of the estimates of a problem weighted by their steps."""

    def measure(estimator: Any, theta: Any, truncations: int, particles: int) -> tuple[Any, Any]:
        @jax.jit
        def run(estimator: Any, keys: jax.Array) -> Any:
            def particle(key: jax.Array) -> Any:
                def body(state: Any, i: jax.Array) -> Any:
                    estimate, state = estimator.estimate(theta, state, jax.random.fold_in(key, i))
                    return state, (estimate.weight, jax.tree.map(lambda g: estimate.weight * g, estimate.gradient))

                _, (weights, gradients) = jax.lax.scan(body, estimator.init(key, theta), jnp.arange(truncations))
                return jax.tree.map(lambda g: g.sum(0) / weights.sum(), gradients)

            found = jax.vmap(particle)(keys)
            return jax.tree.map(lambda x: (x.mean(0), x.std(0) / np.sqrt(particles)), found)

        found = jax.device_get(run(estimator, jax.random.split(jax.random.key(0), particles)))
        is_pair = lambda x: isinstance(x, tuple)  # noqa: E731
        return tuple(jax.tree.map(lambda pair, i=i: pair[i], found, is_leaf=is_pair) for i in (0, 1))

    return measure
