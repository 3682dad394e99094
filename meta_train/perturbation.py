"""Perturbations of theta, and the pair of thetas that they make."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from learned_opt.base import Theta
from learned_opt.meta_train.unroll import Problem, Unrolled, Unroller
from learned_opt.tasks.training import InnerState


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """`eps ~ N(0, sigma^2 I)`; members of a pair are `theta + eps` and `theta - eps`, or `theta` if not antithetic.

    Attributes:
        sigma: the deviation: a number, or numbers in a tree that theta's begins with, such as one for each key.
        antithetic: the differences of an antithetic pair have no error of even order, those to theta itself do.
        common_random_numbers: both members see the same batches, so that the difference is theta's doing.
    """

    sigma: Any = 0.01
    antithetic: bool = field(default=True, metadata={"static": True})
    common_random_numbers: bool = field(default=True, metadata={"static": True})

    def draw(self, theta: Theta, key: jax.Array) -> Theta:
        """Samples eps, shaped as theta."""
        # A program of random numbers for each leaf takes longer to compile than an unroll; this is one, in a loop, and
        # gives the same numbers: the first of as many as the largest leaf has.
        leaves, structure = jax.tree.flatten(theta)
        most, dtype = max(x.size for x in leaves), jnp.result_type(*leaves)
        drawn = jax.lax.map(lambda k: jax.random.normal(k, (most,), dtype), jax.random.split(key, len(leaves)))
        rows = zip(drawn, leaves, strict=True)
        noise = jax.tree.unflatten(structure, [row[: x.size].reshape(x.shape).astype(x.dtype) for row, x in rows])
        return jax.tree.map(lambda s, x: s * x, self._sigma(theta), noise)

    def members(self, theta: Theta, eps: Theta) -> Theta:
        """The pair, along a leading axis."""
        return jax.tree.map(lambda t, e: jnp.stack([t + e, t - e if self.antithetic else t]), theta, eps)

    def direction(self, xi: Theta) -> Theta:
        """What the difference of the pair is multiplied by: xi / (2 sigma^2), or xi / sigma^2 if not antithetic."""
        pairs = 2 if self.antithetic else 1
        return jax.tree.map(lambda s, x: x / (pairs * jnp.square(s).astype(x.dtype)), self._sigma(xi), xi)

    def unroll(
        self,
        unroller: Unroller,
        thetas: Theta,
        problem: Problem,
        inner: InnerState,
        key: jax.Array,
        *,
        same_start: bool = False,
    ) -> Unrolled:
        """One truncation of every member, from states of its own or all from the same one."""
        inner_axis = None if same_start else 0
        if self.common_random_numbers:
            # The key is not mapped, so that the members draw each batch once.
            return jax.vmap(unroller.unroll, (0, None, inner_axis, None))(thetas, problem, inner, key)
        keys = jax.random.split(key, jax.tree.leaves(thetas)[0].shape[0])
        return jax.vmap(unroller.unroll, (0, None, inner_axis, 0))(thetas, problem, inner, keys)

    def _sigma(self, theta: Theta) -> Any:
        return jax.tree.broadcast(self.sigma, theta)
