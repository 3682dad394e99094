import numpy as np
import pytest

from learned_opt.evaluate import scores
from learned_opt.evaluate.scores import Curves, Results, Run


def score(losses, test_loss, horizon, rates=()):
    return scores.score(losses, test_loss + 1, test_loss, horizon, rates)


def hand_made():
    """Fifteen thetas, two seeds, 40 steps: constant losses |theta - 4| + 1, falling by one in the last ten steps."""
    level = np.abs(np.arange(15) - 4) + 1.0
    losses = np.broadcast_to(level[:, None, None], (15, 2, 40)).copy()
    losses[:, :, 30:] -= 1
    losses[:, 1] += 0.5
    return losses.astype(np.float32), losses[:, :, -1] + 10


def test_the_best_of_fifteen():
    losses, test_loss = hand_made()
    best = score(losses, test_loss, 40)
    assert best.best == 4
    assert not best.at_edge
    np.testing.assert_allclose(best.mean_loss, [0.75, 1.25])
    np.testing.assert_allclose(best.final_loss, [0, 0.5])
    np.testing.assert_allclose(best.test_loss, [10, 10.5])
    np.testing.assert_allclose(best.valid_loss, [11, 11.5])
    np.testing.assert_allclose(best.sweep, np.abs(np.arange(15) - 4) + 0.25)
    assert best.rate is None
    assert score(losses, test_loss, 40, tuple(np.arange(15) / 10)).rate == 0.4


def test_the_best_is_that_of_the_lowest_final_loss():
    losses, test_loss = hand_made()
    losses[7, :, :30] = 0  # the lowest mean, not the lowest end
    best = score(losses, test_loss, 40)
    assert best.best == 4
    assert best.mean_loss.mean() > losses[7].mean()


def test_only_the_steps_before_the_horizon_count():
    losses, test_loss = hand_made()
    losses[6, :, :30] = 0.25  # best up to 30, diverged later
    losses[6, :, 30:] = np.inf
    early, late = score(losses, test_loss, 30), score(losses, test_loss, 40)
    assert (early.best, late.best) == (6, 4)
    assert not early.diverged.any()
    np.testing.assert_allclose(score(losses[4:5], test_loss[4:5], 30).final_loss, [1, 1.5])


def test_the_last_twentieth_is_final():
    losses = np.ones((1, 1, 400), np.float32)
    losses[..., 380:] = 3
    assert score(losses, np.ones((1, 1)), 400).final_loss[0] == 3
    assert score(losses, np.ones((1, 1)), 385).final_loss[0] == pytest.approx((14 + 5 * 3) / 19)
    assert score(losses[..., :4], np.ones((1, 1)), 4).final_loss[0] == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_run_that_diverged_counts(bad):
    losses, test_loss = hand_made()
    losses[4, 1, 3] = bad
    best = score(losses, test_loss, 40)
    assert best.best == 3  # a tie with 5
    only = score(losses[4:5], test_loss[4:5], 40)
    assert only.diverged.tolist() == [False, True]
    assert only.mean_loss.mean() == only.final_loss.mean() == only.test_loss.mean() == np.inf
    assert only.valid_loss.mean() == np.inf
    test_loss[4, 0] = bad
    assert score(losses[4:5], test_loss[4:5], 40).diverged.all()
    valid_loss = np.where(test_loss == test_loss[6], bad, 1.0)
    assert scores.score(losses[6:7], valid_loss[6:7], np.ones((1, 2)), 40).diverged.all()


def test_edges():
    losses, test_loss = hand_made()
    assert score(losses[:5], test_loss[:5], 40).at_edge
    assert score(losses[4:], test_loss[4:], 40).at_edge
    assert not score(losses[4:5], test_loss[4:5], 40).at_edge  # no sweep, no edge


def made_results(ours, tuned):
    """Two tasks, one horizon, one seed."""

    def run(loss):
        losses = np.full((1, 1, 10), loss, np.float32)
        return Run(
            scores={10: score(losses, losses[..., 0], 10)},
            curves={10: Curves(losses=losses[0], valid_steps=np.array([10]), valid_losses=losses[0, :, -1:])},
            seconds_per_step=1.0,
            side_by_side=1,
        )

    runs = {
        f"task{i}": {"ours": run(a), "adam-tuned": run(b)} for i, (a, b) in enumerate(zip(ours, tuned, strict=True))
    }
    return Results(suite="made", contenders=[], seeds=1, horizons=(10,), runs=runs, wall_seconds=1.0)


def test_over_the_suite():
    results = made_results([1.0, 4.0], [2.0, 2.0])
    assert results.geometric_mean("ours", 10) == pytest.approx(2)
    assert results.arithmetic_mean("ours", 10) == pytest.approx(2.5)
    assert results.ratio("ours", 10) == pytest.approx(1)
    assert results.lost_to_tuned_adam("ours") == {"task1": [10]}
    assert results.lost_to_tuned_adam("adam-tuned") == {}


def test_divergence_over_the_suite():
    results = made_results([1.0, np.nan], [2.0, 2.0])
    assert (
        results.geometric_mean("ours", 10) == results.arithmetic_mean("ours", 10) == results.ratio("ours", 10) == np.inf
    )
    assert results.divergence_rate("ours", 10) == 0.5
    assert np.isnan(made_results([np.nan], [np.nan]).ratio("ours", 10))
