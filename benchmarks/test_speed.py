"""The same programs under pytest-benchmark: `pytest benchmarks` (the default run leaves them out)."""

from typing import Any

import jax
import optax
import pytest

from learned_opt import Star, StepSize, registry
from learned_opt.benchmarks import meta_training, update
from learned_opt.meta_train.presets import quickstart

pytest.importorskip("pytest_benchmark")


def _star() -> optax.GradientTransformationExtraArgs:
    star = Star()
    return star.transform(star.init(jax.random.key(0)))


@pytest.mark.parametrize("tree", update.TREES)
@pytest.mark.parametrize("name", ["star", "adam"])
def test_update(benchmark: Any, tree: str, name: str) -> None:
    """One update."""
    optimizer = _star() if name == "star" else optax.with_extra_args_support(optax.adam(1e-3))
    run = update.program(optimizer, update.TREES[tree]).run
    benchmark(lambda: jax.block_until_ready(run()))


@pytest.mark.parametrize("name", ["star", "floor"])
def test_outer_step(benchmark: Any, name: str) -> None:
    """One outer step of `quickstart`."""
    config = quickstart()
    optimizer = registry.make(config.optimizer, config.optimizer_options) if name == "star" else StepSize(start=0.01)
    benchmark(meta_training.Training(config, optimizer).step)
