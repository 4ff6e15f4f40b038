"""A run that something unexpected ends: one line, its traceback in the run folder, and the other runs go on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from counting_agent import CountingAgent
from counting_runs import planned, run

from dmrlad_bench.cards.foreign import LONGEST_MESSAGE, described
from dmrlad_bench.cli import main
from dmrlad_bench.harness import train
from dmrlad_bench.harness.errors import RunFailed
from dmrlad_bench.harness.matrix import Options, train_all

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
BROKEN = """
from cart import Cart

class Broken(Cart):
    def step(self, state, action):
        raise {error}
"""


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Makes a family whose body raises what is asked for, and one that works; returns the arguments that run both, the broken one first."""

    def make(error: str) -> list[str]:
        card = (EXAMPLES / "CartVel.toml").read_text()
        (tmp_path / "Good.toml").write_text(card.replace('"CartVel"', '"Good"'))
        (tmp_path / "Bad.toml").write_text(card.replace('"CartVel"', '"Bad"').replace("cart:Cart", f"{module}:Broken"))
        (tmp_path / f"{module}.py").write_text(BROKEN.format(error=error))
        return ["run", "--agent", "random", "--env", "Bad.toml", "--env", "Good.toml", "--threads", "1", "--device", "cpu", "--quiet"]

    module = f"broken_{tmp_path.name}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.syspath_prepend(tmp_path)
    return make


def told(folder: Path, error: str) -> str:
    """The one line: what was raised, where in the body, and where the traceback lies."""
    (body,) = Path.cwd().glob("broken_*.py")
    line = body.read_text().splitlines().index(next(line for line in body.read_text().splitlines() if "raise" in line)) + 1
    return f"dmrlad-bench: error: {folder}: stopped: {error} ({body}:{line}); traceback: {folder / 'error.log'}\n"


@pytest.mark.parametrize("how", [["--jobs", "1"], ["--jobs", "2"], ["--pack"]], ids=" ".join)
def test_one_of_several_runs_raises_and_the_others_go_on(
    cards: Callable[[str], list[str]], capfd: pytest.CaptureFixture[str], how: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*cards('ZeroDivisionError("what\\nhappened")'), *how])
    printed = capfd.readouterr()
    folder = Path("runs/Bad/random--quick--seed0")
    assert caught.value.code == 1
    assert printed.err == told(folder, "ZeroDivisionError: what happened")
    assert re.findall(r"^run folders: (.*)$", printed.out, re.MULTILINE) == ["runs"]
    written = (folder / "error.log").read_text()
    assert written.startswith("Traceback (most recent call last):") and "in step" in written and "what\nhappened" in written


@pytest.mark.parametrize(("raised", "shown"), [("MemoryError()", "MemoryError"), ("SystemExit(0)", "SystemExit: 0")])
def test_a_single_run_ends_likewise(cards: Callable[[str], list[str]], capsys: pytest.CaptureFixture[str], raised: str, shown: str) -> None:
    arguments = cards(raised)
    del arguments[5:7]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    printed = capsys.readouterr()
    assert (caught.value.code, printed.out) == (1, "")
    folder = Path("runs/Bad/random--quick--seed0")
    assert printed.err == told(folder, shown)


def test_what_raised_is_the_cause_of_what_train_raises(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting()
    with monkeypatch.context() as patch, pytest.raises(RunFailed, match="RuntimeError: never seen before") as caught:
        patch.setattr(CountingAgent, "learn", lambda *_: _raise(RuntimeError("never seen before")))
        run(tmp_path)
    assert isinstance(caught.value.__cause__, RuntimeError)
    folder = planned(tmp_path)[1]
    assert "never seen before" in (folder / "error.log").read_text()
    run(tmp_path, resume=True)
    assert not (folder / "error.log").exists()


def test_a_fault_outside_of_the_sitting_is_an_outcome_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "check_folder", lambda *_: _raise(LookupError("where?")))
    config, folder = planned(tmp_path)
    folder.mkdir(parents=True)
    ((_, outcome),) = train_all({folder: config}, 1, Options(resume=False, command=["test"], quiet=True))
    assert isinstance(outcome, RunFailed)
    assert re.fullmatch(
        rf"{re.escape(str(folder))}: stopped: LookupError: where\? \({re.escape(__file__)}:\d+\); traceback: .*error\.log", str(outcome)
    )


def test_a_full_disk_does_not_hide_what_happened(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    counting()
    monkeypatch.setattr("dmrlad_bench.harness.failures.write_atomic", full)
    monkeypatch.setattr(CountingAgent, "learn", lambda *_: _raise(KeyError("belief")))
    with pytest.raises(
        RunFailed, match=r"KeyError: 'belief' \(.*\); its traceback cannot be written to .*error\.log: No space left on device$"
    ):
        run(tmp_path)


def test_any_exception_is_one_line() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert described(Mute()) == "Mute: (its text cannot be printed)"
    assert described(ValueError()) == "ValueError"
    assert described(ValueError("a\n b\tc")) == "ValueError: a b c"
    assert described(ValueError("x" * 10_000)) == f"ValueError: {'x' * LONGEST_MESSAGE} ..."


def _raise(error: Exception) -> Any:
    raise error
