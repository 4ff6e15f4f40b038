"""Reference scores: measured from runs of `random`, `still`, `blind` and `oracle`, written onto a card and nothing else of it changed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from program import refused, shown
from report_results import ROOT, make_result, use_presets, use_references, with_config, write_run

from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.family import Reference, ReferenceSource, read_family
from dmrlad_bench.protocol import normalised
from dmrlad_bench.reports.reading import read_runs
from dmrlad_bench.reports.references import MeasuredReference, measure_references, with_reference
from dmrlad_bench.reports.results import Result

FAMILY = "DMRLAD/PointGoalSparse-v0"
LEVELS = {"random": 0.5, "still": 0.0, "blind": 2.0, "oracle": 9.0}
SOURCE = ReferenceSource(agent="oracle", budget="full", digest="a" * 64, seeds=(0, 1), runs=(11.0, 12.0))
REFERENCE = MeasuredReference(FAMILY, Reference(random=0.25, blind=1.0, oracle=11.5, sources={"oracle": SOURCE}))


@pytest.fixture(autouse=True)
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    envs = use_references(tmp_path / "cards", monkeypatch)
    for _ in use_presets(tmp_path / "cards", monkeypatch):
        yield envs


def trained_long(result: Result, steps: int = 1_000_000) -> Result:
    """The result after so many environment steps, as a longer schedule would have given it."""
    last = result.curve[-1].model_copy(update={"environment_steps": steps})
    return result.model_copy(update={"environment_steps": steps, "curve": (*result.curve[:-1], last)})


def ends(family: str = "PointGoalSparse", oracles: int = 3, **levels: float) -> list[Result]:
    chosen = LEVELS | levels
    runs = [make_result(agent, family=family, seed=seed, level=chosen[agent]) for agent in ("random", "still", "blind") for seed in (0, 1)]
    return runs + [
        trained_long(make_result("oracle", family=family, seed=seed, level=chosen["oracle"], budget="full")) for seed in range(oracles)
    ]


def test_they_are_the_mean_returns_of_the_last_episode_on_the_test_tasks() -> None:
    runs = ends() + ends("PointGoal", random=-30.0, still=-25.0, blind=-28.0, oracle=-7.0)
    sparse, dense = measure_references(read_runs(runs))
    mean = {agent: np.mean([run.scores().mean_returns[2] for run in runs[:9] if run.agent.name == agent]) for agent in LEVELS}
    found = sparse.reference
    assert (found.random, found.blind, found.oracle) == pytest.approx((mean["random"], mean["blind"], mean["oracle"]), abs=1e-4)
    assert sparse.short is None
    assert {name: (source.agent, source.budget, source.seeds) for name, source in found.sources.items()} == {
        "random": ("random", "quick", (0, 1)),
        "blind": ("blind", "quick", (0, 1)),
        "oracle": ("oracle", "full", (0, 1, 2)),
    }
    assert found.sources["oracle"].digest == runs[6].agent.digest
    assert found.sources["oracle"].runs == pytest.approx([run.scores().mean_returns[2] for run in runs[6:9]], abs=1e-4)
    assert dense.family == "DMRLAD/PointGoal-v0"
    assert dense.reference.sources["blind"].agent == "still"  # the better of the two
    assert Reference.model_validate(tomllib.loads(sparse.toml())["reference"]) == found


def test_zero_is_blind_and_one_is_oracle() -> None:
    (found,) = measure_references(read_runs(ends()))
    ends_of_it = (found.reference.blind, found.reference.oracle)
    np.testing.assert_allclose(normalised(np.array([*ends_of_it, found.reference.random]), ends_of_it)[:2], [0.0, 1.0])
    assert normalised(found.reference.random, ends_of_it) < 0.0  # random normalises nothing


def changed(result: Result) -> Result:
    return result.model_copy(update={"agent": result.agent.model_copy(update={"digest": "a" * 64})})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: [*ends(), make_result()], "a run of 'dmrlad'; reference scores are those of random, still, blind and oracle"),
        (lambda: ends()[:6], "family DMRLAD/PointGoalSparse-v0: no run of 'oracle'; reference scores need runs of random, still, blind"),
        (lambda: ends()[2:], "no run of 'random'"),
        (lambda: ends()[:2] + ends()[4:], "no run of 'still'"),
        (lambda: ends()[:4] + ends()[6:], "no run of 'blind'"),
        (lambda: ends(blind=9.0, oracle=2.0), r"oracle must exceed blind \(blind\), got 3\.\d+ and 1\d\.\d+"),
        (lambda: ends(still=14.0), r"oracle must exceed blind \(still\)"),
        (lambda: [*ends(), make_result("oracle", seed=7, level=9.0)], "runs of 'oracle' with several budgets: full, quick"),
        (lambda: [*ends(), ends()[0]], "a seed of 'random' is there twice"),
        (lambda: [*ends()[:8], changed(ends()[8])], "its configuration is not that of the preset 'oracle'"),
        (lambda: [*ends(), make_result("random", seed=2, episodes=2)], "not the whole protocol: trials of 2 episodes"),
    ],
)
def test_what_is_refused(make: Callable[[], list[Result]], message: str) -> None:
    with pytest.raises(CardError, match=message) as caught:
        measure_references(read_runs(make()))
    assert "\n" not in str(caught.value)


def test_an_oracle_may_train_longer_than_its_preset_but_be_nothing_else(tmp_path: Path) -> None:
    others = ends()[:6]
    longer = [
        with_config(tmp_path / "longer", make_result("oracle", seed=seed, level=9.0), ("schedule.iterations=900",)) for seed in (0, 1)
    ]
    (found,) = measure_references(read_runs([*others, *longer]))
    assert found.reference.sources["oracle"].seeds == (0, 1)
    other = with_config(tmp_path / "other", make_result("oracle", seed=2, level=9.0), ("actor_critic.discount=0.9",))
    with pytest.raises(CardError, match="its configuration is not that of the preset 'oracle'"):
        measure_references(read_runs([*others, *longer, other]))


def test_a_short_oracle_is_said_and_written_only_when_told(tmp_path: Path, cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ends(oracles=2)
    runs[-1] = trained_long(runs[-1], 400_000)
    folder = tmp_path / "runs"
    for run in runs:
        write_run(folder, run)
    assert "# DMRLAD/PointGoalSparse-v0: oracle too short: 2 runs of at least 3, 400000 steps of at least 1000000" in shown(
        capsys, "reference", folder
    )
    before = (cards / "PointGoalSparse.toml").read_text()
    with pytest.raises(SystemExit) as caught:
        from dmrlad_bench.cli import main

        main(["reference", str(folder), "--write"])
    printed = capsys.readouterr()
    assert (caught.value.code, printed.err.count("\n")) == (2, 1)
    assert "oracle too short: 2 runs of at least 3, 400000 steps of at least 1000000; pass --allow-short" in printed.err
    assert (cards / "PointGoalSparse.toml").read_text() == before
    shown(capsys, "reference", folder, "--write", "--allow-short")
    reference = read_family(cards / "PointGoalSparse.toml").reference
    assert reference is not None
    assert reference.sources["oracle"].budget == "full (short: 2 runs of at least 3, 400000 steps of at least 1000000)"


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs", make_result("random"))
    assert "no run of 'still'" in refused(capsys, "reference", tmp_path / "runs")


def test_a_card_gets_the_tables_and_stays_as_it_was_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "PointGoalSparse.toml"
    text = (ROOT / "envs" / "PointGoalSparse.toml").read_text().partition("[reference]")[0].rstrip() + "\n"
    first = with_reference(text, REFERENCE, path)
    assert first == f"{text}\n{REFERENCE.toml()}"
    path.write_text(first)
    card = read_family(path)
    assert card.reference == REFERENCE.reference
    assert card.digest == read_family(ROOT / "envs" / "PointGoalSparse.toml").digest
    other = MeasuredReference(FAMILY, Reference(random=1.0, blind=1.5, oracle=2.0))
    assert with_reference(first, other, path) == f"{text}\n{other.toml()}"
    assert with_reference(first, REFERENCE, path) == first


def test_tables_in_the_middle_are_replaced_where_they_are(tmp_path: Path) -> None:
    text = (ROOT / "envs" / "PointGoalSparse.toml").read_text().partition("[reference]")[0]
    before, tasks, after = text.partition("[tasks]")
    comment = "\n# the tasks: see above\n"
    source = '[reference.sources.oracle]\nagent = "oracle"\nbudget = "full"\ndigest = "b"\nseeds = [0]\nruns = [\n  1.0, # once\n]\n'
    old = f"{before}[reference] # old\nrandom = 0\n# why\nblind = 0\noracle = 1 # once\n\n{source}{comment}{tasks}{after}"
    assert with_reference(old, REFERENCE, tmp_path / "a.toml") == f"{before}{REFERENCE.toml()}{comment}{tasks}{after}"


def test_another_familys_card_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "envs" / "PointGoal.toml").read_text()
    with pytest.raises(CardError, match=re.escape("a.toml: is not the card of DMRLAD/PointGoalSparse-v0")):
        with_reference(text, REFERENCE, tmp_path / "a.toml")
