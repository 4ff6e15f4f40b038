"""The bounds of a return hold for every trajectory, with and without success; the register; and a seed that is run again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from program import refused, shown
from report_results import make_result, use_references

from dmrlad_bench.cards import CardError, agent_names, load_agent, load_family, register_folder, resolve_agent
from dmrlad_bench.cli import main
from dmrlad_bench.envs.family import TaskFamily
from dmrlad_bench.harness.api import train
from dmrlad_bench.harness.reproduce import compared
from dmrlad_bench.reports.bounds import ends_early, return_bounds
from dmrlad_bench.reports.leaderboard import read_entries
from dmrlad_bench.reports.publishing import make_entries
from dmrlad_bench.reports.reading import read_runs
from dmrlad_bench.reports.register import is_known, read_register, register_text


def test_by_hand() -> None:
    assert return_bounds(load_family("PointGoalSparse")) == (0.0, 20.0)
    assert return_bounds(load_family("PointGoalSparse"), True) == (0.8, 20.0)  # the last step lies within the radius, 0.2
    assert return_bounds(load_family("PointGoalSparse"), False) == (0.0, 19.0)
    assert return_bounds(load_family("PointGoal")) == (None, 0.0)
    assert return_bounds(load_family("CheetahVelSparse")) == (-1000.0, 400.0)  # -2 and a cost of 0.5 * 6, at every step of 200
    assert return_bounds(load_family("CheetahDir")) == (None, None)
    assert return_bounds(load_family("SawyerReachSparse"), False) == (-150.0, -150.0)  # `any`: no step lies within
    assert return_bounds(load_family("ML1Reach")) == (None, 5000.0)
    assert ends_early(load_family("HopperVelSparse"))
    assert not ends_early(load_family("CheetahVelSparse"))


@pytest.mark.parametrize("name", ["PointGoalSparse", "PointGoal", "CheetahVelSparse", "CheetahVel", "CheetahDir", "CheetahMultiTaskSparse"])
def test_no_trajectory_leaves_the_bounds(name: str) -> None:
    """Outcomes of steps are drawn near the task and far off it; actions are whole or half."""
    family, generator = TaskFamily(load_family(name)), np.random.default_rng(0)
    card, episodes = family.card, 300
    task = family.tasks("train")[generator.integers(len(card.tasks.train), size=episodes)][:, None, :]
    outcome = generator.normal(size=(episodes, card.horizon, family.outcome_dim)) * generator.choice(
        [0.05, 0.3, 3.0], size=(episodes, 1, 1)
    )
    near = task[..., -1:] if task.shape[-1] == 2 and card.goal.kind == "multi_task" else task
    outcome[..., : near.shape[-1]] += near * generator.choice([0.0, 1.0], size=(episodes, 1, 1))
    outcome[..., -1] = family.action_dim * generator.choice([0.0, 0.25, 1.0], size=(episodes, card.horizon))
    returns = family.reward(outcome, task).sum(axis=1)
    success = family.episode_success(family.success(outcome, task), np.full(episodes, card.horizon))
    assert 0 < success.sum() < episodes
    for known in (None, True, False):
        low, high = return_bounds(card, known)
        own = returns if known is None else returns[success == known]
        assert low is None or own.min() >= low - 1e-6
        assert high is None or own.max() <= high + 1e-6


def test_every_published_familys_bounds_are_in_order() -> None:
    from dmrlad_bench.cards import family_names

    for name in family_names():
        for known in (None, True, False):
            low, high = return_bounds(load_family(name), known)
            assert low is None or high is None or low <= high, (name, known)


# ---- the register -------------------------------------------------------------------------------------------------------


def test_published_presets_are_listed_or_current() -> None:
    folder = register_folder("leaderboards")
    register = read_register(folder)
    for entry in (entry for entry in read_entries(folder) if entry.agent.preset):
        family = load_family(entry.family.id).name
        assert is_known(register, entry.agent.name, family, entry.budget, entry.agent.digest), entry.file_name
    for preset in set(register) & set(agent_names()):
        for family, budgets in register[preset].items():
            for budget in budgets:
                resolve_agent(load_agent(preset), family, budget)  # it can be made of them


def test_submit_adds_to_the_register_and_forgets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from report_results import write_run

    use_references(tmp_path / "cards", monkeypatch)
    old = "a" * 64
    (tmp_path / "boards").mkdir()
    (tmp_path / "boards" / "digests.toml").write_text(register_text({}, [("dmrlad", "PointGoalSparse", "quick", old)]))
    result = make_result()
    shown(capsys, "submit", write_run(tmp_path / "runs", result), "--out", tmp_path / "boards")
    assert read_register(tmp_path / "boards")["dmrlad"]["PointGoalSparse"]["quick"] == [old, result.agent.digest]
    shown(capsys, "leaderboard", "--folder", tmp_path / "boards", "--markdown", "--check")


@pytest.mark.parametrize("text", ["a = 1\n", "[a.b]\nquick = 'x'\n", "[a.b]\nquick = ['x']\n", "[a.b]\ntiny = []\n"])
def test_a_register_of_another_form_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "digests.toml").write_text(text)
    with pytest.raises(CardError, match=r"digests\.toml: key 'a.*expected <preset>\.<family>\.<budget> = \[SHA-256, \.\.\.\]"):
        read_register(tmp_path)


# ---- a seed again -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A leaderboards folder with three real runs."""
    folder = tmp_path_factory.mktemp("real")
    runs = [train("random", "PointGoalSparse", seed=seed, out=folder / "runs", device="cpu", threads=1, quiet=True) for seed in (0, 1, 2)]
    for entry in make_entries(read_runs(runs)):
        path = folder / "boards" / entry.file_name
        path.parent.mkdir(parents=True)
        path.write_text(entry.json_text())
    return folder / "boards" / "PointGoalSparse" / "random--quick.json"


def test_the_same_seed_on_the_same_machine_is_equal(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = real.read_bytes()
    printed = shown(capsys, "leaderboard", "--reproduce", real, "--seed", "1", "--out", tmp_path / "again")
    assert printed.startswith("random on DMRLAD/PointGoalSparse-v0, budget quick, seed 1: equal, return ")
    assert (tmp_path / "again" / "PointGoalSparse" / "random--quick--seed1" / "result.json").is_file()
    assert real.read_bytes() == before  # nothing is recorded


def test_a_seed_that_comes_out_otherwise_ends_with_1(real: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(real.read_bytes())
    for matrix in content["runs"][1]["final"]:
        matrix["returns"] = [[[19.0] * len(trial) for trial in task] for task in matrix["returns"]]
    path = real.with_name("forged.json")
    path.write_text(json.dumps(content))
    with pytest.raises(SystemExit) as caught:
        main(["leaderboard", "--reproduce", str(path), "--seed", "1"])
    printed = capsys.readouterr().out
    assert caught.value.code in (0, 1)
    assert "not equal: return" in printed
    assert "the entry has 19.00" in printed


def test_how_far_a_run_lies_from_the_entrys_spread() -> None:
    runs = [make_result(seed=seed) for seed in (0, 1, 2)]
    (entry,) = make_entries(read_runs(runs))
    assert compared(entry, runs[0], runs[0]).agrees
    near, far = make_result(seed=7), make_result(seed=7, level=12.0)
    means = np.array([run.scores().mean_returns[-1] for run in runs])
    inside, outside = compared(entry, runs[0], near), compared(entry, runs[0], far)
    apart = (far.scores().mean_returns[-1] - means.mean()) / means.std(ddof=1)
    assert (inside.agrees, outside.agrees) == (True, False)
    assert f"{apart:+.1f} standard deviations from the mean of its 3 runs; outside of [" in outside.text
    reach = 4.302653 * means.std(ddof=1) * np.sqrt(4 / 3)  # Student's quantile with two degrees of freedom
    assert f"[{means.mean() - reach:.2f}, {means.mean() + reach:.2f}], where one more run lies at 95%" in outside.text
    (small,) = make_entries(read_runs(runs[:2]))
    assert not compared(small, runs[0], near).agrees
    assert "2 runs, and an interval of one more run takes 3" in compared(small, runs[0], near).text


def test_reproducing_what_is_not_there_is_one_line(real: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "seed 5: the entry has no such run; accepted: 0, 1, 2" in refused(capsys, "leaderboard", "--reproduce", real, "--seed", "5")
    assert "--reproduce: expected --seed N with it" in refused(capsys, "leaderboard", "--reproduce", real)
    assert "go with --reproduce ENTRY" in refused(capsys, "leaderboard", "--seed", "1")
    assert "cannot be read" in refused(capsys, "leaderboard", "--reproduce", "nowhere.json", "--seed", "1")
