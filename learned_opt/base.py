"""The contract of an optimizer with meta-parameters."""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax

Theta = Any  # a pytree of float arrays: the meta-parameters
EPS_ROOT = 1e-30  # under the root, where it changes nothing but the meta-gradient of a zero gradient, else NaN


def working_dtype(param: jax.Array) -> jnp.dtype:
    """What a tensor's state is kept in and its update computed in: its own dtype, or float32 where that is narrower."""
    return jnp.promote_types(jnp.result_type(param), jnp.float32)


@runtime_checkable
class LearnedOptimizer(Protocol):
    """A family of optimizers with meta-parameters: `theta -> optax.GradientTransformationExtraArgs`.

    Implementations are frozen dataclasses whose fields are plain values (numbers, strings, booleans, tuples),
    so that a configuration or a model card can name them. `theta` is a dict; leaves under its key `"decays"`, if it
    has one, are exempt from meta weight decay, which would otherwise pull decay rates towards their starting values.
    """

    def __hash__(self) -> int:
        """As of a frozen dataclass: a program is compiled once for all that are equal."""
        ...

    def init(self, key: jax.Array) -> Theta:
        """Samples starting meta-parameters."""
        ...

    def transform(self, theta: Theta) -> optax.GradientTransformationExtraArgs:
        """The optimizer that `theta` stands for. `update` needs `params`; `init` must not depend on theta."""
        ...
