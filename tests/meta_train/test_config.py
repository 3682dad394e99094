"""Flags that contradict each other, and what the outer optimizer does."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt.errors import UsageError
from learned_opt.meta_train.config import Config


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"estimator": "forward", "shaping": "rank"},
            "--shaping was given rank and --estimator forward, which perturbs",
        ),
        ({"estimator": "full-backprop", "sigma": 0.1}, "--sigma was given 0.1"),
        ({"estimator": "truncated-backprop", "antithetic": False}, "--antithetic was given False"),
        ({"estimator": "forward", "sigma_of": {"mlp": 0.1}}, "--sigma-of was given"),
        ({"sigma_of": {"mlp": 0.0}}, "--sigma-of was given mlp 0.0: a number above 0 is accepted"),
        ({"aggregate": "final-window"}, "--window was given None and --aggregate final-window"),
        ({"window": 5}, "--window was given 5 and --aggregate mean"),
        ({"aggregate": "final-window", "window": 0}, "--window was given 0"),
        ({"curriculum": -1}, "--curriculum was given -1: a number from 0 is accepted"),
        ({"gradient_clip_value": 0.0}, "--gradient-clip-value was given 0.0"),
        ({"loss_clip": -1.0}, "--loss-clip was given -1.0"),
        (
            {"tasks": ("digits-mlp", "digits-mlp")},
            "--tasks was given digits-mlp digits-mlp: each task family is accepted",
        ),
        (
            {"weight_of": {"digits-cnn": 2.0}},
            "--weight-of was given digits-cnn: accepted are digits-mlp-reparametrised",
        ),
        ({"particles_of": {"digits-mlp-reparametrised": 0}}, "--particles-of was given digits-mlp-reparametrised 0"),
    ],
)
def test_contradictions_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        Config(preset="quickstart", **given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_sigma_of_must_name_a_part_of_theta() -> None:
    theta = {"decays": jnp.zeros(2), "mlp": jnp.zeros(3)}
    config = Config(preset="quickstart", sigma_of={"mlp": 0.5})
    assert config.perturbation(theta).sigma == {"decays": 0.01, "mlp": 0.5}
    with pytest.raises(UsageError, match="--sigma-of was given head: accepted are decays, mlp"):
        dataclasses.replace(config, sigma_of={"head": 0.5}).perturbation(theta)


def updates(gradient: Any, theta: Any, **given: Any) -> Any:
    optimizer = Config(preset="quickstart", steps=10, learning_rate=0.1, **given).outer_optimizer()
    state = optimizer.init(theta)
    # Adam's first step has unit entries whatever the gradient is; its second tells magnitudes apart.
    _, state = optimizer.update(jax.tree.map(jnp.ones_like, gradient), state, theta)
    return optimizer.update(gradient, state, theta)[0]


def test_clipping_by_value_comes_before_clipping_by_norm() -> None:
    """(3, 4) clipped to (1, 1) by value; and to (0.6, 0.8) by norm; None clips nothing."""
    theta = {"w": jnp.zeros(2)}
    gradient = {"w": jnp.array([3.0, 4.0])}
    for given, same in (
        ({"gradient_clip_value": 1.0, "gradient_clip": None}, [1.0, 1.0]),
        ({"gradient_clip": 1.0}, [0.6, 0.8]),
        ({"gradient_clip": None}, [3.0, 4.0]),
    ):
        clipped = updates(gradient, theta, weight_decay=0.0, **given)["w"]
        first = 1.0 if given["gradient_clip"] is None else given["gradient_clip"] / np.sqrt(2)
        plain = updates({"w": jnp.array(same) / first}, theta, weight_decay=0.0, gradient_clip=None)["w"]
        np.testing.assert_allclose(clipped, plain, rtol=1e-4)


def test_meta_weight_decay_leaves_the_decays_alone() -> None:
    """With no gradient: theta shrinks by rate * decay, except under `decays`."""
    theta = {"decays": jnp.ones(2), "mlp": [jnp.ones(3)]}
    optimizer = Config(preset="quickstart", steps=10, learning_rate=0.1, weight_decay=0.5).outer_optimizer()
    found, _ = optimizer.update(jax.tree.map(jnp.zeros_like, theta), optimizer.init(theta), theta)
    np.testing.assert_array_equal(found["decays"], np.zeros(2))
    np.testing.assert_allclose(found["mlp"][0], -0.05 * np.ones(3), rtol=1e-6)
