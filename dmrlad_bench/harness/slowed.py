"""Whether other programs take this run's processor away."""

from __future__ import annotations

from collections import deque

RATIO = 2.0  # wall seconds for a processor second from which an iteration counts as slowed
ITERATIONS = 3  # slowed ones in a row before anything is said: a single one may have been a stopped or a swapped process
LEAST = 5.0  # wall seconds that they take together


class Slowed:
    """Looks at what iterations took, and says once that they wait for a processor.

    Only work that this process does itself on the CPU may be given: waiting for other processes or for a GPU is not being slowed.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque(maxlen=ITERATIONS)
        self._said = False

    def add(self, wall: float, processor: float) -> str | None:
        """Count one iteration; returns the line to show where this one makes it clear.

        Args:
            wall: seconds that passed.
            processor: seconds of processor time of all threads of the process in them.
        """
        self._recent.append((wall, processor))
        if self._said or len(self._recent) < ITERATIONS or any(long < RATIO * short for long, short in self._recent):
            return None
        walls, processors = (sum(column) for column in zip(*self._recent, strict=True))
        if walls < LEAST:
            return None
        self._said = True
        return (
            f"slowed by other work on this machine: learning took {walls:.0f} s in the last {ITERATIONS} iterations, "
            f"{processors:.0f} s of them on a processor; run less beside it, or fewer --jobs"
        )
