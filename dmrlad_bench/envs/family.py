"""A task family: body + goal + reward + splits, with the pure reward that both stepping and relabelling use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from gymnasium.spaces import Box

from dmrlad_bench.cards import CardError, FamilyCard, load_family, nearest
from dmrlad_bench.cards.family import LARGEST
from dmrlad_bench.cards.html import html_table
from dmrlad_bench.envs.bodies import Body
from dmrlad_bench.envs.body_kinds import body_of
from dmrlad_bench.envs.goals import GOAL_KINDS, contact, effort
from dmrlad_bench.envs.metaworld import scene_labels
from dmrlad_bench.envs.multi_task import check_task, check_variants, is_direction, task_classes
from dmrlad_bench.envs.physics import BASES, exponents, task_size
from dmrlad_bench.protocol import SPLITS

if TYPE_CHECKING:
    from dmrlad_bench.envs.vector import DMRLADVectorEnv

SMALLEST_MULTIPLIER, LARGEST_MULTIPLIER = 0.05, 20.0  # of masses, inertias, frictions and dampings: beyond, simulations break up
ROUNDING = 2e-3  # of exponents, whose multipliers are frozen to four decimals


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
        self._body = body_of(card)
        self._goal = GOAL_KINDS[card.goal.kind]
        self.observation_dim = self._body.observation_dim(card.observation_extras)
        self.action_dim = self._body.action_dim
        self._check_physics()
        self.task_dim = task_size(card.goal.scaled, self._physics_sizes) if self.scaled else self._goal.task_dim
        self.outcome_dim = self._goal.outcome_dim + (card.reward.contact_cost > 0)
        self._check()
        self.observation_space = Box(-np.inf, np.inf, (self.observation_dim,), np.float64)
        self.action_space = Box(-1.0, 1.0, (self.action_dim,), np.float32)

    def __repr__(self) -> str:
        return f"TaskFamily({self.id!r}: body {self.card.body}, goal {self.card.goal.kind}, {self._counts()} tasks)"

    def _repr_html_(self) -> str:
        card = self.card
        rows = [
            ("body", card.body),
            ("goal", card.goal.kind),
            ("reward", card.reward.kind),
            ("success", card.success),
            ("tasks", self._counts()),
            ("task changes inside an episode", "yes" if self.tasks_change else "no"),
            ("horizon", f"{self.horizon} steps"),
            ("episodes per trial", self.episodes_per_trial),
            ("observation, action, task", f"{self.observation_dim}, {self.action_dim}, {self.task_dim} entries"),
            ("random, oracle", "not measured" if card.reference is None else f"{card.reference.random:g}, {card.reference.oracle:g}"),
        ]
        return html_table(self.id, (), rows)

    def _counts(self) -> str:
        return ", ".join(f"{len(getattr(self.card.tasks, split))} {split}" for split in self.splits)

    def _check_physics(self) -> None:
        card = self.card
        if self._goal.in_range is None and not card.goal.scaled:
            raise CardError(f"{card.id}: key 'goal.scaled' is missing; goal kind 'physics' needs at least one of {', '.join(BASES)}")
        if card.goal.scaled and (self._goal.in_range is not None or len(set(card.goal.scaled)) < len(card.goal.scaled)):
            raise CardError(f"{card.id}: key 'goal.scaled': only goal kind 'physics' reads it, each parameter once")
        if card.goal.scaled and not self._physics_sizes:
            raise CardError(f"{card.id}: key 'goal.kind': the physics of body {card.body!r} cannot be scaled")
        if card.changes is not None and card.goal.kind == "multi_task":
            raise CardError(f"{card.id}: key 'changes': tasks of kind 'multi_task' cannot change inside an episode")
        if card.changes is not None and card.changes.kind == "place" and not self._body.place_dim:
            raise CardError(f"{card.id}: key 'changes.kind': body {card.body!r} has no place; accepted: time")

    def _in_range(self, tasks: np.ndarray) -> np.ndarray:
        """Which of `(tasks, task_dim)` tasks lie in the card's range, `(tasks,)` bool."""
        goal = self.card.goal
        if self._goal.in_range is not None:
            return self._goal.in_range(tasks, goal)
        power = exponents(tasks, goal.scaled, self._physics_sizes)
        return np.asarray(((power >= goal.low - ROUNDING) & (power <= goal.high + ROUNDING)).all(axis=1))

    @property
    def _physics_sizes(self) -> dict[str, int]:
        return getattr(self._body, "physics_sizes", {})

    def _check(self) -> None:
        card, goal = self.card, self._goal
        if goal.measure not in self._body.measures:
            raise CardError(f"{card.id}: key 'goal.kind': body {card.body!r} has no {goal.measure!r}, which {card.goal.kind!r} needs")
        if card.reward.contact_cost > 0 and "contact" not in self._body.measures:
            raise CardError(f"{card.id}: key 'reward.contact_cost': body {card.body!r} has no 'contact'; accepted: 0")
        if card.reward.radius <= 0 and card.goal.kind not in ("direction", "physics"):
            raise CardError(f"{card.id}: key 'reward.radius': must be above 0 for goal kind {card.goal.kind!r}, got {card.reward.radius}")
        span = card.goal.high - card.goal.low
        if card.goal.kind in ("velocity", "position") and card.reward.radius >= span:
            raise CardError(f"{card.id}: key 'reward.radius': must be below the range of 'goal', {span:g}, got {card.reward.radius:g}")
        if goal.on_circle and card.goal.radius is None:
            raise CardError(f"{card.id}: key 'goal.radius' is missing; goal kind {card.goal.kind!r} needs it")
        if not goal.on_circle and card.goal.radius is not None:
            raise CardError(f"{card.id}: key 'goal.radius': goal kind {card.goal.kind!r} has no radius, got {card.goal.radius}")
        if goal.in_space and (len(card.goal.box) != self.task_dim or any(low >= high for low, high in card.goal.box)):
            given = [list(axis) for axis in card.goal.box]
            raise CardError(f"{card.id}: key 'goal.box': expected {self.task_dim} pairs [lowest, highest], one an axis, got {given}")
        if not goal.in_space and card.goal.box:
            raise CardError(f"{card.id}: key 'goal.box': goal kind {card.goal.kind!r} has no box")
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
        self._check_goal_keys()
        for split in self.splits:
            tasks = getattr(card.tasks, split)
            inside = self._in_range(np.array(tasks))
            wrong = np.flatnonzero(inside if split == "ood" else ~inside)
            if len(wrong):
                place = "inside" if split == "ood" else "outside"
                raise CardError(f"{card.id}: key 'tasks.{split}': task {list(tasks[wrong[0]])} lies {place} the range of 'goal'")

    def _check_goal_keys(self) -> None:
        """Raises `CardError` for keys that only other goal kinds read, variants that do not fit, and tasks that must not repeat."""
        card, goal = self.card, self.card.goal
        for key, kind, default in (("region", "planar_goal", "circle"), ("norm", "planar_goal", "l2"), ("variants", "multi_task", ())):
            if getattr(goal, key) != default and goal.kind != kind:
                raise CardError(f"{card.id}: key 'goal.{key}': only goal kind {kind!r} reads it, got kind {goal.kind!r}")
        if goal.kind == "multi_task":
            check_variants(card)
        if not card.tasks.same_tasks:
            return
        tasks = np.concatenate([self.tasks(split) for split in self.splits])
        may = is_direction(tasks, goal) if goal.kind == "multi_task" else np.full(len(tasks), goal.kind == "direction")
        others = tasks[~may]
        if not may.any() or len(np.unique(others, axis=0)) != len(others):
            raise CardError(f"{card.id}: key 'tasks.same_tasks': only directions may stand in several splits or several times in one")

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
    def measures(self) -> tuple[str, ...]:
        """What the body measures over a step for the outcome; the effort follows."""
        return (self._goal.measure, "contact") if self.card.reward.contact_cost > 0 else (self._goal.measure,)

    @property
    def relabelable(self) -> bool:
        """Whether `reward` holds for trajectories lived under another task.

        Not where a task is physics, which moved the body, nor in Meta-World's benchmarks, where it is a scene and where its objects start.
        """
        return self._goal.relabelable and not self.scaled

    @property
    def scaled(self) -> tuple[str, ...]:
        """The parameters of the physics that a task multiplies, in this order; empty where a task changes the reward only."""
        return self.card.goal.scaled

    @property
    def tasks_change(self) -> bool:
        """Whether the task changes inside an episode; `info["task"]` is always the one in force."""
        return self.card.changes is not None

    @property
    def widest(self) -> int | None:
        """How many environments should at most run side by side; None where any number may."""
        return self._body.widest

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that hold tasks."""
        return tuple(split for split in SPLITS if getattr(self.card.tasks, split))

    def tasks(self, split: str) -> np.ndarray:
        """The frozen tasks of a split, `(tasks, task_dim)` float64; raises `CardError` for an unknown split."""
        if split not in self.splits:
            raise CardError(f"{self.id}: unknown split {split!r}{nearest(str(split), self.splits)}; accepted: {', '.join(self.splits)}")
        return np.array(getattr(self.card.tasks, split), dtype=np.float64)

    def check_task(self, task: np.ndarray) -> None:
        """Raises `CardError` where `(task_dim,)` numbers are no task of this goal kind, whatever the card's range."""
        if self.scaled and not ((task >= SMALLEST_MULTIPLIER) & (task <= LARGEST_MULTIPLIER)).all():
            accepted = f"multipliers from {SMALLEST_MULTIPLIER:g} to {LARGEST_MULTIPLIER:g}"
            raise CardError(f"{self.id}: task {task.tolist()} is no physics that a body can have; accepted: {accepted}")
        if not (np.abs(task) <= LARGEST).all():
            raise CardError(f"{self.id}: task {task.tolist()} is not valid; accepted: numbers from {-LARGEST:g} to {LARGEST:g}")
        if self.card.goal.kind == "direction" and abs(task[0]) != 1:
            raise CardError(f"{self.id}: task {task.tolist()} is no direction; accepted: [-1.0] and [1.0]")
        if self.card.goal.kind == "multi_task":
            check_task(task, self.card)

    def task_classes(self, split: str) -> np.ndarray | None:
        """Base class of each task of a split, `(tasks,)` int64; None where the family has none."""
        tasks = self.tasks(split)
        if self.card.goal.kind == "meta_world":
            return scene_labels(tasks[:, 0], self.tasks("train")[:, 0])
        return task_classes(tasks, self.card.goal) if self.card.goal.kind == "multi_task" else None

    def error(self, outcome: Any, task: Any) -> Any:
        """`err`, the distance between what was done and what was asked, `(...)`."""
        return self._goal.error(outcome, task, self.card.goal)

    def radius(self, task: Any) -> Any:
        """Radius of the sparse reward and of success in a task, a number or `(...)`."""
        if self._goal.radius is None:
            return self.card.reward.radius
        return self._goal.radius(task, self.card.goal, self.card.reward.radius)

    def reward(self, outcome: Any, task: Any) -> Any:
        """The family's own reward, `(..., outcome_dim)`, `(..., task_dim)` -> `(...)`; NumPy or torch."""
        return self.sparse_reward(outcome, task) if self.card.reward.kind == "sparse" else self.dense_reward(outcome, task)

    def sparse_reward(self, outcome: Any, task: Any) -> Any:
        """`inside - err` within the radius, else `outside`; minus the sparse control cost and the contact cost, plus the alive bonus."""
        return self._sparse(self.error(outcome, task), outcome, task)

    def dense_reward(self, outcome: Any, task: Any) -> Any:
        """`-err` minus the dense control cost and the contact cost, plus the alive bonus."""
        return self._dense(self.error(outcome, task), outcome)

    def success(self, outcome: Any, task: Any) -> Any:
        """Whether a step lies within the radius, `(...)` bool."""
        return self.error(outcome, task) <= self.radius(task)

    def judge(self, outcome: Any, task: Any) -> Judgement:
        """Reward, its two forms and success at once, as `step` needs them."""
        error = self.error(outcome, task)
        sparse, dense = self._sparse(error, outcome, task), self._dense(error, outcome)
        reward = sparse if self.card.reward.kind == "sparse" else dense
        return Judgement(reward, sparse, dense, error <= self.radius(task))

    def _sparse(self, error: Any, outcome: Any, task: Any) -> Any:
        xp, terms = array_namespace(error), self.card.reward
        goal = xp.where(error <= self.radius(task), terms.inside - terms.error_weight * error, xp.full_like(error, terms.outside))
        return self._general(goal - terms.sparse_control_cost * effort(outcome), outcome)

    def _dense(self, error: Any, outcome: Any) -> Any:
        reward = outcome[..., 0] + 0.0 * error if self._goal.given_reward else -error
        return self._general(reward - self.card.reward.dense_control_cost * effort(outcome), outcome)

    def _general(self, reward: Any, outcome: Any) -> Any:
        """The reward with the terms that both forms have."""
        terms = self.card.reward
        if terms.contact_cost > 0:
            reward = reward - terms.contact_cost * contact(outcome)
        return reward + terms.alive_bonus if terms.alive_bonus > 0 else reward

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
        if self.card.reward.contact_cost > 0:
            return self._body(self.card.observation_extras, threads, contact=True)  # pyright: ignore[reportCallIssue]
        return self._body(self.card.observation_extras, threads)

    def make_vec(
        self, num_envs: int, *, split: str = "train", task_observable: bool = False, threads: int | None = None
    ) -> DMRLADVectorEnv:
        """`num_envs` environments side by side that never reset by themselves (autoreset mode `DISABLED`)."""
        from dmrlad_bench.envs.vector import DMRLADVectorEnv  # that module imports this one

        return DMRLADVectorEnv(num_envs, self, split=split, task_observable=task_observable, threads=threads, autoreset_mode="Disabled")


def family(name: str | Path) -> TaskFamily:
    """The task family of a Gymnasium id, a bare name or a card file; raises `CardError`."""
    return TaskFamily(load_family(name))
