"""The learned optimizer of Wang et al. 2021 (arXiv 2006.16495, setting 3): an MLP applied to every weight."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from learned_opt.base import Theta

DECAYS = (0.5, 0.9, 0.99, 0.999, 0.9999)
TIME_SCALES = (3, 10, 30, 100, 300, 1000, 3000, 10_000, 300_000)
INPUTS = 2 + 4 * len(DECAYS)


class WeightMLPState(NamedTuple):
    """The number of steps, and running means of the gradient and of its square, `[5, weights]`."""

    step: jax.Array
    momenta: jax.Array
    squares: jax.Array


@dataclass(frozen=True)
class WeightMLP:
    """`step_scale * direction * exp(magnitude_scale * magnitude)`, the two outputs of one hidden layer on 31 inputs.

    All weights of a network are one vector, so that inputs are normalised over the network and not over each tensor.
    The published scales are 1e-3 and the hidden layer has 32 units; less meta-training needs larger scales.
    """

    hidden: int = 32
    step_scale: float = 1e-3
    magnitude_scale: float = 1e-3

    def init(self, key: jax.Array) -> Theta:
        """Normal weights of deviation 1 / sqrt(fan-in), zero biases."""
        sizes = (INPUTS + len(TIME_SCALES), self.hidden, 2)
        initializer = jax.nn.initializers.lecun_normal()
        return {
            f"layer_{i}": {"weights": initializer(k, sizes[i : i + 2]), "biases": jnp.zeros(sizes[i + 1])}
            for i, k in enumerate(jax.random.split(key))
        }

    def transform(self, theta: Theta) -> optax.GradientTransformationExtraArgs:
        """The optimizer; its state is 10 floats for each weight."""

        def init(params: jax.Array) -> WeightMLPState:
            zeros = jnp.zeros((len(DECAYS), *params.shape), params.dtype)
            return WeightMLPState(jnp.zeros((), jnp.int32), zeros, zeros)

        def update(grad: jax.Array, state: WeightMLPState, params: Any = None) -> tuple[jax.Array, WeightMLPState]:
            decays = jnp.array(DECAYS, grad.dtype)[:, None]
            momenta = decays * state.momenta + (1 - decays) * grad
            squares = decays * state.squares + (1 - decays) * jnp.square(grad)
            state = WeightMLPState(state.step + 1, momenta, squares)
            roots = jax.lax.rsqrt(squares + 1e-6)
            inputs = jnp.concatenate([grad[None], params[None], momenta * roots, momenta, squares, roots])
            inputs = inputs * jax.lax.rsqrt(jnp.mean(jnp.square(inputs), 1, keepdims=True) + 1e-5)
            time = jnp.tanh(state.step.astype(grad.dtype) / jnp.array(TIME_SCALES, grad.dtype) - 1)
            first, second = theta["layer_0"], theta["layer_1"]
            of_inputs, of_time = jnp.split(first["weights"], [INPUTS])
            hidden = jax.nn.relu(of_inputs.T @ inputs + (time @ of_time + first["biases"])[:, None])
            direction, magnitude = second["weights"].T @ hidden + second["biases"][:, None]
            return -self.step_scale * direction * jnp.exp(self.magnitude_scale * magnitude), state

        return optax.with_extra_args_support(optax.flatten(optax.GradientTransformation(init, update)))
