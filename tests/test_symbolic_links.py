"""Links in a folder that came from elsewhere: nothing is written, cut or deleted behind them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from counting_agent import CountingAgent
from counting_runs import planned, run, stopped_before_the_end, timeless
from report_results import make_result, use_references, write_run

import dmrlad_bench
from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.writing import open_itself, write_atomic
from dmrlad_bench.cli import main
from dmrlad_bench.harness import session
from dmrlad_bench.harness.checkpoint import remove_leftovers, remove_replay, save_shard
from dmrlad_bench.harness.log import Events, Table

PRECIOUS = b"precious\n"


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file of the user's, outside of the run folder."""
    path = tmp_path / "home" / "precious"
    path.parent.mkdir()
    path.write_bytes(PRECIOUS)
    return path


@pytest.fixture
def received(tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was killed after its last iteration, as one gets it from elsewhere."""
    counting()
    return stopped_before_the_end(tmp_path / "runs", monkeypatch)


def refused_resume(folder: Path, name: str) -> None:
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(CardError) as caught:
        run(folder.parent.parent, resume=True)
    assert str(caught.value).startswith(f"{folder / name}: is a symbolic link to ")
    assert "\n" not in str(caught.value)
    assert {path.name for path in folder.iterdir()} == before


FILES = [
    *("run.lock", "config.toml", "progress.csv", "result.json", "error.log"),
    *("checkpoint-000002.json", "checkpoint-000003.json", "checkpoint-000003.safetensors", "checkpoint-000004.json"),
    *("checkpoint-000001.json.partial", "config.toml.partial", "progress.csv.partial", "result.json.partial", "progress.csv.damaged"),
    *("events.out.tfevents.0000000001.x", "replay/000001.safetensors", "replay/000004.safetensors.partial"),
]


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_the_place_of_a_file_is_refused(received: Path, precious: Path, name: str) -> None:
    path = received / name
    content = path.read_bytes() if path.exists() else PRECIOUS
    path.unlink(missing_ok=True)
    precious.write_bytes(content)  # what is there would be read as it should be
    path.symlink_to(precious)
    refused_resume(received, name)
    assert precious.read_bytes() == content
    path.unlink()
    path.symlink_to(precious.parent / "not there")  # a link that leads nowhere would be a new file there
    refused_resume(received, name)
    assert not (precious.parent / "not there").exists()


def test_a_folder_with_nothing_but_a_lock_is_no_exception(tmp_path: Path, precious: Path) -> None:
    """What a run that was killed at its start leaves may be used without --resume."""
    folder = planned(tmp_path / "runs")[1]
    folder.mkdir(parents=True)
    for name in ("run.lock", "config.toml.partial"):
        (folder / name).symlink_to(precious)
        with pytest.raises(CardError, match="is a symbolic link to"):
            run(tmp_path / "runs")
        (folder / name).unlink()
    assert precious.read_bytes() == PRECIOUS


def test_the_replays_folder_is_no_link(received: Path, precious: Path) -> None:
    """Finishing would delete what it leads to, and starting the parts in it."""
    elsewhere = precious.parent
    (elsewhere / "mine.partial").touch()
    shutil.copytree(received / "replay", elsewhere, dirs_exist_ok=True)
    shutil.rmtree(received / "replay")
    (received / "replay").symlink_to(elsewhere)
    names = {path.name for path in elsewhere.iterdir()}
    refused_resume(received, "replay")
    for write in (remove_leftovers, remove_replay, lambda folder: save_shard(folder, 9, {})):
        with pytest.raises(CardError, match=r"replay: is a symbolic link to"):
            write(received)
    assert {path.name for path in elsewhere.iterdir()} == names


def test_a_link_that_comes_while_a_run_goes_is_not_followed(received: Path, precious: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is refused where it is written, not only when a run starts."""
    write = session.write_atomic

    def linked(path: Path, content: bytes) -> None:
        path.with_name("result.json.partial").symlink_to(precious)
        write(path, content)

    with monkeypatch.context() as patch, pytest.raises(CardError, match=r"result\.json\.partial: is a symbolic link to"):
        patch.setattr(session, "write_atomic", linked)
        run(received.parent.parent, resume=True)
    assert precious.read_bytes() == PRECIOUS


def test_what_is_appended_to_is_no_link(tmp_path: Path, precious: Path) -> None:
    table = Table(tmp_path / "progress.csv", 0)
    row = {"iteration": 1, "environment_steps": 2, "gradient_updates": 3, "seconds": 4.0}
    table.add(row)
    (tmp_path / "progress.csv").unlink()
    (tmp_path / "progress.csv").symlink_to(precious)
    with pytest.raises(CardError, match=r"progress\.csv: is a symbolic link"):
        table.add(row)
    assert precious.read_bytes() == PRECIOUS


def test_events_never_use_a_file_that_is_there(tmp_path: Path, precious: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 10**18)
    events = Events(tmp_path, None)
    events.close()
    (name,) = tmp_path.glob("events*")
    name.unlink()
    name.symlink_to(precious)
    with pytest.raises(FileExistsError):
        Events(tmp_path, None)
    assert precious.read_bytes() == PRECIOUS


def test_a_second_name_of_a_file_elsewhere_is_not_written_into(received: Path, precious: Path) -> None:
    """Hard links cannot be told from files: what is written is never the file that is there."""
    whole = timeless(run(received.parents[2] / "whole").folder)
    for name in ("run.lock", "error.log", "result.json.partial", "checkpoint-000004.json.partial", "progress.csv.partial"):
        (received / name).unlink(missing_ok=True)
        os.link(precious, received / name)
    assert timeless(run(received.parent.parent, resume=True).folder) == whole
    assert precious.read_bytes() == PRECIOUS


@pytest.mark.parametrize("name", ["run.lock", "progress.csv", "checkpoint-000003.json"])
def test_a_pipe_is_no_file_and_nothing_waits_for_it(received: Path, name: str) -> None:
    (received / name).unlink()
    os.mkfifo(received / name)
    with pytest.raises(CardError, match=rf"{name}: is no regular file; move it away"):
        run(received.parent.parent, resume=True)
    if name == "run.lock":
        with pytest.raises(CardError, match="is no regular file"):
            open_itself(received / name, os.O_RDWR)


def test_the_run_folder_itself_may_be_a_link(received: Path, tmp_path: Path) -> None:
    whole = timeless(run(tmp_path / "whole").folder)
    for folder in (received, received.parent):  # the run's folder, then its family's
        shutil.move(folder, tmp_path / folder.name)
        folder.symlink_to(tmp_path / folder.name)
        assert timeless(run(tmp_path / "runs", resume=True).folder) == whole
        if folder is received:
            folder.unlink()
            shutil.move(tmp_path / folder.name, folder)


def test_writing_puts_a_link_neither_aside_nor_through(tmp_path: Path, precious: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(precious)
    with pytest.raises(CardError, match=r"link: is a symbolic link to '.*precious', which is not written through; move it away"):
        write_atomic(link, b"new")
    assert link.is_symlink()
    assert precious.read_bytes() == PRECIOUS
    write_atomic(precious, b"new")
    assert precious.read_bytes() == b"new"
    assert precious.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_reports_do_not_write_through_links(
    tmp_path: Path, precious: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_references(tmp_path / "cards", monkeypatch)
    write_run(tmp_path / "runs", make_result("dmrlad"))
    boards, figure = tmp_path / "boards", tmp_path / "figure.png"
    entry = boards / "PointGoalSparse" / "dmrlad--quick.json"
    plotted = ["plot", tmp_path / "runs", "--kind", "adaptation", "--out", figure]
    compared = ["compare", tmp_path / "runs", "--plot", figure]
    submitted = ["submit", tmp_path / "runs", "--out", boards, "--replace"]
    listed = ["leaderboard", "--markdown", "--folder", boards]
    for link, commands in (
        (figure, [plotted, compared]),
        (figure.with_name("figure.png.partial"), [plotted]),
        (entry, [submitted]),
        (entry.with_name(f"{entry.name}.partial"), [submitted]),
        (boards / "README.md", [listed]),
    ):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(precious)
        for command in commands:
            assert _refused(capsys, command).startswith(f"dmrlad-bench: error: {link}: is a symbolic link to ")
        link.unlink()
        assert precious.read_bytes() == PRECIOUS
    shutil.rmtree(boards)
    boards.mkdir()
    entry.parent.symlink_to(precious.parent)
    assert f"{entry.parent}: is a symbolic link to" in _refused(capsys, submitted)
    assert [path.name for path in precious.parent.iterdir()] == ["precious"]
    assert dmrlad_bench.compare([tmp_path / "runs"]).groups


def _refused(capsys: pytest.CaptureFixture[str], command: list[str | Path]) -> str:
    """As `program.refused`, for commands that may print a table before they write."""
    with pytest.raises(SystemExit) as caught:
        main([str(part) for part in command])
    printed = capsys.readouterr()
    assert caught.value.code == 2, printed.err
    assert printed.err.count("\n") == 1
    return printed.err


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
