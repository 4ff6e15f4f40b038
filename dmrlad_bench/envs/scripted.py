"""Meta-World's own scripted policies: proof that observations, actions and success of the Sawyer families are right.

They lie on this floor because their package imports the simulator; an agent is handed the function.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module

import numpy as np

from dmrlad_bench.cards import CardError
from dmrlad_bench.envs.family import TaskFamily

# body -> class in metaworld.policies
POLICIES = {"sawyer_reach": "SawyerReachV3Policy", "sawyer_push": "SawyerPushV3Policy", "sawyer_pick_place": "SawyerPickPlaceV3Policy"}
GOAL = 3  # entries of the goal, which Meta-World's policies read at the end of an observation


def check_scripted(family: TaskFamily) -> None:
    """Raises `CardError` where there is no scripted policy for the family's body."""
    if family.card.body not in POLICIES:
        accepted = ", ".join(POLICIES)
        raise CardError(f"{family.id}: there is no scripted policy for body {family.card.body!r}; accepted: families on {accepted}")


def scripted_policy(family: TaskFamily) -> Callable[[np.ndarray], np.ndarray]:
    """Observations with the task appended, `(num_envs, observation_dim + task_dim)` -> actions `(num_envs, action_dim)` in [-1, 1].

    The goal stands where Meta-World would show it, in place of the zeros that hide it. The policies hold no state.

    Raises:
        CardError: there is no policy for the family's body.
    """
    check_scripted(family)
    policy = getattr(import_module("metaworld.policies"), POLICIES[family.card.body])()

    def act(observation: np.ndarray) -> np.ndarray:
        shown = np.concatenate((observation[:, : family.observation_dim - GOAL], observation[:, family.observation_dim :]), axis=1)
        with warnings.catch_warnings():  # that actions beyond [-1, 1] are clipped
            warnings.simplefilter("ignore")
            return np.clip([policy.get_action(row) for row in shown], -1.0, 1.0).astype(np.float32)

    return act
