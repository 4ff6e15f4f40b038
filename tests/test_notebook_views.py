"""What a notebook or a prompt shows of the objects that the Python API returns: one short line, one table, one data frame."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from report_results import make_result, write_run

import dmrlad_bench
from dmrlad_bench.cards.html import html_table
from dmrlad_bench.harness.run import Run
from dmrlad_bench.reports.comparison_tables import comparison_records
from dmrlad_bench.reports.scores import TrialScores

LONGEST = 250  # characters of a short form
NASTY = "<script>alert('x')</script> & \"quotes\""


class Cells(HTMLParser):
    """The cells of all tables, row by row, and every tag that opens; fails on tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self._open.append(tag)
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def results():
    seeds = [(agent, seed) for agent in ("dmrlad", "pearl") for seed in (0, 1, 2)]
    return [
        make_result(agent=agent, seed=seed, family=family) for family in ("PointGoalSparse", "CheetahVelSparse") for agent, seed in seeds
    ]


def test_short_forms(results):
    comparison = dmrlad_bench.compare(results)
    shown = {
        "family": (
            dmrlad_bench.family("CheetahVelSparse"),
            ["DMRLAD/CheetahVelSparse-v0", "half_cheetah", "50 train, 30 validation, 30 test, 10 ood tasks"],
        ),
        "card": (dmrlad_bench.family("CheetahVelSparse").card, ["DMRLAD/CheetahVelSparse-v0"]),
        "result": (results[0], ["dmrlad on DMRLAD/PointGoalSparse-v0", "budget quick", "seed 0"]),
        "matrix": (results[0].final[0], ["20 test tasks"]),
        "scores": (results[0].scores(), ["20 test tasks, 5 trials of 3 episodes, deterministic actions", "mean returns [5."]),
        "comparison": (comparison, ["12 runs of dmrlad, pearl on DMRLAD/PointGoalSparse-v0", "test tasks, deterministic actions"]),
        "group": (comparison.groups[0], ["'dmrlad' on DMRLAD/PointGoalSparse-v0", "seeds 0, 1, 2"]),
    }
    for entry, expected in shown.values():
        for text in (repr(entry), str(entry)):
            assert len(text) <= LONGEST and "\n" not in text and text.startswith(f"{type(entry).__name__}(")
            for part in expected:
                assert part in text


def test_the_comparison_of_many_stays_short(results):
    many = [make_result(agent=f"agent{number}", seed=0) for number in range(30)]
    text = repr(dmrlad_bench.compare([*many, *results], allow_mixed=True))
    assert len(text) <= LONGEST and "agent3 and 28 more" in text


@pytest.mark.parametrize("name", dmrlad_bench.families())
def test_every_family_has_a_short_form_and_a_table(name):
    family = dmrlad_bench.family(name)
    assert len(repr(family)) <= LONGEST and name in repr(family)
    rows = dict(Cells(family._repr_html_()).rows)
    assert rows["body"] == family.card.body and rows["horizon"] == f"{family.horizon} steps"
    assert f"{len(family.tasks('test'))} test" in rows["tasks"]


def test_table_of_scores():
    scores = TrialScores(
        "test", True, np.arange(2), np.array([[[1.0, 3.0]], [[3.0, 5.0]]]), np.array([[[False, True]], [[False, True]]]), (0.0, 4.0)
    )
    table = Cells(scores._repr_html_())
    assert table.rows == [
        ["episode", "mean return", "success", "normalised"],
        ["1", "2.00", "0.000", "0.500"],
        ["2", "4.00", "1.000", "1.000"],
    ]
    assert "2 test tasks, 1 trial of 2 episodes, deterministic actions" in table.text


def test_scores_as_a_frame():
    returns, success = np.array([[[1.0, 3.0]], [[3.0, 5.0]]]), np.array([[[False, True]], [[False, True]]])
    frame = TrialScores("ood", False, np.array([0, 4]), returns, success, (0.0, 4.0)).to_pandas()
    assert list(frame.columns) == ["split", "deterministic", "task", "trial", "episode", "return", "success", "normalised"]
    assert frame["task"].tolist() == [0, 0, 4, 4] and frame["episode"].tolist() == [1, 2, 1, 2]
    assert frame["return"].tolist() == [1.0, 3.0, 3.0, 5.0] and frame["normalised"].tolist() == [0.25, 0.75, 0.75, 1.25]
    assert frame["success"].dtype == bool and set(frame["split"]) == {"ood"} and set(frame["deterministic"]) == {False}
    without = TrialScores("test", True, np.array([0, 4]), returns, success).to_pandas()
    assert "normalised" not in without.columns and len(without) == 4


def test_table_of_a_comparison_holds_what_the_text_does(results):
    comparison = dmrlad_bench.compare(results)
    table = Cells(comparison._repr_html_())
    text = comparison.table()
    assert [row for row in table.rows if row[0] == "dmrlad"] and "all 2 families" in table.text
    for row in table.rows:
        for cell in row:
            assert cell in text
    assert len(table.rows) == 2 * (3 + 3 + 7) + 3  # by family: headline, normalised scores, episodes; then all families


def test_comparison_as_a_frame(results):
    comparison = dmrlad_bench.compare(results)
    frame, records = comparison.to_pandas(), list(comparison_records(comparison))
    assert len(frame) == len(records) and list(frame.columns) == list(records[0])
    first = frame[(frame["family"] == "DMRLAD/PointGoalSparse-v0") & (frame["agent"] == "pearl") & (frame["measure"] == "return")]
    group = comparison.of_family("DMRLAD/PointGoalSparse-v0")[1]
    np.testing.assert_allclose(first["value"], group.returns.mean(axis=(0, 1)))


def test_run_and_its_curve(results, tmp_path):
    folder = write_run(tmp_path, results[0])
    run = Run(folder)
    assert repr(run) == f"Run({str(folder)!r}, finished)"
    table = Cells(run._repr_html_())
    assert table.rows[0] == ["tasks", "actions", "return 1", "return 2", "return 3", "success 1", "success 2", "success 3"]
    assert [row[:2] for row in table.rows[1:]] == [
        ["20 test", "deterministic"],
        ["80 train", "deterministic"],
        ["10 ood", "deterministic"],
        ["20 test", "stochastic"],
    ]
    assert float(table.rows[1][2]) == pytest.approx(results[0].scores().mean_returns[0], abs=0.005)
    frame = run.to_pandas()
    assert frame.equals(results[0].to_pandas()) and len(frame) == 3 * len(results[0].curve)
    assert frame["environment_steps"].tolist() == [point.environment_steps for point in results[0].curve for _ in range(3)]
    assert frame["return"].iloc[-1] == results[0].curve[-1].scores["validation"].returns[-1]
    assert list(results[0].model_copy(update={"curve": ()}).to_pandas().columns) == list(frame.columns)


def test_a_run_that_cannot_be_read_says_so_and_raises_nothing(results, tmp_path):
    missing = Run(tmp_path / "none")
    assert repr(missing).endswith("unfinished)") and "not a run folder" in missing._repr_html_()
    folder = write_run(tmp_path, results[0])
    (folder / "result.json").write_text("{")
    assert "truncated or not JSON" in Cells(Run(folder)._repr_html_()).text


def test_names_are_escaped(results, tmp_path):
    made = html_table(NASTY, [NASTY], [[NASTY]], [NASTY])
    table = Cells(made)
    assert "script" not in table.tags and table.rows == [[NASTY], [NASTY]] and table.text.count(NASTY) == 4
    with pytest.raises(ValueError, match="should match pattern"):  # such a name stands in no result
        make_result(agent=NASTY)
    assert "script" not in Cells(Run(tmp_path / "<script>")._repr_html_()).tags


def test_dir_lists_what_the_package_offers():
    listed = dir(dmrlad_bench)
    assert set(dmrlad_bench.__all__) <= set(listed) and "gymnasium" not in listed and "TYPE_CHECKING" not in listed
    for name in listed:
        getattr(dmrlad_bench, name)


def test_importing_stays_light():
    loaded = "import sys, dmrlad_bench; dir(dmrlad_bench); print(sorted({'torch', 'mujoco', 'pandas', 'metaworld'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
