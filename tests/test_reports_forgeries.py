"""Forged entries: whoever edits a file and makes all digests and aggregates again is refused all the same, in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import refused
from report_results import make_result, use_references, with_config

from dmrlad_bench.cards import CardError, load_agent, load_family, resolve_agent
from dmrlad_bench.cards.amounts import evaluated_iterations, steps_until
from dmrlad_bench.reports.checking import check_leaderboards
from dmrlad_bench.reports.leaderboard import Entry, content_digest, make_entry
from dmrlad_bench.reports.leaderboard_tables import leaderboard_markdown, leaderboard_tables
from dmrlad_bench.reports.published_agent import About, PublishedAgent
from dmrlad_bench.reports.publishing import make_entries
from dmrlad_bench.reports.reading import read_runs
from dmrlad_bench.reports.results import Result, TrialMatrix

ABOUT = About(authors=("Ada Lovelace",))
Content = dict[str, Any]


@pytest.fixture(autouse=True)
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_references(tmp_path / "cards", monkeypatch)


def honest(agent: str = "dmrlad", **options: Any) -> Entry:
    (entry,) = make_entries(read_runs([make_result(agent, seed=seed, **options) for seed in (0, 1, 2)]), None, ABOUT)
    return entry


def published(folder: Path, *entries: Entry) -> Path:
    for entry in entries:
        path = folder / entry.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(entry.json_text())
    (folder / "README.md").write_text(leaderboard_markdown(entries))
    return folder


def forged(entry: Entry, change: Callable[[Content], Any]) -> Entry:
    """The entry after `change`, with every aggregate and digest made again, as somebody with intent would."""
    content = entry.model_dump(mode="json")
    change(content)
    runs = [Result.model_validate(run) for run in content["runs"]]
    return make_entry(runs, PublishedAgent.model_validate(content["agent"]), entry.family.reference, About.model_validate(content["about"]))


def every_run(change: Callable[[Content], Any]) -> Callable[[Content], Any]:
    def all_of_them(content: Content) -> None:
        for run in content["runs"]:
            change(run)

    return all_of_them


def high_returns(run: Content) -> None:
    for matrix in run["final"]:
        matrix["returns"] = (np.array(matrix["returns"]) + 1e6).tolist()


def one_step(run: Content) -> None:
    run["environment_steps"] = run["curve"][-1]["environment_steps"] = 1
    for point in run["curve"]:
        point["environment_steps"] = 1


def one_run_thrice(content: Content, change: float = 0.0) -> None:
    first = content["runs"][0]
    for seed, run in enumerate(content["runs"]):
        run["final"] = [{**matrix, "returns": (np.array(matrix["returns"]) * (1.0 + seed * change)).tolist()} for matrix in first["final"]]
        run["curve"] = first["curve"]
        run["wall_seconds"] = {**first["wall_seconds"], "total": first["wall_seconds"]["total"] + seed * 1e-6}


def shorter_schedule(run: Content) -> None:
    """Half of the iterations, all else in keeping."""
    run["curve"] = run["curve"][: len(run["curve"]) // 2]
    run.update({key: run["curve"][-1][name] for key, name in (("iterations", "iteration"), ("environment_steps", "environment_steps"))})
    run["gradient_updates"] = run["curve"][-1]["gradient_updates"]


def all_succeed(run: Content) -> None:
    run["final"][0]["success"] = [[[True] * len(trial) for trial in task] for task in run["final"][0]["success"]]
    run["final"][0]["returns"][3][1][2] = 0.0  # and the last step was worth nothing


def other_discount(content: Content) -> None:
    content["agent"]["config"]["actor_critic"]["discount"] = 0.5


def own_digest_for_a_preset(content: Content) -> None:
    """Another configuration, consistent with itself, under a preset's name."""
    config = resolve_agent(load_agent("dmrlad"), "PointGoalSparse", "quick", ("actor_critic.discount=0.9",))
    content["agent"].update(config=config.model_dump(mode="json"), digest=config.digest)
    for run in content["runs"]:
        run["agent"]["digest"] = config.digest


def more_updates(run: Content) -> None:
    for point in run["curve"]:
        point["gradient_updates"] *= 50
    run["gradient_updates"] *= 50


def denser_curve(run: Content) -> None:
    run["curve"] = [point for point in run["curve"] for _ in range(2)]


def named(option: str, value: str) -> Callable[[Content], None]:
    def change(run: Content) -> None:
        run["command"][run["command"].index(option) + 1] = value

    return change


FORGERIES: dict[str, tuple[Callable[[Content], Any], str]] = {
    # named in the issue
    "returns of 1e6": (every_run(high_returns), r"seed 0: key 'final': a return of 1\.0\d+e\+06 .* by the reward of .* to 20"),
    "one step": (every_run(one_step), r"seed 0: key 'environment_steps' is 1, by its schedule 97200"),
    "no time at all": (
        every_run(lambda run: run["wall_seconds"].update(total=0.0)),
        r"seed 0: key 'wall_seconds.total' is 0, expected more than 0",
    ),
    "one run under three seeds": (one_run_thrice, "duplicate: the same run stands under several seeds, 0 and 1"),
    # our own
    "one run under three seeds, scaled": (lambda it: one_run_thrice(it, 2e-4), "duplicate: the same run stands under several seeds"),
    "half of the training": (every_run(shorter_schedule), r"seed 0: key 'iterations' is \d+, its schedule has \d+"),
    "success without reward": (every_run(all_succeed), r"a return of \S+ with success in 'test' .* from 0.8 to 20"),
    "a config that was not run": (other_discount, r"key 'agent.config' has digest '\w+', the runs' is"),
    "a preset's name for another configuration": (
        own_digest_for_a_preset,
        r"agent 'dmrlad': no preset of that name was ever published with digest '\w{64}' \(not today's, not in digests.toml\)",
    ),
    "the whole leaderboard's updates": (
        every_run(more_updates),
        r"key 'gradient_updates' is \d+ after iteration \d+, by its schedule from",
    ),
    "a curve of other points": (every_run(denser_curve), r"key 'curve': 24 points, its schedule has 12"),
    "a curve beyond the reward": (
        every_run(lambda run: run["curve"][0]["scores"]["validation"].update(returns=[30.0, 30.0, 30.0])),
        r"key 'curve': a mean return of 30 after iteration \d+, by the reward",
    ),
    "another seed's command": (every_run(named("--seed", "9")), r"seed 0: key 'command' has --seed 9, and the run is one of 0"),
    "another agent's command": (every_run(named("--agent", "oracle")), r"key 'command' names 'oracle', and the run is one of 'dmrlad'"),
    "another family's command": (every_run(named("--env", "CheetahVel")), r"key 'command' has --env CheetahVel, and the run is one of"),
    "an unknown version": (
        every_run(lambda run: run["packages"].update({"dmrlad-bench": "not installed"})),
        r"key 'packages.dmrlad-bench' is 'not installed': the version that it ran with must be known",
    ),
    "time that runs backwards": (
        every_run(lambda run: run["curve"][2].update(seconds=1e9)),
        r"key 'curve': seconds that do not rise from 0 to the 30\d\.\d+ s of the whole run",
    ),
    "phases longer than the run": (every_run(lambda run: run["wall_seconds"]["phases"].update(improve=1e5)), "key 'wall_seconds.phases'"),
    "a privileged track that is none": (lambda it: it["agent"].update(track="privileged"), "key 'agent.track' is .*privileged"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_entry_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    change, message = FORGERIES[name]
    folder = published(tmp_path / "boards", honest())
    assert check_leaderboards(folder) == []
    faults = check_leaderboards(published(folder, forged(honest(), change)))
    assert len(faults) == 1, faults
    assert re.search(rf"dmrlad--quick\.json: .*{message}", faults[0]), faults[0]
    assert "\n" not in faults[0]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda run: run["wall_seconds"].update(total=-60.0), "runs.0.wall_seconds.total"),  # minus one minute
        (lambda run: run["curve"][0]["scores"]["validation"].update(success=[2.0, 2.0, 2.0]), "runs.0.curve.0.scores.validation.success"),
        (lambda run: run.update(environment_steps=-5), "runs.0.environment_steps"),
    ],
)
def test_what_no_number_can_be_is_not_even_read(tmp_path: Path, change: Callable[[Content], Any], where: str) -> None:
    entry = honest()
    folder = published(tmp_path / "boards", entry)
    content = entry.model_dump(mode="json")
    every_run(change)(content)
    (folder / entry.file_name).write_text(json.dumps(content))
    (fault,) = check_leaderboards(folder)
    assert fault.startswith(f"{folder / entry.file_name}: key '{where}")
    assert "\n" not in fault


def test_the_order_of_final_in_one_seed_changes_no_number(tmp_path: Path) -> None:
    """It moved a headline from 9.14 to 8.42 once."""
    entry = honest()
    turned = forged(entry, lambda content: content["runs"][1]["final"].reverse())
    assert turned.aggregates == entry.aggregates
    assert check_leaderboards(published(tmp_path / "boards", turned)) == []
    first = forged(entry, lambda content: content["runs"][0]["final"].reverse())
    assert first.aggregate("test", True, 3) == entry.aggregate("test", True, 3)
    scores = {(one.split, one.deterministic, one.episode): one for one in first.aggregates}
    assert scores == {(one.split, one.deterministic, one.episode): one for one in entry.aggregates}


def test_a_class_that_is_shown_the_task_cannot_stand_in_the_standard_track(tmp_path: Path) -> None:
    """A class with `task_observable = True` entered a board first, unmarked."""
    runs = [with_config(tmp_path, make_result("oracle", seed=seed, level=9.0), ("actor_critic.discount=0.9",)) for seed in (0, 1, 2)]
    (entry,) = make_entries(read_runs(runs), "seer", ABOUT)
    assert entry.agent.track == "privileged"
    below = leaderboard_tables([entry, honest()])[0].rows
    assert [row[:2] for row in below] == [("dmrlad", "1"), ("seer (privileged)", "1")]
    unmarked = forged(entry, lambda content: content["agent"].update(track="standard"))
    (fault,) = check_leaderboards(published(tmp_path / "boards", unmarked))
    assert re.search(r"seer--quick\.json: seed 0: key 'agent\.track' is .*'standard'", fault)

    def hide(content: Content) -> None:
        content["agent"]["track"] = "standard"
        content["agent"]["config"]["task_observable"] = False
        content["agent"]["config"].pop("track", None)

    (fault,) = check_leaderboards(published(tmp_path / "boards", forged(entry, hide)))
    assert re.search(r"seer--quick\.json: seed 0: key 'agent\.", fault)


def test_a_run_of_another_entry_is_a_duplicate_whatever_its_name_and_times(tmp_path: Path) -> None:
    entry = honest()

    def rename(content: Content) -> None:
        content["agent"].update(name="a-copy", preset=False)
        for run in content["runs"]:
            run["wall_seconds"]["total"] *= 1.5
            for matrix in run["final"]:
                matrix["returns"] = (np.array(matrix["returns"]) * 1.0005).tolist()

    (fault,) = check_leaderboards(published(tmp_path / "boards", entry, forged(entry, rename)))
    assert re.search(r"dmrlad--quick\.json: duplicate: the run of seed 0 is also in .*a-copy--quick\.json", fault)


def test_what_knows_no_chance_is_the_same_under_all_seeds(tmp_path: Path) -> None:
    runs = [make_result("scripted", seed=seed, level=9.0) for seed in (0, 1, 2)]
    same = [run.model_copy(update={"final": runs[0].final}) for run in runs]
    (entry,) = make_entries(read_runs(same), None, ABOUT)
    assert check_leaderboards(published(tmp_path / "boards", entry)) == []
    random = [make_result("random", seed=seed, level=1.0) for seed in (0, 1, 2)]
    with pytest.raises(CardError, match="agent 'random': duplicate: the same run stands under several seeds"):
        make_entries(read_runs([run.model_copy(update={"final": random[0].final}) for run in random]))
    constant = [constant_returns(make_result(seed=seed)) for seed in (0, 1, 2)]  # all of them failed: that says nothing
    assert len(make_entries(read_runs(constant))) == 1


def constant_returns(result: Result) -> Result:
    final = [
        TrialMatrix(
            **{
                **dict(matrix),
                "returns": np.zeros(np.shape(matrix.returns)).tolist(),
                "success": np.zeros(np.shape(matrix.returns), dtype=bool).tolist(),
            }
        )
        for matrix in result.final
    ]
    return result.model_copy(update={"final": tuple(final)})


def test_budgets_are_real(tmp_path: Path) -> None:
    """More steps than the budget's standard schedule has: said, marked, and without a rank."""
    runs = [scheduled(tmp_path, seed, ("schedule.iterations=600",)) for seed in (0, 1, 2)]
    (entry,) = make_entries(read_runs(runs), "patient", ABOUT)
    assert entry.budget_steps == "other"
    (table,) = leaderboard_tables([entry, honest(level=2.0)])
    assert [row[:2] for row in table.rows] == [("dmrlad", "1"), ("patient \N{DAGGER}", "-")]
    assert "\N{DAGGER} other environment steps than the budget's 97200, so no rank: patient" in table.notes
    folder = published(tmp_path / "boards", entry)
    assert check_leaderboards(folder) == []
    unsaid = entry.model_copy(update={"budget_steps": "standard"})
    published(folder, unsaid.model_copy(update={"content_digest": content_digest(unsaid)}))
    (fault,) = check_leaderboards(folder)
    assert "does not follow from its runs: key 'budget_steps' is 'standard', recomputed 'other'" in fault


def scheduled(folder: Path, seed: int, overrides: tuple[str, ...]) -> Path:
    """The folder of a run whose schedule was changed, with the curve that follows from it."""
    config, card = resolve_agent(load_agent("dmrlad"), "PointGoalSparse", "quick", overrides), load_family("PointGoalSparse")
    result = make_result(seed=seed, level=8.0)
    points = evaluated_iterations(config, config.schedule.iterations)
    curve = tuple(
        result.curve[0].model_copy(
            update={
                "iteration": iteration,
                "environment_steps": steps_until(config, card, iteration),
                "gradient_updates": config.schedule.policy_updates * iteration,
                "seconds": 290.0 * iteration / points[-1],
            }
        )
        for iteration in points
    )
    last = {name: getattr(curve[-1], name) for name in ("environment_steps", "gradient_updates")}
    return with_config(folder, result.model_copy(update={"iterations": points[-1], "curve": curve, **last}), overrides)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--paper", "arxiv 2109.09031"], "key 'paper': expected a link that begins with https:// or http://, got 'arxiv 2109.09031'"),
        (["--code", "javascript:alert(1)"], "key 'code': expected a link that begins with https://"),
        (["--author", " "], "key 'authors': author: expected one line of at most 300 characters, got ' '"),
        (["--author", "A\nB"], "author: expected one line"),
        (["--author", "Ada", "--author", "Ada"], "author: each once, got Ada, Ada"),
        (["--name", "mine"], "name 'mine': an agent that is no published preset needs its authors; give --author"),
    ],
)
def test_what_is_told_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    run = with_config(tmp_path / "runs", make_result())
    assert message in refused(capsys, "submit", run, "--out", tmp_path / "boards", *options)
    assert not (tmp_path / "boards").exists()
