"""Every key that PEARL reads changes what it does; those that it does not read are refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_agents import transition_of
from toy_pearl import pearl_of, pearl_trials

from dmrlad_bench.cards import CardError, family_names, load_agent, resolve_agent
from dmrlad_bench.cards.agent_config import NOT_READ_BY
from dmrlad_bench.cards.agent_sections import Pearl
from dmrlad_bench.envs.family import family
from dmrlad_bench.harness.agent import make_agent
from dmrlad_bench.harness.api import plan
from dmrlad_bench.harness.train import train_run

HFR = {"relabel.kind": "hfr"}
# key -> (another value, what else must be set for it to matter)
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "pearl.latent_dim": (3, {}),
    "pearl.encoder_hidden": ((8, 9), {}),
    "pearl.next_observation": (True, {}),
    "pearl.context_batch": (4, {}),
    "pearl.recent_trials": (1, {}),
    "pearl.meta_batch": (2, {}),
    "pearl.kl_weight": (3.0, {}),
    "pearl.learning_rate": (1e-2, {}),
    "pearl.reward_scale": (7.0, {}),
    "pearl.prior_episodes": (2, {}),
    "pearl.exploration_episodes": (0, {}),
    "actor_critic.critic": ("quantile", {}),
    "actor_critic.hidden": ((8, 9), {}),
    "actor_critic.temperature": ("latent", {}),
    "actor_critic.discount": (0.5, {}),
    "actor_critic.batch_size": (5, {}),
    "actor_critic.learning_rate_end": (1e-5, {"schedule.iterations": 2}),
    "relabel.kind": ("hfr", {}),
    "relabel.draw": ("greedy", HFR),
    "relabel.temperature": (9.0, {**HFR, "relabel.copies": 2}),
    "relabel.copies": (2, HFR),
    "relabel.revisited": (3, HFR),
    "exploration.initial": ("coloured", {}),
    "exploration.coloured_share": (1.0, {}),
    "exploration.policy_colour": (1.0, {}),
    "schedule.policy_updates": (2, {}),
    "schedule.replay_trials": (9, {}),
}


def test_the_table_covers_the_section() -> None:
    assert {key for key in CHANGES if key.startswith("pearl.")} == {f"pearl.{name}" for name in Pearl.model_fields}


def fingerprint_of(settings: dict[str, Any]) -> tuple[float, ...]:
    """Numbers that any difference in acting and in two iterations of learning shows in."""
    sections: dict[str, Any] = {}
    for key, value in settings.items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    agent = pearl_of(**sections)
    numbers: list[float] = []
    for iteration in (1, 2):
        for training in (True, False):
            if training:
                agent.begin_training_trial(2, iteration)
            else:
                agent.begin_trial(2)
            for episode in range(2):
                agent.begin_episode()
                numbers.extend(agent.act(np.ones((2, 3)), False).ravel().tolist())
                agent.observe(transition_of(episode, 2))
        numbers.extend(agent.learn(pearl_trials(iteration)).values())
    numbers.extend([agent.replay.size, agent.gradient_updates])
    numbers.extend(agent.replay.data["task_index"].tolist()[: agent.replay.size])
    if agent.relabeller is not None:
        numbers.append(agent.relabeller.temperature)
    for value in [*agent.learner.policy.parameters(), *agent.inference.encoder.parameters()]:
        numbers.append(float(value.detach().double().abs().sum()))
    return tuple(numbers)


@cache
def baseline_of(settings: tuple[tuple[str, Any], ...]) -> tuple[float, ...]:
    return fingerprint_of(dict(settings))


@pytest.mark.parametrize("key", CHANGES)
def test_the_key_changes_what_the_agent_does(key: str) -> None:
    value, context = CHANGES[key]
    assert baseline_of(tuple(context.items())) != fingerprint_of({**context, key: value})


def test_the_same_card_gives_the_same_fingerprint() -> None:
    assert baseline_of(()) == fingerprint_of({})


OTHERS = {
    "actor_critic.belief_input": '"mean_and_deviation"',
    "actor_critic.bootstrap_belief": '"next"',
    "relabel.context": '"window"',
    "exploration.resample_interval": "5",
    "exploration.test_episodes": "1",
    "exploration.test_interval": "5",
    "schedule.reconstruction_updates": "5",
}


@pytest.mark.parametrize("key", [*(f"{section}.{key}" for section, key, _ in NOT_READ_BY["pearl"]), "inference.window", "inference.kind"])
def test_what_pearl_does_not_read_is_refused(key: str) -> None:
    value = {**OTHERS, "inference.window": "3", "inference.kind": '"mixture_vae"'}.get(key, "0.5")
    with pytest.raises(CardError, match=f"'pearl'.*{key.split('.')[0]}"):
        resolve_agent(load_agent("pearl-hfr"), "PointGoal", "smoke", [f"{key}={value}"])


@pytest.mark.parametrize("agent", ["dmrlad", "oracle", "random"])
def test_other_agents_have_no_such_section(agent: str, tmp_path: Path) -> None:
    assert resolve_agent(load_agent(agent), "PointGoal", "smoke").pearl is None
    with pytest.raises(CardError, match=r"unknown key 'pearl\.latent_dim'"):
        resolve_agent(load_agent(agent), "PointGoal", "smoke", ["pearl.latent_dim=3"])
    path = tmp_path / "other.toml"
    path.write_text(f'name = "other"\ndescription = "x"\nextends = "{agent}"\n[pearl]\nlatent_dim = 3\n')
    with pytest.raises(CardError, match="'pearl'"):
        resolve_agent(load_agent(path), "PointGoal", "smoke")


def test_a_card_may_say_nothing_of_its_section(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    sections = '[inference]\nkind = "none"\n[schedule]\nreconstruction_updates = 0\n'
    path.write_text(f'name = "own"\ndescription = "x"\nalgorithm = "pearl"\n{sections}')
    assert resolve_agent(load_agent(path), "PointGoal", "full").pearl == Pearl()


@pytest.mark.parametrize("name", family_names())
def test_pearl_has_dmrlad_s_networks_rates_and_quick_budget(name: str) -> None:
    pearl, dmrlad = (resolve_agent(load_agent(agent), name, "quick") for agent in ("pearl", "dmrlad"))
    mine, theirs = pearl.actor_critic, dmrlad.actor_critic
    for key in ("hidden", "learning_rate", "polyak", "discount", "temperature", "initial_temperature", "target_entropy_factor"):
        assert getattr(mine, key) == getattr(theirs, key)
    assert pearl.pearl is not None
    assert pearl.pearl.encoder_hidden == dmrlad.inference.encoder_hidden
    assert pearl.schedule.policy_updates == dmrlad.schedule.policy_updates
    solved, steps = family(name), []
    for config in (pearl, dmrlad):
        schedule, initial = config.schedule, config.exploration.initial_iterations
        trial = solved.horizon * (schedule.episodes_per_trial or solved.episodes_per_trial)
        first = initial * len(solved.tasks("train")) * -(-schedule.initial_steps_per_task // trial)
        steps.append(trial * (first + (schedule.iterations - initial) * schedule.tasks_per_iteration * schedule.trials_per_task))
    assert steps[0] == pytest.approx(steps[1], rel=0.05)


def test_pearl_hfr_differs_from_pearl_in_relabelling_only() -> None:
    for name in family_names():
        plain, relabelled = (resolve_agent(load_agent(agent), name, "quick") for agent in ("pearl", "pearl-hfr"))
        assert plain.relabel.kind == "none" and relabelled.relabel.kind == "hfr"
        kind = relabelled.relabel.model_copy(update={"kind": "none"})
        assert relabelled.model_copy(update={"relabel": kind, "name": plain.name, "description": plain.description}) == plain


@pytest.mark.parametrize("episodes", [None, 2])
def test_training_trials_have_as_many_episodes_as_the_schedule_says(tmp_path: Path, episodes: int | None) -> None:
    """PointGoalSparse has 3 episodes a trial and 80 training tasks: with 50 steps a task, one trial of 60 or two of 40."""
    overrides = [
        "schedule.iterations=2",
        "schedule.initial_steps_per_task=50",
        "schedule.tasks_per_iteration=5",
        "schedule.policy_updates=1",
    ]
    overrides += ["exploration.initial_iterations=1", "schedule.evaluation_tasks=1"]
    overrides += [] if episodes is None else [f"schedule.episodes_per_trial={episodes}"]
    config, folder = plan("pearl", "PointGoalSparse", budget="smoke", out=tmp_path, overrides=tuple(overrides), device="cpu", threads=1)
    result = train_run(config, folder, resume=False, command=["dmrlad-bench"], quiet=True).result
    expected = (80 + 5) * 60 if episodes is None else (80 * 2 + 5) * 40
    assert result.environment_steps == expected


@pytest.mark.parametrize(("agent", "steps"), [("pearl", 400), ("dmrlad", 200)])
def test_the_problem_that_an_agent_sees_has_the_schedule_s_episodes(agent: str, steps: int, tmp_path: Path) -> None:
    config, _ = plan(agent, "CheetahVel", budget="smoke", out=tmp_path, device="cpu", threads=1)
    made: Any = make_agent(config, family("CheetahVel"))
    assert made.replay.steps == steps
