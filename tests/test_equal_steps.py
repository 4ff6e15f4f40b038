"""Every preset that learns collects as many environment steps on a family and budget as the others: a table compares like with like."""

from __future__ import annotations

import pytest

from dmrlad_bench.cards import BUDGETS, agent_names, family_names, load_agent, load_family, resolve_agent
from dmrlad_bench.harness.expected import SCORED_ONLY, training_steps


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("family", family_names())
def test_every_learner_takes_the_same_steps(family: str, budget: str) -> None:
    card = load_family(family)
    steps = {}
    for name in agent_names():
        config = resolve_agent(load_agent(name), family, budget)
        if config.algorithm not in SCORED_ONLY:
            steps[name] = training_steps(config, card)
    assert len(set(steps.values())) == 1, steps
