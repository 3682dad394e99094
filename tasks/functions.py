"""Functions of the optimisation literature in any number of dimensions, with noise and a minimum that is known."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from learned_opt import errors
from learned_opt.tasks.base import SPLITS, Batch, Params, Split, TaskParams


@dataclass(frozen=True)
class Function:
    """A function of a vector. Its least value, at the same `minimiser` for every coordinate or tuple of them, is 0.

    Attributes:
        value: of x `[dimension]`.
        minimiser: coordinates of the minimum, repeated to the dimension.
        reach: starting points are uniform in [-reach, reach] for every coordinate.
    """

    value: Callable[[jax.Array], jax.Array]
    minimiser: tuple[float, ...]
    reach: float


def _rosenbrock(x: jax.Array) -> jax.Array:
    return jnp.sum(100 * jnp.square(x[1:] - jnp.square(x[:-1])) + jnp.square(1 - x[:-1]))


def _rastrigin(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(x) + 10 - 10 * jnp.cos(2 * jnp.pi * x))


def _ackley(x: jax.Array) -> jax.Array:
    # The norm has no derivative at 0, the minimum itself: a tiny amount under the root gives it one.
    distance = jnp.sqrt(jnp.mean(jnp.square(x)) + 1e-12)
    return 20 - 20 * jnp.exp(-0.2 * distance) + math.e - jnp.exp(jnp.mean(jnp.cos(2 * jnp.pi * x)))


STYBLINSKI_TANG = -2.9035340277711770951  # the root of 4 x^3 - 32 x + 5 with the least value


def _styblinski_tang(x: jax.Array) -> jax.Array:
    def term(x: jax.Array) -> jax.Array:
        return 0.5 * (x**4 - 16 * x**2 + 5 * x)

    return jnp.sum(term(x) - term(jnp.asarray(STYBLINSKI_TANG, x.dtype)))


def _beale(x: jax.Array) -> jax.Array:
    pairs = x.reshape(-1, 2)
    a, b = pairs[:, 0], pairs[:, 1]
    terms = [jnp.square(c - a + a * b**i) for i, c in enumerate((1.5, 2.25, 2.625), start=1)]
    return jnp.sum(jnp.stack(terms))


def _sphere(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(x))


def _griewank(x: jax.Array) -> jax.Array:
    return 1 + jnp.sum(jnp.square(x)) / 4000 - jnp.prod(jnp.cos(x / jnp.sqrt(jnp.arange(1, x.size + 1))))


def _levy(x: jax.Array) -> jax.Array:
    w = 1 + (x - 1) / 4
    inner = jnp.square(w[:-1] - 1) * (1 + 10 * jnp.square(jnp.sin(jnp.pi * w[:-1] + 1)))
    last = jnp.square(w[-1] - 1) * (1 + jnp.square(jnp.sin(2 * jnp.pi * w[-1])))
    return jnp.square(jnp.sin(jnp.pi * w[0])) + jnp.sum(inner) + last


FUNCTIONS = {
    "sphere": Function(_sphere, (0.0,), 1.0),
    "rosenbrock": Function(_rosenbrock, (1.0,), 2.0),
    "rastrigin": Function(_rastrigin, (0.0,), 5.12),
    "ackley": Function(_ackley, (0.0,), 5.0),
    "styblinski_tang": Function(_styblinski_tang, (STYBLINSKI_TANG,), 5.0),
    "beale": Function(_beale, (3.0, 0.5), 1.0),
    "griewank": Function(_griewank, (0.0,), 10.0),
    "levy": Function(_levy, (1.0,), 5.0),
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FunctionFamily:
    """One function to minimise, the family of one task, itself.

    A batch is a small displacement e ~ N(0, noise^2) of the argument, as in the noisy quadratic: the gradient of
    f(x + e) is that of f with noise of about the curvature times e, and no loss is below the minimum, 0.
    """

    function: str = field(metadata={"static": True})
    dimension: int = field(default=10, metadata={"static": True})
    noise: float = field(default=0.01, metadata={"static": True})

    def __post_init__(self) -> None:
        """Refuses a function that does not exist, or not in that dimension."""
        if self.function not in FUNCTIONS:
            raise errors.unknown("function", self.function, FUNCTIONS)
        if self.dimension < 2 or self.dimension % len(FUNCTIONS[self.function].minimiser):
            raise errors.UsageError(f"dimension was given {self.dimension}: an even number from 2 is accepted")

    def sample(self, key: jax.Array) -> TaskParams:
        """Nothing: there is one task."""
        return ()

    def task(self, task_params: TaskParams) -> "FunctionFamily":
        """The task itself."""
        return self

    @property
    def loss_scale(self) -> jax.Array:
        """The mean over 256 starting points, always the same."""
        starts = jax.vmap(self.init)(jax.random.split(jax.random.key(0), 256))
        return jax.vmap(FUNCTIONS[self.function].value)(starts).mean()

    @property
    def minimiser(self) -> jax.Array:
        """Where the function without noise is 0 `[dimension]`."""
        coordinates = jnp.asarray(FUNCTIONS[self.function].minimiser)
        return jnp.tile(coordinates, self.dimension // coordinates.size)

    def init(self, key: jax.Array) -> Params:
        """A point `[dimension]` of the starting box."""
        reach = FUNCTIONS[self.function].reach
        return jax.random.uniform(key, (self.dimension,), minval=-reach, maxval=reach)

    def loss(self, params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """The function near `params`."""
        return FUNCTIONS[self.function].value(params + batch)

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """A displacement; splits draw from streams of their own."""
        return self.noise * jax.random.normal(jax.random.fold_in(key, SPLITS.index(split)), (self.dimension,))
