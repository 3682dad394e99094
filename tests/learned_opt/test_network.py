"""The derivative of STAR's network, which has a rule of its own, against autodiff of the network written out."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from learned_opt import network
from learned_opt.network import Layer

SHAPE = (6, 5)


def draw():
    """Two hidden layers whose inputs and first biases vary over the tensor, or along one of its axes."""
    rng = np.random.default_rng(0)
    widths = (3, 4, 4, 2)
    layers = [Layer(rng.normal(size=(i, o)), list(rng.normal(size=o))) for i, o in itertools.pairwise(widths)]
    layers[0] = layers[0]._replace(biases=[rng.normal(size=shape) for shape in (SHAPE, (6, 1), (1, 5), ())])
    return jax.tree.map(jnp.asarray, (layers, [rng.normal(size=shape) for shape in (SHAPE, SHAPE, (1, 5))]))


def test_derivatives_are_those_of_what_is_written_out(quick_jit, x64):
    primals, cotangents = draw(), [jnp.full(SHAPE, 0.7), jnp.arange(30.0).reshape(SHAPE)]
    tangents = jax.tree.map(jnp.cos, primals)

    def derivatives(function):
        found, pull = jax.vjp(function, *primals)
        return found, pull(cotangents), jax.jvp(function, primals, tangents)[1]

    found = quick_jit(lambda: derivatives(network.outputs))()
    expected = quick_jit(lambda: derivatives(network.written_out))()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12), found, expected)


def test_reverse_mode_has_no_sum_for_each_weight():
    """There are 36 weights: sums are of biases, constant or along an axis; products of matrices do the rest."""

    def program(function):
        return str(jax.make_jaxpr(jax.grad(lambda *args: sum(x.sum() for x in function(*args)), (0, 1)))(*draw()))

    assert program(network.written_out).count("reduce_sum") > 36
    assert program(network.outputs).count("reduce_sum") < 16
