"""Adam with meta-learned hyperparameters: the smallest learned optimizer, and a check on every estimator."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from learned_opt import errors
from learned_opt.base import EPS_ROOT, Theta, working_dtype


@dataclass(frozen=True, kw_only=True)
class LearnableAdam:
    """`optax.adam` whose learning rate, two betas and epsilon are four meta-parameters in log space.

    `rate = learning_rate * exp(exponent_scale * theta)`, the same for `1 - b1`, `1 - b2` and `eps`; all thetas start at
    zero. `exponent_scale` makes one unit of theta worth a comparable change for perturbation-based estimators.
    """

    learning_rate: float = 1e-3
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    exponent_scale: float = 10.0

    def __post_init__(self) -> None:
        """Refuses hyperparameters that no Adam has."""
        errors.check_floats(self)
        for name in ("b1", "b2"):
            if getattr(self, name) >= 1:
                raise errors.UsageError(f"LearnableAdam.{name} was given {getattr(self, name)}: below 1 is accepted")

    def init(self, key: jax.Array) -> Theta:
        """Zeros: the given hyperparameters. `key` is not used."""
        del key
        return {name: jnp.zeros(()) for name in ("learning_rate", "one_minus_b1", "one_minus_b2", "eps")}

    def transform(self, theta: Theta) -> optax.GradientTransformationExtraArgs:
        """`optax.adam` at the hyperparameters that `theta` stands for; betas are kept in [0, 1), state in float32."""
        factor = {name: jnp.exp(self.exponent_scale * leaf) for name, leaf in theta.items()}
        adam = optax.adam(
            self.learning_rate * factor["learning_rate"],
            b1=jnp.clip(1 - (1 - self.b1) * factor["one_minus_b1"], 0, 1 - 1e-6),
            b2=jnp.clip(1 - (1 - self.b2) * factor["one_minus_b2"], 0, 1 - 1e-6),
            eps=self.eps * factor["eps"],
            eps_root=EPS_ROOT,
        )

        def widen(tree: Any) -> Any:
            return jax.tree.map(lambda x: jnp.asarray(x, working_dtype(x)), tree)

        def init(params: optax.Params) -> optax.OptState:
            return adam.init(widen(params))

        def update(
            updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra: Any
        ) -> tuple[optax.Updates, optax.OptState]:
            del params, extra
            steps, new_state = adam.update(widen(updates), state)
            steps = jax.tree.map(lambda step, grad: step.astype(jnp.result_type(grad)), steps, updates)
            return steps, optax.tree.cast_like(new_state, state)

        return optax.GradientTransformationExtraArgs(init, update)
