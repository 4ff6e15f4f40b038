"""Where output goes: odd paths, text that looks like markup, encodings without ruled lines, outputs that are closed or full."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from program import PATIENCE, PROGRAM, refused, shown

from dmrlad_bench.cards import CardError
from dmrlad_bench.cli import main
from dmrlad_bench.cli.output import RULED, fail
from dmrlad_bench.harness.api import plan
from dmrlad_bench.harness.progress import RunProgress

ENVS = Path(__file__).resolve().parent.parent / "envs"
RUN = ["run", "--agent", "random", "--budget", "smoke", "--device", "cpu", "--threads", "1", "--quiet"]


def test_a_path_that_is_not_utf8_is_refused_before_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / os.fsdecode(b"o\xff")
    error = refused(capsys, *RUN, "--env", "PointGoal", "--out", out)
    assert re.search(r"out: b'.*/o\\xff' is not UTF-8; results, which record it, are$", error.strip()), error
    assert not out.exists()
    with pytest.raises(CardError, match=r"out: .* is not UTF-8"):
        plan("random", "PointGoal", out=out)


@pytest.mark.parametrize("name", ["x[/y]", "[b]", "[red]x[/red]", ":smile:", "[link=http:a]", "[/]"])
def test_nothing_in_a_path_is_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    printed = shown(capsys, *RUN, "--env", "PointGoal", "--out", tmp_path / name)
    assert f"run folder: {tmp_path / name}/PointGoal/random--smoke--seed0\n" in printed
    evaluated = shown(capsys, "evaluate", tmp_path / name / "PointGoal" / "random--smoke--seed0", "--episodes", "1")
    assert "random on DMRLAD/PointGoal-v0" in evaluated
    assert name in refused(capsys, "evaluate", tmp_path / name / "nowhere")


@pytest.mark.parametrize("text", ["[/b]", "[b]bold[/b]", ":smile:", "[bold red]"])
def test_nothing_on_a_card_is_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    card = (ENVS / "PointGoal.toml").read_text()
    for key in ("source", "description"):
        card = re.sub(rf"(?ms)^{key} = (\"\"\".*?\"\"\"|\".*?\")$", f'{key} = "{text}"', card)
    (tmp_path / "Marked.toml").write_text(card)
    assert shown(capsys, "envs", tmp_path / "Marked.toml").count(text) == 2
    agent = f'name = "marked"\ndescription = "{text}"\nextends = "random"\n'
    (tmp_path / "marked.toml").write_text(agent)
    assert text in shown(capsys, "agents", tmp_path / "marked.toml")


def test_progress_is_no_markup(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich then takes a captured stream for a terminal, and draws a bar
    monkeypatch.setenv("COLUMNS", "200")
    with RunProgress("a[/b] :smile:", 1, (0, 0), quiet=False, bar=True) as progress:
        progress.line("continues [/c]")
        progress.end(1, 5, "validation return [/d]")
    printed = capsys.readouterr().err
    assert "a[/b] :smile:: continues [/c]" in printed and printed.count("a[/b] :smile:") > 1


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail("a\nb", 2) == 2
    assert capsys.readouterr().err == "dmrlad-bench: error: a\\nb\n"


# ---- standard output that takes less than was meant for it --------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_tables_in_every_encoding(tmp_path: Path, encoding: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "é" / "PointGoal" / "random--smoke--seed0"
    shown(capsys, *RUN, "--env", "PointGoal", "--out", tmp_path / "é")
    commands = [["evaluate", str(folder)], ["compare", str(folder)], ["envs"], ["agents"]]
    script = f"from dmrlad_bench.cli import main\nfor given in {commands!r}:\n"
    script += "    try: main(given)\n    except SystemExit as end: assert not end.code, given\n"
    done = _program(["-c", script], env=os.environ | {"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, b"")
    printed = done.stdout.decode(encoding)
    ruled = set(printed) & {chr(number) for number in RULED}
    assert bool(ruled) == (encoding == "utf-8")
    assert "random" in printed and "\\u25" not in printed


def test_a_closed_standard_output_is_refused_at_the_start(tmp_path: Path) -> None:
    """Not run first: what is opened next would take its place, and libraries would print into a checkpoint."""
    command = " ".join(["exec", *PROGRAM, *RUN, "--env", "PointGoal", "--out", str(tmp_path), ">&-"])
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert done.stderr.startswith("dmrlad-bench: error: standard output is closed") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_standard_output_stops_no_run(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        given = [*RUN, "--env", "PointGoal", "--seed", "0", "--seed", "1", "--out", str(tmp_path)]
        done = _program(["-m", "dmrlad_bench", *given], stdout=full)
    assert done.returncode == 1
    assert done.stderr == b"dmrlad-bench: error: output: No space left on device\n"
    assert len(list(tmp_path.rglob("result.json"))) == 2


def test_a_reader_that_leaves_stops_no_run(tmp_path: Path) -> None:
    receiving, sending = os.pipe()
    os.close(receiving)
    given = [*RUN, "--env", "PointGoal", "--seed", "0", "--seed", "1", "--out", str(tmp_path)]
    done = _program(["-m", "dmrlad_bench", *given], stdout=sending)
    os.close(sending)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(list(tmp_path.rglob("result.json"))) == 2


def test_without_standard_error_no_file_takes_its_place(tmp_path: Path) -> None:
    script = "import os; from dmrlad_bench.cli.output import open_outputs; open_outputs(); print(os.readlink('/proc/self/fd/2'))"
    done = subprocess.run([PROGRAM[0], "-c", script], stdout=subprocess.PIPE, text=True, timeout=PATIENCE, preexec_fn=lambda: os.close(2))
    assert done.stdout == "/dev/null\n"


def test_a_terminal_that_is_gone_does_not_hide_the_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def gone(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.print", gone)
    with pytest.raises(SystemExit) as caught:
        main(["envs", "nothing"])
    assert caught.value.code == 2


def _program(arguments: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
    options = {"stdout": subprocess.PIPE} | options
    return subprocess.run([PROGRAM[0], *arguments], stderr=subprocess.PIPE, timeout=PATIENCE, **options)  # pyright: ignore
