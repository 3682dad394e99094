"""Learning to hold a pole on a cart, through the derivatives of its motion."""

from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp

from learned_opt.tasks.base import SPLITS, Batch, Split
from learned_opt.tasks.network_family import NetworkFamily, Predict

GRAVITY, CART, POLE, HALF_LENGTH = 9.8, 1.0, 0.1, 0.5  # metres, kilograms, seconds
FORCE = 10.0  # newtons, the most that a policy can push
SECONDS_PER_STEP = 0.04
FASTEST = 10.0  # speeds stop here: no policy makes the motion, or its derivatives, overflow
START_DEVIATION = 0.1


def accelerations(state: jax.Array, force: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of the cart and of the pole's angle from upright, without friction (Barto, Sutton and Anderson 1983).

    `state` is position, speed, angle, angular speed `[4]`.
    """
    _, _, angle, spin = state
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    push = (force + POLE * HALF_LENGTH * jnp.square(spin) * sin) / (CART + POLE)
    angular = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4 / 3 - POLE * jnp.square(cos) / (CART + POLE)))
    return push - POLE * HALF_LENGTH * angular * cos / (CART + POLE), angular


def move(state: jax.Array, force: jax.Array) -> jax.Array:
    """The state one semi-implicit Euler step later."""
    position, speed, angle, spin = state
    cart, pole = accelerations(state, force)
    speed, spin = _limited(speed + SECONDS_PER_STEP * cart), _limited(spin + SECONDS_PER_STEP * pole)
    return jnp.stack([position + SECONDS_PER_STEP * speed, speed, angle + SECONDS_PER_STEP * spin, spin])


def cost(state: jax.Array) -> jax.Array:
    """Between 0, upright in the middle, and 1."""
    upright = (1 - jnp.cos(state[2])) / 2
    return 1 - (1 - upright) * jnp.exp(-0.5 * jnp.square(state[0]))


def _limited(speed: jax.Array) -> jax.Array:
    return FASTEST * jnp.tanh(speed / FASTEST)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CartPole(NetworkFamily):
    """A policy from position, speed, sine and cosine of the angle, and angular speed to a force. Needs no data.

    A batch is starting states; the loss is the mean cost over `steps` steps from each.

    Attributes:
        goal: hold the pole from nearly upright, or swing it up from hanging.
        steps: of a rollout, 0.04 seconds each.
    """

    goal: Literal["balance", "swing-up"] = field(default="balance", metadata={"static": True})
    steps: int = field(default=40, metadata={"static": True})

    @property
    def loss_scale(self) -> float:
        """The largest cost."""
        return 1.0

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """What a policy sees; a force."""
        return (5,), 1

    def sample_batch(self, key: jax.Array, split: Split) -> Batch:
        """Starting states `[batch_size, 4]`; splits draw from streams of their own."""
        key = jax.random.fold_in(key, SPLITS.index(split))
        states = START_DEVIATION * jax.random.normal(key, (self.batch_size, 4))
        return states if self.goal == "balance" else states.at[:, 2].add(jnp.pi)

    def loss(self, predict: Predict, batch: Batch) -> jax.Array:
        """The mean cost, between 0 and 1."""

        def step(states: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            position, speed, angle, spin = states.T
            seen = jnp.stack([position, speed, jnp.sin(angle), jnp.cos(angle), spin], axis=1)
            states = jax.vmap(move)(states, FORCE * jnp.tanh(predict(seen)[:, 0]))
            return states, jax.vmap(cost)(states).mean()

        return jax.lax.scan(step, batch, length=self.steps)[1].mean()
