"""The shipped weights do what their card and the README say."""

import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest

import learned_opt
from learned_opt.checkpoints import artifact
from learned_opt.checkpoints.load import load_learned_optimizer
from learned_opt.evaluate import benchmark, contenders, suites
from learned_opt.evaluate.suites import Suite
from learned_opt.meta_train import presets
from learned_opt.tasks import registry

STAR = "50a150fa8a8ef3537b071bbe35980161f9d1611b3f96fc9a65f593f8adc31cde"


def test_digits_says_what_it_is_and_is_not():
    _, theta, card = load_learned_optimizer("digits")
    assert card["optimizer"] == "star"
    assert "not" in card["description"]
    assert card["config"]["preset"] == "digits"
    assert sum(leaf.size for leaf in jax.tree.leaves(theta)) == 207
    assert "digits" in artifact.pretrained_names()


def test_digits_trains_a_quadratic_far_from_its_tasks():
    """2-D weights, 300 steps from 5 away: it does not run off, and ends a hundred times lower."""
    optimizer = learned_opt.load("digits")
    target = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)

    def step(carry, _):
        params, state = carry
        loss, grads = jax.value_and_grad(lambda w: ((w - target) ** 2).sum())(params)
        updates, state = optimizer.update(grads, state, params)
        return (params + updates, state), loss

    params = target + 0.5
    _, losses = jax.lax.scan(step, (params, optimizer.init(params)), None, length=300)
    assert losses[-10:].max() < 0.01 * losses[0]


def test_digits_beats_adam_at_its_default_in_200_steps():
    """On one task of the suite, with other keys than the report's."""
    suite = Suite("one", "", lambda: {"mlp-32-relu": suites.suite("digits").tasks["mlp-32-relu"]})
    found = benchmark.run(suite, [contenders.parse("digits")], seeds=2, horizons=(200,), key=jax.random.key(99))
    assert found.arithmetic_mean("digits", 200) < 0.3 * found.arithmetic_mean("adam", 200)


@pytest.mark.slow
def test_digits_beats_the_best_of_15_rates_at_every_horizon():
    """The claim of the README, with keys that had no part in it."""
    found = benchmark.run(suites.suite("digits"), [contenders.parse("digits")], seeds=8, key=jax.random.key(99))
    for horizon in found.horizons:
        assert found.ratio("digits", horizon) < 1
        assert found.divergence_rate("digits", horizon) == 0


def test_star_is_what_its_card_says():
    """Weights, their hash, the recipe of the preset, and the decay they are used with, which is half of that."""
    _, theta, card = load_learned_optimizer("star")
    assert card["sha256"] == hashlib.sha256((artifact.resolve("star") / "theta.npz").read_bytes()).hexdigest() == STAR
    recipe = json.loads(json.dumps(dataclasses.asdict(presets.star())))
    assert {name: recipe[name] for name in card["config"] if name != "devices"} == {
        name: value for name, value in card["config"].items() if name != "devices"
    }
    assert card["optimizer_options"] == recipe["optimizer_options"] | {"early_decay": 5e-4}
    assert sum(leaf.size for leaf in jax.tree.leaves(theta)) == 432


@pytest.mark.parametrize(("task", "share"), [("iris-linear", 0.5), ("diabetes-mlp", 0.85)])
def test_star_beats_adam_at_its_default_in_200_steps(task, share):
    """On tasks of data sets that it never saw, with other keys than the report's."""
    suite = Suite("one", "", lambda: {task: registry.family(task)})
    found = benchmark.run(suite, [contenders.parse("star")], seeds=2, horizons=(200,), key=jax.random.key(99))
    assert found.divergence_rate("star", 200) == 0
    assert found.arithmetic_mean("star", 200) < share * found.arithmetic_mean("adam", 200)
