"""What an agent of anyone's logs, counts and raises: logged as it is, or one line that can be printed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dmrlad_bench.agents.external import AgentFault, WatchedAgent
from dmrlad_bench.cards.foreign import described, message_of, printable


class Given:
    """An agent whose `learn` returns, or raises, what it is given."""

    def __init__(self, metrics: Any = None, updates: Any = 0) -> None:
        self.metrics, self.gradient_updates = metrics, updates

    def begin_trial(self, num_envs: int) -> None: ...
    def act(self, observation: np.ndarray, deterministic: bool) -> None: ...
    def observe(self, transition: Any) -> None: ...

    def learn(self, trials: Any) -> Any:
        if isinstance(self.metrics, BaseException):
            raise self.metrics
        return self.metrics


def watched(metrics: Any = None, updates: Any = 0) -> Any:
    return WatchedAgent(Given(metrics, updates), "a:B", None, False)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"a\nb": 1.0}, r"learn: a number is named 'a\\nb'; expected one line"),
        ({"a\rb": 1.0}, "a number is named"),
        ({"\x1b[31m": 1.0}, "a number is named"),
        ({"\ud800": 1.0}, "a number is named"),
        ({"": 1.0}, "a number is named ''"),
        ({1: 1.0, "1": 2.0}, "a number is named a int"),
        ({"x" * 101: 1.0}, "a number is named"),
        ({"charts/train_return": 100.0}, "does not begin with charts/ or eval/"),
        ({"eval/test_return_1": 100.0}, "does not begin with charts/ or eval/"),
        ({"a": 1.0, "losses/a": 2.0}, "two numbers would be logged as 'losses/a'"),
        ({"a": 10**400}, "expected a dict of numbers"),
        ({"a": 1j}, "expected a dict of numbers"),
    ],
)
def test_a_number_that_cannot_be_logged_is_named(metrics: Any, message: str) -> None:
    with pytest.raises(AgentFault) as caught:
        watched(metrics).learn(None)
    assert message.replace("\\\\", "\\") in str(caught.value)
    assert str(caught.value).isprintable()


def test_names_that_can_be_logged_are() -> None:
    assert watched({"a,b": 1, 'quo"ted': np.float32(2), "relabel/é": True}).learn(None) == {
        "losses/a,b": 1.0,
        'losses/quo"ted': 2.0,
        "relabel/é": 1.0,
    }


COUNTS = [-1, 10**5000, "x", float("nan"), float("inf"), None]


@pytest.mark.parametrize("number", range(len(COUNTS)))
def test_a_count_of_updates_is_a_count(number: int) -> None:
    updates = COUNTS[number]
    with pytest.raises(AgentFault, match="gradient_updates: ") as caught:
        _ = watched(updates=updates).gradient_updates
    assert str(caught.value).isprintable()


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Leaving(Exception):
    def __str__(self) -> str:
        raise SystemExit(0)


class Nothing(Exception):
    def __str__(self) -> Any:
        return None


EXCEPTIONS = [
    (Mute(), "Mute: (its text cannot be printed)"),
    (Leaving(), "Leaving: (its text cannot be printed)"),
    (Nothing(), "Nothing: (its text cannot be printed)"),
    (ValueError("a\nb\r\n\tc"), "ValueError: a b c"),
    (ValueError("\x1b[31mred\x07\x00"), r"ValueError: \x1b[31mred\x07\x00"),
    (ValueError("\ud800"), r"ValueError: \ud800"),
    (ValueError("é [/b] {x}"), "ValueError: é [/b] {x}"),
    (ValueError("x" * 100_000), f"ValueError: {'x' * 500} ..."),
    (SystemExit(0), "SystemExit: 0"),
    (GeneratorExit(), "GeneratorExit"),
    (RecursionError("deep"), "RecursionError: deep"),
]


@pytest.mark.parametrize(("error", "expected"), EXCEPTIONS)
def test_any_exception_is_one_line_that_can_be_printed(error: BaseException, expected: str) -> None:
    with pytest.raises(AgentFault) as caught:
        watched(error).learn(None)
    text = str(caught.value)
    assert text.startswith(f"agent 'a:B': learn: {expected}")
    assert text.isprintable()
    assert text.encode()
    assert described(error).startswith(expected)
    assert message_of(error) == expected.partition(": ")[2].strip()


def test_interrupts_are_no_faults() -> None:
    with pytest.raises(KeyboardInterrupt):
        watched(KeyboardInterrupt()).learn(None)


def test_text_is_cut_and_escaped() -> None:
    assert printable("a" * 10, 4) == "aaaa ..."
    assert printable("a\x85b\u2028c") == r"a\x85b\u2028c"
