"""Outer steps without a finite particle are skipped, said and, in a row, the end."""

import io
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from learned_opt.meta_train import trainer
from learned_opt.meta_train.config import Config
from learned_opt.meta_train.health import PATIENCE, Health
from learned_opt.meta_train.parallel import Component, OuterSteps
from learned_opt.meta_train.pes import PES
from learned_opt.meta_train.trainer import MetaTrainer
from learned_opt.tasks import registry
from learned_opt.tasks.entry import Entry
from learned_opt.tasks.noisy_quadratic import NoisyQuadratic


def outer_step(*broken: float, chain: Any, **options: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """One outer step from theta = 0, with a family for each share of broken problems: what it led to, and metrics."""
    families = [Component(PES(unroller=chain(4, 2, broken=share)), 8) for share in broken]
    outer_steps = OuterSteps(families, optax.adam(1e-3), **options)
    theta = {"drift": jnp.zeros(())}
    outer = outer_steps.init_outer(theta)
    states = outer_steps.init(jax.random.key(0), theta)
    outer, _, metrics = outer_steps.step(outer, states, jax.random.key(1))
    return jax.device_get(outer), jax.device_get(metrics)


def test_without_a_finite_particle_nothing_moves(chain: Any) -> None:
    """Neither theta nor the outer optimizer, whose count stays 0."""
    outer, metrics = outer_step(1.0, 1.0, chain=chain)
    assert outer.theta["drift"] == 0
    assert outer.opt_state[0].count == 0
    np.testing.assert_array_equal(metrics["dropped"], [8, 8])


@pytest.mark.parametrize("normalise", [False, True])
def test_a_dead_family_has_no_say(normalise: bool, chain: Any) -> None:
    """Beside a healthy one, the meta-gradient is that of the healthy one, and theta moves as with it alone."""
    outer, both = outer_step(0.0, 1.0, chain=chain, normalise_gradients=normalise)
    healthy, two = outer_step(0.0, 0.0, chain=chain, normalise_gradients=normalise)
    np.testing.assert_array_equal(both["dropped"], [0, 8])
    np.testing.assert_allclose(both["loss"][0], two["loss"][0], rtol=1e-6)
    of_family = two["gradient_norm_of_family"]
    assert of_family[0] > 0
    np.testing.assert_allclose(both["gradient_norm_of_family"], [of_family[0], 0], rtol=1e-6)
    np.testing.assert_allclose(both["gradient_norm"], 1 if normalise else of_family[0], rtol=1e-6)
    momentum = outer.opt_state[0].mu["drift"]
    np.testing.assert_allclose(abs(momentum), 0.1 * both["gradient_norm"], rtol=1e-5)
    np.testing.assert_array_equal(np.sign(momentum), np.sign(healthy.opt_state[0].mu["drift"]))


def test_health_counts_in_a_row() -> None:
    """A family that recovers starts again from zero; one that does not ends the run, with everything in the line."""
    health = Health(("well", "ill"), particles=(3, 4))
    assert not health.update(np.array([0, 4]))
    assert not health.well
    assert not health.update(np.array([2, 3]))
    assert health.well
    assert health.update(np.array([3, 4]))
    for step in range(1, PATIENCE):
        health.raise_if_hopeless(step, None)
        health.update(np.array([0, 4]))
    with pytest.raises(FloatingPointError) as error:
        health.raise_if_hopeless(30, Path("x/20"))
    message = "outer step 30: no particle of ill has been finite for 10 outer steps; restart from x/20"
    assert str(error.value) == message


def failing_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: float) -> tuple[str, FloatingPointError]:
    """A run on a quadratic that starts at `start`: what it printed, and how it ended."""
    family = NoisyQuadratic(jnp.ones(2), jnp.ones(2), jnp.full(2, start))
    monkeypatch.setitem(registry.TASKS, "quadratic", Entry("quadratic", lambda: family, "none", (0, 1), 0))
    config = Config(
        preset="quickstart",
        optimizer="step-size",
        tasks=("quadratic",),
        steps=40,
        particles=2,
        truncation=2,
        min_horizon=4,
        max_horizon=4,
        loss_clip=None,
        learning_rate=1e-2,
        checkpoint_every=3,
        devices=1,
    )
    text = io.StringIO()
    meta_trainer = MetaTrainer(config, tmp_path / "run", Console(file=text, width=200))
    with pytest.raises(FloatingPointError) as error:
        meta_trainer.train()
    return text.getvalue(), error.value


def test_ten_skipped_steps_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one is said; the metrics have them; there is no checkpoint to restart from."""
    printed, error = failing_run(tmp_path, monkeypatch, start=1e30)
    assert str(error) == (
        "outer step 10: no particle of quadratic has been finite for 10 outer steps; there is no checkpoint before that"
    )
    for step in range(1, 11):
        assert f"outer step {step} skipped: no particle is finite" in printed
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines] == [1.0] * 10
    assert [line["dropped"] for line in lines] == [2.0] * 10
    assert all(line["loss"] is None for line in lines)


def test_the_checkpoint_before_the_trouble_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The inner problems break from outer step 8 on; checkpoints are due every 3."""
    run = OuterSteps.run

    def breaking(self: OuterSteps, outer: Any, states: Any, key: jax.Array, first: int, count: int) -> Any:
        self.done = getattr(self, "done", 0) + count
        if self.done >= 8:
            states = jax.tree.map(lambda x: x * jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else x, states)
        return run(self, outer, states, key, first, count)

    monkeypatch.setattr(trainer, "TOGETHER", 0)  # every outer step in a call of its own
    monkeypatch.setattr(OuterSteps, "run", breaking)
    printed, error = failing_run(tmp_path, monkeypatch, start=1.0)
    assert str(error) == (
        "outer step 17: no particle of quadratic has been finite for 10 outer steps; "
        f"restart from {tmp_path}/run/checkpoints/6"
    )
    assert (tmp_path / "run/checkpoints/6").is_dir()
    assert "outer step 7 skipped" not in printed
