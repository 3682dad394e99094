"""The noisy quadratic (Wu et al. 2018, arXiv 1803.02021): a task whose expected training runs are known exactly."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from learned_opt.tasks.base import SPLITS, Batch, Params, Split, TaskParams


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NoisyQuadratic:
    """`1/2 sum_i h_i (w_i - c_i)^2` with `c_i ~ N(0, sigma_i^2)` drawn for every batch; the family of one task, itself.

    Attributes:
        curvatures: h `[dimension]`.
        deviations: sigma `[dimension]`.
        start: the weights that training starts from `[dimension]`.
    """

    curvatures: jax.Array
    deviations: jax.Array
    start: jax.Array

    def sample(self, key: jax.Array) -> TaskParams:
        """Nothing: there is one task."""
        return ()

    def task(self, task_params: TaskParams) -> "NoisyQuadratic":
        """The task itself."""
        return self

    @property
    def loss_scale(self) -> jax.Array:
        """The expected loss at the start."""
        return 0.5 * jnp.sum(self.curvatures * (jnp.square(self.start) + jnp.square(self.deviations)))

    def init(self, key: jax.Array) -> Params:
        """The given weights."""
        return jnp.asarray(self.start)

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """The loss about the centre that `batch` is."""
        return 0.5 * jnp.sum(self.curvatures * jnp.square(params - batch))

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """A centre; splits draw from streams of their own."""
        noise = jax.random.normal(jax.random.fold_in(key, SPLITS.index(split)), self.start.shape, self.start.dtype)
        return self.deviations * noise
