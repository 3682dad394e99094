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
    assert not found.at_edge


def test_what_is_not_finite_is_counted_and_not_preferred() -> None:
    (sweep,) = sweeps(1.0, 1.0)
    sweep.plain[-1] = np.nan
    found = horizon_bias.preference([sweep])
    assert found.diverged == 3
    assert found.ratio == pytest.approx(1)
    assert "little bias" in horizon_bias.advice(found, 10)


def test_an_edge_is_said() -> None:
    assert horizon_bias.preference(sweeps(1.0, 1000.0)).at_edge


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["quikstart"], "unknown run or preset 'quikstart': did you mean quickstart or star?"),
        (["quickstart", "--seeds", "1"], "--seeds was given 1: a number from 2 is accepted"),
    ],
)
def test_bad_input(args, message, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["diagnose", "horizon", *args])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
