"""The parts of `learned-opt reproduce star`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt.evaluate.reproduce import fixed_preconditioner, star
from learned_opt.evaluate.reproduce.star import Region
from learned_opt.star import Star


def test_fixed_preconditioner(x64: None) -> None:
    rows = list(fixed_preconditioner.rows(seed=1))
    assert [row.id for row in rows] == ["STAR-1", "STAR-2"]
    assert all(row.passed for row in rows), rows


def test_a_head_that_is_cut_is_the_one_that_is_off(x64: None) -> None:
    """Without the decay head the step is that of a decay too small to see, other heads are untouched."""
    full = Star(weight_decay=1e-300)
    changed = dataclasses.replace(full, weight_decay=0.0)
    theta = full.init(jax.random.key(0))
    cut = star.without_heads(full, changed, theta)
    params = grads = jnp.arange(1.0, 5.0)
    updates = []
    for optimizer, weights in ((full, star.without_heads(full, full, theta)), (changed, cut)):
        transform = optimizer.transform(weights)
        updates.append(jax.jit(transform.update)(grads, transform.init(params), params)[0])
    np.testing.assert_allclose(*updates, rtol=1e-12)


@pytest.mark.parametrize(
    ("region", "passes"),
    [
        (Region(0.01, 1000.0, 1240.0), True),
        (Region(0.01, 1000.0, 1260.0), False),
        (Region(0.01, 1000.0, 740.0), False),
        (Region(0.6, 1000.0), False),  # leaves the optimum: not measured
    ],
)
def test_edges_can_fail(region: Region, passes: bool) -> None:
    assert star._edge_row("", region).passed == passes


@pytest.mark.parametrize(("pull", "passes"), [(0.11, True), (-0.11, True), (float("nan"), True), (0.09, False)])
def test_pulls_can_fail(pull: float, passes: bool) -> None:
    assert star._pull_row("", Region(pull, 1000.0), Region(-0.01, 1000.0)).passed == passes


def test_a_meta_trained_star_that_leaves_the_optimum_fails() -> None:
    leaves = Region(0.6, 1000.0)
    regions = {"STAR": {"before": {1: leaves}, "after": {1: leaves}}}
    (row,) = star._region_rows(regions)
    assert not row.passed


def test_runs_that_diverge_are_counted() -> None:
    losses = np.ones((4, 250))
    losses[:, 1:] = 0.1
    losses[1, 20:] = np.nan
    losses[2, 20:] = 2.0
    for row in star._horizon_rows(losses, horizon=1000):
        assert not row.passed
        assert row.measured.startswith("2 diverge")
    assert all(row.passed for row in star._horizon_rows(losses[:1], horizon=1000))
