"""Anyone's agent: import the class that `package.module:Class` names, make an agent of it, and watch over what it does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, get_args

import numpy as np

from dmrlad_bench.agents import withheld
from dmrlad_bench.agents.interface import Diverged, Metrics, Problem, Transition
from dmrlad_bench.agents.withheld import Judge
from dmrlad_bench.cards import AgentConfig, CardError
from dmrlad_bench.cards.agent_config import Track
from dmrlad_bench.cards.external import EXTERNAL
from dmrlad_bench.cards.foreign import described, import_foreign, message_of, printable, refusing

NEEDED = ("begin_trial", "act", "observe")
PAIRS = (("state_dict", "load_state_dict"), ("new_replay_shard", "load_replay_shards"))
OWN_COLUMNS = ("charts/", "eval/")  # of the log; they are the harness's to fill
LONGEST_NAME = 100  # of a number that is logged
OUTCOMES = "observe_outcome"  # the member by which an agent asks for outcomes while it is scored
OPTIONAL = ("learn", "begin_training_trial", "begin_episode", "fork", OUTCOMES)
METHODS = frozenset((*NEEDED, *(name for pair in PAIRS for name in pair), *OPTIONAL))


class AgentFault(RuntimeError):
    """Someone's agent raised, or gave what it must not; the message is one line that names the class, the call and the place."""


def complete(config: AgentConfig) -> AgentConfig:
    """Check the class of an external agent, and add what its class says of itself; other configurations are returned as they are.

    Raises:
        CardError: no such module or class, or one that cannot be an agent.
    """
    if config.algorithm != EXTERNAL:
        return config
    found, where = load_class(_path_of(config)), f"agent {config.import_path!r}"
    with refusing(f"{where}: task_observable"):
        shown = config.task_observable or bool(getattr(found, "task_observable", False))
    with refusing(f"{where}: track"):
        track = getattr(found, "track", config.track)
        known = type(track) is str and track in get_args(Track)
    if not known:
        raise CardError(f"{where}: track: expected {' or '.join(map(repr, get_args(Track)))}, got {printable(repr(track))}")
    if config.track == "privileged" and track != "privileged":
        raise CardError(f"{where}: track is {track!r} on the class, {config.track!r} on the card")
    if track != "privileged":
        asks = "task_observable = True" if shown else OUTCOMES if callable(getattr(found, OUTCOMES, None)) else None
        if asks is not None:
            raise CardError(f"{where}: {asks} is for the privileged track only: the class must declare track = 'privileged'")
    return config.model_copy(update={"task_observable": shown, "track": track})


def takes_device(config: AgentConfig) -> bool:
    """Whether an external agent's constructor has a parameter `device`; raises `CardError` as `complete` does."""
    return "device" in inspect.signature(load_class(_path_of(config))).parameters


def load_class(import_path: str) -> type:
    """The class that `package.module:Class` names, checked as far as that goes without making an agent.

    Raises:
        CardError: it cannot be imported, is no class, lacks a member, or cannot be called with `(problem, seed)`.
    """
    module_name, _, name = import_path.partition(":")
    where = f"agent {import_path!r}"
    try:
        module = import_foreign(module_name, f"{where}: importing {module_name} failed")
    except CardError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name is not None and f"{module_name}.".startswith(f"{cause.name}."):
            raise CardError(f"{where}: no module named {cause.name!r} in the current folder or among the installed packages") from None
        raise
    with refusing(where):  # whatever a stranger's class does when it is looked at
        found = getattr(module, name, None)
        if not inspect.isclass(found):
            classes = [key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module_name]
            what = "has no" if found is None else f"has a {type(found).__name__}, not a class,"
            raise CardError(f"{where}: module {module_name!r} {what} {name!r}; its classes: {', '.join(classes) or 'none'}")
        _check_members(found, where)
        try:
            device = {"device": "cpu"} if "device" in inspect.signature(found).parameters else {}
            inspect.signature(found).bind(None, 0, **device)
        except (TypeError, ValueError) as error:
            raise CardError(f"{where}: cannot be called as {name}(problem, seed): {error}") from None
    return found


def build_external(config: AgentConfig, problem: Problem, seed: np.random.SeedSequence, device: str) -> WatchedAgent:
    """Make the agent that `config.import_path` names: `Class(problem, seed)`, with `device=` where it takes one.

    Raises:
        CardError: no such class, or one that cannot be an agent.
        AgentFault: the constructor raised.
    """
    import_path = _path_of(config)
    made = load_class(import_path)
    options = {"device": device} if takes_device(config) else {}
    judge = None if config.track == "privileged" else Judge(problem)
    given = problem if judge is None else judge.problem()
    agent = _call(f"agent {import_path!r}: {made.__name__}(problem, seed)", lambda: made(given, whole_seed(seed), **options))
    return WatchedAgent(agent, import_path, problem, config.task_observable, judge)


def whole_seed(seed: np.random.SeedSequence) -> int:
    """The seed as an int of 32 bits, which every library takes."""
    return int(seed.generate_state(1)[0])


class WatchedAgent:
    """An agent of anyone's: has the members that the agent has; whatever it does wrong becomes an `AgentFault`.

    Args:
        agent: made by the class.
        import_path: names the class in messages.
        problem: sizes of the family.
        task_observable: whether the agent is shown the task.
        judge: hands the problem's functions to an agent of the standard track; None for a privileged one, which has them always.
    """

    def __init__(self, agent: Any, import_path: str, problem: Problem, task_observable: bool, judge: Judge | None = None) -> None:
        self.agent, self.import_path, self.problem = agent, import_path, problem
        self.task_observable, self.judge = task_observable, judge
        self.track = "standard" if judge is not None else "privileged"

    @contextmanager
    def scored(self) -> Iterator[None]:
        """The time in which the agent is scored, by itself or by forks: one of the standard track has no reward function then."""
        with nullcontext() if self.judge is None else self.judge.withheld():
            yield

    def __getattr__(self, name: str) -> Any:
        if name not in METHODS or not callable(method := getattr(self.agent, name, None)):
            raise AttributeError(f"agent {self.import_path!r} has no method {name!r}")
        return lambda *arguments: self._watched(name, method, arguments)

    @property
    def gradient_updates(self) -> int:
        """Optimiser steps, as the agent counts them; 0 where it does not."""
        count = self._watched("gradient_updates", lambda: int(getattr(self.agent, "gradient_updates", 0)), ())
        if not 0 <= count < 2**63:
            raise AgentFault(f"{self._where('gradient_updates')}: expected a count from 0 to 2**63 - 1")
        return count

    def begin_trial(self, num_envs: int) -> None:
        """Forget the task."""
        self._watched("begin_trial", self.agent.begin_trial, (num_envs,))

    def observe(self, transition: Transition) -> None:
        """See what the last action led to."""
        self._watched("observe", self.agent.observe, (transition,))

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """Actions `(num_envs, action_dim)`, finite; anything else is a fault."""
        given = self._watched("act", self.agent.act, (observation, deterministic))
        expected = (len(observation), self.problem.action_dim)
        wanted = f"expected a finite array of shape {expected}"
        try:
            action = np.array(given)  # of our own, whatever the agent does with its array afterwards
        except Exception as error:
            raise AgentFault(f"{self._where('act')}: returned what is no array: {message_of(error)}; {wanted}") from None
        if action.dtype.kind not in "fiub":
            raise AgentFault(f"{self._where('act')}: returned a {type(given).__name__} of type {action.dtype}; {wanted}")
        if action.shape != expected:
            raise AgentFault(f"{self._where('act')}: returned shape {action.shape}; {wanted}")
        if not np.isfinite(action).all():
            raise AgentFault(f"{self._where('act')}: returned {action[~np.isfinite(action)][0]}; {wanted}")
        return action

    def fork(self, seed: np.random.SeedSequence) -> WatchedAgent:
        """The agent's own fork; an agent without one acts itself, and its state is what it is then."""
        if not callable(getattr(self.agent, "fork", None)):
            return self
        forked = self._watched("fork", self.agent.fork, (whole_seed(seed),))
        _check_members(forked, self._where("fork"))
        return WatchedAgent(forked, self.import_path, self.problem, self.task_observable, self.judge)

    def _watched(self, name: str, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        result = _call(self._where(name), lambda: method(*arguments))
        return self._metrics(result) if name == "learn" else result

    def _metrics(self, metrics: Any) -> Metrics:
        if metrics is None:
            return {}
        where = self._where("learn")
        try:
            if not isinstance(metrics, Mapping):
                raise TypeError(f"got a {type(metrics).__name__}")
            given = [(name, float(value)) for name, value in metrics.items()]
        except Exception as error:
            raise AgentFault(f"{where}: expected a dict of numbers, to be logged, or None: {message_of(error)}") from None
        found: Metrics = {}
        for name, value in given:
            if type(name) is not str or not name or len(name) > LONGEST_NAME or not name.isprintable() or name.startswith(OWN_COLUMNS):
                shown = printable(repr(name), LONGEST_NAME) if type(name) is str else f"a {type(name).__name__}"
                wanted = f"one line of at most {LONGEST_NAME} printable characters that does not begin with {' or '.join(OWN_COLUMNS)}"
                raise AgentFault(f"{where}: a number is named {shown}; expected {wanted}")
            column = name if "/" in name else f"losses/{name}"
            if column in found:
                raise AgentFault(f"{where}: two numbers would be logged as {column!r}")
            found[column] = value
        return found

    def _where(self, name: str) -> str:
        return f"agent {self.import_path!r}: {name}"


def _path_of(config: AgentConfig) -> str:
    assert config.import_path is not None  # the card's validation saw to it
    return config.import_path


def _check_members(found: Any, where: str) -> None:
    missing = [name for name in NEEDED if not callable(getattr(found, name, None))]
    if missing:
        raise CardError(f"{where}: has no {', '.join(missing)}; an agent has begin_trial, act and observe, and learn if it learns")
    for pair in PAIRS:
        has = {name for name in pair if callable(getattr(found, name, None))}
        if len(has) == 1:
            raise CardError(f"{where}: has {' '.join(has)} but no {' '.join(set(pair) - has)}; the two go together")
    if hasattr(found, "new_replay_shard") and not hasattr(found, "state_dict"):
        raise CardError(f"{where}: has new_replay_shard but no state_dict, without which nothing is saved")


def _call(where: str, method: Callable[[], Any]) -> Any:
    try:
        return method()
    except Diverged:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a stranger's code raises; SystemExit among it would end the program as if all were done
        raise AgentFault(f"{where}: {described(error, __file__, withheld.__file__)}") from error
