"""SGD whose one step size is the meta-parameter: the learned optimizer that theory can follow."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from learned_opt import errors
from learned_opt.base import Theta, working_dtype


@dataclass(frozen=True, kw_only=True)
class StepSize:
    """`p' = p - theta g`, theta itself being the step size; it starts at `start`."""

    start: float = 0.1

    def __post_init__(self) -> None:
        """Refuses a step size that is no finite number from 0."""
        errors.check_floats(self)

    def init(self, key: jax.Array) -> Theta:
        """The given step size. `key` is not used."""
        del key
        return {"step_size": jnp.asarray(self.start)}

    def transform(self, theta: Theta) -> optax.GradientTransformationExtraArgs:
        """The optimizer with that step size; it has no state."""

        def update(
            updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra: Any
        ) -> tuple[optax.Updates, optax.OptState]:
            del params, extra
            step = theta["step_size"]
            return jax.tree.map(
                lambda g: (-step.astype(working_dtype(g)) * g).astype(jnp.result_type(g)), updates
            ), state

        return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
