"""Reference scores: measured from runs of `random` and `oracle`, written onto a card and nothing else of it changed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from report_results import ROOT, make_result, use_references

from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.family import read_family
from dmrlad_bench.reports.reading import read_runs
from dmrlad_bench.reports.references import MeasuredReference, measure_references, with_reference
from dmrlad_bench.reports.results import Result

REFERENCE = MeasuredReference("DMRLAD/PointGoalSparse-v0", 0.25, 11.5, "random: budget quick, seed 0; oracle: budget quick, seed 0")


@pytest.fixture(autouse=True)
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_references(tmp_path / "cards", monkeypatch)


def ends(random: float = 0.0, oracle: float = 9.0, family: str = "PointGoalSparse") -> list[Result]:
    levels = {"random": random, "oracle": oracle}
    return [make_result(agent, family=family, seed=seed, level=level) for agent, level in levels.items() for seed in (0, 1)]


def test_they_are_the_mean_returns_of_the_last_episode_on_the_test_tasks() -> None:
    runs = ends() + ends(-30.0, -5.0, "PointGoal")
    sparse, dense = measure_references(read_runs(runs))
    assert sparse.random == pytest.approx(np.mean([run.scores().returns[:, 2] for run in runs[:2]]), abs=1e-4)
    assert sparse.oracle == pytest.approx(np.mean([run.scores().returns[:, 2] for run in runs[2:4]]), abs=1e-4)
    assert dense.family == "DMRLAD/PointGoal-v0"
    assert sparse.origin == "random: budget quick, seeds 0, 1; oracle: budget quick, seeds 0, 1"
    assert tomllib.loads(sparse.toml()) == {"reference": {"random": sparse.random, "oracle": sparse.oracle}}


def changed(result: Result) -> Result:
    return result.model_copy(update={"agent": result.agent.model_copy(update={"digest": "a" * 64})})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: [*ends(), make_result()], "a run of 'dmrlad'; reference scores are those of random and oracle"),
        (lambda: ends()[:2], "family DMRLAD/PointGoalSparse-v0: no run of 'oracle'"),
        (lambda: ends()[2:], "no run of 'random'"),
        (lambda: ends(9.0, 0.0), r"oracle must exceed random, got 1\.\d+ and 10\.\d+"),
        (lambda: [*ends(), make_result("oracle", budget="full", level=9.0)], "runs of 'oracle' with several budgets: full, quick"),
        (lambda: [*ends(), ends()[0]], "a seed of 'random' is there twice"),
        (lambda: [*ends()[:2], changed(ends()[2])], "its configuration is not that of the preset 'oracle'"),
        (lambda: [*ends(), make_result("oracle", seed=2, level=9.0, episodes=2)], "not the whole protocol: trials of 2 episodes"),
    ],
)
def test_what_is_refused(make: Callable[[], list[Result]], message: str) -> None:
    with pytest.raises(CardError, match=message):
        measure_references(read_runs(make()))


def test_a_card_gets_the_table_and_stays_as_it_was_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "PointGoalSparse.toml"
    text = (ROOT / "envs" / "PointGoalSparse.toml").read_text().partition("[reference]")[0].rstrip() + "\n"
    first = with_reference(text, REFERENCE, path)
    assert first == f"{text}\n{REFERENCE.toml()}"
    path.write_text(first)
    card = read_family(path)
    assert card.reference is not None
    assert (card.reference.random, card.reference.oracle) == (0.25, 11.5)
    assert card.digest == read_family(ROOT / "envs" / "PointGoalSparse.toml").digest
    other = MeasuredReference(REFERENCE.family, 1.0, 2.0, "measured again")
    assert with_reference(first, other, path) == f"{text}\n{other.toml()}"
    assert with_reference(first, REFERENCE, path) == first


def test_a_table_in_the_middle_is_replaced_where_it_is(tmp_path: Path) -> None:
    text = (ROOT / "envs" / "PointGoalSparse.toml").read_text().partition("[reference]")[0]
    before, tasks, after = text.partition("[tasks]")
    comment = "\n# the tasks: see above\n"
    old = f"{before}[reference]\nrandom = 0\noracle = 1 # once\n{comment}{tasks}{after}"
    assert with_reference(old, REFERENCE, tmp_path / "a.toml") == f"{before}{REFERENCE.toml()}{comment}{tasks}{after}"


def test_another_familys_card_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "envs" / "PointGoal.toml").read_text()
    with pytest.raises(CardError, match=re.escape("a.toml: is not the card of DMRLAD/PointGoalSparse-v0")):
        with_reference(text, REFERENCE, tmp_path / "a.toml")
