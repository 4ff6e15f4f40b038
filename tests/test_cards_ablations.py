"""An ablation is a card: on every family and budget it differs from `dmrlad` in the keys it declares, and in no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dmrlad_bench.cards import BUDGETS, family_names, load_agent, resolve_agent
from dmrlad_bench.cards.agent_sections import STEP_KEYS

PROSE = {"name", "description"}
DECLARED = {
    "dmrlad-no-relabel": {"relabel.kind": "none"},
    "dmrlad-random-relabel": {"relabel.kind": "random"},
    "dmrlad-copies-only": {f"relabel.{key}": 0.0 for key in STEP_KEYS},  # where dmrlad has them
    "cemrl": {"actor_critic.critic": "scalar", "relabel.kind": "none"},
    "cemrl-hfr": {"actor_critic.critic": "scalar"},
    "oracle": {"task_observable": True, "inference.kind": "none", "actor_critic.critic": "scalar", "relabel.kind": "hindsight"},
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
    whole, ablated = resolved("dmrlad", family, budget), resolved(agent, family, budget)
    assert whole.keys() == ablated.keys()
    declared = {key: value for key, value in DECLARED[agent].items() if whole[key] != value}
    assert {key: ablated[key] for key in whole if whole[key] != ablated[key]} == declared


def test_copies_only_is_an_ablation_where_it_is_published() -> None:
    whole = resolved("dmrlad", "CheetahVelSparse", "quick")
    assert all(whole[f"relabel.{key}"] > 0 for key in STEP_KEYS)
