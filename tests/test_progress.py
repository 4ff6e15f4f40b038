"""What a run shows while it goes, with a clock of the test's own: phases, rates of the last iterations, what is left, being slowed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from counting_agent import CountingAgent
from counting_runs import COMMAND, planned
from rich.console import Console

from dmrlad_bench.harness import progress, session
from dmrlad_bench.harness.progress import Pace, RunProgress
from dmrlad_bench.harness.slowed import Slowed
from dmrlad_bench.harness.train import train_run


class Clock:
    """Stands still until it is told how many seconds have passed."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


def test_the_first_iteration_shows_its_phases_and_later_ones_what_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with RunProgress("Family agent seed 0", 4, (0, 0), quiet=False, bar=True, clock=clock) as shown:
        shown.begin(1, 1000)
        for _ in range(30):
            clock.passes(0.5)
            shown.collected(10)
        for phase in ("relabel", "reconstruct", "improve"):
            shown.phase(phase)
            clock.passes(2.0)
        clock.passes(9.0)
        shown.updated(100, 600)
        shown.updated(200, 600)
        shown.end(1, 300, "")
        shown.begin(2, 20)
        clock.passes(4.0)
        shown.phase("improve")
        clock.passes(27.0)
        shown.phase("evaluate")
        shown.end(2, 320, "test return -1")
        shown.begin(3, 20)
        clock.passes(9.0)
        shown.phase("improve")
        clock.passes(9.0)
        shown.end(3, 340, "")
    assert capsys.readouterr().err.splitlines() == [
        f"Family agent seed 0: iteration {text}"
        for text in (
            "1/4: collecting, up to 1000 steps",
            "1/4: collecting, 200 of 1000 steps, 20 steps/s",
            "1/4: relabelling",
            "1/4: reconstructing",
            "1/4: improving the policy",
            "1/4: improving the policy, 100 of 600 updates, 9 updates/s",
            "1/4, 300 steps, 10 steps/s, 0:01:30 left",
            "2/4: scoring",
            "2/4, 320 steps, 1 steps/s, 0:01:02 left, test return -1",
            "3/4, 340 steps, 1 steps/s, 0:00:24 left",
        )
    ]


def test_the_phases_of_a_continued_run_are_shown_in_its_own_first_iteration(capsys: pytest.CaptureFixture[str]) -> None:
    with RunProgress("F a seed 0", 9, (7, 700), quiet=False, bar=False, clock=Clock()) as shown:
        shown.begin(8, 100)
        shown.phase("improve")
        shown.phase("somebody's own")
    assert capsys.readouterr().err.splitlines() == [
        "F a seed 0: iteration 8/9: collecting, up to 100 steps",
        "F a seed 0: iteration 8/9: improving the policy",
    ]


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with RunProgress("F a seed 0", 2, (0, 0), quiet=True, bar=True, clock=Clock()) as shown:
        shown.begin(1, 10)
        shown.collected(10)
        shown.phase("improve")
        shown.end(1, 10, "scores")
        shown.line("anything")
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal_takes_titles_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()

    def terminal(**options: Any) -> Console:
        return Console(file=drawn, force_terminal=True, width=120, highlight=False, color_system=None)

    monkeypatch.setattr(progress, "Console", terminal)
    clock = Clock()
    with RunProgress("[b]Family[/x] agent seed 0", 4, (0, 0), quiet=False, bar=True, clock=clock) as shown:
        shown.begin(1, 1000)
        clock.passes(2.0)
        shown.collected(250)
        shown._bar.refresh()  # pyright: ignore[reportOptionalMemberAccess]
        shown.phase("improve")
        shown._bar.refresh()  # pyright: ignore[reportOptionalMemberAccess]
        shown.end(1, 250, "[/b] scores")
    text = drawn.getvalue()
    assert "[b]Family[/x] agent seed 0" in text
    assert "iteration 1: collecting" in text
    assert "250 of 1000 steps, 125 steps/s" in text
    assert "iteration 1: improving the policy" in text
    assert "iteration 1, 250 steps: [/b] scores" in text
    assert "1/4, 250 steps, 125 steps/s, 0:00:06 left" in text


def test_rates_are_those_of_the_last_iterations() -> None:
    pace = Pace(0, 0, 0.0)
    now = 1000.0
    pace.add(1, 50_000, now)
    assert pace.left(11) == pytest.approx(10_000.0)  # nothing else is known
    for iteration in range(2, 5):
        now += 10.0
        pace.add(iteration, 50_000 + 100 * iteration, now)
        assert pace.left(11) == pytest.approx(10.0 * (11 - iteration))  # the long first one is forgotten
    for iteration in range(5, 10):
        now += 2.0
        pace.add(iteration, 50_000 + 100 * iteration, now)
    assert pace.left(11) == pytest.approx(4.0)
    assert pace.steps_a_second == pytest.approx(50.0)


Spent = list[tuple[float, float]]


@pytest.mark.parametrize(
    ("spent", "expected"),
    [
        ([(10.0, 9.0)] * 20, []),
        ([(10.0, 4.0)] * 3, [2]),
        ([(10.0, 4.0)] * 20, [2]),  # once
        ([(10.0, 9.0), (10.0, 4.0), (10.0, 4.0), (10.0, 6.0)], []),  # never three in a row
        ([(500.0, 1.0), (10.0, 9.0), (10.0, 9.0)], []),  # a single one: stopped with Ctrl-Z
        ([(0.1, 0.01)] * 20, []),  # too short to tell
        ([(10.0, 35.0)] * 5, []),  # several threads at work
    ],
)
def test_a_run_that_waits_for_processors_says_so_once(spent: Spent, expected: list[int]) -> None:
    slowed = Slowed()
    said = {number: line for number, times in enumerate(spent) if (line := slowed.add(*times)) is not None}
    assert list(said) == expected
    for line in said.values():
        assert line == (
            "slowed by other work on this machine: learning took 30 s in the last 3 iterations, "
            "12 s of them on a processor; run less beside it, or fewer --jobs"
        )


def test_a_session_shows_it(
    tmp_path: Path, counting: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An agent whose learning takes ten seconds and works one of them, by clocks that it moves itself."""
    wall, processor = Clock(), Clock()
    plain = CountingAgent.learn

    def slow(agent: CountingAgent, trials: Any) -> Any:
        wall.passes(10.0)
        processor.passes(1.0)
        return plain(agent, trials)

    monkeypatch.setattr(CountingAgent, "learn", slow)
    monkeypatch.setattr(session, "time", SimpleNamespace(perf_counter=wall, process_time=processor))
    counting()
    config, folder = planned(tmp_path, "schedule.iterations=5")
    train_run(config, folder, resume=False, command=COMMAND)
    lines = [line for line in capsys.readouterr().err.splitlines() if "slowed" in line]
    assert lines == [
        "PointGoal dmrlad seed 0: slowed by other work on this machine: learning took 30 s in the last 3 iterations, "
        "3 s of them on a processor; run less beside it, or fewer --jobs"
    ]
