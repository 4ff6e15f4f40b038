"""Runs of one process take turns where they are asked to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from program import SMOKE, shown

from dmrlad_bench.agents import turns
from dmrlad_bench.agents.actor_critic import SoftActorCritic
from dmrlad_bench.agents.cemrl import Cemrl
from dmrlad_bench.agents.inference import TaskInference
from dmrlad_bench.agents.turns import taking_turns, turn
from dmrlad_bench.harness import pack


def most_at_once(threads: int) -> int:
    """How many of so many threads are inside a turn together."""
    inside, most = [], []

    def work() -> None:
        for _ in range(3):
            with turn():
                inside.append(None)
                time.sleep(0.02)
                most.append(len(inside))
                inside.pop()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return max(most)


@pytest.mark.parametrize(("how", "alone"), [(nullcontext, False), (taking_turns, True)])
def test_only_one_thread_is_inside_a_turn_while_turns_are_taken(how: Callable[[], AbstractContextManager[object]], alone: bool) -> None:
    with how():
        assert (most_at_once(4) == 1) == alone
    assert most_at_once(4) > 1


def test_a_turn_ends_with_an_error() -> None:
    with taking_turns():
        with pytest.raises(RuntimeError, match="within"), turn():
            raise RuntimeError("within")
        assert most_at_once(2) == 1


class Held:
    """A lock that says whether it is held."""

    held = False

    def __enter__(self) -> None:
        self.held = True

    def __exit__(self, *_: object) -> None:
        self.held = False


def test_a_run_acts_and_updates_within_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lock, seen = Held(), dict[str, set[bool]]()
    monkeypatch.setattr(turns, "_lock", lock)

    def watch(owner: type, name: str) -> None:
        plain = getattr(owner, name)

        def noting(*arguments: Any) -> Any:
            seen.setdefault(f"{owner.__name__}.{name}", set()).add(lock.held)
            return plain(*arguments)

        monkeypatch.setattr(owner, name, noting)

    watched: list[tuple[type, str]] = [(Cemrl, "act"), (Cemrl, "observe"), (SoftActorCritic, "update"), (TaskInference, "update")]
    for owner, name in watched:
        watch(owner, name)
    shown(capsys, *SMOKE, "--quiet", "--out", tmp_path)
    assert seen == {f"{owner.__name__}.{name}": {True} for owner, name in watched}
    assert not lock.held


@pytest.mark.parametrize(("device", "expected"), [("cpu", False), ("cuda", True)])
def test_packed_runs_take_turns_on_a_gpu(monkeypatch: pytest.MonkeyPatch, device: str, expected: bool) -> None:
    for name in ("_own_stream", "torch_settings"):  # which need the GPU
        monkeypatch.setattr(pack, name, lambda *_: nullcontext())
    plans: Any = {Path(str(seed)): SimpleNamespace(device=device, threads=1) for seed in range(2)}
    taken = dict(pack.packed(plans, lambda config, folder: turns._lock is not None))
    assert taken == dict.fromkeys(plans, expected)
    assert turns._lock is None
