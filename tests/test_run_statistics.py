"""Intervals over whole runs: against SciPy's closed forms, small cases by hand, and what must not matter."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.stats

from dmrlad_bench.cards import CardError
from dmrlad_bench.reports.estimates import difference, improvement, measures, of_runs, over_families
from dmrlad_bench.reports.family_statistics import families_interval, mean_of_intervals, run_matrix
from dmrlad_bench.reports.run_statistics import difference_interval, run_band, run_improvement, run_improvement_interval, shared_ranks
from dmrlad_bench.reports.statistics import (
    interquartile_mean,
    mean_score,
    median_score,
    optimality_gap,
    run_interval,
    run_means,
    stratified_bootstrap,
)
from dmrlad_bench.reports.student import joined_variance, t_quantile


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scores_of(runs: int, tasks: int = 6, seed: int = 0, level: float = 0.5, spread: float = 0.3) -> np.ndarray:
    """`(runs, tasks)` with a shift of each run."""
    drawn = generator(seed)
    return level + spread * drawn.normal(size=(runs, 1)) + 0.2 * drawn.normal(size=(runs, tasks))


# ---- one family ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [3, 4, 5, 10, 30])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_interval_of_a_mean_is_students(runs: int, confidence: float) -> None:
    scores = scores_of(runs)
    means = scores.mean(axis=1)
    expected = scipy.stats.t.interval(confidence, runs - 1, loc=means.mean(), scale=scipy.stats.sem(means))
    assert run_interval(scores, mean_score, confidence, generator()) == pytest.approx(expected)


def test_published_runs_by_hand() -> None:
    """Runs at -101, -10 and -146: mean -85.67, deviation 69.3, over sqrt(3) 40.0, times 4.303; published was [-113, -59]."""
    low, high = run_interval([[-101.0], [-10.0], [-146.0]], mean_score, 0.95, generator()) or (0.0, 0.0)
    assert low == pytest.approx(-85.667 - 4.3027 * 69.284 / np.sqrt(3), abs=0.02)
    assert high == pytest.approx(-85.667 + 4.3027 * 69.284 / np.sqrt(3), abs=0.02)


def test_tasks_do_not_count_as_evidence() -> None:
    """Every task ten times over: the same interval over runs, and one a third as wide where each task is drawn for itself."""
    scores = scores_of(5)
    more = np.repeat(scores, 10, axis=1)
    for statistic in (mean_score, interquartile_mean, optimality_gap):
        once, often = (run_interval(entry, statistic, 0.95, generator()) for entry in (scores, more))
        assert once is not None
        assert often == pytest.approx(once, rel=0.1)
    apart = [np.ptp(stratified_bootstrap(entry, mean_score, 2000, 0.95, generator())) for entry in (scores, more)]
    assert apart[1] < apart[0] / 2.5


def test_drawing_whole_runs_gives_the_closed_form() -> None:
    """The mean under another name goes the way of all other statistics."""
    scores = scores_of(6)
    drawn = run_interval(scores, lambda entry: float(entry.mean()), 0.95, generator(), draws=20_000)
    assert drawn == pytest.approx(run_interval(scores, mean_score, 0.95, generator()), abs=0.01)
    families = [scores_of(6), scores_of(4, seed=1), scores_of(3, seed=2)]
    drawn = families_interval(families, lambda entry: float(entry.mean()), 0.95, generator(), draws=20_000)
    assert drawn == pytest.approx(families_interval(families, mean_score, 0.95, generator()), abs=0.01)


@pytest.mark.parametrize("statistic", [mean_score, interquartile_mean, median_score, optimality_gap])
def test_orders_do_not_matter_and_generators_decide(statistic) -> None:
    scores = scores_of(5)
    found = run_interval(scores, statistic, 0.95, generator())
    assert found == run_interval(scores, statistic, 0.95, generator())
    assert found is not None
    assert found[0] < statistic(scores) < found[1]
    tasks = run_interval(scores[:, ::-1], statistic, 0.95, generator())
    assert tasks == pytest.approx(found)
    runs = run_interval(scores[::-1], statistic, 0.95, generator(), draws=20_000)
    assert runs == pytest.approx(run_interval(scores, statistic, 0.95, generator(), draws=20_000), abs=0.01)
    moved = run_interval(3.0 * scores - 7.0, mean_score, 0.95, generator())
    mean = run_interval(scores, mean_score, 0.95, generator())
    assert mean is not None
    assert moved == pytest.approx([3.0 * end - 7.0 for end in mean])


def test_under_three_runs_there_is_no_interval() -> None:
    for runs in (1, 2):
        few, many = scores_of(runs), scores_of(5)
        for statistic in (mean_score, interquartile_mean):
            assert run_interval(few, statistic, 0.95, generator()) is None
            assert families_interval([many, few], statistic, 0.95, generator()) is None
        assert difference_interval(few, many, 0.95) is difference_interval(few, few, 0.95, paired=True) is None
        assert run_improvement_interval(many, few, 0.95) is None
        assert run_band(few, 0.95) is None
        estimate = of_runs(few)
        assert (estimate.low, estimate.high, estimate.runs) == (None, None, runs)
        assert estimate.values == pytest.approx(few.mean(axis=1))


def test_equal_runs_have_no_width() -> None:
    for statistic in (mean_score, interquartile_mean):
        assert run_interval(np.ones((4, 3)), statistic, 0.95, generator()) == (1.0, 1.0)


def test_intervals_end_where_the_quantity_ends() -> None:
    success = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])[:, :, None]
    found = measures(success, success, None, 0)
    assert found["success"].high == 1.0
    assert (found["return"].high or 0.0) > 1.0


# ---- families -----------------------------------------------------------------------------------------------------------


def test_runs_by_families() -> None:
    three, two = np.array([[0.0, 2.0], [2.0, 2.0], [3.0, 3.0]]), np.array([[10.0], [20.0]])
    np.testing.assert_array_equal(run_matrix([three, three]), [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    np.testing.assert_array_equal(run_matrix([three, two]).T, [[1.0, 1.0, 2.0, 2.0, 3.0, 3.0], [10.0, 10.0, 10.0, 20.0, 20.0, 20.0]])
    assert mean_score(run_matrix([three, two])) == (2.0 + 15.0) / 2


def test_the_mean_over_families_is_welchs_sum() -> None:
    """With two families, the sum of means has the interval of Welch's difference of the one and minus the other."""
    x, y = scores_of(5), scores_of(4, tasks=9, seed=1)
    ends = families_interval([x, y], mean_score, 0.95, generator())
    welch = scipy.stats.ttest_ind(x.mean(axis=1), -y.mean(axis=1), equal_var=False).confidence_interval(0.95)
    assert ends is not None
    assert [2.0 * end for end in ends] == pytest.approx(list(welch))


def test_one_family_is_one_family() -> None:
    scores = scores_of(6)
    over, one = families_interval([scores], mean_score, 0.95, generator()), run_interval(scores, mean_score, 0.95, generator())
    assert over == pytest.approx(one)


def test_the_order_of_families_does_not_matter() -> None:
    families = [scores_of(5, level=0.9), scores_of(3, seed=1), scores_of(4, seed=2, level=0.1)]
    for statistic in (mean_score, interquartile_mean, optimality_gap):
        found, turned = (families_interval(order, statistic, 0.95, generator(), draws=20_000) for order in (families, families[::-1]))
        assert turned == pytest.approx(found, abs=0.02)
        assert found == families_interval(families, statistic, 0.95, generator(), draws=20_000)
    estimate = over_families(families, interquartile_mean)
    assert estimate.runs == 3
    assert (estimate.low or 0.0) < estimate.value < (estimate.high or 0.0)


def test_intervals_of_independent_estimates_add_up_as_squares() -> None:
    assert mean_of_intervals([0.5, 0.7], [(0.2, 0.9), (0.3, 1.0)]) == pytest.approx((0.6 - 0.25, 0.6 + 0.25))
    assert mean_of_intervals([0.5, 0.7], [(0.2, 0.9), None]) is None


def test_joined_freedom() -> None:
    assert joined_variance([2.0, 2.0], [4, 4]) == pytest.approx((4.0, 6.0))
    assert joined_variance([2.0, 0.0], [4, 9]) == pytest.approx((2.0, 3.0))
    assert t_quantile(2, 0.95) == pytest.approx(scipy.stats.t.ppf(0.975, 2))


# ---- two agents ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("runs", "others"), [(3, 3), (3, 7), (10, 5)])
def test_differences_are_welchs_and_paired_ones_students(runs: int, others: int) -> None:
    x, y = scores_of(runs, spread=1.0), scores_of(others, seed=1)
    welch = scipy.stats.ttest_ind(x.mean(axis=1), y.mean(axis=1), equal_var=False).confidence_interval(0.95)
    assert difference_interval(x, y, 0.95) == pytest.approx(tuple(welch))
    back = difference_interval(y, x, 0.95)
    assert back == pytest.approx((-welch.high, -welch.low))
    same = scores_of(runs, seed=2)
    paired = scipy.stats.ttest_rel(x.mean(axis=1), same.mean(axis=1)).confidence_interval(0.95)
    assert difference_interval(x, same, 0.95, paired=True) == pytest.approx(tuple(paired))
    estimate = difference(x, same, paired=True)
    assert (estimate.value, estimate.low) == pytest.approx((x.mean() - same.mean(), paired.low))


def test_pairing_removes_what_both_share() -> None:
    shared = 10.0 * generator(3).normal(size=(5, 1))
    x, y = 1.0 + shared + scores_of(5, spread=0.1), shared + scores_of(5, seed=1, spread=0.1)
    paired, apart = difference_interval(x, y, 0.95, paired=True), difference_interval(x, y, 0.95)
    assert paired is not None
    assert apart is not None
    assert paired[0] > 0.0 > apart[0]


def test_improvement_counts_pairs_of_runs() -> None:
    x, y = np.array([[0.0, 4.0], [5.0, 5.0]]), np.array([[3.0, 1.0], [9.0, 9.0], [0.0, 2.0]])  # 2, 5 against 2, 9, 1
    assert run_improvement(x, y) == pytest.approx((0.5 + 0 + 1 + 1 + 0 + 1) / 6)
    assert run_improvement(y, x) == pytest.approx(1.0 - run_improvement(x, y))
    u = scipy.stats.mannwhitneyu(x.mean(axis=1), y.mean(axis=1), method="asymptotic").statistic
    assert run_improvement(x, y) == pytest.approx(u / 6)


@pytest.mark.parametrize("runs", [3, 5, 10])
def test_the_improvements_interval_solves_its_equation(runs: int) -> None:
    x, y = scores_of(runs, level=0.7), scores_of(runs, seed=1)
    share = run_improvement(x, y)
    assert 0.0 < share < 1.0
    low, high = run_improvement_interval(x, y, 0.95) or (0.0, 0.0)
    for end in (low, high):
        terms = 1.0 + (runs - 1) * ((1.0 - end) / (2.0 - end) + end / (1.0 + end))
        assert (share - end) ** 2 == pytest.approx(t_quantile(2 * runs - 2, 0.95) ** 2 * end * (1.0 - end) / runs**2 * terms)
    assert low < share < high
    turned = run_improvement_interval(y, x, 0.95)
    assert turned == pytest.approx((1.0 - high, 1.0 - low))


def test_a_clean_sweep_of_few_runs_proves_little() -> None:
    low, high = run_improvement_interval(10.0 + scores_of(3), scores_of(3, seed=1), 0.95) or (0.0, 0.0)
    assert high == 1.0
    assert low < 0.5  # nine pairs of three runs each
    low, _ = run_improvement_interval(10.0 + scores_of(10), scores_of(10, seed=1), 0.95) or (0.0, 0.0)
    assert low > 0.7
    both = improvement([(10.0 + scores_of(3), scores_of(3)), (scores_of(3), 10.0 + scores_of(3))])
    assert both.value == 0.5
    assert (both.low, both.high) == pytest.approx((1.0 - (both.high or 0.0), both.high))
    assert both.runs == 3


# ---- several agents, and curves -----------------------------------------------------------------------------------------


def test_ranks_count_the_agents_that_are_better() -> None:
    tight = np.array([[-0.1], [0.0], [0.1], [0.0]])
    wide = np.array([[-9.0], [9.0], [3.0], [-3.0]])
    seeds = [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11), (12, 13)]
    assert shared_ranks([tight + 3.0, tight + 2.0, wide + 1.0, tight[:2] + 99.0], seeds, 0.95) == [1, 2, 1, None]
    assert shared_ranks([tight, tight + 3.0, tight], seeds[:3], 0.95) == [2, 1, 2]
    assert shared_ranks([tight], seeds[:1], 0.95) == [1]
    shared = np.array([[-50.0], [20.0], [70.0], [10.0]])
    assert shared_ranks([tight + shared + 3.0, shared], [seeds[0], seeds[0]], 0.95) == [1, 2]  # the same seeds: paired
    assert shared_ranks([tight + shared + 3.0, shared], seeds[:2], 0.95) == [1, 1]


def test_bands_are_students_at_every_point() -> None:
    curves = scores_of(4, tasks=7)
    band = run_band(curves, 0.95)
    assert band is not None
    np.testing.assert_allclose(band, scipy.stats.t.interval(0.95, 3, loc=curves.mean(axis=0), scale=scipy.stats.sem(curves)))


BAD = [[1.0, np.nan], [0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(run_interval, BAD, mean_score, 0.95, generator()), "expected finite numbers, got nan in row 0, column 1"),
        (partial(run_interval, [[1.0, -1e200]] * 3, mean_score, 0.95, generator()), r"up to 1e\+100, got -1e\+200 in row 0, column 1"),
        (partial(run_interval, np.empty((0, 3)), mean_score, 0.95, generator()), r"at least one seed and one task, got shape \(0, 3\)"),
        (partial(run_interval, np.empty((3, 0)), mean_score, 0.95, generator()), r"at least one seed and one task, got shape \(3, 0\)"),
        (partial(run_interval, [1.0, 2.0, 3.0], mean_score, 0.95, generator()), r"got shape \(3,\)"),
        (partial(run_interval, scores_of(3), mean_score, 95, generator()), "confidence: expected a number between 0 and 1, got 95"),
        (partial(run_interval, scores_of(3), median_score, 0.95, generator(), draws=0), "repetitions: expected at least 1, got 0"),
        (partial(families_interval, [], mean_score, 0.95, generator()), "families: expected at least one"),
        (partial(families_interval, [scores_of(3), BAD], mean_score, 0.95, generator()), "finite numbers"),
        (partial(run_matrix, [[]]), "expected a"),
        (partial(run_means, BAD), "finite numbers"),
        (partial(difference_interval, BAD, BAD, 0.95), "finite numbers"),
        (partial(difference_interval, scores_of(3), scores_of(3, tasks=5), 0.95), r"the same tasks, got shapes \(3, 6\) and \(3, 5\)"),
        (partial(difference_interval, scores_of(3), scores_of(4), 0.95, paired=True), "paired runs come in equal numbers, got 3 and 4"),
        (partial(difference_interval, scores_of(3), scores_of(3), 0.0), "confidence: expected"),
        (partial(run_improvement_interval, scores_of(3, tasks=2), BAD, 0.95), "finite numbers"),
        (partial(run_band, BAD, 0.95), "curves: expected a .* array of finite numbers"),
        (partial(run_band, [1.0], 0.95), r"curves: expected a \(runs, points\) array"),
        (partial(shared_ranks, [scores_of(3), scores_of(3, tasks=5)], [(0, 1, 2)] * 2, 0.95), "the same tasks"),
    ],
)
def test_bad_input_is_one_line(call: partial, message: str) -> None:
    with pytest.raises(CardError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
