"""Linear and logistic regression on generated data: convex tasks with a known optimum."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from learned_opt.tasks.base import SPLITS, Batch, Params, Split, TaskParams


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Regression:
    """Features x ~ N(0, diag(s^2)) and targets of the true weights w, drawn anew for every batch.

    Linear: y = w.x + noise, half the squared error; logistic: y is 1 with probability sigmoid(w.x), cross-entropy in
    nats. No weights have a smaller expected loss than w. A task is a draw of w, such that w.x has variance 1 or,
    logistic, 9.

    Attributes:
        kind: which of the two.
        dimension: of x.
        condition: the largest s^2 over the smallest, with log-spaced ones between; their mean is 1.
        noise: the standard deviation of linear regression's noise.
        batch_size: rows of a batch.
    """

    kind: Literal["linear", "logistic"] = field(default="linear", metadata={"static": True})
    dimension: int = field(default=20, metadata={"static": True})
    condition: float = field(default=10.0, metadata={"static": True})
    noise: float = field(default=0.1, metadata={"static": True})
    batch_size: int = field(default=32, metadata={"static": True})

    def sample(self, key: jax.Array) -> TaskParams:
        """The true weights `[dimension]`."""
        weights = jax.random.normal(key, (self.dimension,))
        size = 1.0 if self.kind == "linear" else 3.0
        return size * weights / jnp.linalg.norm(weights * self.deviations)

    def task(self, task_params: TaskParams) -> "RegressionTask":
        """The task of finding these weights."""
        return RegressionTask(self, task_params)

    @property
    def deviations(self) -> jax.Array:
        """Standard deviations s of the features `[dimension]`."""
        variances = jnp.logspace(0, -math.log10(self.condition), self.dimension)
        return jnp.sqrt(variances / variances.mean())


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RegressionTask:
    """One vector of true weights to find."""

    family: Regression
    truth: jax.Array

    @property
    def loss_scale(self) -> Any:
        """The expected loss of zero weights."""
        return 0.5 * (1 + self.family.noise**2) if self.family.kind == "linear" else math.log(2)

    def init(self, key: jax.Array) -> Params:
        """Small random weights."""
        return {"weights": 0.01 * jax.random.normal(key, self.truth.shape)}

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """The mean over the batch."""
        features, targets = batch
        outputs = features @ params["weights"]
        if self.family.kind == "linear":
            return 0.5 * jnp.square(outputs - targets).mean()
        return optax.sigmoid_binary_cross_entropy(outputs, targets).mean()

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """Features `[batch_size, dimension]` and targets; splits draw from streams of their own."""
        f = self.family
        feature_key, target_key = jax.random.split(jax.random.fold_in(key, SPLITS.index(split)))
        features = f.deviations * jax.random.normal(feature_key, (f.batch_size, f.dimension))
        outputs = features @ self.truth
        if f.kind == "linear":
            return features, outputs + f.noise * jax.random.normal(target_key, outputs.shape)
        return features, jax.random.bernoulli(target_key, jax.nn.sigmoid(outputs)).astype(outputs.dtype)
