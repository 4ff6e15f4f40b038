"""Threads of one process take turns where they are asked to."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager, nullcontext

import pytest

from dmrlad_bench.agents.turns import taking_turns, turn


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


@pytest.mark.parametrize(("turns", "expected"), [(nullcontext(), False), (taking_turns(), True)])
def test_only_one_thread_is_inside_a_turn_while_turns_are_taken(turns: AbstractContextManager[object], expected: bool) -> None:
    with turns:
        assert (most_at_once(4) == 1) == expected
    assert most_at_once(4) > 1


def test_a_turn_ends_with_an_error() -> None:
    with taking_turns():
        with pytest.raises(RuntimeError, match="within"), turn():
            raise RuntimeError("within")
        assert most_at_once(2) == 1
