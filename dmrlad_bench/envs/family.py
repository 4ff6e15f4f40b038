"""A task family: body + goal + reward + splits, with the pure reward that both stepping and relabelling use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from gymnasium.spaces import Box

from dmrlad_bench.cards import CardError, FamilyCard, load_family, nearest
from dmrlad_bench.envs.bodies import BODIES, Body
from dmrlad_bench.envs.goals import GOAL_KINDS, effort

if TYPE_CHECKING:
    from dmrlad_bench.envs.vector import DMRLADVectorEnv

SPLITS = ("train", "test", "ood")


class Judgement(NamedTuple):
    """What an outcome is worth in a task; all `(...)`."""

    reward: Any
    sparse_reward: Any
    dense_reward: Any
    success: Any


class TaskFamily:
    """What is to be solved, ready to use.

    Attributes:
        card: the record.
        observation_dim: entries of an observation, the task not included.
        action_dim, task_dim, outcome_dim: entries of an action, a task, an outcome.
        observation_space, action_space: of one environment; actions lie in [-1, 1].
    """

    def __init__(self, card: FamilyCard) -> None:
        """Raises `CardError` where the card's parts do not fit together."""
        self.card = card
        self._body = _body_of(card)
        self._goal = GOAL_KINDS[card.goal.kind]
        self.observation_dim = self._body.observation_dim(card.observation_extras)
        self.action_dim = self._body.action_dim
        self.task_dim = self._goal.task_dim
        self.outcome_dim = self._goal.outcome_dim
        self._check()
        self.observation_space = Box(-np.inf, np.inf, (self.observation_dim,), np.float64)
        self.action_space = Box(-1.0, 1.0, (self.action_dim,), np.float32)

    def _check(self) -> None:
        card, goal = self.card, self._goal
        if goal.measure not in self._body.measures:
            raise CardError(f"{card.id}: key 'goal.kind': body {card.body!r} has no {goal.measure!r}, which {card.goal.kind!r} needs")
        if goal.on_circle and card.goal.radius is None:
            raise CardError(f"{card.id}: key 'goal.radius' is missing; goal kind {card.goal.kind!r} needs it")
        if not goal.on_circle and card.goal.radius is not None:
            raise CardError(f"{card.id}: key 'goal.radius': goal kind {card.goal.kind!r} has no radius, got {card.goal.radius}")
        if card.goal.low >= card.goal.high:
            raise CardError(f"{card.id}: key 'goal.low': must be below 'goal.high' ({card.goal.high}), got {card.goal.low}")
        if card.reconstruction_dims > self.observation_dim:
            limit = f"at most {self.observation_dim}, the observation's size"
            raise CardError(f"{card.id}: key 'reconstruction_dims': {limit}, got {card.reconstruction_dims}")
        for split in self.splits:
            tasks = getattr(card.tasks, split)
            if len(tasks[0]) != self.task_dim:
                needed = f"goal kind {card.goal.kind!r} needs {self.task_dim} entries a task"
                raise CardError(f"{card.id}: key 'tasks.{split}': {needed}, got {list(tasks[0])}")
            inside = goal.in_range(np.array(tasks), card.goal)
            wrong = np.flatnonzero(inside if split == "ood" else ~inside)
            if len(wrong):
                place = "inside" if split == "ood" else "outside"
                raise CardError(f"{card.id}: key 'tasks.{split}': task {list(tasks[wrong[0]])} lies {place} the range of 'goal'")

    @property
    def id(self) -> str:
        """Gymnasium id."""
        return self.card.id

    @property
    def name(self) -> str:
        """Bare name, as `CheetahVelSparse`."""
        return self.card.name

    @property
    def digest(self) -> str:
        """SHA-256 of everything that changes results."""
        return self.card.digest

    @property
    def horizon(self) -> int:
        """Steps until truncation."""
        return self.card.horizon

    @property
    def reconstruction_dims(self) -> int:
        """Leading observation entries that task inference reconstructs."""
        return self.card.reconstruction_dims

    @property
    def episodes_per_trial(self) -> int:
        """Consecutive episodes in one task that make a trial."""
        return self.card.episodes_per_trial

    @property
    def measure(self) -> str:
        """What the body measures over a step for the outcome."""
        return self._goal.measure

    @property
    def relabelable(self) -> bool:
        """Whether `reward` holds for trajectories lived under another task; here the task changes the reward only."""
        return True

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that hold tasks."""
        return tuple(split for split in SPLITS if getattr(self.card.tasks, split))

    def tasks(self, split: str) -> np.ndarray:
        """The frozen tasks of a split, `(tasks, task_dim)` float64; raises `CardError` for an unknown split."""
        if split not in self.splits:
            raise CardError(f"{self.id}: unknown split {split!r}{nearest(str(split), self.splits)}; accepted: {', '.join(self.splits)}")
        return np.array(getattr(self.card.tasks, split), dtype=np.float64)

    def error(self, outcome: Any, task: Any) -> Any:
        """`err`, the distance between what was done and what was asked, `(...)`."""
        return self._goal.error(outcome, task)

    def reward(self, outcome: Any, task: Any) -> Any:
        """The family's own reward, `(..., outcome_dim)`, `(..., task_dim)` -> `(...)`; NumPy or torch."""
        return self.sparse_reward(outcome, task) if self.card.reward.kind == "sparse" else self.dense_reward(outcome, task)

    def sparse_reward(self, outcome: Any, task: Any) -> Any:
        """`inside - err` within the radius, else `outside`; minus the sparse control cost."""
        return self._sparse(self.error(outcome, task), outcome)

    def dense_reward(self, outcome: Any, task: Any) -> Any:
        """`-err` minus the dense control cost."""
        return self._dense(self.error(outcome, task), outcome)

    def success(self, outcome: Any, task: Any) -> Any:
        """Whether a step lies within the radius, `(...)` bool."""
        return self.error(outcome, task) <= self.card.reward.radius

    def judge(self, outcome: Any, task: Any) -> Judgement:
        """Reward, its two forms and success at once, as `step` needs them."""
        error = self.error(outcome, task)
        sparse, dense = self._sparse(error, outcome), self._dense(error, outcome)
        reward = sparse if self.card.reward.kind == "sparse" else dense
        return Judgement(reward, sparse, dense, error <= self.card.reward.radius)

    def _sparse(self, error: Any, outcome: Any) -> Any:
        xp, terms = array_namespace(error), self.card.reward
        inside = error <= terms.radius
        return xp.where(inside, terms.inside - error, xp.full_like(error, terms.outside)) - terms.sparse_control_cost * effort(outcome)

    def _dense(self, error: Any, outcome: Any) -> Any:
        return -error - self.card.reward.dense_control_cost * effort(outcome)

    def episode_success(self, success_flags: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Success of whole episodes by the card's rule.

        `any`: some step; `final`: the last step; `fraction`: at least half of the steps of the episode's second half.

        Args:
            success_flags: `(episodes, horizon)` bool, one flag a step; whatever lies beyond an episode's length is ignored.
            lengths: `(episodes,)` steps lived, at least 1.

        Returns:
            `(episodes,)` bool.
        """
        flags, lengths = np.asarray(success_flags, dtype=bool), np.asarray(lengths)
        step = np.arange(flags.shape[1])
        lived = step < lengths[:, None]
        if self.card.success == "any":
            return (flags & lived).any(axis=1)
        if self.card.success == "final":
            return (flags & (step == lengths[:, None] - 1)).any(axis=1)
        second_half = lived & (step >= lengths[:, None] // 2)
        return 2 * (flags & second_half).sum(axis=1) >= np.maximum(second_half.sum(axis=1), 1)

    def make_body(self, threads: int = 1) -> Body:
        """The family's body, stepping with this many native threads."""
        return self._body(self.card.observation_extras, threads)

    def make_vec(
        self, num_envs: int, *, split: str = "train", task_observable: bool = False, threads: int | None = None
    ) -> DMRLADVectorEnv:
        """`num_envs` environments side by side that never reset by themselves (autoreset mode `DISABLED`)."""
        from dmrlad_bench.envs.vector import DMRLADVectorEnv  # that module imports this one

        return DMRLADVectorEnv(num_envs, self, split=split, task_observable=task_observable, threads=threads, autoreset_mode="Disabled")


def _body_of(card: FamilyCard) -> type[Body]:
    if card.body not in BODIES:
        raise CardError(f"{card.id}: key 'body': unknown body {card.body!r}{nearest(card.body, BODIES)}; accepted: {', '.join(BODIES)}")
    body = BODIES[card.body]
    for extra in card.observation_extras:
        if extra not in body.extras:
            accepted = ", ".join(body.extras) or "none"
            raise CardError(f"{card.id}: key 'observation_extras': body {card.body!r} has no {extra!r}; accepted: {accepted}")
    return body


def family(name: str | Path) -> TaskFamily:
    """The task family of a Gymnasium id, a bare name or a card file; raises `CardError`."""
    return TaskFamily(load_family(name))
