"""What a run must be like if it is what it says: ranges, the schedule, the reward's bounds, its command; and runs that stand twice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from dmrlad_bench.cards import AgentConfig, CardError, FamilyCard
from dmrlad_bench.cards.amounts import evaluated_iterations, steps_until
from dmrlad_bench.cards.external import EXTERNAL, kebab_case
from dmrlad_bench.protocol import CURVE_SPLIT
from dmrlad_bench.reports.bounds import ends_early, return_bounds
from dmrlad_bench.reports.leaderboard import Entry
from dmrlad_bench.reports.results import Result

NOT_LEARNING = ("random", "still", "scripted")  # algorithms
WITHOUT_CHANCE = ("still", "scripted")  # those whose runs may be the same with other seeds
PACKAGE = "dmrlad-bench"
VERSION = re.compile(r"\d+\.\d+.*")
NEAR = 1e-3  # relative: returns of two runs that are all this near are returns of one run
ROUNDING = 1e-6  # of a return, for each step: rewards are summed in another order
SLACK = 1.01  # seconds of the parts are measured apart from those of the whole
DEFAULTS = {"--env": "CheetahVelSparse", "--seed": "0", "--budget": "quick"}
SEVERAL = ("--agent", "--env", "--seed")


def implausible(entry: Entry, run: Result, card: FamilyCard) -> str | None:
    """The first fault of one run of an entry, in words; None where it may be what it says."""
    try:
        config = entry.agent.resolved()
    except CardError as error:
        return str(error)
    faults = (_agent(entry, run, config), _numbers(run), _schedule(run, card, config), _returns(run, card), _command(run, config))
    return next((fault for found in faults for fault in found), None)


def _agent(entry: Entry, run: Result, config: AgentConfig | None) -> Iterator[str]:
    agent = entry.agent
    if run.agent.track != agent.track:
        yield f"key 'agent.track' is {run.agent.track!r}, the entry's is {agent.track!r}"
    if config is None:
        return
    if config.digest != agent.digest:
        yield f"key 'agent.config' has digest {config.digest!r}, the runs' is {agent.digest!r}"
    if config.name != run.agent.name:
        yield f"key 'agent.config.name' is {config.name!r}, the run's agent is {run.agent.name!r}"
    if config.track != agent.track:
        yield f"key 'agent.track' is {agent.track!r}, the resolved agent is of the track {config.track!r}"
    if config.import_path != agent.import_path:
        yield f"key 'agent.import_path' is {agent.import_path!r}, the resolved agent's is {config.import_path!r}"


def _numbers(run: Result) -> Iterator[str]:
    counts = {name: getattr(run, name) for name in ("seed", "iterations", "environment_steps", "gradient_updates")}
    yield from (f"key {name!r} is {value}, expected 0 or more" for name, value in counts.items() if value < 0)
    if run.threads < 1 or (run.simulation_threads or 1) < 1:
        yield "key 'threads': expected at least 1"
    total, phases = run.wall_seconds.total, run.wall_seconds.phases
    if total <= 0:
        yield f"key 'wall_seconds.total' is {total:g}, expected more than 0"
    if any(seconds < 0 for seconds in phases.values()) or sum(phases.values()) > SLACK * total + 1.0:
        yield f"key 'wall_seconds.phases': expected 0 or more each, and together no more than the {total:g} s of the whole run"
    times = [point.seconds for point in run.curve]
    if times != sorted(times) or times[:1] < [0.0] or times[-1:] > [SLACK * total + 1.0]:
        yield f"key 'curve': seconds that do not rise from 0 to the {total:g} s of the whole run"
    version = run.packages.get(PACKAGE, "missing")
    if not VERSION.fullmatch(version):
        yield f"key 'packages.{PACKAGE}' is {version!r}: the version that it ran with must be known; install the package, and run again"


def _schedule(run: Result, card: FamilyCard, config: AgentConfig | None) -> Iterator[str]:
    """Iterations, steps, updates and the curve's points follow from the resolved agent and the family."""
    if config is None:
        return
    planned = config.schedule.iterations
    accepted = (0,) if config.algorithm in NOT_LEARNING else (0, planned) if config.algorithm == EXTERNAL else (planned,)
    if run.iterations not in accepted:
        yield f"key 'iterations' is {run.iterations}, its schedule has {accepted[-1]}"
        return
    points = evaluated_iterations(config, run.iterations)
    found = [point.iteration for point in run.curve]
    if found != points:
        yield f"key 'curve': {len(found)} points, its schedule has {len(points)}: after iteration {', '.join(map(str, points[:3]))}, ..."
        return
    early = ends_early(card)
    for name, steps, iteration in (
        ("environment_steps", run.environment_steps, run.iterations),
        *((f"curve.{number}.environment_steps", point.environment_steps, point.iteration) for number, point in enumerate(run.curve)),
    ):
        most = steps_until(config, card, iteration)
        least = most if not early else min(most, most // card.horizon)  # a step an episode
        if not least <= steps <= most:
            yield f"key {name!r} is {steps}, by its schedule {f'from {least} to {most}' if early else most}"
    for point in run.curve:
        least, most = _updates(config, point.iteration)
        if point.gradient_updates < least or (most is not None and point.gradient_updates > most):
            where = f"after iteration {point.iteration}"
            yield f"key 'gradient_updates' is {point.gradient_updates} {where}, by its schedule from {least} to {most}"


def _updates(config: AgentConfig, iterations: int) -> tuple[int, int | None]:
    """Fewest and most updates of so many iterations: inference may stop early; what anyone's agent counts, nobody knows."""
    if config.algorithm == EXTERNAL:
        return 0, None
    schedule, model = config.schedule, config.reward_model
    least = iterations * (schedule.policy_updates + (0 if model is None else model.updates))
    return least, least + iterations * schedule.reconstruction_updates * (config.inference.kind != "none")


def _returns(run: Result, card: FamilyCard) -> Iterator[str]:
    slack = ROUNDING * card.horizon
    for matrix in run.final:
        returns, success = np.array(matrix.returns), np.array(matrix.success)
        kind = f"{matrix.split!r} with {'deterministic' if matrix.deterministic else 'stochastic'} actions"
        for succeeded in (True, False):
            own = returns[success == succeeded]
            low, high = return_bounds(card, succeeded)
            if fault := _beyond(own, low, high, slack):
                told = "with" if succeeded else "without"
                yield f"key 'final': a return of {fault} {told} success in {kind}, by the reward of {card.id} {_span(low, high)}"
    low, high = return_bounds(card)
    for point in run.curve:
        scores = point.scores[CURVE_SPLIT]
        if fault := _beyond(np.array(scores.returns), low, high, slack):
            yield f"key 'curve': a mean return of {fault} after iteration {point.iteration}, by the reward of {card.id} {_span(low, high)}"
        if not all(0.0 <= rate <= 1.0 for rate in scores.success):
            yield f"key 'curve': a success rate after iteration {point.iteration} is none of 0 to 1"


def _beyond(values: np.ndarray, low: float | None, high: float | None, slack: float) -> str | None:
    wrong = values[(values < (-np.inf if low is None else low - slack)) | (values > (np.inf if high is None else high + slack))]
    return f"{wrong.flat[0]:g}" if wrong.size else None


def _span(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"


def _command(run: Result, config: AgentConfig | None) -> Iterator[str]:
    """The command names the agent, the family and the seed, or leaves them to their defaults."""
    if config is None:
        return
    given = _options(run.command)
    family = run.family.id.rpartition("/")[2]
    accepted = {
        "--env": {run.family.id, family, family.rpartition("-v")[0]},
        "--seed": {str(run.seed)},
        "--budget": {run.budget},
    }
    for option, values in accepted.items():
        found = given.get(option) or [DEFAULTS[option]]
        if not values & set(found):
            yield f"key 'command' has {option} {' '.join(found)}, and the run is one of {' or '.join(sorted(values))}"
    agents = given.get("--agent", [])
    if not any(_names(agent, run.agent.name) for agent in agents):
        yield f"key 'command' names {' and '.join(map(repr, agents)) or 'no agent'}, and the run is one of {run.agent.name!r}"


def _names(given: str, name: str) -> bool:
    """Whether `--agent` stands for an agent of this name: a card's file is called as it is, a class by its words."""
    if ":" in given:
        return kebab_case(given.rpartition(":")[2]) == name
    return given == name or given.endswith(".toml")


def _options(command: Sequence[str]) -> dict[str, list[str]]:
    """What a command gives to its options, in both ways of writing them; of those that may not be repeated, the last."""
    found: dict[str, list[str]] = {}
    for part, after in zip(command, (*command[1:], ""), strict=True):
        option, equals, value = part.partition("=")
        if option.startswith("--"):
            values = found.setdefault(option, [])
            values[:] = [*(values if option in SEVERAL else []), value if equals else after]
    return found


def doubled(entry: Entry) -> str | None:
    """Two runs of one entry that are the same run, in words; None where there are none."""
    if entry.agent.config is not None and entry.agent.config.get("algorithm") in WITHOUT_CHANCE:
        return None
    for number, run in enumerate(entry.runs):
        for other in entry.runs[:number]:
            if same_run(run, other):
                return f"duplicate: the same run stands under several seeds, {other.seed} and {run.seed}"
    return None


def copied(entry: Entry, others: Sequence[Entry]) -> tuple[Result, Entry] | None:
    """A run of an entry that is nearly equal to one of another entry, and which; None where there is none.

    What does not learn is the same in all budgets.
    """
    for run in entry.runs:
        for other in others:
            for known in other.runs if other.family.id == entry.family.id else ():
                untrained = not (run.environment_steps or known.environment_steps) and run.agent.name == known.agent.name
                if not untrained and same_run(run, known):
                    return run, other
    return None


def same_run(run: Result, other: Result) -> bool:
    """Whether all returns of two runs are nearly equal, whatever their seeds and times; returns that are all one number say nothing."""
    one, two = _fingerprint(run), _fingerprint(other)
    if run.family.id != other.family.id or one.shape != two.shape or np.ptp(one) == 0.0:
        return False
    return bool((np.abs(one - two) <= NEAR * np.maximum(np.abs(one), np.abs(two))).all())


def _fingerprint(run: Result) -> np.ndarray:
    """All returns of the final scores, in the order of the splits' names."""
    ordered = sorted(run.final, key=lambda matrix: (matrix.split, matrix.deterministic))
    return np.concatenate([np.ravel(matrix.returns) for matrix in ordered])
