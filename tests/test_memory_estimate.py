"""What a run would need is known before it starts: replays too small for an iteration, and sizes that no machine has room for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from program import refused
from toy_agents import PROBLEM, agent_of, trials_of

from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.cards import BUDGETS, CardError, agent_names, family_names, load_agent, load_family
from dmrlad_bench.envs.family import TaskFamily
from dmrlad_bench.envs.scripted import check_scripted
from dmrlad_bench.harness import api, memory_estimate
from dmrlad_bench.harness.api import evaluate, needed_memory, plan
from dmrlad_bench.harness.memory import available_memory
from dmrlad_bench.harness.memory_estimate import PROGRAM, estimate, trial_bytes
from dmrlad_bench.harness.replay_demand import Sizes, additions
from dmrlad_bench.harness.train import train_run

GIB = 2**30
TOY = Sizes(
    observation_dim=PROBLEM.observation_dim,
    action_dim=PROBLEM.action_dim,
    outcome_dim=PROBLEM.outcome_dim,
    horizon=PROBLEM.horizon,
    episodes=PROBLEM.episodes_per_trial,
    tasks=len(PROBLEM.train_tasks),
    widest=None,
    relabelable=True,
    changing=False,
)
RUN = ["run", "--env", "PointGoalSparse", "--device", "cpu", "--threads", "1", "--budget", "quick"]


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what there is, in bytes."""

    def there_are(count: int) -> None:
        monkeypatch.setattr(memory_estimate, "available_memory", lambda: (count, "left on this machine"))

    there_are(64 * GIB)
    return there_are


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is not refused must not start: it might not end."""

    def start(*_: Any) -> Any:
        raise AssertionError("was not refused")

    monkeypatch.setattr("dmrlad_bench.harness.matrix.train_all", start)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["relabel.copies=6", "schedule.replay_trials=300"],
            "relabel.copies = 6, relabel.revisited = 0); expected at least 960",
        ),
        (
            ["schedule.initial_tasks=1", "schedule.tasks_per_iteration=90", "schedule.replay_trials=50"],
            "an iteration adds 80 trials at once",
        ),
        (["schedule.trials_per_task=1000000"], "schedule.trials_per_task = 1000000"),
        (["relabel.revisited=100000"], "relabel.revisited = 100000"),
        (["schedule.initial_steps_per_task=1000000000"], "schedule.initial_steps_per_task = 1000000000"),
    ],
)
def test_a_replay_too_small_for_an_iteration_is_refused_before_the_start(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, settings: list[str], message: str
) -> None:
    given = [part for setting in settings for part in ("--set", setting)]
    error = refused(capsys, *RUN, "--agent", "dmrlad", "--out", tmp_path, *given)
    assert message in error and "schedule.replay_trials = " in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("agent", "key", "value"),
    [
        ("dmrlad", "actor_critic.batch_size", "1000000"),
        ("dmrlad", "actor_critic.hidden", "[16384, 16384, 16384, 16384, 16384, 16384]"),
        (
            "dmrlad",
            "inference.encoder_hidden",
            "[16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384]",
        ),
        ("dmrlad", "inference.latent_dim", "1024"),
        ("dmrlad", "inference.batch_size", "1000000"),
        ("dmrlad", "schedule.replay_trials", "1000000000"),
        ("dmrlad", "schedule.episodes_per_trial", "10000"),
        ("dmrlad", "relabel.utility_batch", "1000000"),
        ("pearl", "pearl.context_batch", "1000000"),
        ("rl2", "actor_critic.batch_size", "1000000"),
    ],
)
def test_too_much_memory_names_the_key(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, memory: Any, agent: str, key: str, value: str
) -> None:
    memory(GIB)
    error = refused(capsys, *RUN, "--agent", agent, "--out", tmp_path, "--set", f"{key}={value}")
    wanted = rf"key '{re.escape(key)}' = {re.escape(value)} asks for too much memory: the run needs at least [\d,.]+ GiB \(.* [GM]iB\), "
    assert re.search(wanted + r"there are 1\.0 GiB \(left on this machine\)$", error.strip()), error
    assert list(tmp_path.iterdir()) == []


def test_a_family_s_horizon_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, memory: Any) -> None:
    card = (Path(__file__).resolve().parent.parent / "envs" / "CheetahVelSparse.toml").read_text()
    for horizon, message in (
        (10**12, "key 'horizon': Input should be less than or equal to 1000000, got 1000000000000"),
        (10**6, "the family's horizon = 1000000 asks for too much memory"),
    ):
        (tmp_path / "Long.toml").write_text(
            re.sub(r"(?m)^horizon = .*$", f"horizon = {horizon}", card).replace('"CheetahVelSparse"', '"Long"')
        )
        error = refused(capsys, "run", "--agent", "cemrl", "--env", tmp_path / "Long.toml", "--device", "cpu", "--out", tmp_path / "runs")
        assert message in error


@pytest.mark.parametrize(
    ("key", "most"),
    [
        ("actor_critic.batch_size", 1_000_000),
        ("inference.batch_size", 1_000_000),
        ("inference.latent_dim", 1024),
        ("exploration.colour_high", 10),
        ("exploration.policy_colour", 10),
        ("schedule.replay_trials", 10**9),
        ("relabel.utility_batch", 1_000_000),
        ("relabel.copies", 10_000),
        ("schedule.iterations", 10**9),
    ],
)
def test_keys_have_bounds(capsys: pytest.CaptureFixture[str], tmp_path: Path, key: str, most: int) -> None:
    error = refused(capsys, *RUN, "--agent", "dmrlad", "--out", tmp_path, "--set", f"{key}={10**12}")
    assert f"--set: key '{key}': Input should be less than or equal to {most}, got 1000000000000" in error


def test_threads_and_episodes_have_bounds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    error = refused(capsys, "run", "--agent", "random", "--out", tmp_path, "--threads", str(10**20))
    assert "threads: expected at most 1024, got 100000000000000000000" in error
    config, folder = plan("random", "PointGoal", budget="smoke", device="cpu", threads=1, out=tmp_path)
    train_run(config, folder, resume=False, command=["test"], quiet=True)
    assert "episodes: expected at most 10000, got 1000000000" in refused(capsys, "evaluate", folder, "--episodes", str(10**9))
    assert "threads: expected at most 1024" in refused(capsys, "evaluate", folder, "--threads", str(10**20))
    with pytest.raises(CardError, match="episodes: expected at least 1, got 0"):
        evaluate(folder, episodes=0)


def test_runs_that_do_not_fit_side_by_side(capsys: pytest.CaptureFixture[str], tmp_path: Path, memory: Any) -> None:
    def given(agent: str, count: int) -> list[str]:
        return ["run", "--agent", agent, "--env", "CheetahVelSparse", *(part for seed in range(count) for part in ("--seed", str(seed)))]

    memory(3 * PROGRAM)
    error = refused(capsys, *given("random", 5), "--out", tmp_path, "--jobs", "4")
    assert re.search(
        r"4 runs at a time need at least 6\d\d MiB of memory, there are 450 MiB \(left on this machine\); expected fewer --jobs$", error
    )
    memory(2 * GIB)
    error = refused(capsys, *given("oracle", 9), "--out", tmp_path, "--device", "cpu", "--pack")
    assert re.search(r"9 runs at a time need at least \S+ GiB of memory, there are 2\.0 GiB .*; expected no --pack$", error)


# ---- the estimate against what it estimates -----------------------------------------------------------------------------


@pytest.mark.parametrize("belief_input", ["mean", "mean_and_deviation"])
def test_the_replay_takes_what_was_reckoned(belief_input: str) -> None:
    agent = agent_of(actor_critic={"belief_input": belief_input})
    tensors = [*agent.replay.data.values(), agent.replay.belief]
    taken = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    indices = agent.config.schedule.replay_trials * (8 + 1 + 1)  # length and two flags of a trial, which are not counted
    assert estimate(agent.config, TOY)["replay"] + indices == taken


def test_networks_take_a_little_more_than_was_reckoned() -> None:
    agent = agent_of(actor_critic={"hidden": [64, 64, 64]}, inference={"encoder_hidden": [64, 64], "decoder_hidden": [64, 64]})
    agent.learn(trials_of(0))
    counted: dict[int, int] = {}

    def count(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            counted[value.data_ptr()] = value.numel() * value.element_size()
        elif isinstance(value, dict):
            for entry in value.values():
                count(entry)

    count(agent.state_dict())
    reckoned = estimate(agent.config, TOY)["networks"]
    weights_and_moments = sum(counted.values())
    assert 0.5 * weights_and_moments < reckoned < 1.5 * weights_and_moments  # gradients are not in a checkpoint


@pytest.mark.parametrize(
    ("agent", "settings"),
    [
        ("dmrlad", ["relabel.copies=3", "relabel.copies_by_gain=1", "relabel.revisited=2"]),
        ("pearl-hfr", ["relabel.copies=2"]),
        ("rl2", ["schedule.trials_per_task=3"]),
    ],
)
def test_an_iteration_adds_what_was_reckoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent: str, settings: list[str]) -> None:
    def add(replay: TrialReplay, trials: dict[str, torch.Tensor]) -> torch.Tensor:
        added.append(len(trials["length"]))
        return plain(replay, trials)

    plain, added, seen = TrialReplay.add, [], []
    monkeypatch.setattr(TrialReplay, "add", add)
    monkeypatch.setattr(api, "check_replay", lambda config, sizes: seen.append(additions(config, sizes)))
    settings = [*settings, "schedule.iterations=3", "schedule.initial_tasks=6", "exploration.initial_iterations=1"]
    config, folder = plan(agent, "PointGoalSparse", budget="smoke", device="cpu", threads=1, out=tmp_path, overrides=settings)
    train_run(config, folder, resume=False, command=["test"], quiet=True)
    initial, later = seen[0]
    reckoned = [count for addition in (initial, later, later) for count in (addition.trials, addition.copies) if count]
    assert added == reckoned


def test_what_is_published_fits(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every preset on every family: no replay is too small, and 24 GiB are enough for all, 8 for the smaller budgets."""
    monkeypatch.setattr("dmrlad_bench.harness.api.family", lambda name: families[name])
    families = {name: TaskFamily(load_family(name)) for name in family_names()}
    seen = 0
    for name, solved in families.items():
        for agent in agent_names():
            if load_agent(agent).algorithm == "scripted":
                try:
                    check_scripted(solved)
                except CardError:
                    continue
            if agent in ("thompson", "task-posterior") and (solved.tasks_change or not solved.relabelable):
                continue  # refused, see test_families_bar.py
            for budget in BUDGETS if agent in ("dmrlad", "oracle") else ("smoke", "full"):
                memory(24 * GIB if budget in ("standard", "full") else 8 * GIB)
                config, _ = plan(agent, name, budget=budget, device="cpu", threads=1)
                assert needed_memory(config, solved) > PROGRAM // 2
                seen += 1
    assert seen > 500


def test_a_trial_grows_with_what_it_records() -> None:
    changing = Sizes(**{**vars(TOY), "changing": True})
    assert trial_bytes(changing) - trial_bytes(TOY) == 8 * TOY.steps


# ---- what there is ------------------------------------------------------------------------------------------------------


def test_the_tightest_group_counts_and_what_the_machine_has_left(tmp_path: Path) -> None:
    meminfo, membership, mount = tmp_path / "meminfo", tmp_path / "membership", tmp_path / "mount"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\nSwapFree:  1000 kB\n")
    membership.write_text("4:memory:/one/two\n0::/a/b\n")
    (mount / "a" / "b").mkdir(parents=True)
    (mount / "memory" / "one" / "two").mkdir(parents=True)
    assert available_memory(meminfo, mount, membership) == (5000 * 1024, "left on this machine")
    (mount / "a" / "b" / "memory.max").write_text("max\n")
    (mount / "a" / "memory.max").write_text("3000000\n")
    (mount / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert available_memory(meminfo, mount, membership) == (3_000_000, "limit of the control group")
    (mount / "memory" / "one" / "two" / "memory.limit_in_bytes").write_text("2000000\n")
    assert available_memory(meminfo, mount, membership) == (2_000_000, "limit of the control group")
    assert available_memory(tmp_path / "none", tmp_path / "none", tmp_path / "none") != (0, "")
