"""Multi-task goals: a task is (number of a variant, value), and each variant asks for another quantity of the body's motion.

The outcome holds all quantities: x position (m), forward velocity (m/s), vertical velocity (m/s), pitch velocity (rad/s), effort. The
functions accept NumPy arrays or torch tensors whose leading shapes broadcast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from dmrlad_bench.cards import CardError
from dmrlad_bench.cards import family as cards
from dmrlad_bench.protocol import SPLITS


def multi_task_error(outcome: Any, task: Any, goal: cards.Goal) -> Any:
    """`err` of each task's own variant, `(...)`; divided by |value| where the variant is relative."""
    xp = array_namespace(outcome, task)
    number, value = task[..., 0], task[..., 1]
    error = _distance(outcome, value, goal.variants[0].quantity) * 0
    for index, variant in enumerate(goal.variants):
        own, distance = number == index, _distance(outcome, value, variant.quantity)
        if variant.relative:
            distance = distance / xp.where(own, xp.abs(value), xp.ones_like(value))  # another variant's value may be 0
        error = xp.where(own, distance, error)
    return error


def multi_task_radius(task: Any, goal: cards.Goal, radius: float) -> Any:
    """Radius of each task's own variant, `(...)`; `radius` where the variant has none."""
    xp = array_namespace(task)
    number = task[..., 0]
    radii = xp.full_like(number, radius)
    for index, variant in enumerate(goal.variants):
        if variant.radius is not None:
            radii = xp.where(number == index, xp.full_like(number, variant.radius), radii)
    return radii


def _distance(outcome: Any, value: Any, quantity: str) -> Any:
    xp = array_namespace(outcome, value)
    position, forward, vertical, pitch = (outcome[..., entry] for entry in range(4))
    if quantity == "direction":
        return -value * forward
    if quantity == "jump":
        return xp.abs(xp.abs(vertical) - value)
    return xp.abs({"position": position, "velocity": forward, "flip": pitch}[quantity] - value)


def multi_task_in_range(tasks: np.ndarray, goal: cards.Goal) -> np.ndarray:
    """Which of `(tasks, 2)` tasks have a value in their variant's range, `(tasks,)` bool."""
    low = np.array([variant.low for variant in goal.variants])[variant_numbers(tasks)]
    high = np.array([variant.high for variant in goal.variants])[variant_numbers(tasks)]
    return (tasks[:, 1] >= low) & (tasks[:, 1] <= high)


def variant_numbers(tasks: np.ndarray) -> np.ndarray:
    """Number of the variant of each of `(tasks, 2)` tasks, `(tasks,)` int64."""
    return tasks[:, 0].astype(np.int64)


def task_classes(tasks: np.ndarray, goal: cards.Goal) -> np.ndarray:
    """Base class of each of `(tasks, 2)` tasks, `(tasks,)` int64."""
    return np.array([variant.base_class for variant in goal.variants], dtype=np.int64)[variant_numbers(tasks)]


def is_direction(tasks: np.ndarray, goal: cards.Goal) -> np.ndarray:
    """Which of `(tasks, 2)` tasks ask for a direction, `(tasks,)` bool."""
    return np.array([variant.quantity == "direction" for variant in goal.variants])[variant_numbers(tasks)]


def check_variants(card: cards.FamilyCard) -> None:
    """Raises `CardError` where variants do not fit together, or the tasks of train or test do not cover them evenly."""
    goal = card.goal
    where = f"{card.id}: key 'goal.variants'"
    if len(goal.variants) < 2:
        raise CardError(f"{where}: goal kind 'multi_task' needs at least 2 variants, got {len(goal.variants)}")
    span = (min(variant.low for variant in goal.variants), max(variant.high for variant in goal.variants))
    if (goal.low, goal.high) != span:
        raise CardError(f"{card.id}: keys 'goal.low' and 'goal.high' must be those of all variants together, {list(span)}")
    classes = {variant.base_class for variant in goal.variants}
    if classes != set(range(len(classes))):
        raise CardError(f"{where}: base classes must count from 0 without gaps, got {sorted(classes)}")
    for variant in goal.variants:
        if variant.low >= variant.high or (variant.quantity == "direction" and (variant.low, variant.high) != (-1.0, 1.0)):
            raise CardError(f"{where}: variant {variant.name!r} has the range [{variant.low:g}, {variant.high:g}]; directions need [-1, 1]")
        if (variant.radius if variant.radius is not None else card.reward.radius) <= 0 and variant.quantity != "direction":
            raise CardError(f"{where}: variant {variant.name!r} needs a radius above 0")
    for split in SPLITS:
        _check_tasks(card, split)


def check_task(task: np.ndarray, card: cards.FamilyCard) -> None:
    """Raises `CardError` where `(2,)` numbers name no variant, or ask for a direction other than -1 and 1."""
    count = len(card.goal.variants)
    if task[0] not in range(count):
        raise CardError(f"{card.id}: task {task.tolist()} has no variant of that number; accepted: [0..{count - 1}, value]")
    if is_direction(task[None], card.goal).any() and abs(task[1]) != 1:
        raise CardError(f"{card.id}: task {task.tolist()} is no direction; accepted values: -1.0 and 1.0")


def _check_tasks(card: cards.FamilyCard, split: str) -> None:
    tasks, goal = np.array(getattr(card.tasks, split)).reshape(-1, 2), card.goal
    for task in tasks:
        check_task(task, card)
    if split == "ood":
        return
    counts = np.bincount(variant_numbers(tasks), minlength=len(goal.variants))
    if not counts.all():
        raise CardError(f"{card.id}: key 'tasks.{split}': variant {goal.variants[int(np.argmin(counts))].name!r} has no task")
    shares = np.bincount(task_classes(tasks, goal))
    if len(set(shares.tolist())) > 1:
        raise CardError(f"{card.id}: key 'tasks.{split}': base classes must have as many tasks each, got {shares.tolist()}")
