"""The contract of an optimizer with meta-parameters."""

from typing import Any, Protocol, runtime_checkable

import jax
import optax

Theta = Any  # a pytree of float arrays: the meta-parameters


@runtime_checkable
class LearnedOptimizer(Protocol):
    """A family of optimizers with meta-parameters: `theta -> optax.GradientTransformationExtraArgs`.

    Implementations are frozen dataclasses whose fields are plain values (numbers, strings, booleans, tuples),
    so that a configuration or a model card can name them. `theta` is a dict; leaves under its key `"decays"`, if it
    has one, are exempt from meta weight decay, which would otherwise pull decay rates towards their starting values.
    """

    def init(self, key: jax.Array) -> Theta:
        """Samples starting meta-parameters."""
        ...

    def transform(self, theta: Theta) -> optax.GradientTransformationExtraArgs:
        """The optimizer that `theta` stands for. `update` needs `params`."""
        ...
