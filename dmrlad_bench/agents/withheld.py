"""The family's reward and success functions in the hands of anyone's agent, withheld from the standard track while it is scored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dmrlad_bench.agents.interface import Problem


class PrivilegeMissing(RuntimeError):
    """An agent of the standard track asked, while it was scored, for what only privileged ones have."""


class Judge:
    """Hands the functions of a problem over, but for the time in which the agent is scored.

    A copy of it, as in an agent's copy of the problem, is the same one.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._withheld = False

    def reward(self, outcome: Any, task: Any) -> Any:
        """The family's reward function."""
        self._check("reward")
        return self._problem.reward(outcome, task)

    def success(self, outcome: Any, task: Any) -> Any:
        """The family's success function."""
        self._check("success")
        assert self._problem.success is not None
        return self._problem.success(outcome, task)

    @contextmanager
    def withheld(self) -> Iterator[None]:
        """The time in which the agent is scored."""
        before, self._withheld = self._withheld, True
        try:
            yield
        finally:
            self._withheld = before

    def problem(self) -> Problem:
        """The problem with this judge's functions."""
        return replace(self._problem, reward=self.reward, success=None if self._problem.success is None else self.success)

    def __copy__(self) -> Judge:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Judge:
        return self

    def _check(self, name: str) -> None:
        if self._withheld:
            raise PrivilegeMissing(
                f"problem.{name} is not there while an agent of the standard track is scored; an agent that needs it declares "
                "track = 'privileged'"
            )
