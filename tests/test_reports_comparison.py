"""Comparisons: what is read, what is refused, what the numbers are, and the four forms of the tables."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from report_results import REFERENCES, make_result, use_references, write_run

import dmrlad_bench
from dmrlad_bench.cards import CardError
from dmrlad_bench.reports.comparison import Comparison, compare
from dmrlad_bench.reports.formats import FORMATS, escaped
from dmrlad_bench.reports.results import Result, TrialMatrix
from dmrlad_bench.reports.statistics import probability_of_improvement

LEVELS = {"dmrlad": 5.0, "random": 0.0, "oracle": 8.0}


@pytest.fixture(autouse=True)
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_references(tmp_path / "cards", monkeypatch)


def agents(*names: str, seeds: tuple[int, ...] = (0, 1, 2), **options: Any) -> list[Result]:
    return [make_result(name, seed=seed, level=LEVELS[name], **options) for name in names for seed in seeds]


def records(comparison: Comparison) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(comparison.table("csv"))))


def value(comparison: Comparison, agent: str, measure: str, episode: int = 3, family: str = "DMRLAD/PointGoalSparse-v0") -> float:
    wanted = {"agent": agent, "measure": measure, "episode": str(episode), "family": family}
    found = [record for record in records(comparison) if wanted.items() <= record.items()]
    assert len(found) == 1
    return float(found[0]["value"])


def test_the_numbers_follow_from_the_scores() -> None:
    runs = agents("dmrlad", "random")
    comparison = dmrlad_bench.compare(runs)
    random, oracle = REFERENCES["PointGoalSparse"] or (0.0, 1.0)
    for episode in (1, 2, 3):
        returns = np.stack([run.scores().returns[:, episode - 1] for run in runs[:3]])
        normalised = (returns - random) / (oracle - random)
        assert value(comparison, "dmrlad", "return", episode) == pytest.approx(returns.mean())
        assert value(comparison, "dmrlad", "normalised", episode) == pytest.approx(normalised.mean())
    success = np.stack([run.scores().success[:, 2] for run in runs[:3]])
    assert value(comparison, "dmrlad", "success") == pytest.approx(success.mean())
    assert value(comparison, "random", "improvement") == 0.0
    first = next(record for record in records(comparison) if record["measure"] == "return" and record["episode"] == "3")
    means = returns.mean(axis=1)
    expected = scipy.stats.t.interval(0.95, 2, loc=means.mean(), scale=scipy.stats.sem(means))
    assert (float(first["low"]), float(first["high"])) == pytest.approx(expected)
    assert [float(entry) for entry in first["by_run"].split()] == pytest.approx(list(means))
    other = np.stack([run.scores().returns[:, 2] for run in runs[3:]]).mean(axis=1)
    apart = next(record for record in records(comparison) if record["measure"] == "difference")
    paired = scipy.stats.ttest_rel(other, means).confidence_interval(0.95)
    assert (float(apart["low"]), float(apart["high"])) == pytest.approx(tuple(paired))
    assert (first["seeds"], first["tasks"], first["against"], first["mixed"]) == ("0 1 2", "20", "", "")
    assert float(first["minutes"]) == pytest.approx(np.mean([run.wall_seconds.total for run in runs[:3]]) / 60)


def test_an_agents_numbers_do_not_depend_on_the_others() -> None:
    alone, among = compare(agents("dmrlad")), compare(agents("random", "dmrlad", "oracle"), baseline="dmrlad")
    own = [record for record in records(among) if record["agent"] == "dmrlad"]
    assert own == records(alone)
    assert compare(agents("dmrlad")).table() == alone.table()


def test_split_and_actions_are_chosen() -> None:
    runs = agents("dmrlad")
    train = np.mean([run.scores("train").returns[:, 2].mean() for run in runs])
    stochastic = np.mean([run.scores("test", deterministic=False).returns[:, 2].mean() for run in runs])
    assert value(compare(runs, split="train"), "dmrlad", "return") == pytest.approx(train)
    assert value(compare(runs, deterministic=False), "dmrlad", "return") == pytest.approx(stochastic)
    assert "80 train tasks, deterministic actions" in compare(runs, split="train").table()
    with pytest.raises(CardError, match=r"result of dmrlad, seed 0: the result has no deterministic scores of 'tset'; it has: test det"):
        compare(runs, split="tset")


def test_all_families_weigh_the_same() -> None:
    runs = agents("dmrlad", "random") + agents("dmrlad", "random", family="PointGoal", seeds=(0, 1))
    comparison = compare(runs)
    for measure, own in (("mean", "normalised"), ("median", "normalised"), ("success", "success"), ("improvement", "improvement")):
        each = [value(comparison, "random", own, family=f"DMRLAD/{name}-v0") for name in ("PointGoalSparse", "PointGoal")]
        assert value(comparison, "random", measure, family="all") == pytest.approx(np.mean(each))
    scores = [group.normalised[:, :, 2].mean(axis=1) for group in comparison.of_agent("dmrlad") if group.normalised is not None]
    matrix = np.stack([np.repeat(scores[0], 2), np.repeat(scores[1], 3)])  # three runs and two
    assert value(comparison, "dmrlad", "iqm", family="all") == pytest.approx(scipy.stats.trim_mean(matrix.ravel(), 0.25))
    assert value(comparison, "dmrlad", "optimality_gap", family="all") == pytest.approx(1.0 - np.minimum(matrix, 1.0).mean())
    assert {found["low"] for found in records(comparison) if found["family"] == "all"} == {""}  # two runs on one family
    assert "fewer than 3 runs on some family, so no interval: dmrlad, random" in comparison.table()
    enough = compare(runs + agents("dmrlad", "random", family="PointGoal", seeds=(2,)))
    for found in (record for record in records(enough) if record["family"] == "all"):
        assert float(found["low"]) <= float(found["value"]) <= float(found["high"])
    partial = compare([*runs, *agents("oracle")])
    assert "left out, for they have not run on all families: oracle" in partial.table()
    assert not [record for record in records(partial) if record["family"] == "all" and record["agent"] == "oracle"]


def test_without_references_there_are_returns_only() -> None:
    comparison = compare(agents("dmrlad", "random", family="CheetahVelSparse"))
    assert {record["measure"] for record in records(comparison)} == {"return", "success", "difference", "improvement"}
    assert "no normalised scores and no regret: the family has no reference scores" in comparison.table()
    row = next(line for line in comparison.table("markdown").splitlines() if line.startswith("| dmrlad |"))
    assert [cell.strip() for cell in row.split("|")[9:11]] == ["-", "-"]
    with_own = compare(agents("dmrlad", family="CheetahVelSparse", reference=(0.0, 10.0)))
    own = np.mean([run.scores().returns[:, 2] for run in agents("dmrlad", family="CheetahVelSparse")]) / 10
    assert value(with_own, "dmrlad", "normalised", family="DMRLAD/CheetahVelSparse-v0") == pytest.approx(own)


def test_the_cards_references_hold_for_older_results() -> None:
    old, new = agents("dmrlad"), agents("dmrlad", reference=(-100.0, 100.0))
    assert compare(old).table("csv") == compare(new).table("csv")


def test_the_baseline() -> None:
    runs = agents("dmrlad", "oracle")
    pair = [np.stack([[run.scores().mean_returns[2]] for run in chosen]) for chosen in (runs[:3], runs[3:])]
    assert value(compare(runs), "oracle", "improvement") == pytest.approx(probability_of_improvement(pair[1], pair[0]))
    assert value(compare(runs, baseline="oracle"), "dmrlad", "improvement") == pytest.approx(probability_of_improvement(*pair))
    assert "P(better than oracle)" in compare(runs, baseline="oracle").table()
    with pytest.raises(CardError, match=r"unknown baseline 'orcale' \(did you mean 'oracle'\?\); accepted: dmrlad, oracle"):
        compare(runs, baseline="orcale")


def test_few_runs_and_unequal_seeds_are_said() -> None:
    comparison = compare(agents("dmrlad", seeds=(3,)) + agents("random", seeds=(0, 1)) + agents("oracle"))
    text = comparison.table()
    assert "fewer than 3 runs, so no interval and no rank, and the runs' values in parentheses: dmrlad, random" in text
    assert "seeds differ: dmrlad: 3; random: 0, 1; oracle: 0, 1, 2" in text
    assert not re.search(r"│ (dmrlad|random) .*\[", text)
    assert re.search(r"│ oracle .*\[", text)
    first, second = (run.scores().mean_returns[2] for run in agents("random", seeds=(0, 1)))
    assert f"{(first + second) / 2:.2f} ({first:.2f}; {second:.2f})" in text
    single = [record for record in records(comparison) if record["agent"] == "dmrlad"]
    assert {(record["low"], record["high"]) for record in single} == {("", "")}
    assert "nan" not in text + comparison.table("csv") + comparison.table("latex")
    pair = compare(agents("dmrlad", "random", seeds=(0,)) + agents("dmrlad", "random", family="PointGoal"))
    assert "fewer than 3 runs on some family, so no interval: dmrlad, random" in pair.table()


def test_agents_that_no_interval_parts_share_a_rank() -> None:
    runs = agents("dmrlad", "oracle", "random") + [make_result("cemrl", seed=seed, level=5.1) for seed in (0, 1, 2)]
    comparison = compare([*runs, make_result("pearl")])
    ranks = {"dmrlad": 1, "oracle": 1, "random": 3, "cemrl": 1, "pearl": None}  # the oracle in its own track
    assert comparison.ranks("DMRLAD/PointGoalSparse-v0") == ranks
    rows = [line.strip("| ").split(" | ") for line in comparison.table("markdown").splitlines() if line.startswith("| ")]
    assert [row[6].strip() for row in rows[2:7]] == ["1", "3", "1", "-", "1"]
    assert rows[6][0].startswith("oracle (privileged)")


# ---- what is refused ----------------------------------------------------------------------------------------------------


def other_tasks(result: Result) -> Result:
    test = result.final[0]
    fewer = test.model_copy(update={name: getattr(test, name)[:10] for name in ("task_index", "returns", "success")})
    return result.model_copy(update={"final": (fewer, *result.final[1:]), "agent": result.agent.model_copy(update={"digest": "f" * 64})})


def other_family(result: Result) -> Result:
    return result.model_copy(update={"family": result.family.model_copy(update={"digest": "b" * 64})})


def other_agent(result: Result) -> Result:
    return result.model_copy(update={"agent": result.agent.model_copy(update={"digest": "a" * 64})})


MIXED: list[tuple[str, Callable[[], Result], str]] = [
    ("budget", lambda: make_result("random", budget="full"), "random (full)"),
    ("episodes of the trial", lambda: make_result("random", episodes=2), "random (K = 2)"),
    ("family digest", lambda: other_family(make_result("random")), "random (family bbbbbbbb"),
    ("agent digest", lambda: other_agent(make_result("dmrlad", seed=5)), "dmrlad (agent aaaaaaaa)"),
    ("test tasks", lambda: other_tasks(make_result("random")), "random (10 tasks)"),
]


@pytest.mark.parametrize(("field", "make", "label"), MIXED, ids=[field for field, _, _ in MIXED])
def test_mixing_is_refused_with_the_field_or_marked(tmp_path: Path, field: str, make: Callable[[], Result], label: str) -> None:
    odd = make()
    paths = [write_run(tmp_path / "a", make_result("dmrlad", seed=seed)) for seed in (0, 1)] + [write_run(tmp_path / "b", odd)]
    with pytest.raises(CardError) as caught:
        compare(paths)
    message = str(caught.value)
    assert message.startswith(f"{field} differs: ")
    assert str(paths[0]) in message
    assert str(paths[2]) in message
    assert "--allow-mixed" in message
    assert "\n" not in message
    allowed = compare(paths, allow_mixed=True)
    for form in ("table", "markdown"):
        assert f"MIXED: {field} differs: " in allowed.table(form)
    assert all(record["mixed"].startswith(field) for record in records(allowed))
    assert any(entry.startswith(label) for entry in allowed.agents), allowed.agents
    assert len(allowed.agents) == 2


def test_a_reference_that_differs_is_mixing() -> None:
    runs = [make_result(name, family="CheetahVel", reference=(0.0, top)) for name, top in (("dmrlad", 10.0), ("random", 11.0))]
    with pytest.raises(CardError, match=r"reference scores differs: \(0.0, 10.0\) in result of dmrlad, seed 0 but \(0.0, 11.0\) in"):
        compare(runs)


def test_the_same_run_twice(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / name, make_result()) for name in "ab")
    for given in ([first, second], [first, first], [tmp_path]):
        with pytest.raises(CardError, match=r"dmrlad on DMRLAD/PointGoalSparse-v0, budget quick, seed 0 is there twice: .*a/.* and "):
            compare(given)
    with pytest.raises(CardError, match="is there twice"):
        compare([first, second], allow_mixed=True)


def test_runs_are_given_in_several_ways(tmp_path: Path) -> None:
    class Run:
        folder = write_run(tmp_path, make_result(seed=0))

    other = write_run(tmp_path, make_result(seed=1))
    expected = compare([make_result(seed=0), make_result(seed=1)]).table("csv")
    cases: list[Any] = [[Run(), other], [tmp_path], [str(tmp_path / "PointGoalSparse")], tmp_path, [Run.folder / "result.json", str(other)]]
    for given in cases:
        assert compare(given).table("csv") == expected


def test_bad_runs_are_one_line(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "whole", make_result())
    content = json.loads((whole / "result.json").read_bytes())
    unfinished = tmp_path / "several" / "unfinished"
    unfinished.mkdir(parents=True)
    write_run(tmp_path / "several", make_result())
    (unfinished / "config.toml").touch()
    (tmp_path / "empty").mkdir()

    def written(name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
        changed = json.loads(json.dumps(content))
        change(changed)
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(changed))
        return tmp_path / name

    def keep(text: str) -> Path:
        (tmp_path / "cut").mkdir()
        (tmp_path / "cut" / "result.json").write_text(text)
        return tmp_path / "cut"

    cases: list[tuple[Any, str]] = [
        ([], "no runs given; accepted: run folders"),
        ([tmp_path / "nowhere"], "nowhere: no such file or folder; accepted: run folders, result.json"),
        ([tmp_path / "empty"], "empty: holds no run; accepted"),
        ([unfinished], "unfinished: no result.json: .*unfinished"),
        ([tmp_path / "several"], "unfinished: no result.json"),  # one unfinished run among those of a folder
        ([written("older", lambda entry: entry.update(format_version=0))], "result of format version 0; accepted: 2"),
        (
            [written("nan", lambda entry: entry["final"][0]["returns"][3][0].__setitem__(0, float("nan")))],
            "truncated or not JSON: NaN is no number",
        ),
        (
            [written("narrow", lambda entry: entry["final"][0]["returns"][3].pop())],
            "an entry for each task, each trial .* and each episode",
        ),
        ([written("other", lambda entry: entry.update(colour="red"))], "colour"),
        ([keep(json.dumps(content)[:-100])], "cut/result.json: truncated or not JSON"),
    ]
    for given, message in cases:
        with pytest.raises(CardError, match=message) as caught:
            compare(given)
        assert "\n" not in str(caught.value)


def doubled(result: Result) -> Result:
    return result.model_copy(update={"final": (*result.final, result.final[0])})


def repeated_task(result: Result) -> Result:
    first = result.final[0].model_copy(update={"task_index": (0, 0, *range(2, 20))})
    return result.model_copy(update={"final": (first, *result.final[1:])})


def shorter_trials(result: Result) -> Result:
    train = result.final[1]
    short = TrialMatrix(
        split="train",
        deterministic=True,
        task_index=train.task_index,
        returns=tuple(tuple(trial[:2] for trial in row) for row in train.returns),
        success=tuple(tuple(trial[:2] for trial in row) for row in train.success),
    )
    return result.model_copy(update={"final": (result.final[0], short, *result.final[2:])})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (doubled, "key 'final': a split is there twice"),
        (repeated_task, "key 'final': a task of 'test' is there twice"),
        (shorter_trials, "key 'final': trials of 2 and 3 episodes"),
        (
            lambda result: result.model_copy(update={"environment_steps": 30_000}),
            "'environment_steps' is 30000, at the end of the curve 97200",
        ),
        (lambda result: result.model_copy(update={"gradient_updates": 1}), "key 'gradient_updates' is 1"),
        (lambda result: result.model_copy(update={"curve": ()}), "key 'curve': it is empty"),
        (lambda result: result.model_copy(update={"curve": result.curve[::-1]}), "key 'curve': environment steps decrease"),
    ],
)
def test_a_result_edited_by_hand_is_found(tmp_path: Path, edit: Callable[[Result], Result], message: str) -> None:
    path = write_run(tmp_path, edit(make_result()))
    with pytest.raises(CardError, match=rf"{path}: contradicts itself \(edited by hand\?\): .*{re.escape(message)}"):
        compare([path])


# ---- forms --------------------------------------------------------------------------------------------------------------


def test_csv_is_read_back() -> None:
    comparison = compare(agents("dmrlad", "random"))
    found = records(comparison)
    assert len(found) == 2 * 3 * 4 + 2
    assert {len(record) for record in found} == {19}
    assert {record["family"] for record in found} == {"DMRLAD/PointGoalSparse-v0"}


def test_markdown_is_read_back() -> None:
    comparison = compare(agents("dmrlad", "random"))
    tables = re.split(r"^### ", comparison.table("markdown"), flags=re.MULTILINE)[1:]
    assert len(tables) == 3
    for table in tables:
        rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
        assert len({len(row) for row in rows}) == 1
        assert set("".join(rows[1]).strip()) <= set("-: ")
    headline = [cell.strip() for cell in next(line for line in tables[0].splitlines() if line.startswith("| dmrlad")).strip("|").split("|")]
    assert headline[1] == "3"
    assert float(headline[4].split()[0]) == pytest.approx(value(comparison, "dmrlad", "return"), abs=0.005)
    assert float(headline[2].split()[0]) == pytest.approx(value(comparison, "dmrlad", "return", episode=1), abs=0.005)
    lost = np.mean([(10.5 - run.scores().returns).sum(axis=1).mean() for run in agents("dmrlad")])
    assert float(headline[8].split()[0]) == pytest.approx(lost, abs=0.005)
    assert value(comparison, "dmrlad", "regret") == pytest.approx(lost)


def test_latex_has_whole_environments_and_rows() -> None:
    text = compare(agents("dmrlad", "random") + agents("dmrlad", family="PointGoal")).table("latex")
    opened = re.findall(r"\\begin\{(\w+)\}", text)
    assert opened == ["table", "tabular"] * 7
    assert len(opened) == len(re.findall(r"\\end\{\w+\}", text))
    for tabular in re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", text, re.DOTALL):
        columns = len(re.match(r"\\begin\{tabular\}\{(l r*|lr*)\}", tabular)[1])  # pyright: ignore[reportOptionalSubscript]
        rows = [line for line in tabular.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {columns}
    assert r"95\%" in text
    assert not re.search(r"(?<!\\)[%#$_]", text)
    assert text.count("{") == text.count("}")
    assert escaped(r"a_b & 50% of {x} ~ \^") == r"a\_b \& 50\% of \{x\} \textasciitilde{} \textbackslash{}\textasciicircum{}"


def test_plain_tables_hold_every_agent_and_episode() -> None:
    text = compare(agents("dmrlad", "random")).table()
    adaptation = text.partition("adaptation within the trial")[2]
    assert [int(episode) for episode in re.findall(r"│ +([123]) │ +-?\d", adaptation)].count(2) == 2
    assert "adaptation within the trial" in text
    assert "\x1b" not in text


def test_unknown_format() -> None:
    with pytest.raises(CardError, match=r"unknown format 'markdwon' \(did you mean 'markdown'\?\); accepted: table, markdown, csv, latex"):
        compare(agents("dmrlad")).table("markdwon")
    assert len(FORMATS) == 4
