"""Shaping: differences of pairs replaced by something less sensitive to outliers."""

from typing import Literal

import jax
import jax.numpy as jnp

Shaping = Literal["none", "sign", "rank"]


def shape(differences: jax.Array, weights: jax.Array, shaping: Shaping) -> jax.Array:
    """Differences `[particles]`, shaped; particles of weight 0 do not take part.

    `sign` keeps the signs alone, `rank` the signs and the ranks of the magnitudes; both are scaled so that the median
    magnitude stays. They bias the meta-gradient; a difference of zero stays zero.
    """
    if shaping == "none":
        return differences
    live = weights > 0
    magnitudes = jnp.where(live, jnp.abs(differences), jnp.inf)
    count = live.sum()
    median = jnp.sort(magnitudes)[jnp.maximum(count - 1, 0) // 2]
    shaped = jnp.sign(differences) * jnp.where(count > 0, median, 0)
    if shaping == "rank":
        # Ties share a rank, so that the order of particles means nothing; the middle rank counts as 1.
        below = (magnitudes[:, None] > magnitudes).sum(1)
        equal = (magnitudes[:, None] == magnitudes).sum(1)
        shaped = shaped * (2 * below + equal + 1) / (count + 1)
    return jnp.where(live, shaped, 0)
