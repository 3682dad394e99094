"""The table of optimizers: every contract test runs over it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt import LearnableAdam, LearnedOptimizer, Star, StepSize, black_box_mlp, native

SWITCHES: dict[str, tuple[Any, ...]] = {
    "nominal": ("none", "sgd", "momentum", "aggmo", "adam"),
    "preconditioner": ("none", "rms"),
    "learned_magnitude": (False,),
    "average_magnitude": (True,),
    "average_nominal_magnitude": (True,),
    "weight_decay": (0.0,),
    "clipping_threshold": (1.0,),
    "early_decay": (1e-3,),
    "bias_correction": (False,),
    "hidden": ((),),
    "aligned": (True,),
}
# For tests that compile much: the presets, and a STAR with every switch thrown at once. The rest of the table is slow.
REPRESENTATIVES: dict[str, LearnedOptimizer] = {
    "star": Star(),
    "learnable-adam": LearnableAdam(),
    "step-size": StepSize(),
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
OPTIMIZERS = REPRESENTATIVES | {"black-box-mlp": black_box_mlp()} | FLIPPED


@pytest.fixture
def plainly(monkeypatch) -> Callable[..., Any]:
    """Calls a function with STAR's updates as XLA makes them."""

    def run(function, *args):
        with monkeypatch.context() as patch:
            patch.setattr(native, "suits", lambda *_: False)
            return function(*args)

    return run


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
    """Random meta-parameters: weights as large as starting ones, the rest a little away from its start at zero."""

    def make(optimizer: LearnedOptimizer, seed: int = 0, scale: float = 0.02) -> Any:
        rng = np.random.default_rng(seed)

        def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
            deviation = leaf.shape[0] ** -0.5 if leaf.ndim == 2 else scale
            return jnp.asarray(deviation * rng.normal(size=leaf.shape), leaf.dtype)

        return jax.tree.map(draw, jax.eval_shape(optimizer.init, jax.random.key(0)))

    return make
