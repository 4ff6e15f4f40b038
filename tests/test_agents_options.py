"""Every key of an agent card that the learner reads changes what the learner does; one that does nothing must not exist."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from toy_problem import generator_of, random_trials, small_config, toy_problem

from dmrlad_bench.agents.cemrl import Cemrl
from dmrlad_bench.agents.interface import Transition
from dmrlad_bench.cards.agent_sections import ActorCritic, Exploration, Inference, Relabel, Schedule

PROBLEM = toy_problem(task_classes=np.array([0, 1, 1, 0]))
CLASSES = {"inference.classes": 2}
SAMPLING = {"exploration.sampled_share": 1.0}
NOISE = {"exploration.initial": "coloured"}
CAUTIOUS = {"actor_critic.risk": "cvar", "actor_critic.risk_parameter": 0.5}
# key -> (another value, what else must be set for it to matter)
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "inference.kind": ("none", {"relabel.kind": "none"}),
    "inference.encoder": ("per_transition_class", CLASSES),
    "inference.latent_dim": (3, {}),
    "inference.classes": (2, {}),
    "inference.window": (4, {}),
    "inference.merge": ("softmax_of_sum", CLASSES),
    "inference.prior": ("learned", {}),
    "inference.prior_deviation": (0.9, {}),
    "inference.encoder_hidden": ((8, 9), {}),
    "inference.decoder_hidden": ((8, 9), {}),
    "inference.state_target": ("difference", {}),
    "inference.reward_sees": ("next_state", {}),
    "inference.reward_weight": (0.9, {}),
    "inference.kl_weight": (0.5, {}),
    "inference.class_kl_weight": (0.5, CLASSES),
    "inference.class_labels": (True, CLASSES),
    "inference.learning_rate": (1e-2, {}),
    "inference.learning_rate_end": (1e-5, {"schedule.iterations": 2}),
    "inference.learning_rate_span": (0.5, {"inference.learning_rate_end": 1e-5, "schedule.iterations": 2}),
    "inference.batch_size": (24, {}),
    "inference.segment": (2, {}),
    "inference.validation_share": (0.5, {}),
    "inference.validation_interval": (3, {"schedule.reconstruction_updates": 40, "inference.patience": 1}),
    "inference.patience": (1, {"inference.learning_rate": 0.3, "inference.patience": 30, "schedule.reconstruction_updates": 40}),
    "actor_critic.critic": ("scalar", {}),
    "actor_critic.hidden": ((8, 9), {}),
    "actor_critic.fractions": ("learned", {}),
    "actor_critic.fraction_count": (5, {}),
    "actor_critic.shared_fractions": (True, {}),
    "actor_critic.cosines": (7, {}),
    "actor_critic.fraction_learning_rate": (1e-2, {"actor_critic.fractions": "learned"}),
    "actor_critic.risk": ("wang", {"actor_critic.risk_parameter": 0.5}),
    "actor_critic.risk_parameter": (0.2, CAUTIOUS),
    "actor_critic.risk_parameter_end": (0.2, {**CAUTIOUS, "actor_critic.risk_updates": 2}),
    "actor_critic.risk_updates": (4, {**CAUTIOUS, "actor_critic.risk_parameter_end": 0.2}),
    "actor_critic.temperature": ("fixed", {}),
    "actor_critic.initial_temperature": (0.1, {}),
    "actor_critic.temperature_learning_rate": (0.1, {}),
    "actor_critic.target_entropy_factor": (9.0, {"schedule.policy_updates": 12, "actor_critic.temperature_learning_rate": 0.1}),
    "actor_critic.discount": (0.5, {}),
    "actor_critic.polyak": (0.5, {}),
    "actor_critic.averaging": (0.5, {}),
    "actor_critic.learning_rate": (1e-2, {}),
    "actor_critic.learning_rate_end": (1e-5, {"schedule.iterations": 2}),
    "actor_critic.batch_size": (8, {}),
    "actor_critic.critic_norm": ("none", {}),
    "actor_critic.bootstrap_belief": ("next", {}),
    "actor_critic.belief_input": ("mean_and_deviation", {}),
    "relabel.kind": ("random", {}),
    "relabel.draw": ("greedy", {}),
    "relabel.context": ("window", {"inference.window": 1}),
    "relabel.temperature": (5.0, {}),
    "relabel.utility_batch": (4, {}),
    "relabel.utility_fractions": (2, {}),
    "relabel.normaliser_trials": (5, {}),
    "relabel.copies": (2, {}),
    "relabel.copies_by_gain": (1, {}),
    "relabel.crossed_share": (0.5, {}),
    "relabel.crossed_targets": (0.5, {}),
    "relabel.revisited": (3, {}),
    "exploration.initial": ("coloured", {}),
    "exploration.initial_iterations": (2, NOISE),
    "exploration.colour_low": (1.5, NOISE),
    "exploration.colour_high": (0.5, NOISE),
    "exploration.constant_share": (1.0, NOISE),
    "exploration.coloured_share": (1.0, {}),
    "exploration.policy_colour": (1.0, {}),
    "exploration.sampled_share": (1.0, {}),
    "exploration.stored_share": (1.0, {}),
    "exploration.resample_interval": (2, SAMPLING),
    "exploration.test_episodes": (1, {}),
    "exploration.test_interval": (2, {"exploration.test_episodes": 1}),
    "schedule.reconstruction_updates": (4, {}),
    "schedule.policy_updates": (2, {}),
    "schedule.replay_trials": (20, {}),
}
# read by whoever drives the agent, and tested there
DRIVER_S = {
    "iterations",
    "tasks_per_iteration",
    "trials_per_task",
    "episodes_per_trial",
    "initial_steps_per_task",
    "evaluation_interval",
    "evaluation_tasks",
    "initial_tasks",
    "final_tasks",
    "final_trials",
}
SECTIONS = {"inference": Inference, "actor_critic": ActorCritic, "relabel": Relabel, "exploration": Exploration, "schedule": Schedule}


def test_the_table_covers_every_key() -> None:
    keys = {f"{section}.{name}" for section, model in SECTIONS.items() for name in model.model_fields}
    assert set(CHANGES) == keys - {f"schedule.{name}" for name in DRIVER_S}


def fingerprint_of(settings: dict[str, Any]) -> tuple[float, ...]:
    """Numbers that any difference in two iterations of acting and learning shows in."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    agent = Cemrl(small_config(**sections), PROBLEM, np.random.SeedSequence(0), "cpu")
    drawn, nothing = np.random.default_rng(0), np.zeros(3, dtype=bool)
    numbers: list[float] = []
    for iteration in (1, 2):
        agent.begin_training_trial(3, iteration)
        for _ in range(PROBLEM.episodes_per_trial):
            agent.begin_episode()
            for _ in range(PROBLEM.horizon):
                seen, following = drawn.normal(size=(2, 3, 3))
                action = agent.act(seen, False)
                agent.observe(Transition(seen, action, drawn.normal(size=3), following, nothing, nothing, ~nothing))
                numbers.extend(action.ravel().tolist())
        metrics = agent.learn(random_trials(PROBLEM, 8, iteration))
        numbers.extend(metrics.values())
    numbers.extend([agent.replay.size, agent.gradient_updates])
    if agent.relabeller is not None and agent.relabeller.config.kind == "hfr" and agent.inference is not None:
        with torch.no_grad():
            scores = agent.relabeller.scores(torch.arange(4), agent.replay, agent.inference, agent.learner, generator_of(0))
        numbers.extend(scores.flatten().tolist())
    agent.begin_trial(3)
    agent.begin_episode()
    for _ in range(3):
        numbers.extend(agent.act(np.ones((3, 3)), True).ravel().tolist())
    for value in agent.learner.policy.parameters():
        numbers.append(float(value.detach().double().abs().sum()))
    return tuple(numbers)


@cache
def baseline_of(settings: tuple[tuple[str, Any], ...]) -> tuple[float, ...]:
    return fingerprint_of(dict(settings))


@pytest.mark.parametrize("key", CHANGES)
def test_the_key_changes_what_the_agent_does(key: str) -> None:
    value, context = CHANGES[key]
    before = baseline_of(tuple(context.items()))
    assert before != fingerprint_of({**context, key: value})


@pytest.mark.parametrize(
    ("key", "values", "context"),
    [
        ("inference.encoder", ("shared_class", "per_transition_class", "trajectory"), CLASSES),
        ("inference.merge", ("mean", "softmax_of_sum", "softmax_of_product", "linear", "mlp"), CLASSES),
        ("actor_critic.fractions", ("iqn", "fixed", "learned"), {}),
        ("actor_critic.risk", ("neutral", "cvar", "wang", "cpw", "var", "mean_std"), {"actor_critic.risk_parameter": 0.4}),
        ("actor_critic.temperature", ("tuned", "fixed", "latent"), {}),
        ("relabel.kind", ("none", "random", "hindsight", "hfr"), {}),
    ],
)
def test_every_choice_is_a_choice_of_its_own(key: str, values: tuple[str, ...], context: dict[str, Any]) -> None:
    found: list[tuple[str, tuple[float, ...]]] = [(value, fingerprint_of({**context, key: value})) for value in values]
    for at, (one, first) in enumerate(found):
        for other, second in found[at + 1 :]:
            close = len(first) == len(second) and np.allclose(first, second, rtol=1e-5, atol=1e-7)
            assert not close, f"{key}: {one} and {other} do the same"


def test_the_same_card_gives_the_same_fingerprint() -> None:
    assert fingerprint_of({}) == fingerprint_of({})


@pytest.mark.parametrize(
    ("model", "key", "widths"),
    [
        (ActorCritic, "hidden", ()),
        (ActorCritic, "hidden", (0,)),
        (ActorCritic, "hidden", (8, -3)),
        (Inference, "encoder_hidden", ()),
        (Inference, "encoder_hidden", (8, 0)),
        (Inference, "decoder_hidden", (0,)),
    ],
)
def test_widths_that_no_network_can_have_are_refused(model: Any, key: str, widths: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match=key):
        model.model_validate({key: widths})


def test_class_labels_need_a_class_for_every_base_class_of_the_family() -> None:
    """Base classes 0, 1 and 2 cannot be told apart by two classes: said when the agent is built, not by an index error in training."""
    problem = toy_problem(task_classes=np.array([0, 1, 2, 1]))
    with pytest.raises(ValueError, match="classes"):
        Cemrl(small_config(inference={"classes": 2, "class_labels": True}), problem, np.random.SeedSequence(0), "cpu")
