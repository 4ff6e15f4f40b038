"""A run's progress on standard error, a bar or plain lines: what goes on inside an iteration, rates, and what is left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

LINE_INTERVAL = 10.0  # seconds between plain lines of iterations, and without a line inside the first one
LONG = 30.0  # seconds without a line inside a later one
BAR_INTERVAL = 0.1
RECENT = 5  # iterations that rates and what is left are taken from
PHASES = {
    "collect": "collecting",
    "relabel": "relabelling",
    "reconstruct": "reconstructing",
    "re-infer": "inferring beliefs anew",
    "improve": "improving the policy",
    "learn-other": "learning",
    "evaluate": "scoring",
}


class Pace:
    """How fast the last iterations were. The first of a sitting counts only while there is no other: it may be an initial one.

    Args:
        iteration: iterations done.
        steps: environment steps done.
        now: seconds on any clock.
    """

    def __init__(self, iteration: int, steps: int, now: float) -> None:
        self._done: deque[tuple[float, int, int]] = deque([(now, iteration, steps)], maxlen=RECENT + 1)
        self._only_first = True

    def add(self, iteration: int, steps: int, now: float) -> None:
        """One more iteration is over."""
        self._done.append((now, iteration, steps))
        if len(self._done) == 3 and self._only_first:
            self._done.popleft()
            self._only_first = False

    @property
    def steps_a_second(self) -> float:
        """Environment steps a second, learning included."""
        (began, _, before), (now, _, after) = self._done[0], self._done[-1]
        return (after - before) / max(now - began, 1e-9)

    def left(self, iterations: int) -> float:
        """Seconds until `iterations` are done."""
        (began, first, _), (now, last, _) = self._done[0], self._done[-1]
        return (now - began) / max(last - first, 1) * (iterations - last)


class RunProgress:
    """Shows where one run is; a context manager.

    Args:
        title: names the run on every line.
        iterations: how many there will be.
        start: (iteration, environment steps) of the checkpoint that is continued; (0, 0) for a new run.
        quiet: show nothing.
        bar: show a bar where standard error is a terminal.
        clock: seconds, for rates.
    """

    def __init__(
        self, title: str, iterations: int, start: tuple[int, int], *, quiet: bool, bar: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.title, self.iterations, self.quiet, self._clock = title, iterations, quiet, clock
        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._pace = Pace(*start, clock())
        self._first = self._iteration = start[0] + 1
        self._phase, self._planned, self._steps, self._began = "", 0, 0, clock()
        self._said = self._ended = self._drawn = float("-inf")
        self._bar: Progress | None = None
        if bar and not quiet and self.console.is_terminal:
            text = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), TimeElapsedColumn())
            self._bar = Progress(SpinnerColumn(), *text, TextColumn("{task.fields[state]}", markup=False), console=self.console)
            self._run = self._bar.add_task(title, total=iterations, completed=start[0], state="")
            self._inside = self._bar.add_task("", total=None, state="", visible=False)

    def __enter__(self) -> RunProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.update(self._inside, visible=False)
            self._bar.stop()

    def begin(self, iteration: int, steps: int) -> None:
        """An iteration begins to collect what may be so many environment steps."""
        self._iteration, self._planned, self._steps = iteration, steps, 0
        self.phase("collect")

    def phase(self, name: str) -> None:
        """A part of the iteration under way begins; names as in `PHASES`, others are not shown."""
        if self.quiet or name not in PHASES or self._iteration > self.iterations:
            return
        self._phase, self._began = PHASES[name], self._clock()
        total = self._planned if name == "collect" else None
        if self._bar is not None:
            self._bar.reset(self._inside, description=f"  iteration {self._iteration}: {self._phase}", total=total, visible=True, state="")
        elif self._iteration == self._first or self._due():
            self._say(f"{self._phase}, up to {total} steps" if total else self._phase)

    def collected(self, steps: int) -> None:
        """So many more environment steps were lived."""
        self._steps += steps
        self._advance(self._steps, self._planned, "steps")

    def updated(self, done: int, updates: int) -> None:
        """So many of at most so many updates of the phase under way are done."""
        self._advance(done, updates, "updates")

    def _advance(self, done: int, total: int, what: str) -> None:
        now = self._clock()
        if self.quiet or (now - self._drawn < BAR_INTERVAL if self._bar is not None else not self._due()):
            return
        state = f"{done} of {total} {what}, {done / max(now - self._began, 1e-9):.0f} {what}/s"
        self._drawn = now
        if self._bar is None:
            self._say(f"{self._phase}, {state}")
        else:
            self._bar.update(self._inside, total=total, completed=done, state=state)

    def end(self, iteration: int, steps: int, scores: str) -> None:
        """An iteration is over, after so many environment steps of the run; `scores` are those of its evaluation, or empty."""
        self._pace.add(iteration, steps, self._clock())
        self._iteration = iteration + 1
        state = f"{steps} steps, {self._pace.steps_a_second:.0f} steps/s, {clock_text(self._pace.left(self.iterations))} left"
        if self._bar is not None:
            self._bar.update(self._run, completed=iteration, state=f"{iteration}/{self.iterations}, {state}")
            if scores:
                self._bar.console.print(f"iteration {iteration}, {steps} steps: {scores}", markup=False)
        elif scores or iteration in (self._first, self.iterations) or self._clock() - self._ended >= LINE_INTERVAL:
            self._ended = self._clock()
            self.line(f"iteration {iteration}/{self.iterations}, {state}{scores and f', {scores}'}")

    def line(self, text: str) -> None:
        """One line on standard error, unless quiet."""
        if not self.quiet:
            self._said = self._clock()
            self.console.print(f"{self.title}: {text}", markup=False, soft_wrap=True)

    def _say(self, text: str) -> None:
        self.line(f"iteration {self._iteration}/{self.iterations}: {text}")

    def _due(self) -> bool:
        return self._clock() - self._said >= (LINE_INTERVAL if self._iteration == self._first else LONG)


def clock_text(seconds: float) -> str:
    """`1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
