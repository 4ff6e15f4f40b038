"""Leaderboard entries: what makes one, what is refused, and that no number can be changed unnoticed."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from report_results import REFERENCES, ROOT, make_result, use_references, with_config, with_returns, write_run

from dmrlad_bench.cards import CardError
from dmrlad_bench.protocol import EPISODES
from dmrlad_bench.reports.checking import check_leaderboards
from dmrlad_bench.reports.comparison import compare
from dmrlad_bench.reports.leaderboard import (
    Entry,
    content_digest,
    entry_schema,
    make_entry,
    read_entries,
    read_entry,
    remake,
)
from dmrlad_bench.reports.leaderboard_tables import changed_since, leaderboard_markdown, leaderboard_tables, leaderboard_text
from dmrlad_bench.reports.published_agent import About
from dmrlad_bench.reports.publishing import make_entries
from dmrlad_bench.reports.reading import read_runs
from dmrlad_bench.reports.register import REGISTER, register_text
from dmrlad_bench.reports.results import Result

SEEDS = (0, 1, 2)


@pytest.fixture(autouse=True)
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_references(tmp_path / "cards", monkeypatch)


def runs_of(agent: str = "dmrlad", seeds: tuple[int, ...] = SEEDS, **options: Any) -> list[Result]:
    return [make_result(agent, seed=seed, **options) for seed in seeds]


def entries_of(*results: Result, name: str | None = None) -> list[Entry]:
    return make_entries(read_runs(results), name)


def published(folder: Path, entries: list[Entry]) -> Path:
    """A leaderboards folder with these entries and its page."""
    for entry in entries:
        path = folder / entry.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(entry.json_text())
    (folder / "README.md").write_text(leaderboard_markdown(entries))
    return folder


def test_an_entry_holds_its_runs_and_what_follows_from_them() -> None:
    runs = runs_of()
    (entry,) = entries_of(*reversed(runs))
    assert entry.file_name == "PointGoalSparse/dmrlad--quick.json"
    assert (entry.seeds, entry.agent.preset, entry.family.reference) == (SEEDS, True, REFERENCES["PointGoalSparse"])
    assert [run.seed for run in entry.runs] == [0, 1, 2]
    for kept, run in zip(entry.runs, runs, strict=True):
        assert kept == run.model_copy(update={"command": run.command[:-2]})
        assert run.command[-2:] == ("--out", "/home/somebody/runs")
    assert entry.mean_minutes == pytest.approx(np.mean([run.wall_seconds.total for run in runs]) / 60)
    assert (entry.mean_environment_steps, entry.budget_steps) == (97_200, "standard")
    assert len(entry.aggregates) == 4 * EPISODES
    comparison = compare(runs)
    for episode in (1, 2, 3):
        found = entry.aggregate("test", True, episode)
        expected = comparison.measures(comparison.groups[0], episode - 1)
        assert found is not None
        assert found.normalised is not None
        assert {"return": found.returns, "success": found.success, "normalised": found.normalised, "regret": found.regret} == expected
    train = entry.aggregate("train", True, 3)
    assert train is not None
    assert train.returns.value == pytest.approx(np.mean([run.scores("train").returns[:, 2] for run in runs]))


def test_the_same_runs_give_the_same_file_whatever_their_order() -> None:
    runs = runs_of()
    assert entries_of(*runs)[0].json_text() == entries_of(*runs[::-1])[0].json_text()
    assert [entry.file_name for entry in entries_of(*runs, *runs_of("random"), *runs_of(family="PointGoal"))] == [
        "PointGoalSparse/dmrlad--quick.json",
        "PointGoalSparse/random--quick.json",
        "PointGoal/dmrlad--quick.json",
    ]


def test_the_file_is_read_back_and_is_of_the_published_schema(tmp_path: Path) -> None:
    (entry,) = entries_of(*runs_of())
    path = tmp_path / "entry.json"
    path.write_text(entry.json_text())
    assert json.loads(entry.json_text()) == entry.model_dump(mode="json")
    assert read_entry(path) == entry
    assert re.search(r"^ *\[[-\d.e]+, [-\d.e]+, [-\d.e]+\],$", entry.json_text(), re.MULTILINE)  # an episode triple is one line
    schema = (ROOT / "docs" / "leaderboard.schema.json").read_text()
    assert schema == entry_schema(), "regenerate it as CONTRIBUTING.md says"
    jsonschema.validate(json.loads(path.read_bytes()), json.loads(schema))


@pytest.mark.parametrize("seeds", [(4,), (4, 7)])
def test_fewer_than_three_runs_have_no_intervals(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    (entry,) = entries_of(*runs_of(seeds=seeds))
    for aggregate in entry.aggregates:
        assert (aggregate.returns.low, aggregate.returns.high, aggregate.returns.runs) == (None, None, len(seeds))
    folder = published(tmp_path / "boards", [entry])
    assert check_leaderboards(folder) == []
    page = (folder / "README.md").read_text()
    assert "fewer than 3 runs, so no interval and no rank, and the runs' values in parentheses: dmrlad" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| dmrlad |")]
    assert row.split(" | ")[1] == "-"
    last = [run.scores().mean_returns[2] for run in entry.runs]
    assert f"| {np.mean(last):.2f}{f' ({last[0]:.2f}; {last[1]:.2f})' if len(seeds) == 2 else ''} |" in row
    assert "nan" not in leaderboard_text([entry], "csv")


# ---- what is refused ----------------------------------------------------------------------------------------------------


def agent_digest(result: Result, digest: str = "a" * 64) -> Result:
    return result.model_copy(update={"agent": result.agent.model_copy(update={"digest": digest})})


def family_of(result: Result, **changes: str) -> Result:
    return result.model_copy(update={"family": result.family.model_copy(update=changes)})


def without(result: Result, split: str) -> Result:
    return result.model_copy(update={"final": tuple(matrix for matrix in result.final if matrix.split != split)})


def fewer_tasks(result: Result) -> Result:
    ood = result.final[2]
    fewer = ood.model_copy(update={name: getattr(ood, name)[:5] for name in ("task_index", "returns", "success")})
    return result.model_copy(update={"final": (*result.final[:2], fewer, *result.final[3:])})


REFUSED: list[tuple[Callable[[], list[Result]], str]] = [
    (lambda: [make_result(), agent_digest(make_result(seed=1))], r"agent digest differs: '\w{64}' in .*seed 0 but 'a{64}' in .*seed 1"),
    (lambda: [agent_digest(make_result())], r"seed 0: its configuration is not that of the preset 'dmrlad' with budget quick .* --name"),
    (lambda: [make_result("my-agent")], r"agent 'my-agent' is no published preset; give --name, or use one of: .*oracle"),
    (lambda: [make_result(), make_result()], "seed 0 is there twice: result of dmrlad, seed 0 and result of dmrlad, seed 0"),
    (lambda: [family_of(make_result(), id="DMRLAD/Own-v0")], "family 'DMRLAD/Own-v0' is not published; accepted: AntDir, "),
    (lambda: [family_of(make_result(), digest="b" * 64)], r"family DMRLAD/PointGoalSparse-v0 has digest 'b{64}' there, on the .* '\w{64}'"),
    (lambda: [without(make_result(), "ood")], "not the whole protocol: no scores of 'ood' with deterministic actions"),
    (lambda: [fewer_tasks(make_result())], "not the whole protocol: 5 tasks of 'ood' with deterministic actions, the family has 10"),
    (lambda: [make_result(episodes=2)], "not the whole protocol: trials of 2 episodes, the protocol has 3"),
    (
        lambda: [with_returns(make_result(), "test", 50.0)],
        r"a return of 5\d\.\d+ with success .*, by the reward of DMRLAD/PointGoalSparse-v0 from 0.8 to 20",
    ),
    (lambda: [], "no runs given"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_no_entry_is_made_of(make: Callable[[], list[Result]], message: str) -> None:
    with pytest.raises(CardError, match=message) as caught:
        entries_of(*make())
    assert "\n" not in str(caught.value)


def test_another_configuration_needs_a_name_authors_and_the_run_folder(tmp_path: Path) -> None:
    about = About(authors=("Ada Lovelace",), paper="https://example.org/paper", code="https://example.org/code")
    changed = [with_config(tmp_path, make_result(seed=seed), ("actor_critic.discount=0.9",)) for seed in SEEDS]
    (entry,) = make_entries(read_runs(changed), "dmrlad-cautious", about)
    assert (entry.agent.name, entry.agent.preset, entry.file_name) == (
        "dmrlad-cautious",
        False,
        "PointGoalSparse/dmrlad-cautious--quick.json",
    )
    config = entry.agent.resolved()
    assert config is not None
    assert (entry.agent.track, entry.about, config.actor_critic.discount) == ("standard", about, 0.9)
    assert changed_since(entry) is None
    assert check_leaderboards(published(tmp_path / "boards", [entry])) == []
    for name, message in (
        ("My Agent", "name 'My Agent': expected lower-case words, digits and single hyphens"),
        ("../up", "expected lower-case"),
        ("oracle", "name 'oracle': belongs to a published preset"),
        ("dmrlad", "belongs to a published preset"),
    ):
        with pytest.raises(CardError, match=message):
            make_entries(read_runs(changed), name, about)
    with pytest.raises(CardError, match="name 'mine': an agent that is no published preset needs its authors; give --author"):
        make_entries(read_runs(changed), "mine")
    with pytest.raises(CardError, match=r"the resolved agent is not known: expected a run folder whose config\.toml holds"):
        make_entries(read_runs([agent_digest(make_result())]), "mine", about)
    with pytest.raises(CardError, match="one name for several agents: dmrlad, random"):
        make_entries(read_runs([*runs_of(), *runs_of("random")]), "mine", about)


def test_the_run_folders_configuration_must_agree(tmp_path: Path) -> None:
    run = write_run(tmp_path, make_result())
    right = 'env = "DMRLAD/PointGoalSparse-v0"\nbudget = "quick"\nseed = 0\ndevice = "cpu"\nthreads = 1\n'
    (run / "config.toml").write_text(right)
    assert len(make_entries(read_runs([run]))) == 1
    (run / "config.toml").write_text(right.replace("seed = 0", "seed = 1"))
    with pytest.raises(CardError, match=r"key 'seed' is 0 in the result, 1 in config\.toml \(edited by hand\?\)"):
        make_entries(read_runs([run]))


# ---- checking -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    return published(tmp_path / "boards", entries_of(*runs_of(), *runs_of("random", level=0.0), *runs_of("oracle", (0, 1), level=9.0)))


def only_fault(folder: Path) -> str:
    faults = check_leaderboards(folder)
    assert len(faults) == 1, faults
    assert "\n" not in faults[0]
    return faults[0]


def test_what_was_published_is_in_order(boards: Path, tmp_path: Path) -> None:
    assert check_leaderboards(boards) == []
    (tmp_path / "none").mkdir()
    assert check_leaderboards(published(tmp_path / "none", [])) == []
    assert [entry.agent.name for entry in read_entries(boards)] == ["dmrlad", "oracle", "random"]


def test_one_digit_changed_anywhere_is_found(tmp_path: Path) -> None:
    boards = published(tmp_path / "boards", entries_of(*runs_of(seeds=(0, 1))))
    path = boards / "PointGoalSparse" / "dmrlad--quick.json"
    text = path.read_text()
    digits = [found.start() for found in re.finditer(r"\d", text)]
    chosen = np.random.default_rng(0).choice(digits, size=25, replace=False)
    for position in chosen:
        digit = str((int(text[position]) + 1) % 10)
        path.write_text(f"{text[:position]}{digit}{text[position + 1 :]}")
        assert check_leaderboards(boards), text[position - 60 : position + 20]
    path.write_text(text)
    assert check_leaderboards(boards) == []


def rewritten(boards: Path, change: Callable[[dict[str, Any]], Any], agent: str = "dmrlad") -> None:
    """Change an entry's content and give it the digest of the new content, as somebody with intent would."""
    path = boards / "PointGoalSparse" / f"{agent}--quick.json"
    content = json.loads(path.read_bytes())
    change(content)
    entry = Entry.model_validate(content)
    path.write_text(entry.model_copy(update={"content_digest": content_digest(entry)}).json_text())


def no_second_seed(content: dict[str, Any]) -> None:
    del content["runs"][1]
    content["seeds"] = [0, 2]


def same_run_under_all_seeds(content: dict[str, Any]) -> None:
    first = content["runs"][0]
    content["runs"] = [{**first, "seed": seed, "command": list(first["command"])} for seed in SEEDS]
    for run in content["runs"]:
        run["command"][run["command"].index("--seed") + 1] = str(run["seed"])
    entry = Entry.model_validate(content)
    content.update(make_entry(entry.runs, entry.agent, entry.family.reference).model_dump(mode="json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda it: it["aggregates"][2]["returns"].update(value=99.0), r"key 'aggregates.2.returns.value' is 99.0, recomputed \d"),
        (lambda it: it["aggregates"][2]["success"].update(low=0.125), r"key 'aggregates.2.success.low' is 0.125, recomputed"),
        (
            lambda it: it["aggregates"][0]["normalised"].update(high=2.5),
            r"key 'aggregates.0.normalised.high' is 2.5, recomputed",
        ),
        (lambda it: it["aggregates"].pop(), r"does not follow from its runs: key 'aggregates'"),
        (lambda it: it.update(mean_minutes=1.5), "key 'mean_minutes' is 1.5, recomputed 5"),
        (lambda it: it["aggregates"][2]["returns"]["values"].pop(), r"key 'aggregates.2.returns.values' is \(.*\), recomputed \("),
        (lambda it: it["intervals"].update(confidence=0.5), "key 'intervals.confidence' is 0.5, recomputed 0.95"),
        (no_second_seed, "does not follow from its runs"),
        (lambda it: it["runs"][1]["curve"][0].update(environment_steps=10**6), "seed 1: its run: contradicts itself"),
        (lambda it: it["runs"][1]["final"][1]["returns"][4][0].__setitem__(2, 9.0), r"key 'aggregates.5.returns.value' is .*, recomputed"),
        (lambda it: it["runs"][1].update(budget="full"), "seed 1: key 'budget' is 'full', the entry's is 'quick'"),
        (lambda it: it["runs"][1]["agent"].update(digest="a" * 64), "seed 1: key 'agent.digest' is 'aaa.*', the entry's is"),
        (lambda it: it["runs"][2]["agent"].update(name="pearl"), "seed 2: key 'agent.name' is 'pearl', the entry's is 'dmrlad'"),
        (lambda it: it["runs"][0]["final"].pop(2), "seed 0: not the whole protocol: no scores of 'ood'"),
        (lambda it: it["agent"].update(preset=False), "agent 'dmrlad': the name of a published preset, and this is another configuration"),
        (lambda it: it["family"].update(digest="b" * 64), "unknown family digest 'bbb.*'; DMRLAD/PointGoalSparse-v0 has"),
        (same_run_under_all_seeds, "duplicate: the same run stands under several seeds"),
    ],
)
def test_changes_with_a_new_digest_are_found_too(boards: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    rewritten(boards, change)
    assert re.search(rf"dmrlad--quick\.json: .*{message}", only_fault(boards))


def test_an_unknown_family(boards: Path) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["family"]["id"] = "DMRLAD/Nowhere-v0"
        for run in content["runs"]:
            run["family"]["id"] = "DMRLAD/Nowhere-v0"

    rewritten(boards, rename)
    assert "in the wrong place: its content belongs into Nowhere/dmrlad--quick.json" in only_fault(boards)
    (boards / "Nowhere").mkdir()
    (boards / "PointGoalSparse" / "dmrlad--quick.json").rename(boards / "Nowhere" / "dmrlad--quick.json")
    assert "unknown family 'DMRLAD/Nowhere-v0'; accepted: AntDir" in only_fault(boards)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[:-200], "truncated or not JSON"),
        (lambda text: text.replace('"format_version": 2', '"format_version": 1', 1), "format version 1; accepted: 2"),
        (
            lambda text: text.replace('"seeds": [0, 1, 2]', '"seeds": [0, 1, 2, 3]'),
            r"expected one run for each of the seeds \[0, 1, 2, 3\]",
        ),
        (lambda text: text.replace('"seeds": [0, 1, 2]', '"seeds": [0, 2]'), r"seeds \[0, 2\], ascending, found runs of \[0, 1, 2\]"),
        (lambda text: text.replace('"mean_minutes"', '"mean_hours"'), "mean_minutes"),
        (lambda text: re.sub(r'"mean_minutes": [\d.]+', '"mean_minutes": NaN', text), "truncated or not JSON: NaN is no number"),
        (lambda text: text.replace('"budget": "quick"', '"budget": "tiny"', 1), "unknown budget 'tiny'; accepted: smoke, quick"),
    ],
)
def test_a_file_of_another_schema_is_found(boards: Path, edit: Callable[[str], str], message: str) -> None:
    path = boards / "PointGoalSparse" / "dmrlad--quick.json"
    path.write_text(edit(path.read_text()))
    fault = only_fault(boards)
    assert fault.startswith(str(path))
    assert re.search(message, fault)
    with pytest.raises(CardError, match=message):
        read_entries(boards)


def test_files_where_they_do_not_belong(boards: Path) -> None:
    text = (boards / "PointGoalSparse" / "dmrlad--quick.json").read_text()
    for name in ("PointGoalSparse/dmrlad--full.json", "PointGoal/dmrlad--quick.json", "dmrlad--quick.json"):
        path = boards / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        assert only_fault(boards) == f"{path}: in the wrong place: its content belongs into PointGoalSparse/dmrlad--quick.json"
        path.unlink()
    (boards / "PointGoalSparse" / "notes.txt").write_text("remember")
    assert "notes.txt: truncated or not JSON" in only_fault(boards)


def test_a_run_under_two_names_is_a_duplicate(boards: Path) -> None:
    runs = [run for run in read_entry(boards / "PointGoalSparse" / "dmrlad--quick.json").runs if run.seed != 2]
    first = read_entry(boards / "PointGoalSparse" / "dmrlad--quick.json").agent
    agent = first.model_copy(update={"name": "a-copy", "preset": False})
    published(boards, [make_entry(runs, agent, REFERENCES["PointGoalSparse"], About(authors=("Somebody",)))])
    assert only_fault(boards).endswith(f"duplicate: the run of seed 0 is also in {boards}/PointGoalSparse/a-copy--quick.json")


def test_the_page_must_be_what_the_files_give(boards: Path) -> None:
    readme = boards / "README.md"
    text = readme.read_text()
    readme.write_text(text.replace("| 1 |", "| 2 |", 1))
    assert "README.md: not what the files give; write it with: dmrlad-bench leaderboard --markdown" in only_fault(boards)
    readme.unlink()
    assert "README.md: not what the files give" in only_fault(boards)
    with pytest.raises(CardError, match="nowhere: no such folder"):
        check_leaderboards(boards / "nowhere")


def test_other_reference_scores_ask_for_new_aggregates(boards: Path, cards: Path) -> None:
    card = cards / "PointGoalSparse.toml"
    card.write_text(card.read_text().replace("oracle = 10.5", "oracle = 12.5"))
    faults = check_leaderboards(boards)
    assert len(faults) == 3
    assert all("reference scores are (0.5, 10.5), the card's are (0.5, 12.5)" in fault and "--recompute" in fault for fault in faults)
    entries = [remake(entry, (0.5, 12.5)) for entry in read_entries(boards)]
    assert check_leaderboards(published(boards, entries)) == []


def test_a_changed_card_is_marked_and_no_fault(boards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agents = tmp_path / "agents"
    agents.mkdir()
    for path in (ROOT / "agents").glob("*.toml"):
        (agents / path.name).write_text(path.read_text())
    (agents / "random.toml").write_text((agents / "random.toml").read_text() + "\n[schedule]\niterations = 7\n")
    monkeypatch.setattr("dmrlad_bench.cards.agent.register_folder", lambda kind: agents)
    entries = read_entries(boards)
    assert {entry.agent.name: bool(changed_since(entry)) for entry in entries} == {"dmrlad": False, "oracle": False, "random": True}
    assert "random: card changed since" in leaderboard_markdown(entries)
    published(boards, entries)
    assert "agent 'random': no preset of that name was ever published with digest" in only_fault(boards)
    digest = next(entry.agent.digest for entry in entries if entry.agent.name == "random")
    (boards / REGISTER).write_text(register_text({}, [("random", "PointGoalSparse", "quick", digest)]))
    assert check_leaderboards(boards) == []


# ---- tables -------------------------------------------------------------------------------------------------------------


def test_a_table_holds_one_family_and_one_budget_best_first(boards: Path) -> None:
    entries = [*read_entries(boards), *entries_of(*runs_of(budget="full", level=15.0), *runs_of("random", family="CheetahVel"))]
    tables = leaderboard_tables(entries)
    assert [table.title for table in tables] == [
        "DMRLAD/CheetahVel-v0, budget quick",
        "DMRLAD/PointGoalSparse-v0, budget quick",
        "DMRLAD/PointGoalSparse-v0, budget full",
    ]
    assert [row[0] for row in tables[1].rows] == ["dmrlad", "random", "oracle (privileged)"]
    assert "seeds differ: dmrlad: 0, 1, 2; random: 0, 1, 2; oracle: 0, 1" in tables[1].notes
    assert tables[0].rows[0][7:9] == ("-", "-")
    assert [row[1] for row in tables[1].rows] == ["1", "2", "-"]  # two runs of oracle
    assert leaderboard_markdown(entries[::-1]) == leaderboard_markdown(entries)


def test_the_forms_are_read_back(boards: Path) -> None:
    entries = read_entries(boards)
    found = list(csv.DictReader(io.StringIO(leaderboard_text(entries, "csv"))))
    assert len(found) == 3 * 12 * 4
    assert {(record["agent"], record["rank"]) for record in found} == {("dmrlad", "1"), ("oracle", ""), ("random", "2")}
    wanted = {"agent": "dmrlad", "split": "test", "actions": "deterministic", "episode": "3", "measure": "normalised"}
    (record,) = [entry for entry in found if wanted.items() <= entry.items()]
    aggregate = entries[0].aggregate("test", True, 3)
    assert aggregate is not None
    assert aggregate.normalised is not None
    assert float(record["value"]) == aggregate.normalised.value
    (row,) = [line for line in leaderboard_text(entries, "markdown").splitlines() if line.startswith("| dmrlad |")]
    assert f"| {aggregate.normalised.value:.3f} [" in row
    latex = leaderboard_text(entries, "latex")
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1
    assert "│ dmrlad" in leaderboard_text(entries, "table")
    with pytest.raises(CardError, match="unknown format 'html'"):
        leaderboard_text(entries, "html")


def test_the_published_leaderboards_are_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the cards as they are
    assert check_leaderboards(ROOT / "leaderboards") == []
