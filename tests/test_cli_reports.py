"""`compare`, `plot`, `submit`, `leaderboard` and `reference` as a user calls them."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from report_results import make_result, use_presets, use_references, write_run

from dmrlad_bench.cards.family import read_family
from dmrlad_bench.cli import main

Program = Callable[..., tuple[int, str, str]]
IMPORTS = """
import sys
from dmrlad_bench.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
    print(sorted({"torch", "mujoco", "metaworld", "gymnasium.envs.mujoco"} & set(sys.modules)))
"""


@pytest.fixture
def program(capsys: pytest.CaptureFixture[str]) -> Program:
    """Calls the program in this process: exit code, standard output, standard error."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, printed.out, printed.err

    return call


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_references(tmp_path / "cards", monkeypatch)


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from use_presets(tmp_path / "cards", monkeypatch)


@pytest.fixture
def runs(tmp_path: Path, cards: Path) -> Path:
    """A folder of run folders: three agents, two seeds each."""
    for agent, level in (("dmrlad", 5.0), ("random", 0.0), ("oracle", 9.0)):
        for seed in (0, 1):
            write_run(tmp_path / "runs", make_result(agent, seed=seed, level=level))
    return tmp_path / "runs"


def test_from_real_runs_to_a_checked_leaderboard(tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, boards = tmp_path / "runs", tmp_path / "boards"
    options = ["--threads", "1", "--device", "cpu", "--quiet", "--out", str(runs)]
    command = ["run", "--agent", "random", "--env", "PointGoalSparse", "--seed", "0", "--seed", "1", *options]
    monkeypatch.setattr("sys.argv", ["dmrlad-bench", *command])  # what a run records
    code, _, error = program(*command)
    assert code == 0, error
    returns = [json.loads(path.read_bytes())["final"][0]["returns"] for path in sorted(runs.rglob("result.json"))]
    code, printed, error = program("compare", runs, "--format", "csv")
    assert code == 0, error
    records = list(csv.DictReader(io.StringIO(printed)))
    last = [trial[2] for tasks in returns for trials in tasks for trial in trials]
    mean = sum(last) / len(last)
    (found,) = [float(record["value"]) for record in records if (record["measure"], record["episode"]) == ("return", "3")]
    assert found == pytest.approx(mean)
    code, printed, error = program("submit", runs, "--out", boards)
    assert (code, printed) == (0, f"new: {boards}/PointGoalSparse/random--quick.json\n"), error
    assert str(tmp_path) not in (boards / "PointGoalSparse" / "random--quick.json").read_text()
    assert program("leaderboard", "--folder", boards, "--markdown") == (0, f"written: {boards}/README.md\n", "")
    assert program("leaderboard", "--folder", boards, "--check") == (0, f"{boards}: 1 entries, all in order\n", "")
    code, printed, _ = program("leaderboard", "--folder", boards)
    assert re.search(r"│ random │ +- │ +2 │", printed)


def test_one_changed_digit_fails_the_check(tmp_path: Path, program: Program, runs: Path) -> None:
    boards = tmp_path / "boards"
    code, _, error = program("submit", runs, "--out", boards)
    assert code == 0, error
    assert program("leaderboard", "--folder", boards, "--markdown", "--check")[0] == 0
    path = boards / "PointGoalSparse" / "dmrlad--quick.json"
    text = path.read_text()
    place = re.search(r'"value": \d\.\d\d(\d)', text)
    assert place is not None
    path.write_text(f"{text[: place.start(1)]}{(int(place[1]) + 1) % 10}{text[place.end(1) :]}")
    code, printed, error = program("leaderboard", "--folder", boards, "--check")
    assert (code, printed) == (2, "")
    assert error == f"dmrlad-bench: error: {path}: changed after it was made: key 'content_digest' is not the digest of the content\n"


@pytest.mark.parametrize(
    ("form", "sign"), [("table", "┃ agent"), ("markdown", "| agent |"), ("csv", "family,agent,budget"), ("latex", r"\begin{tabular}")]
)
def test_every_format_of_both_tables(tmp_path: Path, program: Program, runs: Path, form: str, sign: str) -> None:
    program("submit", runs, "--out", tmp_path / "boards")
    for arguments in (("compare", runs), ("leaderboard", "--folder", tmp_path / "boards")):
        code, printed, error = program(*arguments, "--format", form)
        assert (code, error) == (0, "")
        assert sign in printed
        assert all(agent in printed for agent in ("dmrlad", "random", "oracle"))
        assert "\x1b" not in printed


def test_compare_options(tmp_path: Path, program: Program, runs: Path) -> None:
    code, printed, error = program(
        "compare", runs, "--plot", tmp_path / "a.png", "--baseline", "oracle", "--split", "ood", "--format", "markdown"
    )
    assert (code, error) == (0, "")
    assert "P(better than oracle)" in printed
    assert "10 ood tasks, deterministic actions" in printed
    assert (tmp_path / "a.png").stat().st_size > 5000
    assert "20 test tasks, stochastic actions" in program("compare", runs, "--stochastic")[1]
    other = write_run(tmp_path / "other", make_result("random", budget="full"))
    code, printed, _ = program("compare", runs, other, "--allow-mixed")
    assert code == 0
    assert "MIXED: budget differs" in printed


def test_plot(tmp_path: Path, program: Program, runs: Path) -> None:
    path = tmp_path / "figure.pdf"
    assert program("plot", runs, "--kind", "learning", "--out", path) == (0, f"figure: {path}\n", "")
    assert path.read_bytes().startswith(b"%PDF")


def test_submit_replaces_only_when_told(tmp_path: Path, program: Program, runs: Path) -> None:
    boards = tmp_path / "boards"
    paths = [boards / "PointGoalSparse" / f"{agent}--quick.json" for agent in ("dmrlad", "oracle", "random")]
    assert program("submit", runs, "--out", boards)[1] == "".join(f"new: {path}\n" for path in paths)
    assert program("submit", runs, "--out", boards)[1] == "".join(f"unchanged: {path}\n" for path in paths)
    before = paths[0].read_bytes()
    write_run(runs, make_result(seed=7))
    code, printed, error = program("submit", runs, "--out", boards)
    assert (code, printed) == (2, "")
    assert error == f"dmrlad-bench: error: {paths[0]}: there is another entry; pass --replace to put this one in its place\n"
    assert paths[0].read_bytes() == before
    assert program("submit", runs, "--out", boards, "--replace")[1].splitlines() == [
        f"replaced: {paths[0]}",
        f"unchanged: {paths[1]}",
        f"unchanged: {paths[2]}",
    ]
    assert json.loads(paths[0].read_bytes())["seeds"] == [0, 1, 7]


def test_references_are_written_onto_the_card_and_the_boards_follow(
    tmp_path: Path, program: Program, runs: Path, cards: Path, presets: Path
) -> None:
    boards = tmp_path / "boards"
    program("submit", runs, "--out", boards)
    ends = [*runs.rglob("random--*"), *runs.rglob("oracle--*")]
    for agent in ("still", "blind"):
        ends += [write_run(runs, make_result(agent, seed=seed, level=1.0)) for seed in (0, 1)]
    code, printed, error = program("reference", *ends, "--write", "--allow-short")
    assert (code, error) == (0, "")
    card = read_family(cards / "PointGoalSparse.toml").reference
    assert card is not None
    assert f"random = {card.random}\nblind = {card.blind}\noracle = {card.oracle}\n" in printed
    assert (card.blind, card.oracle) != (0.5, 10.5)
    code, _, error = program("leaderboard", "--folder", boards, "--check")
    assert (code, error.count("--recompute")) == (2, 3)
    code, printed, _ = program("leaderboard", "--folder", boards, "--recompute", "--markdown", "--check")
    assert (code, printed.count("recomputed: ")) == (0, 3)
    oracle = json.loads((boards / "PointGoalSparse" / "oracle--quick.json").read_bytes())
    assert oracle["aggregates"][2]["normalised"]["value"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["compare"], ["Missing argument 'RUN'"]),
        (["compare", "nowhere"], ["nowhere: no such file or folder", "accepted: run folders"]),
        (["compare", "RUNS", "--format", "html"], ["unknown format 'html'", "table, markdown, csv, latex"]),
        (["compare", "RUNS", "--split", "tset"], ["no deterministic scores of 'tset'", "it has: test deterministic"]),
        (["compare", "RUNS", "--plot", "a.gif"], ["a.gif: a figure's file ends with .png, .pdf or .svg"]),
        (["compare", "RUNS", "--baseline", "pearl"], ["unknown baseline 'pearl'", "accepted: dmrlad, oracle, random"]),
        (["plot", "RUNS", "--out", "a.png"], ["Missing option '--kind'"]),
        (["plot", "RUNS", "--kind", "beliefs", "--out", "a.png"], ["unknown kind of figure 'beliefs'", "summary, learning, adaptation"]),
        (["plot", "RUNS", "--kind", "learning", "--out", "a"], ["got 'no suffix'"]),
        (["submit", "RUNS", "--name", "mine"], ["one name for several agents: dmrlad, oracle, random"]),
        (["leaderboard", "--folder", "nowhere"], ["nowhere: no such folder"]),
        (["leaderboard", "--format", "html"], ["unknown format 'html'"]),
        (["reference", "RUNS"], ["a run of 'dmrlad'; reference scores are those of random, still, blind and oracle"]),
    ],
)
def test_bad_input_is_one_line(program: Program, runs: Path, arguments: list[str], fragments: list[str]) -> None:
    code, printed, error = program(*(str(runs) if argument == "RUNS" else argument for argument in arguments))
    assert (code, printed) == (2, "")
    assert error.count("\n") == 1, error
    for fragment in fragments:
        assert fragment in error
    assert not Path("a.gif").exists()


def test_an_installed_record_is_not_written_to(tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmrlad_bench.cli.reports.register_folder", lambda kind: tmp_path / "_registers" / kind)
    code, _, error = program("leaderboard", "--markdown")
    assert code == 2
    assert "belongs to an installed package; work in a checkout, or name another folder" in error


def test_comparing_needs_neither_torch_nor_simulator(tmp_path: Path) -> None:
    run = write_run(tmp_path, make_result())
    for arguments in (["compare", str(run), "--plot", str(tmp_path / "a.svg")], ["leaderboard", "--check"]):
        done = subprocess.run([sys.executable, "-c", IMPORTS, *arguments], capture_output=True, text=True, timeout=120)
        assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr
