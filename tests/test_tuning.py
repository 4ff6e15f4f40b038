"""`tune`: studies on validation tasks, resumed and pruned; search spaces on cards; what is refused."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from program import refused, shown

from dmrlad_bench.cards import CardError, agent_names, family_names, load_agent, load_family
from dmrlad_bench.cards.search import search_space
from dmrlad_bench.harness.session import Session
from dmrlad_bench.reports.reading import read_runs
from dmrlad_bench.reports.tuning_figure import study_figure
from dmrlad_bench.reports.tuning_tables import TrialRecord, best_toml, trials_table

pytest.importorskip("optuna")

from dmrlad_bench.harness.tuning import TuningPlan, plan_tuning
from dmrlad_bench.harness.tuning_jobs import tune

KEYS = 8
WITHOUT_SPACE = {"random", "still", "scripted", "task-posterior", "thompson"}  # the last two have none yet: their learner is the oracle's
TUNE = ("tune", "--agent", "dmrlad", "--env", "PointGoal", "--budget", "smoke", "--device", "cpu")


class Killed(BaseException):
    """Stands for a kill: nothing in the program catches it."""


def small_plan(folder: Path, **options: Any) -> TuningPlan:
    return plan_tuning("dmrlad", "PointGoal", **{"budget": "smoke", "device": "cpu", "out": folder} | options)


def card(folder: Path, search: str, extends: str = "dmrlad") -> Path:
    path = folder / "tuned.toml"
    path.write_text(f'name = "tuned"\ndescription = "a card"\nextends = "{extends}"\n\n[search]\n{search}\n')
    return path


def test_a_study_goes_on_where_it_was_killed_and_scores_no_test_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counting: Callable[..., Any]
) -> None:
    counting()
    whole = tune(small_plan(tmp_path / "whole"), 3, quiet=True)
    assert [trial.state for trial in whole] == ["complete"] * 3
    assert len({json.dumps(trial.values) for trial in whole}) == 3

    iterate, calls = Session._iterate, []

    def killed(session: Session, progress: Any) -> dict[str, float]:
        calls.append(session)
        if len(calls) == 5:  # in the second trial
            raise Killed
        return iterate(session, progress)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Session, "_iterate", killed)
        tune(small_plan(tmp_path / "killed"), 3, quiet=True)
    assert not list((tmp_path / "killed" / "trials" / "0001").glob("*/*/result.json"))
    assert tune(small_plan(tmp_path / "killed"), 3, quiet=True) == whole
    assert tune(small_plan(tmp_path / "killed"), 3, quiet=True) == whole  # nothing left to do

    results = sorted(tmp_path.glob("*/trials/*/PointGoal/*/result.json"))
    assert len(results) == 6
    for path in results:
        content = json.loads(path.read_bytes())
        assert [matrix["split"] for matrix in content["final"]] == ["validation"]
        assert {split for point in content["curve"] for split in point["scores"]} == {"validation"}
        table = (path.parent / "progress.csv").read_text().splitlines()[0]
        assert "eval/validation_return_1" in table and "test" not in table and "ood" not in table
        assert tomllib.loads((path.parent / "config.toml").read_text())["tuning"] is True
    best = json.loads(results[0].read_bytes())["final"][0]["returns"]
    assert whole[0].value == pytest.approx(sum(trials[0][-1] for trials in best) / len(best))


def test_tuned_runs_cannot_be_submitted_nor_go_on_as_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], counting: Callable[..., Any]
) -> None:
    counting()
    tune(small_plan(tmp_path), 1, quiet=True)
    (folder,) = (tmp_path / "trials" / "0000" / "PointGoal").iterdir()
    assert len(read_runs([folder])) == 1
    line = refused(capsys, "submit", folder, "--out", tmp_path / "board", "--name", "tuned", "--author", "A. Body")
    assert "not the whole protocol: no scores of 'test'" in line
    line = refused(capsys, "compare", folder)
    assert "the result has no deterministic scores of 'test'; it has: validation deterministic" in line
    assert "PointGoal" in shown(capsys, "compare", folder, "--split", "validation")
    out = tmp_path / "trials" / "0000"
    line = refused(capsys, "run", *TUNE[1:], "--out", out, "--resume", "--threads", "1")
    assert "another configuration" in line


def test_a_curve_below_the_median_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counting: Callable[..., Any]) -> None:
    counting()
    evaluate, levels = Session._evaluate_while_training, [5.0, 4.0, 3.0, 2.0, 1.0, -50.0, 9.0]

    def levelled(session: Session) -> Any:
        scores = evaluate(session)
        level = levels[int(session.folder.parent.parent.name)]
        point = session.position.curve[-1]["scores"]["validation"]
        point["returns"] = [level] * len(point["returns"])
        return scores

    monkeypatch.setattr(Session, "_evaluate_while_training", levelled)
    trials = tune(small_plan(tmp_path), 7, quiet=True)
    assert [trial.state for trial in trials] == [*["complete"] * 5, "pruned", "complete"]
    assert trials[5].value == -50.0 and trials[5].note == "pruned at return -50 after iteration 2 of 3"
    (stopped,) = (tmp_path / "trials" / "0005" / "PointGoal").iterdir()
    assert not (stopped / "result.json").exists() and not (stopped / "replay").exists()


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counting: Callable[..., Any]
) -> None:
    counting()
    iterate = Session._iterate

    def failing(session: Session, progress: Any) -> dict[str, float]:
        if session.folder.parent.parent.name == "0000":
            raise ValueError("a fault of this trial")
        return iterate(session, progress)

    monkeypatch.setattr(Session, "_iterate", failing)
    failed, complete = tune(small_plan(tmp_path, seeds=2), 2, quiet=True)
    assert (failed.state, failed.value) == ("failed", None) and "a fault of this trial" in failed.note
    assert complete.state == "complete" and complete.evaluations == 4  # two of each seed
    assert len(list((tmp_path / "trials" / "0001" / "PointGoal").iterdir())) == 2


def test_the_command_prints_trials_and_a_card_that_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, figure = tmp_path / "study", tmp_path / "study.png"
    printed = shown(capsys, *TUNE, "--trials", "2", "--out", study, "--plot", figure, "--quiet")
    assert "study dmrlad--PointGoal--smoke" in printed and "2 complete, 0 pruned, 0 failed" in printed
    assert figure.read_bytes().startswith(b"\x89PNG")
    best = (study / "best.toml").read_text()
    assert best in printed and best.startswith("# Tuned: study dmrlad--PointGoal--smoke, trial ")
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\ndescription = "tuned"\nextends = "dmrlad"\n\n{best}')
    told = shown(capsys, "agents", path, "--env", "PointGoal", "--budget", "smoke")
    values = tomllib.loads(best)["family"]["PointGoal"]["budget"]["smoke"]
    assert sum(map(len, values.values())) == KEYS
    config = tomllib.loads(told)
    assert all(config[section][key] == value for section, keys in values.items() for key, value in keys.items())


def test_every_learning_preset_has_as_many_keys_on_every_family() -> None:
    for name in agent_names():
        for family in map(load_family, family_names()):
            if name in WITHOUT_SPACE:
                with pytest.raises(CardError, match=r"has no section \[search\]"):
                    search_space(load_agent(name), family.name, "quick")
                continue
            space = search_space(load_agent(name), family.name, "quick")
            assert len(space) == KEYS, (name, family.name)


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("actor_critic.learning_rte = { low = 1e-4, high = 1e-3 }", r"unknown key 'actor_critic.learning_rte' \(did you mean 'actor_c"),
        ("actor_critic.discount = { low = 0.9, high = 1.5 }", "less than 1"),
        ("actor_critic.discount = { low = 0.99, high = 0.9 }", "low must be below high"),
        ("actor_critic.discount = { low = 0.9 }", "expected { low = ..., high = ... } or { choices"),
        ("actor_critic.discount = { low = 0.9, high = 0.99, choices = [0.9] }", "not both"),
        ("actor_critic.discount = { low = 0.0, high = 0.99, log = true }", "log needs a low above 0"),
        ("actor_critic.discount = { lo = 0.9, high = 0.99 }", "unknown key 'lo'"),
        ("actor_critic.discount = 0.9", "expected { low, high, log }"),
        ("actor_critic.batch_size = { low = 16.5, high = 32 }", "must be whole"),
        ("actor_critic.batch_size = { choices = [16, 16] }", "two different values"),
        ("actor_critic.batch_size = { choices = [16, 0] }", "greater than or equal to 1"),
        ("actor_critic.critic = { low = 1, high = 2 }", "is no number"),
        ("actor_critic.critic = { choices = ['quantile', 'scalr'] }", "'scalar' or 'quantile'"),
        ("pearl.kl_weight = { low = 0.1, high = 0.2 }", "unknown key 'pearl.kl_weight'"),
    ],
)
def test_a_bad_search_space_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], search: str, said: str) -> None:
    path = card(tmp_path, search)
    out = tmp_path / "study"
    line = refused(capsys, "tune", "--agent", path, "--env", "PointGoal", "--budget", "smoke", "--trials", "1", "--out", out)
    with pytest.raises(CardError, match=said):
        search_space(load_agent(path), "PointGoal", "smoke")
    assert "search." in line and str(path) in line and not out.exists()


def test_cards_inherit_and_take_out(tmp_path: Path) -> None:
    own = "actor_critic.hidden = { choices = [[16, 16], [32, 32]] }\nactor_critic.discount = false"
    keys = [one.key for one in search_space(load_agent(card(tmp_path, own)), "PointGoal", "smoke")]
    assert "actor_critic.hidden" in keys and "actor_critic.discount" not in keys and len(keys) == KEYS
    unread = "relabel.temperature = { low = 1.0, high = 2.0 }"
    with pytest.raises(CardError, match=r"the agent does not read it, for relabel\.kind is 'none'"):
        search_space(load_agent(card(tmp_path, unread, "cemrl")), "PointGoal", "smoke")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--trials", "0"), "trials: expected at least 1, got 0"),
        (("--trials", "1", "--seeds", "0"), "seeds: expected at least 1, got 0"),
        (("--trials", "1", "--jobs", "0"), "jobs: expected at least 1, got 0"),
        (("--trials", "one"), "expected a whole number, got 'one'"),
        (("--trials", "1", "--agent", "random"), "agent 'random' does not learn"),
        (("--trials", "1", "--agent", "dmrald"), "did you mean 'dmrlad'?"),
        (("--trials", "1", "--plot", "study.txt"), "a figure's file ends with"),
        (("--trials", "1", "--threads", "0"), "threads: expected at least 1, got 0"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    assert said in refused(capsys, *TUNE, "--out", tmp_path / "study", *options)


def test_a_folder_of_another_study_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], counting: Callable[..., Any]) -> None:
    counting()
    tune(small_plan(tmp_path), 1, quiet=True)
    assert "is a study of another seeds: 1 there, now 2" in refused(capsys, *TUNE, "--trials", "2", "--seeds", "2", "--out", tmp_path)
    line = refused(capsys, "tune", "--agent", "rl2", "--env", "PointGoal", "--budget", "smoke", "--trials", "1", "--out", tmp_path)
    assert "holds the study 'dmrlad--PointGoal--smoke', not 'rl2--PointGoal--smoke'" in line
    (tmp_path / "study.db").write_bytes(b"no database at all, but long enough to be looked at" * 50)
    assert "is no study's database" in refused(capsys, *TUNE, "--trials", "2", "--out", tmp_path)
    sqlite3.connect(tmp_path / "other.db").close()
    (tmp_path / "study.db").unlink()
    (tmp_path / "study.db").symlink_to(tmp_path / "other.db")
    assert "is a symbolic link" in refused(capsys, *TUNE, "--trials", "2", "--out", tmp_path)


def test_without_optuna_a_line_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = refused(capsys, *TUNE, "--trials", "1", "--out", tmp_path / "study")
    assert line.endswith("tune needs Optuna, which is not installed: pip install 'dmrlad-bench[tune]'\n")


def test_two_processes_share_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = shown(capsys, *TUNE, "--trials", "2", "--jobs", "2", "--out", tmp_path / "study", "--quiet")
    assert "2 complete, 0 pruned, 0 failed" in printed


def test_tables_and_figures_of_trials() -> None:
    trials = [
        TrialRecord(0, "complete", 1.0, 2, {"actor_critic.discount": 0.9, "actor_critic.hidden": [8, 8]}),
        TrialRecord(1, "pruned", 0.5, 1, {"actor_critic.discount": 0.95, "actor_critic.hidden": [16, 16]}, "pruned at return 0.5"),
        TrialRecord(2, "failed", None, 0, {"actor_critic.discount": 0.99, "actor_critic.hidden": [8, 8]}, "a loss became NaN"),
        TrialRecord(3, "complete", 3.0, 2, {"actor_critic.discount": 0.97, "actor_critic.hidden": [8, 8]}),
    ]
    table = trials_table("study", trials, 1)
    assert [row[1] for row in table.rows] == ["complete", "pruned", "failed", "best"]
    assert table.rows[2][2] == "-" and "trial 2 failed: a loss became NaN" in table.notes
    text = best_toml("study", trials, "PointGoal", "quick", 2)
    assert text is not None and "trial 3 of 4" in text and "seeds 0 to 1" in text
    assert tomllib.loads(text)["family"]["PointGoal"]["budget"]["quick"]["actor_critic"] == {"discount": 0.97, "hidden": [8, 8]}
    assert best_toml("study", trials[1:3], "PointGoal", "quick", 1) is None
    history, discount, hidden = study_figure("study", trials, {"actor_critic.discount"}).axes[:3]
    assert list(history.get_lines()[0].get_ydata()) == [1.0, 3.0]  # pyright: ignore[reportArgumentType]
    assert discount.get_xscale() == "log"
    assert [label.get_text() for label in hidden.get_xticklabels()] == ["[16, 16]", "[8, 8]"]
