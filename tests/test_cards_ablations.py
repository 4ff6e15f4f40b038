"""An ablation is a card: on every family and budget it differs from `dmrlad` in the keys it declares, and in no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dmrlad_bench.cards import BUDGETS, family_names, load_agent, resolve_agent
from dmrlad_bench.cards.agent_sections import STEP_KEYS

PROSE = {"name", "description"}
DECLARED = {  # ablation -> (what it is an ablation of, the keys that it may set)
    "dmrlad-no-relabel": ("dmrlad", {"relabel.kind": "none"}),
    "dmrlad-random-relabel": ("dmrlad", {"relabel.kind": "random"}),
    "cemrl": ("dmrlad", {"actor_critic.critic": "scalar", "relabel.kind": "none"}),
    "cemrl-hfr": ("dmrlad", {"actor_critic.critic": "scalar"}),
    "cemrl-hfr-no-norm": ("cemrl-hfr", {"actor_critic.critic_norm": "none"}),
    "blind": ("cemrl", {"inference.kind": "none", "schedule.reconstruction_updates": 0}),
    "dmrlad-plus-no-transitions": ("dmrlad-plus", {f"relabel.{key}": 0.0 for key in STEP_KEYS}),  # where dmrlad-plus has them
    "dmrlad-plus-no-probing": ("dmrlad-plus", {"exploration.test_episodes": 0, "exploration.test_interval": 0}),
}


def leaves(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        elif prefix or key not in PROSE:
            yield f"{prefix}{key}", value


def resolved(agent: str, family: str, budget: str) -> dict[str, Any]:
    return dict(leaves(resolve_agent(load_agent(agent), family, budget).model_dump()))


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("family", family_names())
@pytest.mark.parametrize("agent", DECLARED)
def test_an_ablation_differs_only_in_the_keys_it_declares(agent: str, family: str, budget: str) -> None:
    base, keys = DECLARED[agent]
    whole, ablated = resolved(base, family, budget), resolved(agent, family, budget)
    assert whole.keys() == ablated.keys()
    declared = {key: value for key, value in keys.items() if whole[key] != value}
    assert {key: ablated[key] for key in whole if whole[key] != ablated[key]} == declared


@pytest.mark.parametrize("agent", ["dmrlad-plus-no-transitions", "dmrlad-plus-no-probing"])
def test_an_ablation_takes_something_away_where_it_is_published(agent: str) -> None:
    assert resolved("dmrlad-plus", "CheetahVelSparse", "quick") != resolved(agent, "CheetahVelSparse", "quick")


PUBLISHED_METHOD = {
    "inference.window": 10,
    "inference.reward_sees": "action",
    "actor_critic.critic": "quantile",
    "actor_critic.belief_input": "mean",
    "actor_critic.bootstrap_belief": "held",
    "relabel.kind": "hfr",
    "relabel.draw": "sample",
    "relabel.copies": 1,
    "relabel.copies_by_gain": 0,
    "relabel.revisited": 0,
    **{f"relabel.{key}": 0.0 for key in STEP_KEYS},
    "exploration.sampled_share": 0.0,
    "exploration.stored_share": 0.0,
    "exploration.test_episodes": 0,
}


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("family", family_names())
def test_dmrlad_is_the_published_method_everywhere(family: str, budget: str) -> None:
    found = resolved("dmrlad", family, budget)
    assert {key: found[key] for key in PUBLISHED_METHOD} == PUBLISHED_METHOD


@pytest.mark.parametrize("agent", ["pearl", "pearl-hfr", "rl2", "cemrl", "cemrl-hfr", "oracle", "dmrlad-plus"])
def test_all_explore_with_the_same_noise(agent: str) -> None:
    """What every learner can use while training, every learner has; stored beliefs are dmrlad-plus's own."""
    for family in ("CheetahVelSparse", "PointGoalSparse", "AntVelSparse"):
        base, other = resolved("dmrlad", family, "quick"), resolved(agent, family, "quick")
        for key in ("initial", "colour_low", "colour_high", "coloured_share", "constant_share", "policy_colour"):
            assert other[f"exploration.{key}"] == base[f"exploration.{key}"], (family, key)
