"""The diagnosis of horizons, on problems where the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt import cli
from learned_opt.evaluate import horizon_bias, noisy_quadratic
from learned_opt.evaluate.horizon_bias import MULTIPLIERS, Sweep
from learned_opt.sgd import StepSize
from learned_opt.tasks.noisy_quadratic import NoisyQuadratic


def test_a_short_horizon_on_the_noisy_quadratic_is_found_out() -> None:
    """Ill-conditioned and noisy: a decay prefers much larger steps than the loss after 60 steps does."""
    spectrum, start = noisy_quadratic.worst_case(10)
    arrays = (spectrum.curvatures, spectrum.variances**0.5, start.weight**0.5)
    task = NoisyQuadratic(*(jnp.asarray(x, jnp.float32) for x in arrays))
    optimizer = StepSize(start=0.03)
    theta = optimizer.init(jax.random.key(0))
    found = horizon_bias.preference([horizon_bias.sweep(task, optimizer, theta, 60, 32, jax.random.key(1))])
    assert found.low > 1.5
    assert "too short" in horizon_bias.advice(found, 60)


def sweeps(plain_best: float, decayed_best: float) -> list[Sweep]:
    def losses(best: float) -> np.ndarray:
        bowl = np.exp(np.square(np.log(MULTIPLIERS / best)))
        return bowl[:, None] * np.array([0.5, 1.0, 2.0])

    return [Sweep(losses(plain_best), losses(decayed_best))]


def test_preferences_between_grid_points() -> None:
    found = horizon_bias.preference(sweeps(0.6, 1.5))
    np.testing.assert_allclose([found.plain, found.decayed, found.ratio], [0.6, 1.5, 2.5], rtol=1e-6)
    assert found.low == pytest.approx(2.5) == found.high
    assert not found.at_least
    assert not found.at_most


def test_what_is_not_finite_is_counted_and_not_preferred() -> None:
    (sweep,) = sweeps(1.0, 1.0)
    sweep.plain[-1] = np.nan
    found = horizon_bias.preference([sweep])
    assert found.diverged == 3
    assert found.ratio == pytest.approx(1)
    assert "little bias" in horizon_bias.advice(found, 10)


def test_an_edge_is_said_and_advice_waits() -> None:
    above, below = (horizon_bias.preference(sweeps(*best)) for best in ((1.0, 1000.0), (1000.0, 1.0)))
    assert above.at_least
    assert not above.at_most
    assert "too short" in horizon_bias.advice(above, 10)  # the more so if it is higher
    assert below.at_most
    assert "little bias" in horizon_bias.advice(below, 10)
    low, high = (found._replace(at_least=found.at_most, at_most=found.at_least) for found in (above, below))
    for found in (low, high):
        assert "undecided" in horizon_bias.advice(found, 10)


@pytest.mark.parametrize(("seeds", "covered"), [(5, 0.75), (8, 0.8)])
def test_the_interval_holds_what_is_true(seeds: int, covered: float) -> None:
    """Two families whose seeds prefer other steps, at the horizon and after the decay alike: a ratio of 1."""
    random, hits = np.random.default_rng(0), 0
    for _ in range(100):
        found = horizon_bias.preference([Sweep(*noisy_bowls(random, seeds, scale)) for scale in (1.0, 2.0)])
        hits += found.low <= 1 <= found.high
    assert covered <= hits / 100 <= 0.97


def noisy_bowls(random: np.random.Generator, seeds: int, scale: float) -> list[np.ndarray]:
    best = np.exp(random.normal(size=(2, 1, seeds)))
    return [np.exp(scale * np.square(np.log(MULTIPLIERS[:, None] / x))) for x in best]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["quikstart"], "unknown run or preset 'quikstart': did you mean quickstart or star?"),
        (["quickstart", "--seeds", "1"], "--seeds was given 1: a number from 5 is accepted"),
    ],
)
def test_bad_input(args, message, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["diagnose", "horizon", *args])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
