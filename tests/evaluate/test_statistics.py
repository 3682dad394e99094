import numpy as np
import pytest
import scipy.stats

from learned_opt.evaluate import statistics

INF, NAN = np.inf, np.nan


def test_ratios_by_hand():
    ours = np.array([[1.0, 4.0], [0.0, 0.5], [INF, 1.0], [INF, 2.0], [0.001, 50.0]])
    adam = np.array([[2.0, 2.0], [0.0, 0.0], [1.0, NAN], [INF, 3.0], [1.0, 1.0]])
    found = statistics.loss_ratios(ours, adam)
    np.testing.assert_allclose(found.values, [[2, 0.5], [1, 0.1], [0.1, 10], [1, 1.5], [10, 0.1]])
    assert found.clipped.tolist() == [[False] * 2, [False, True], [False, True], [False] * 2, [True, True]]
    assert found.diverged.tolist() == [[False] * 2, [False] * 2, [True, False], [True, False], [False] * 2]
    assert not (found.at_least | found.at_most).any()


def test_losses_are_taken_above_the_floor():
    found = statistics.loss_ratios(np.array([[3.0], [1.0]]), np.array([[5.0], [0.5]]), np.array([1.0, 1.0]))
    np.testing.assert_allclose(found.values, [[2], [1]])  # both at or below it: equal


def test_steps_to_reach_a_loss():
    steps = np.array([1, 2, 4, 8])
    curves = np.array([[8.0, 4, 2, 1], [8, 4, 2, 1], [8, 4, 2, 1], [8, 4, 2, 1], [8, 1, NAN, 3], [NAN, 1, 1, 1]])
    target = np.array([4.0, 3.0, 0.5, 9.0, 4.5, 2.0])
    found = statistics.steps_to_reach(target, steps, curves)
    # On the point; half-way in the logarithm; never; at once; between; from a loss that is no number
    np.testing.assert_allclose(found, [2, np.sqrt(8), INF, 1, np.sqrt(2), 2])
    every = statistics.steps_to_reach(np.array([-INF, INF]), np.arange(1, 4), np.array([[3.0, 2, 1], [INF, INF, 1]]))
    np.testing.assert_array_equal(every, [INF, 3])


def test_one_sided_speed_ups_by_hand():
    adam_steps = np.array([[200.0, 50.0], [INF, INF], [30.0, 30.0], [5.0, 3000.0]])
    diverged = np.array([[False, False], [False, True], [True, True], [False, False]])
    adam_diverged = np.array([[False, False], [True, False], [True, False], [False, True]])
    found = statistics.one_sided_speed_ups(adam_steps, 100, 400, diverged, adam_diverged)
    np.testing.assert_allclose(found.values, [[2, 0.5], [10, 0.1], [1, 0.1], [0.1, 10]])
    assert not (found.at_least | found.at_most).any()  # where one diverged, nothing is censored
    assert found.clipped.tolist() == [[False, False], [True, False], [False, False], [True, True]]
    np.testing.assert_array_equal(found.diverged, diverged)
    sound = np.zeros((1, 2), bool)
    censored = statistics.one_sided_speed_ups(np.array([[INF, 400.0]]), 100, 400, sound, sound)
    np.testing.assert_allclose(censored.values, [[4, 4]])
    np.testing.assert_array_equal(censored.at_least, [[True, False]])


def test_a_speed_up_is_what_was_put_in_whatever_the_noise():
    """Curves of one shape, ours s times as fast; noise makes each curve touch what it reaches too early, ours more.

    Swapped, it is inverted; against itself it is 1.
    """
    speeds, noise, our_noise, sound = np.array([[0.5, 2.0, 3.0]]), 0.6, 0.3, np.zeros((1, 3), bool)
    theirs = noise * 200 * speeds, noise * 200 * np.ones((1, 3))
    ours = our_noise * 200 / speeds, our_noise * 200 * np.ones((1, 3))
    found = statistics.speed_ups(theirs, ours, 1000, sound, sound)
    np.testing.assert_allclose(found.values, speeds)
    np.testing.assert_allclose(statistics.speed_ups(ours, theirs, 1000, sound, sound).values, 1 / speeds)
    own = theirs[0], theirs[0]
    np.testing.assert_array_equal(statistics.speed_ups(own, own, 1000, sound, sound).values, 1)


def test_a_speed_up_is_censored_where_a_curve_ends_before_the_loss_of_the_other():
    never, end, sound = np.array([[INF, 50.0]]), np.array([[100.0, 100.0]]), np.zeros((1, 2), bool)
    found = statistics.speed_ups((never, end), (np.array([[25.0, INF]]), end), 900, sound, sound)
    np.testing.assert_allclose(found.values, [[np.sqrt(9 * 4), np.sqrt(0.5 / 9)]])
    np.testing.assert_array_equal(found.at_least, [[True, False]])
    np.testing.assert_array_equal(found.at_most, [[False, True]])
    one_diverged = statistics.speed_ups((never, end), (never, end), 900, ~sound, np.array([[True, False]]))
    np.testing.assert_array_equal(one_diverged.values, [[1, 0.1]])
    assert not (one_diverged.at_least | one_diverged.at_most).any()


def ratios(values, at_least=False, at_most=False):
    values = np.array(values, float)
    flags = (np.broadcast_to(flag, values.shape) for flag in (False, at_least, at_most, False))
    return statistics.Ratios(values, *flags)


def test_the_middle_half():
    assert statistics.iqm(np.array([[100.0, 1, 2, 3], [4, 5, 6, -100]])) == 3.5
    np.testing.assert_array_equal(statistics.iqm(np.array([[100.0, 1, 2, 3], [4, 5, 6, -100]]), axis=1), [2.5, 4.5])
    made = ratios([[10, 1, 2, 4], [0.1, 1, 2, 4]])
    assert statistics.aggregate(made).value == pytest.approx((1 * 2 * 2 * 4) ** 0.25)
    np.testing.assert_allclose(statistics.per_task(made).value, [np.sqrt(8), np.sqrt(2)])


def test_swapping_sides_inverts_the_aggregate():
    values = np.exp(np.random.default_rng(0).normal(size=(6, 5)))
    here, there = (statistics.aggregate(ratios(x)) for x in (values, 1 / values))
    np.testing.assert_allclose([1 / here.value, 1 / here.high, 1 / here.low], there, rtol=1e-6)


def test_an_interval_in_closed_form():
    """One task, two seeds: a resample is one of them, each half of the time."""
    found = statistics.aggregate(ratios([[2, 8]]))
    np.testing.assert_allclose(found, (4, 2, 8))
    same = statistics.aggregate(ratios([[3, 3], [3, 3]]))
    np.testing.assert_allclose(same, (3, 3, 3))
    np.testing.assert_allclose(statistics.per_task(ratios([[2, 8], [3, 3]])), [(4, 3), (2, 3), (8, 3)])


def test_seeds_are_resampled_within_their_task():
    """Tasks that differ, seeds that do not: no resample can change anything."""
    found = statistics.aggregate(ratios(np.repeat([[0.2], [1], [5], [7]], 4, axis=1)))
    np.testing.assert_allclose(found, [found.value] * 3)


def test_one_seed_has_no_interval():
    for found in (statistics.aggregate(ratios([[2], [3]])), statistics.improvement(np.ones((2, 1)), np.ones((2, 1)))):
        assert np.isfinite(found.value)
        assert np.isnan([found.low, found.high]).all()


def test_the_interval_covers_what_it_claims():
    """Null benchmarks of eight tasks and four seeds: exact 95 % intervals miss 10 of 200, give or take 3."""
    random = np.random.default_rng(1)
    scale = np.exp(random.normal(-1, 1, (200, 8, 1)))
    draws = np.clip(np.exp(scale * random.normal(size=(200, 8, 4))), statistics.LOWEST, statistics.HIGHEST)
    covered = [found.low <= 1 <= found.high for found in map(statistics.aggregate, map(ratios, draws))]
    assert 0.92 < np.mean(covered) < 0.98


def test_a_censored_ratio_matters_inside_the_middle_half():
    row = [1, 2, 3, 4]
    assert statistics.bounds(ratios([row], [[False, False, False, True]])) == ""
    assert statistics.bounds(ratios([row], [[False, False, True, True]])) == "\u2265"
    assert statistics.bounds(ratios([row], at_most=[[True, False, False, False]])) == ""
    assert statistics.bounds(ratios([row], at_most=[[True, True, False, False]])) == "\u2264"
    assert statistics.bounds(ratios([row], [[False] * 2 + [True] * 2], [[True] * 2 + [False] * 2])) == "\u2277"
    by_row = statistics.bounds(ratios([row, row], [[False] * 4, [True] * 4]), axis=1)
    assert by_row.tolist() == ["", "\u2265"]


def test_the_probability_of_improvement_is_mann_whitney():
    random = np.random.default_rng(0)
    ours, adam = random.integers(0, 4, (2, 3, 5)).astype(float)
    expected = [scipy.stats.mannwhitneyu(b, a).statistic / 25 for a, b in zip(ours, adam, strict=True)]
    found = statistics.improvement(ours, adam)
    assert found.value == pytest.approx(np.mean(expected))
    assert found.low < found.value < found.high
    assert statistics.improvement(adam, ours).value == pytest.approx(1 - found.value)


def test_improvement_with_runs_that_diverged():
    assert statistics.improvement(np.array([[1.0, NAN]]), np.array([[2.0, INF]])).value == (1 + 1 + 0 + 0.5) / 4
    np.testing.assert_array_equal(statistics.improvement(np.full((2, 3), INF), np.ones((2, 3))), (0, 0, 0))


def test_the_performance_profile_by_hand():
    costs = np.array([[10.0, 30, INF, INF], [20, 10, 7, INF]])
    found = statistics.performance_profile(costs, np.array([1, 2, 3, 4]))
    np.testing.assert_array_equal(found, [[0.25, 0.25, 0.5, 0.5], [0.5, 0.75, 0.75, 0.75]])


def test_ranks_by_hand():
    losses = np.array([[[1.0, 1]], [[1, 2]], [[INF, 3]], [[NAN, 4]]])
    np.testing.assert_array_equal(statistics.mean_ranks(losses), [1.25, 1.75, 3.25, 3.75])


def test_wins_are_by_the_median_seed():
    ours = np.array([[1.0, 1, 9], [2, 2, 2], [1, INF, INF], [INF, INF, INF]])
    adam = np.array([[2.0, 2, 2], [2, 2, 2], [5, 5, 5], [INF, INF, INF]])
    won, lost = statistics.wins(ours, adam)
    assert won.tolist() == [True, False, False, False]
    assert lost.tolist() == [False, False, True, False]
