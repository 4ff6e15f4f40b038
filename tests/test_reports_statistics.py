"""The statistics against closed forms, SciPy, brute force and their own definition."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
import scipy.stats

from dmrlad_bench.cards import CardError
from dmrlad_bench.reports import statistics
from dmrlad_bench.reports.statistics import (
    bootstrap_distribution,
    bootstrap_over_seeds,
    improvement_distribution,
    interquartile_mean,
    mean_score,
    median_score,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)

SHAPES = [(1, 1), (1, 3), (2, 2), (3, 5), (3, 20), (5, 7), (10, 30)]


def scores_of(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.5, 1.0, size=shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_interquartile_mean_is_the_trimmed_mean(shape: tuple[int, int]) -> None:
    scores = scores_of(shape)
    np.testing.assert_allclose(interquartile_mean(scores), scipy.stats.trim_mean(scores.ravel(), 0.25))


def test_small_cases_by_hand() -> None:
    assert interquartile_mean([[0.0, 1.0, 2.0, 100.0]]) == 1.5
    assert interquartile_mean([[-9.0, 1.0, 2.0], [3.0, 4.0, 50.0]]) == 2.5  # of six, one is cut off at either end
    assert optimality_gap([[0.0, 0.5], [1.0, 3.0]]) == pytest.approx(1.0 - (0.0 + 0.5 + 1.0 + 1.0) / 4)
    assert optimality_gap([[0.0, 0.5], [1.0, 3.0]], target=2.0) == pytest.approx(2.0 - (0.0 + 0.5 + 1.0 + 2.0) / 4)
    assert optimality_gap([[2.0, 3.0]]) == 0.0
    assert median_score([[0.0, 10.0, 1.0], [2.0, 20.0, 3.0]]) == 2.0  # task means 1, 15, 2
    assert mean_score([[0.0, 1.0], [2.0, 3.0]]) == 1.5
    assert probability_of_improvement([[1.0, 0.0]], [[0.0, 0.0]]) == 0.75
    np.testing.assert_array_equal(performance_profile([[0.0, 1.0], [1.0, 2.0]], [-1.0, 0.0, 1.0, 1.5, 2.0]), [1.0, 0.75, 0.25, 0.25, 0.0])


@pytest.mark.parametrize(("seeds", "others", "tasks"), [(1, 1, 1), (3, 3, 4), (2, 5, 3)])
def test_probability_of_improvement_is_the_share_of_pairs(seeds: int, others: int, tasks: int) -> None:
    generator = np.random.default_rng(1)
    x, y = generator.integers(0, 4, size=(seeds, tasks)).astype(float), generator.integers(0, 4, size=(others, tasks)).astype(float)
    share = np.mean(
        [np.mean([float(a > b) + 0.5 * float(a == b) for a, b in itertools.product(x[:, task], y[:, task])]) for task in range(tasks)]
    )
    u = [scipy.stats.mannwhitneyu(x[:, task], y[:, task], method="asymptotic").statistic / (seeds * others) for task in range(tasks)]
    assert probability_of_improvement(x, y) == pytest.approx(share)
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(u))
    assert probability_of_improvement(y, x) == pytest.approx(1.0 - share)


def test_performance_profile_counts_what_lies_above() -> None:
    scores, thresholds = scores_of((4, 9)), np.linspace(-3.0, 3.0, 37)
    np.testing.assert_allclose(performance_profile(scores, thresholds), [(scores > level).mean() for level in thresholds])


@pytest.mark.parametrize("statistic", [interquartile_mean, optimality_gap, mean_score, median_score])
def test_all_repetitions_at_once_are_those_one_by_one(statistic: statistics.Statistic) -> None:
    scores = scores_of((4, 6))
    at_once = bootstrap_distribution(scores, statistic, 50, np.random.default_rng(3))
    one_by_one = bootstrap_distribution(scores, lambda drawn: statistic(drawn), 50, np.random.default_rng(3))
    np.testing.assert_allclose(at_once, one_by_one)


def test_many_repetitions_are_drawn_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, y = scores_of((4, 6)), scores_of((3, 6), seed=1)
    whole = bootstrap_distribution(scores, mean_score, 101, np.random.default_rng(0))
    monkeypatch.setattr(statistics, "ENTRIES_AT_ONCE", 10 * scores.size)
    parts = bootstrap_distribution(scores, mean_score, 101, np.random.default_rng(0))
    np.testing.assert_array_equal(parts, whole)
    assert improvement_distribution(scores, y, 101, np.random.default_rng(0)).shape == (101,)


def test_seeds_are_drawn_within_each_task() -> None:
    """With tasks that lie far apart, no draw may carry a score from one task to another."""
    scores = np.array([[0.0, 100.0], [1.0, 101.0]])
    drawn: list[np.ndarray] = []
    bootstrap_distribution(scores, lambda entry: drawn.append(entry.copy()) or 0.0, 400, np.random.default_rng(0))
    stacked = np.stack(drawn)
    assert set(np.unique(stacked[:, :, 0])) == {0.0, 1.0}
    assert set(np.unique(stacked[:, :, 1])) == {100.0, 101.0}
    combinations = {tuple(entry[:, 0]) + tuple(entry[:, 1]) for entry in drawn}
    assert len(combinations) == 16  # each task for itself: a seed's two scores do not stay together


def test_the_distribution_of_two_seeds_in_closed_form() -> None:
    means = bootstrap_distribution([[0.0], [1.0]], mean_score, 40_000, np.random.default_rng(0))
    values, counts = np.unique(means, return_counts=True)
    np.testing.assert_array_equal(values, [0.0, 0.5, 1.0])
    np.testing.assert_allclose(counts / 40_000, [0.25, 0.5, 0.25], atol=0.01)
    assert stratified_bootstrap([[0.0], [1.0]], mean_score, 4000, 0.95, np.random.default_rng(0)) == (0.0, 1.0)
    assert stratified_bootstrap([[0.0], [1.0]], mean_score, 4000, 0.4, np.random.default_rng(0)) == (0.5, 0.5)


def test_the_bootstrap_deviation_is_the_plug_in_one() -> None:
    """The deviation of a drawn mean: within each task the deviation of the seeds over sqrt(n), independent among tasks."""
    scores = scores_of((6, 8))
    drawn = bootstrap_distribution(scores, mean_score, 20_000, np.random.default_rng(0))
    expected = np.sqrt((scores.var(axis=0) / 6).sum()) / 8
    assert drawn.std() == pytest.approx(expected, rel=0.03)
    assert drawn.mean() == pytest.approx(scores.mean(), abs=0.01)


@pytest.mark.parametrize("statistic", [mean_score, interquartile_mean])
def test_intervals_cover_the_truth_about_as_often_as_they_say(statistic: statistics.Statistic) -> None:
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(300):
        low, high = stratified_bootstrap(generator.normal(size=(10, 5)), statistic, 300, 0.95, generator)
        covered += low <= 0.0 <= high
    assert 0.87 <= covered / 300 <= 0.98


def test_one_generator_gives_one_interval() -> None:
    scores = scores_of((3, 20))
    first, second, third = (stratified_bootstrap(scores, interquartile_mean, 500, 0.95, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == second != third
    assert first[0] < interquartile_mean(scores) < first[1]


def test_one_seed_has_no_interval() -> None:
    assert np.isnan(stratified_bootstrap([[0.0, 1.0]], interquartile_mean, 100, 0.95, np.random.default_rng(0))).all()
    assert np.isnan(improvement_distribution([[0.0, 1.0]], scores_of((3, 2)), 10, np.random.default_rng(0))).all()
    for band in bootstrap_over_seeds([[0.0, 1.0]], 100, 0.95, np.random.default_rng(0)):
        assert np.isnan(band).all()
    assert stratified_bootstrap([[2.0], [2.0]], interquartile_mean, 100, 0.95, np.random.default_rng(0)) == (2.0, 2.0)


def test_improvement_is_certain_where_the_scores_do_not_overlap() -> None:
    x = scores_of((3, 4))
    assert set(improvement_distribution(x + 100.0, x, 50, np.random.default_rng(0))) == {1.0}
    drawn = improvement_distribution(x, x, 4000, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(0.5, abs=0.02)


def test_bands_draw_whole_curves() -> None:
    curves = np.array([[0.0, 0.0, 10.0], [0.0, 1.0, 20.0], [0.0, 2.0, 60.0]])
    low, high = bootstrap_over_seeds(curves, 4000, 0.95, np.random.default_rng(0))
    np.testing.assert_array_equal([low[0], high[0]], [0.0, 0.0])
    np.testing.assert_allclose([low[1:], high[1:]], [[0.0, 10.0], [2.0, 60.0]])  # 1 in 27 draws is the lowest curve three times
    alone = bootstrap_over_seeds(curves[:, 2:], 4000, 0.95, np.random.default_rng(0))
    assert (float(alone[0][0]), float(alone[1][0])) == (low[2], high[2])


GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(interquartile_mean, [1.0, 2.0]), r"expected a \(seeds, tasks\) array, got shape \(2,\)"),
        (partial(interquartile_mean, [[[1.0]]]), r"expected a \(seeds, tasks\) array, got shape \(1, 1, 1\)"),
        (partial(interquartile_mean, np.empty((0, 3))), r"at least one seed and one task, got shape \(0, 3\)"),
        (partial(optimality_gap, np.empty((3, 0))), r"at least one seed and one task, got shape \(3, 0\)"),
        (partial(interquartile_mean, [[1.0, 2.0], [3.0, np.nan]]), "expected finite numbers, got nan in row 1, column 1"),
        (partial(performance_profile, [[np.inf]], [0.0]), "expected finite numbers, got inf in row 0, column 0"),
        (partial(interquartile_mean, [[1.0], [1.0, 2.0]]), "array of numbers, as many tasks in every row"),
        (partial(interquartile_mean, [["much"]]), "array of numbers"),
        (partial(performance_profile, [[1.0]], [[0.0]]), r"thresholds: expected an \(n,\) array without NaN, got shape \(1, 1\)"),
        (partial(probability_of_improvement, [[1.0, 2.0]], [[1.0]]), "both agents need the same tasks, got 2 and 1"),
        (partial(stratified_bootstrap, [[1.0], [2.0]], mean_score, 0, 0.95, GENERATOR), "repetitions: expected at least 1, got 0"),
        (partial(stratified_bootstrap, [[1.0], [2.0]], mean_score, 10, 95, GENERATOR), "confidence: expected a number between 0 and 1"),
        (partial(bootstrap_over_seeds, [[np.nan]], 10, 0.95, GENERATOR), "expected finite numbers"),
    ],
)
def test_bad_input_is_one_line(call: partial, message: str) -> None:
    with pytest.raises(CardError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
