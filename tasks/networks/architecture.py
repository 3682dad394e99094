"""What every network has in common: how it is named, made and applied, and its activation function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from learned_opt import errors
from learned_opt.tasks.base import Params

Activation = Callable[[jax.Array], jax.Array]
ACTIVATIONS: dict[str, Activation] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "sigmoid": jax.nn.sigmoid,
    "elu": jax.nn.elu,
    "leaky_relu": jax.nn.leaky_relu,
    "softplus": jax.nn.softplus,
    "sin": jnp.sin,
}


def choose(names: tuple[str, ...], index: jax.Array) -> Activation:
    """The activation number `index`, which may be traced, of those named.

    Raises:
        UsageError: a name is unknown.
    """
    for name in names:
        if name not in ACTIVATIONS:
            raise errors.unknown("activation", name, ACTIVATIONS)
    functions = [ACTIVATIONS[name] for name in names]
    if len(functions) == 1:
        return functions[0]
    return lambda x: jax.lax.switch(index, functions, x)


@dataclass(frozen=True)
class Architecture:
    """A class of networks with its options: static, and equal to another one of the same options.

    The module is made by `module(shape, outputs, rngs, **options)`, `shape` being that of one input, and called with
    `(inputs, activation, key)`; `key` drives dropout and samples. Weights are a plain dict of arrays.
    """

    module: Callable[..., nnx.Module]
    options: tuple[tuple[str, Any], ...] = ()

    def init(self, key: jax.Array, shape: tuple[int, ...], outputs: int) -> Params:
        """Starting weights; Flax's defaults are LeCun-normal kernels and zero biases."""
        return nnx.to_pure_dict(nnx.state(self._make(key, shape, outputs), nnx.Param))

    def apply(
        self, params: Params, shape: tuple[int, ...], outputs: int, inputs: Any, activation: Activation, key: jax.Array
    ) -> Any:
        """What the network with these weights says of a batch of inputs."""
        graphdef, state = nnx.split(nnx.eval_shape(lambda: self._make(jax.random.key(0), shape, outputs)))
        nnx.replace_by_pure_dict(state, params)
        network: Any = nnx.merge(graphdef, state)
        return network(inputs, activation, key)

    def _make(self, key: jax.Array, shape: tuple[int, ...], outputs: int) -> nnx.Module:
        return self.module(shape, outputs, nnx.Rngs(key), **dict(self.options))


def architecture(module: Callable[..., nnx.Module], **options: Any) -> Architecture:
    """The architecture of `module` with these options, which must be hashable."""
    return Architecture(module, tuple(sorted(options.items())))
