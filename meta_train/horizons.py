"""How long inner problems last."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Horizons:
    """Log-uniform between `shortest` and `longest` inner steps, both included; constant where they are equal.

    Attributes:
        curriculum: outer steps over which the longest horizon grows geometrically from `shortest` to `longest`; 0 for
            all lengths from the start.
        out_of_phase: shorten the first problem of every particle to a uniform share of its horizon, so that particles
            are spread over all ages from then on, however alike their horizons are.
    """

    shortest: int
    longest: int
    curriculum: int = 0
    out_of_phase: bool = field(default=False, metadata={"static": True})

    def sample(self, key: jax.Array, outer_step: jax.Array) -> jax.Array:
        """The horizon of a problem that starts at `outer_step`."""
        grown = jnp.where(self.curriculum > 0, jnp.minimum(outer_step / jnp.maximum(self.curriculum, 1), 1), 1)
        low, high = jnp.log(self.shortest), jnp.log(self.shortest) * (1 - grown) + jnp.log(self.longest) * grown
        # Every length n owns [log n, log(n + 1)), so that the longest occurs too.
        high = jnp.log(jnp.floor(jnp.exp(high) * (1 + 1e-6)) + 1)
        horizon = jnp.exp(jax.random.uniform(key, minval=low, maxval=high)).astype(jnp.int32)
        return jnp.clip(horizon, self.shortest, self.longest)

    def sample_first(self, key: jax.Array) -> jax.Array:
        """The horizon of a particle's first problem."""
        if not self.out_of_phase:
            return self.sample(key, jnp.zeros((), jnp.int32))
        horizon_key, phase_key = jax.random.split(key)
        horizon = self.sample(horizon_key, jnp.zeros((), jnp.int32))
        return jax.random.randint(phase_key, (), 1, horizon + 1, jnp.int32)
