"""Figures: what is drawn, and the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from report_results import REFERENCES, make_result, use_references

from dmrlad_bench.cards import CardError, agent_names
from dmrlad_bench.reports.comparison import Comparison, compare
from dmrlad_bench.reports.plots import KINDS, learning_curves
from dmrlad_bench.reports.statistics import performance_profile

BEGINNINGS = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


@pytest.fixture
def comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    use_references(tmp_path / "cards", monkeypatch)
    runs = [make_result(agent, seed=seed) for agent in ("dmrlad", "random") for seed in (0, 1, 2)]
    return compare([*runs, make_result("dmrlad", family="CheetahVelSparse")])


@pytest.mark.parametrize("suffix", BEGINNINGS)
def test_a_figure_is_written_by_its_suffix(tmp_path: Path, comparison: Comparison, suffix: str) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        comparison.plot(path, "adaptation")
    first, second = (path.read_bytes() for path in paths)
    assert first.startswith(BEGINNINGS[suffix])
    assert len(first) > 5000
    assert first == second  # no date, no random names


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_draws_a_row_of_panels_for_each_family(comparison: Comparison, kind: str) -> None:
    figure = comparison.plot(kind=kind)
    assert len(figure.axes) == 2 * len(KINDS[kind])
    assert [entry.get_text() for entry in figure.legends[0].get_texts()] == ["dmrlad", "random"]


@pytest.mark.parametrize("kind", KINDS)
def test_title_and_legend_of_many_agents_lie_inside_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    use_references(tmp_path / "cards", monkeypatch)
    figure: Any = compare([make_result(agent) for agent in agent_names()]).plot(kind=kind)
    figure.canvas.draw()
    for part in (figure._suptitle, figure.legends[0]):
        box = part.get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1


def test_learning_curves_are_normalised_means_with_bands(comparison: Comparison) -> None:
    group = comparison.of_agent("dmrlad")[0]
    steps, values = learning_curves(group)
    random, oracle = REFERENCES["PointGoalSparse"] or (0.0, 1.0)
    np.testing.assert_array_equal(steps, [point.environment_steps for point in group.runs[0].result.curve])
    expected = [[(point.scores["validation"].returns[-1] - random) / (oracle - random) for point in run.result.curve] for run in group.runs]
    np.testing.assert_allclose(values, expected)
    sparse, dense = comparison.plot(kind="learning").axes
    line = sparse.get_lines()[0]
    np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), np.mean(expected, axis=0))
    np.testing.assert_allclose(np.asarray(line.get_xdata(), dtype=float), steps / 1000)
    band = np.asarray(sparse.collections[0].get_paths()[0].vertices)
    means, errors = np.mean(expected, axis=0), scipy.stats.sem(expected)
    low, high = scipy.stats.t.interval(0.95, 2, loc=means, scale=errors)
    np.testing.assert_allclose([band[:, 1].min(), band[:, 1].max()], [low.min(), high.max()])
    assert sparse.get_ylabel() == "mean of normalised scores"
    assert sparse.get_lines()[1].get_linestyle() == "--"  # random does not learn
    assert dense.get_ylabel() == "mean return"  # no reference scores


def test_two_runs_are_drawn_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_references(tmp_path / "cards", monkeypatch)
    comparison = compare([make_result(seed=seed) for seed in (0, 1)])
    (group,) = comparison.groups
    learning, adaptation, last, profile = comparison.plot(kind="summary").axes
    _, curves = learning_curves(group)
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in learning.get_lines()]
    np.testing.assert_allclose(drawn, [curves.mean(axis=0), *curves])
    assert group.normalised is not None
    by_run = group.normalised.mean(axis=1)
    np.testing.assert_allclose([np.asarray(line.get_ydata()) for line in adaptation.get_lines()[-2:]], by_run)
    np.testing.assert_allclose(np.asarray(last.get_lines()[-1].get_xdata()), by_run[:, 2])
    assert len(profile.get_lines()) == 3
    assert not [entry for axis in (learning, adaptation, last, profile) for entry in axis.collections]  # no band, no bar


def test_the_profile_is_drawn(comparison: Comparison) -> None:
    sparse, cheetah = comparison.plot(kind="profiles").axes
    scores = comparison.of_agent("dmrlad")[0].normalised
    assert scores is not None
    line = sparse.get_lines()[0]
    thresholds = np.asarray(line.get_xdata(), dtype=float)
    np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), performance_profile(scores[:, :, -1], thresholds))
    assert cheetah.texts[0].get_text() == "no reference scores"


def test_mixed_comparisons_are_marked(comparison: Comparison) -> None:
    mixed = compare([make_result(), make_result("random", budget="full")], allow_mixed=True)
    for kind in KINDS:
        assert "MIXED: budget differs" in mixed.plot(kind=kind).get_suptitle()
        assert "MIXED" not in comparison.plot(kind=kind).get_suptitle()


def test_seeds_that_were_evaluated_at_other_times_have_no_common_curve() -> None:
    first, second = make_result(seed=0), make_result(seed=1)
    curve = tuple(point.model_copy(update={"iteration": point.iteration + 1}) for point in second.curve)
    with pytest.raises(CardError, match="dmrlad on DMRLAD/PointGoalSparse-v0: its seeds were never evaluated after the same iteration"):
        compare([first, second.model_copy(update={"curve": curve})]).plot(kind="learning")


def test_bad_input_is_one_line(tmp_path: Path, comparison: Comparison) -> None:
    with pytest.raises(CardError, match=r"a\.gif: a figure's file ends with \.png, \.pdf or \.svg, got '\.gif'"):
        comparison.plot(tmp_path / "a.gif")
    with pytest.raises(CardError, match="got 'no suffix'"):
        comparison.plot(tmp_path / "figure")
    with pytest.raises(CardError, match="there is no folder"):
        comparison.plot(tmp_path / "nowhere" / "a.png")
    with pytest.raises(CardError, match=r"unknown kind of figure 'learnig' \(did you mean 'learning'\?\); accepted: summary, learning"):
        comparison.plot(kind="learnig")
    with pytest.raises(CardError, match="kind 'profiles': no family here has reference scores"):
        compare([make_result(family="CheetahVelSparse")]).plot(kind="profiles")
