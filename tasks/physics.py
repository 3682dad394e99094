"""Networks that solve a differential equation (Raissi et al. 2019): the loss is how far they are from obeying it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from learned_opt import errors
from learned_opt.tasks.base import SPLITS, Batch, Split
from learned_opt.tasks.network_family import NetworkFamily, Predict

Field = Callable[[jax.Array], jax.Array]  # a function of one point `[variables]`, a scalar
DIFFUSIVITY = 0.1
VISCOSITY = 0.05


@dataclass(frozen=True)
class Equation:
    """A differential equation on the unit cube of its variables, time the last where there is one.

    Attributes:
        variables: how many.
        residual: of a field at an inner point; 0 for a solution.
        solution: the exact one, which gives values on the boundary and at time 0.
        has_time: whether the last variable is time, whose end is no boundary.
        scale: about the mean squared residual and boundary error of a field that is 0.
    """

    variables: int
    residual: Callable[[Field, jax.Array], jax.Array]
    solution: Field
    has_time: bool
    scale: float


def derivative(u: Field, axis: int) -> Field:
    """The partial derivative of a field, in forward mode: cheaper than reverse for one number in and out."""
    return lambda x: jax.jvp(u, (x,), (jnp.zeros_like(x).at[axis].set(1),))[1]


def _poisson(u: Field, x: jax.Array) -> jax.Array:
    """u'' = -pi^2 sin(pi x)."""
    return derivative(derivative(u, 0), 0)(x) + jnp.pi**2 * jnp.sin(jnp.pi * x[0])


def _heat(u: Field, x: jax.Array) -> jax.Array:
    """u_t = a u_xx."""
    return derivative(u, 1)(x) - DIFFUSIVITY * derivative(derivative(u, 0), 0)(x)


def _heat_solution(x: jax.Array) -> jax.Array:
    return jnp.exp(-DIFFUSIVITY * jnp.pi**2 * x[1]) * jnp.sin(jnp.pi * x[0])


def _burgers(u: Field, x: jax.Array) -> jax.Array:
    """u_t + u u_x = v u_xx."""
    slope = derivative(u, 0)
    return derivative(u, 1)(x) + u(x) * slope(x) - VISCOSITY * derivative(slope, 0)(x)


def _burgers_solution(x: jax.Array) -> jax.Array:
    """A front between 1 and 0 that moves at speed 1/2, from x = 1/4."""
    return 0.5 - 0.5 * jnp.tanh((x[0] - 0.25 - 0.5 * x[1]) / (4 * VISCOSITY))


EQUATIONS = {
    "poisson": Equation(1, _poisson, lambda x: jnp.sin(jnp.pi * x[0]), False, jnp.pi**4 / 2),
    "heat": Equation(2, _heat, _heat_solution, True, 1 / 6),
    "burgers": Equation(2, _burgers, _burgers_solution, True, 0.4),
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Physics(NetworkFamily):
    """A network that becomes the solution of an equation. Needs no data.

    Attributes:
        equation: its name.
        activations: smooth ones only, for there are second derivatives.
    """

    activations: tuple[str, ...] = field(default=("tanh",), metadata={"static": True})
    equation: str = field(default="poisson", metadata={"static": True})

    def __post_init__(self) -> None:
        """Refuses an equation that does not exist."""
        if self.equation not in EQUATIONS:
            raise errors.unknown("equation", self.equation, EQUATIONS)

    @property
    def loss_scale(self) -> Any:
        """About the loss of a field that is 0."""
        return EQUATIONS[self.equation].scale

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """The variables; one number."""
        return (EQUATIONS[self.equation].variables,), 1

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """Inner and boundary points, `[batch_size, variables]` each; splits draw from streams of their own."""
        equation = EQUATIONS[self.equation]
        keys = jax.random.split(jax.random.fold_in(key, SPLITS.index(split)), 3)
        inner, boundary = (jax.random.uniform(k, (self.batch_size, equation.variables)) for k in keys[:2])
        # The faces are x = 0 and x = 1, and t = 0.
        face = jax.random.randint(keys[2], (self.batch_size,), 0, 3 if equation.has_time else 2)
        boundary = boundary.at[:, 0].set(jnp.where(face < 2, face, boundary[:, 0]))
        if equation.has_time:
            boundary = boundary.at[:, 1].set(jnp.where(face == 2, 0, boundary[:, 1]))
        return inner, boundary

    def loss(self, predict: Predict, batch: Batch) -> jax.Array:
        """The loss of the network as a field."""
        return self.field_loss(lambda x: predict(x[None])[0, 0], batch)

    def field_loss(self, u: Field, batch: Batch) -> jax.Array:
        """Mean squared residual inside, plus mean squared error on the boundary; 0 for the exact solution."""
        equation, (inner, boundary) = EQUATIONS[self.equation], batch
        residual = jax.vmap(lambda x: equation.residual(u, x))(inner)
        error = jax.vmap(lambda x: u(x) - equation.solution(x))(boundary)
        return jnp.square(residual).mean() + jnp.square(error).mean()
