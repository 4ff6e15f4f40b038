"""The protocol's names and numbers, shared by everything above the cards (docs/protocol.md)."""

from __future__ import annotations

from typing import Any

SPLITS = ("train", "validation", "test", "ood")
"""The four task lists of a family. Learners see `train`, people who choose see `validation`; `test` and `ood` are scored once, at last."""

SCORED_SPLITS = ("test", "train", "ood")
"""The splits of a run's final scores, in the order in which they are scored."""

CURVE_SPLIT = "validation"
"""What learning curves and every choice are made on."""

EPISODES = 3
"""K, consecutive episodes in one task that make a trial."""

FINAL_TRIALS = 5
"""Trials in every task of `test` and `ood` in the final scores: one is luck."""


def trials_of(split: str, final: int = FINAL_TRIALS) -> int:
    """Trials in every task of a split: `final` where a claim may stand on them, 1 where they only diagnose or guide."""
    return final if split in ("test", "ood") else 1


def normalised(returns: Any, reference: tuple[float, float]) -> Any:
    """(return - blind) / (oracle - blind) of one episode, for numbers and arrays alike.

    Args:
        returns: of one episode.
        reference: mean returns of one episode of (blind, oracle) on the test tasks: 0 is what one gets without adapting, 1 what
            knowing the task is worth.
    """
    blind, oracle = reference
    return (returns - blind) / (oracle - blind)
