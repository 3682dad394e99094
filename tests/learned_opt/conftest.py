"""The table of optimizers: every contract test runs over it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from learned_opt import LearnableAdam, LearnedOptimizer, Star, black_box_mlp

SWITCHES: dict[str, tuple[Any, ...]] = {
    "nominal": ("none", "sgd", "momentum", "aggmo", "adam"),
    "preconditioner": ("none", "rms"),
    "learned_magnitude": (False,),
    "average_magnitude": (True,),
    "average_nominal_magnitude": (True,),
    "weight_decay": (0.0,),
    "bias_correction": (False,),
    "hidden": ((),),
}
# For tests that compile much: the presets, and a STAR with every switch thrown at once. The rest of the table is slow.
REPRESENTATIVES: dict[str, LearnedOptimizer] = {
    "star": Star(),
    "black-box-mlp": black_box_mlp(),
    "learnable-adam": LearnableAdam(),
    "star-otherwise": Star(
        nominal="momentum",
        preconditioner="rms",
        average_magnitude=True,
        average_nominal_magnitude=True,
        weight_decay=0.0,
        bias_correction=False,
    ),
}
FLIPPED = {f"star-{name}={value}": Star(**{name: value}) for name, values in SWITCHES.items() for value in values}
OPTIMIZERS = REPRESENTATIVES | FLIPPED


@pytest.fixture(params=OPTIMIZERS)
def optimizer(request) -> LearnedOptimizer:
    return OPTIMIZERS[request.param]


@pytest.fixture(
    params=[pytest.param(name, marks=() if name in REPRESENTATIVES else pytest.mark.slow) for name in OPTIMIZERS]
)
def representative(request) -> LearnedOptimizer:
    return OPTIMIZERS[request.param]


@pytest.fixture
def make_theta() -> Callable[..., Any]:
    """Starting meta-parameters, every one of them moved away from its start."""

    def make(optimizer: LearnedOptimizer, seed: int = 0, scale: float = 0.02) -> Any:
        theta = optimizer.init(jax.random.key(seed))
        leaves, structure = jax.tree.flatten(theta)
        keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
        return structure.unflatten(
            [leaf + scale * jax.random.normal(k, jnp.shape(leaf)) for leaf, k in zip(leaves, keys, strict=True)]
        )

    return make


@pytest.fixture(scope="session")
def quick_jit() -> Callable[..., Any]:
    """`jax.jit` that compiles four times as fast, to slower code: for derivatives, whose programs are large."""
    options = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    return functools.partial(jax.jit, compiler_options=options)


@pytest.fixture
def x64():
    """Double precision, for identities."""
    with jax.enable_x64(True):
        yield
