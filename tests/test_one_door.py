"""Whatever holds results is compared: runs, leaderboard entries, agents that something else trained; under whatever names and order."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from program import refused, shown
from report_results import make_result, use_references, write_run

import dmrlad_bench
from dmrlad_bench.cards import CardError, agent_names
from dmrlad_bench.envs.bodies import Body
from dmrlad_bench.envs.body_kinds import BODIES
from dmrlad_bench.harness.run import read_config
from dmrlad_bench.reports.agent_styles import COLOURS, PRESETS, style_of
from dmrlad_bench.reports.bounds import ACTION_ENTRIES, FALLING
from dmrlad_bench.reports.comparison import compare
from dmrlad_bench.reports.leaderboard import Entry, PublishedAgent, content_digest, make_entry
from dmrlad_bench.reports.publishing import check_publishable
from dmrlad_bench.reports.reading import RecordedRun, read_runs

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "sb3_sac.py"
EXAMPLE_LINES = 60


class Still:
    """Stands still."""

    def begin_trial(self, num_envs: int) -> None:
        self.num_envs = num_envs

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        return np.zeros((self.num_envs, 2))

    def observe(self, transition: Any) -> None:
        pass


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_references(tmp_path / "cards", monkeypatch)


def entry_of(agent: str, name: str | None = None, **options: Any) -> Entry:
    runs = [make_result(agent, seed=seed, **options) for seed in (0, 1, 2)]
    published: Any = {"name": name or agent, "digest": runs[0].agent.digest, "preset": name is None}
    fields = PublishedAgent.model_fields
    published |= {key: value for key, value in {"track": "standard", "import_path": "a:B", "source": "0" * 64}.items() if key in fields}
    return make_entry(runs, PublishedAgent(**published), runs[0].family.reference)


def write_entry(folder: Path, entry: Entry) -> Path:
    path = folder / entry.file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(entry.json_text())
    return path


def test_entries_and_folders_of_them_stand_beside_runs(tmp_path: Path, cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = entry_of("dmrlad", level=6.0), entry_of("cemrl", "somebodys-agent", level=4.0)
    board = tmp_path / "board"
    paths = [write_entry(board, entry) for entry in (one, other)]
    (board / "README.md").write_text("# Leaderboards\n")
    run = write_run(tmp_path / "runs", make_result("random", seed=0))
    beside = compare([run, board])
    assert set(beside.agents) == {"random", "dmrlad", "somebodys-agent"}
    group = next(group for group in beside.groups if group.label == "dmrlad")
    np.testing.assert_array_equal(group.returns, np.stack([result.scores().returns for result in one.runs]))
    assert compare([one, other]).table() == compare(paths).table()
    printed = shown(capsys, "compare", run, *paths, "--format", "csv")
    assert printed.count("somebodys-agent") > 3
    figure = tmp_path / "figure.png"
    shown(capsys, "plot", board, "--kind", "learning", "--out", figure)
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_bad_entries_are_one_line(tmp_path: Path, cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_entry(tmp_path / "board", entry_of("dmrlad"))
    result = write_run(tmp_path / "runs", make_result("dmrlad", seed=1))
    line = refused(capsys, "compare", path, result)
    assert "seed 1 is there twice" in line and str(path) in line
    content = json.loads(path.read_text())
    content["mean_minutes"] = 1.0
    path.write_text(json.dumps(content))
    assert "changed after it was made: key 'content_digest'" in refused(capsys, "compare", path.parent)
    path.write_text(json.dumps({"runs": []}))
    assert "leaderboard entry of format version None" in refused(capsys, "compare", path)
    path.write_text("{}")
    assert f"{path}: result of format version None" in refused(capsys, "compare", path)
    (tmp_path / "empty").mkdir()
    assert "holds no run; accepted: run folders, result.json files, leaderboard entries" in refused(capsys, "compare", tmp_path / "empty")


def test_a_recorded_agent_is_compared_and_submitted(tmp_path: Path, cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"name": "standing-still", "environment_steps": 0, "threads": 1, "seconds": 60.0}
    result = dmrlad_bench.record(Still(), "PointGoalSparse", seed=2, out=tmp_path, **options)
    folder = tmp_path / "PointGoalSparse" / "standing-still--quick--seed2"
    (read,) = read_runs([folder])
    assert read.result == result
    config = read_config(folder)
    assert config.agent.digest == result.agent.digest and config.agent.import_path == "test_one_door:Still"
    assert (result.iterations, result.environment_steps, result.wall_seconds.total > 60.0) == (0, 0, True)
    assert [(matrix.split, matrix.deterministic, len(matrix.returns[0])) for matrix in result.final] == [
        ("test", True, 5),
        ("train", True, 1),
        ("ood", True, 5),
        ("test", False, 5),
    ]
    np.testing.assert_array_equal(result.scores("test").mean_returns, [0.0, 0.0, 0.0])
    check_publishable(RecordedRun(str(folder), result))
    assert compare([folder, make_result("dmrlad", seed=2)]).agents == ("standing-still", "dmrlad")
    again = dmrlad_bench.record(Still(), "PointGoalSparse", seed=2, **options)
    assert again.agent == result.agent and again.final == result.final
    with pytest.raises(CardError, match="exists and is not empty"):
        dmrlad_bench.record(Still(), "PointGoalSparse", seed=2, out=tmp_path, **options)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "My Agent"}, "name 'My Agent': expected lower-case words"),
        ({"environment_steps": -1}, "environment_steps: expected a whole number from 0 on, got -1"),
        ({"environment_steps": 1.5}, "environment_steps: expected a whole number"),
        ({"seconds": float("nan")}, "seconds: expected a number from 0 on"),
        ({"seed": -1}, "seed: expected a whole number from 0 on"),
        ({"budget": "quik"}, "unknown budget 'quik'"),
        ({"agent": object()}, "has no begin_trial, act, observe"),
        ({"env": "PointGaol"}, "PointGaol"),
    ],
)
def test_what_cannot_be_recorded_is_one_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    options = {"agent": Still(), "env": "PointGoalSparse", "name": "still", "environment_steps": 0, "out": tmp_path / "out"} | changes
    with pytest.raises(CardError, match=re.escape(said)) as caught:
        dmrlad_bench.record(options.pop("agent"), options.pop("env"), **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("stable_baselines3")
    spec = importlib.util.spec_from_file_location("sb3_sac", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sb3_sac", module)
    spec.loader.exec_module(module)
    return module


def test_stable_baselines_is_scored_as_the_example_says(example: ModuleType, tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text().splitlines()) < EXAMPLE_LINES
    tiny = {"train_freq": 120, "gradient_steps": 1, "buffer_size": 2000, "policy_kwargs": {"net_arch": [16]}}
    steps = 9_840  # of budget smoke
    result = example.main("DMRLAD/PointGoal-v0", steps, budget="smoke", out=tmp_path, **tiny)
    assert (result.agent.name, result.environment_steps, result.iterations) == ("sb3-sac", steps, 3)
    assert 50 < result.gradient_updates < 100
    (run,) = read_runs([tmp_path])
    assert run.result == result and np.isfinite(result.scores("test").returns).all()


def test_other_step_counts_do_not_stand_in_one_table(cards: Path) -> None:
    one, other = make_result("dmrlad"), make_result("pearl")
    point = other.curve[-1].model_copy(update={"environment_steps": 170_000})
    longer = other.model_copy(update={"environment_steps": 170_000, "curve": (*other.curve[:-1], point)})
    assert compare([one, other, make_result("random")]).agents == ("dmrlad", "pearl", "random")  # what does not learn takes none
    with pytest.raises(CardError, match="environment steps differs: 97200 in result of dmrlad, seed 0 but 170000 in result of pearl"):
        compare([one, longer])
    assert compare([one, longer], allow_mixed=True).agents == ("dmrlad (97200 steps)", "pearl (170000 steps)")
    assert {name: body.action_dim for name, body in BODIES.items()} == ACTION_ENTRIES
    assert set(FALLING) == {name for name, body in BODIES.items() if body.terminated is not Body.terminated}
    hopper = [make_result(agent, family="HopperVelSparse") for agent in ("dmrlad", "pearl")]  # may fall
    earlier = hopper[1].curve[-1].model_copy(update={"environment_steps": hopper[1].environment_steps - 100})
    changed = {"environment_steps": earlier.environment_steps, "curve": (*hopper[1].curve[:-1], earlier)}
    assert compare([hopper[0], hopper[1].model_copy(update=changed)]).agents


@pytest.fixture
def three(cards: Path) -> list[Any]:
    levels = {"cemrl": 4.0, "dmrlad": 8.0, "random": 1.0}
    return [make_result(agent, seed=seed, level=level) for agent, level in levels.items() for seed in (0, 1, 2)]


def test_tables_come_as_given_and_legends_by_score(three: list[Any]) -> None:
    comparison = compare(three)
    assert comparison.agents == ("cemrl", "dmrlad", "random")
    figure: Any = comparison.plot(kind="summary")
    assert [entry.get_text() for entry in figure.legends[0].get_texts()] == ["dmrlad", "cemrl", "random"]
    assert [label.get_text() for label in figure.axes[2].get_yticklabels()] == ["dmrlad", "cemrl", "random"]
    assert compare(three, order="score").agents == ("dmrlad", "cemrl", "random")
    chosen = compare(three, order="random, cemrl")
    assert chosen.agents == chosen.legend == ("random", "cemrl", "dmrlad")
    assert chosen.baseline == "cemrl"  # the first that was given
    assert compare(three, order="given").legend == ("cemrl", "dmrlad", "random")


def test_renamed_agents_keep_their_looks(three: list[Any]) -> None:
    comparison = compare(three, rename=["dmrlad=DMRLAD & co", "random=dmrlad"], order="dmrlad")
    assert comparison.agents == ("dmrlad", "DMRLAD & co", "cemrl")
    figure: Any = comparison.plot(kind="adaptation")
    drawn = {entry.get_label(): entry.get_color() for entry in figure.legends[0].get_lines()}
    assert drawn == {"dmrlad": style_of("random").colour, "DMRLAD & co": style_of("dmrlad").colour, "cemrl": style_of("cemrl").colour}
    assert r"\textbf{DMRLAD" not in comparison.table("latex") and r"DMRLAD \& co" in comparison.table("latex")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--order", "dmrald"), "order 'dmrald': no agent 'dmrald' here (did you mean 'dmrlad'?)"),
        (("--order", "dmrlad,dmrlad"), "'dmrlad' is named twice"),
        (("--rename", "dmrlad"), "expected OLD=NEW"),
        (("--rename", "dmrlad="), "expected OLD=NEW"),
        (("--rename", "pearl=P"), "no agent 'pearl' here"),
        (("--rename", "dmrlad=cemrl"), "two agents would be called 'cemrl'"),
        (("--rename", "dmrlad=A", "--rename", "dmrlad=B"), "'dmrlad' is renamed twice"),
        (("--size", "7"), "size '7': expected WIDTHxHEIGHT in inches, as 7x3.5"),
        (("--size", "0x5"), "size: expected 1 to 100 inches, got 0x5"),
        (("--dpi", "0"), "dpi: expected 1 to 2400, got 0"),
        (("--dpi", "x"), "expected a whole number, got 'x'"),
        (("--size", "100x100", "--dpi", "2400"), "more than 268435456 pixels"),
    ],
)
@pytest.mark.parametrize("command", ["plot", "compare"])
def test_bad_looks_are_one_line(
    three: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, options: tuple[str, ...], said: str
) -> None:
    runs = [write_run(tmp_path / "runs", run) for run in three]
    figure = tmp_path / "figure.png"
    draws = ("--kind", "adaptation", "--out", figure) if command == "plot" else ("--plot", figure)
    assert said in refused(capsys, command, *runs, *draws, *options)
    assert not figure.exists()


def test_a_size_without_a_figure_is_refused(three: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "without --plot FILE" in refused(capsys, "compare", write_run(tmp_path / "runs", three[0]), "--size", "7x5")


def test_size_and_resolution_are_those_asked_for(three: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from matplotlib.image import imread

    for run in three:
        write_run(tmp_path / "runs", run)
    figure = tmp_path / "figure.png"
    shown(capsys, "plot", tmp_path / "runs", "--kind", "learning", "--out", figure, "--size", "5x4", "--dpi", "50")
    assert imread(figure).shape[:2] == (200, 250)


def test_latex_has_booktabs_and_the_best_in_bold(three: list[Any], cards: Path) -> None:
    table = compare(three).table("latex")
    assert r"\hline" not in table and table.count(r"\toprule") == table.count(r"\midrule") == table.count(r"\bottomrule") == 3
    rows = [line for line in table.splitlines() if r"\textbf" in line]
    assert len(rows) == 1 and rows[0].startswith("dmrlad &") and rows[0].count(r"\textbf") == 2  # return and normalised score
    close = [make_result(agent, seed=seed, level=5.0) for agent in ("cemrl", "dmrlad") for seed in (0, 1, 2)]
    low = [make_result("random", seed=seed, level=1.0) for seed in (0, 1, 2)]
    ranks = compare([*close, *low]).ranks("DMRLAD/PointGoalSparse-v0")
    rows = [line for line in compare([*close, *low]).table("latex").splitlines() if r"\textbf" in line]
    assert [row.split(" &")[0] for row in rows] == [agent for agent, rank in ranks.items() if rank == 1]
    single = [make_result("cemrl", level=2.0), make_result("dmrlad", level=7.0)]
    (row,) = [line for line in compare(single).table("latex").splitlines() if r"\textbf" in line]
    assert row.startswith("dmrlad &")


def test_presets_look_different_from_each_other_and_the_same_everywhere(three: list[Any]) -> None:
    assert set(agent_names()) <= set(PRESETS)
    assert len(PRESETS) >= 16 and len(set(PRESETS.values())) == len(PRESETS)
    pairs = [(style.colour, style.dashes) for style in PRESETS.values()]
    assert len(set(pairs)) == len(pairs)  # apart without their markers, and
    grey = [(style.marker, style.dashes) for style in PRESETS.values()]
    assert len(set(grey)) == len(grey)  # apart without their colours
    others = {style_of(f"agent-{number}") for number in range(200)}
    assert len(others) > 80 and not others & set(PRESETS.values()) and {style.colour for style in others} == set(COLOURS)
    whole: Any = compare(three).plot(kind="learning")
    alone: Any = compare(three[3:6]).plot(kind="learning")

    def looks(figure: Any) -> dict[str, Any]:
        return {line.get_label(): (line.get_color(), line.get_marker()) for line in figure.legends[0].get_lines()}

    assert looks(whole)["dmrlad"] == looks(alone)["dmrlad"]


def test_an_entry_digest_is_that_of_its_content(cards: Path) -> None:
    entry = entry_of("dmrlad")
    assert entry.content_digest == content_digest(entry)
    changed = entry.model_copy(update={"mean_minutes": 1.0})
    with pytest.raises(CardError, match="entry of dmrlad: changed after it was made"):
        compare([changed])
