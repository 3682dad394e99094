"""STAR's network, shared by all parameters: element by element, so that it fuses with what comes before and after.

Where it is differentiated it is made of products of matrices.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from learned_opt.base import Theta
from learned_opt.reductions import by_shape


class Layer(NamedTuple):
    """Weights `[inputs, outputs]` and biases `[outputs]`: arrays, or arrays of scalars within a kernel."""

    weights: Any
    biases: Any


def folded(network: Theta, scales: jax.Array, time: jax.Array) -> list[Layer]:
    """The layers, the first with its inputs' scales folded into the weights, and time into the biases.

    Scaling the weights normalises the features without a pass over them; time, being the same for every parameter,
    is a bias.
    """
    layers = [jax.tree.map(lambda x: jnp.asarray(x, scales.dtype), network[f"layer_{i}"]) for i in range(len(network))]
    weights, time_weights = jnp.split(layers[0]["weights"], [scales.size])
    first = Layer(weights * scales[:, None], layers[0]["biases"] + time @ time_weights)
    return [first, *(Layer(layer["weights"], layer["biases"]) for layer in layers[1:])]


def without_reduced(layers: Sequence[Layer], channels: list[jax.Array]) -> tuple[list[Layer], list[jax.Array]]:
    """The layers without the inputs that are constant along an axis, which become biases that vary along the others.

    A product of matrices on each such axis: XLA would fuse sums into the pass over the tensor, and make them again for
    every parameter.
    """
    first, *others = layers
    size = max(channel.size for channel in channels)
    alike = by_shape(channels)
    whole = [ks for shape, ks in alike.items() if math.prod(shape) == size]
    biases = list(first.biases)
    for ks in (ks for ks in alike.values() if ks not in whole):
        part = _product(first.weights[np.array(ks)], jnp.stack([channels[k] for k in ks]))
        biases = [bias + own for bias, own in zip(biases, part, strict=True)]
    kept = sorted(k for ks in whole for k in ks)
    return [Layer(first.weights[np.array(kept)], biases), *others], [channels[k] for k in kept]


@jax.custom_jvp
def outputs(layers: Sequence[Layer], channels: list[jax.Array]) -> list[jax.Array]:
    """Of all parameters, from a list of features that broadcast together."""
    return written_out(layers, channels)


@outputs.defjvp
def _outputs_jvp(primals: Any, tangents: Any) -> Any:
    """By products of matrices: of what is written out, reverse mode would make a sum over the tensor for each weight.

    XLA would run the network again for each of these sums.
    """
    (layers, channels), (layer_tangents, channel_tangents) = primals, tangents
    shape = jnp.broadcast_shapes(*(c.shape for c in channels))
    found, moved = _stacked(channels, shape), _stacked(channel_tangents, shape)
    for i, (layer, moving) in enumerate(zip(layers, layer_tangents, strict=True)):
        if i:
            found, moved = jax.nn.relu(found), jnp.where(found > 0, moved, 0)
        moved = _product(layer.weights, moved) + _product(moving.weights, found) + _stacked(moving.biases, shape)
        found = _product(layer.weights, found) + _stacked(layer.biases, shape)
    return list(found), list(moved)


def _stacked(arrays: Iterable[jax.Array], shape: tuple[int, ...]) -> jax.Array:
    return jnp.stack([jnp.broadcast_to(x, shape) for x in arrays])


def _product(weights: jax.Array, channels: jax.Array) -> jax.Array:
    return jnp.tensordot(weights.T, channels, 1, precision=jax.lax.Precision.HIGHEST)


def written_out(layers: Sequence[Layer], channels: list[jax.Array]) -> list[jax.Array]:
    """The outputs, element by element, also within a kernel."""
    channels = _dense(channels, layers[0])
    for layer in layers[1:]:
        channels = _dense([jax.nn.relu(c) for c in channels], layer)
    return channels


def _dense(channels: list[jax.Array], layer: Layer) -> list[jax.Array]:
    """A linear layer over a list of arrays that broadcast together, element by element.

    A product of matrices this thin is slower, and needs its inputs in memory: written out, XLA fuses all layers into
    one pass over the tensor.
    """
    alike = by_shape(channels)
    # The smallest first: sums kept reduced are added up before they are broadcast.
    groups = [alike[shape] for shape in sorted(alike, key=math.prod)]

    def output(j: int) -> jax.Array:
        total = layer.biases[j]
        for ks in groups:
            total = total + sum(layer.weights[k, j] * channels[k] for k in ks)
        return total

    return [output(j) for j in range(len(layer.biases))]
