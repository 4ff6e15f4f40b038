"""Probes: problems with known optima that each part, and then the whole agent, must solve in seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_problem import generator_of, random_trials, small_config, toy_problem

from dmrlad_bench.agents.actor_critic import Batch, SoftActorCritic
from dmrlad_bench.agents.cemrl import Cemrl
from dmrlad_bench.agents.interface import Transition, Trials

Dynamics = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor, Tensor]]
BATCH = 64
BOTH = pytest.mark.parametrize("critic", ["scalar", "quantile"])


def solved(critic: str, dynamics: Dynamics, states: int, updates: int, **changes: Any) -> SoftActorCritic:
    """A learner after `updates` on uniformly random one-hot states and actions.

    Args:
        critic: its kind.
        dynamics: state numbers `(batch,)` and actions `(batch, 1)` -> rewards, next state numbers, termination.
        states: how many there are.
        updates: gradient steps.
        changes: other keys of the actor-critic.
    """
    content = {
        "critic": critic,
        "hidden": (16, 16),
        "fraction_count": 6,
        "cosines": 12,
        "fractions": "fixed",
        "learning_rate": 1e-2,
        "polyak": 0.05,
        "temperature": "fixed",
        "initial_temperature": 0.02,
        **changes,
    }
    learner = SoftActorCritic(small_config(actor_critic=content).actor_critic, states, 0, 1, generator_of(0))
    generator = generator_of(1)
    eye = torch.eye(states)
    for _ in range(updates):
        state = torch.randint(0, states, (BATCH,), generator=generator)
        action = 2 * torch.rand(BATCH, 1, generator=generator) - 1
        reward, following, terminated = dynamics(state, action, generator)
        learner.update(Batch(eye[state], eye[following], torch.zeros(BATCH, 0), action, reward, terminated), generator)
    return learner


def answers(learner: SoftActorCritic, states: int) -> tuple[np.ndarray, np.ndarray]:
    """Deterministic action and its value in every state, each `(states,)`."""
    eye = torch.eye(states)
    with torch.no_grad():
        action = learner.policy.mode(eye)
        value = learner.value(eye, action, generator_of(0))
    return action.squeeze(-1).numpy(), value.numpy()


@BOTH
def test_a_bandit_s_best_arm_depends_on_what_is_seen(critic: str) -> None:
    """r = 1 - 2 (a - best)^2 with best = 0.4 in state 0 and -0.6 in state 1: the optimum is 1."""
    best = torch.tensor([0.4, -0.6])

    def dynamics(state: Tensor, action: Tensor, _: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        return 1 - 2 * (action.squeeze(-1) - best[state]) ** 2, state, torch.ones(len(state))

    actions, values = answers(solved(critic, dynamics, 2, 300), 2)
    np.testing.assert_allclose(actions, best, atol=0.2)
    np.testing.assert_allclose(values, 1.0, atol=0.15)


@BOTH
def test_value_flows_back_along_a_chain_and_stops_at_its_end(critic: str) -> None:
    """0 -> 1 -> over; only state 1 pays, 1 - (a + 0.5)^2. With a discount of 0.5 the start is worth a half, not more."""

    def dynamics(state: Tensor, action: Tensor, _: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        reward = torch.where(state == 1, 1 - (action.squeeze(-1) + 0.5) ** 2, torch.zeros(len(state)))
        return reward, torch.ones_like(state), (state == 1).float()

    actions, values = answers(solved(critic, dynamics, 2, 300, discount=0.5, initial_temperature=0.005), 2)
    assert actions[1] == pytest.approx(-0.5, abs=0.2)
    np.testing.assert_allclose(values, [0.5, 1.0], atol=0.1)


@BOTH
def test_a_reward_for_ever_is_worth_its_discounted_sum(critic: str) -> None:
    """Nothing terminates: 1 / (1 - 0.75) = 4, though every episode would be truncated somewhere."""

    def dynamics(state: Tensor, action: Tensor, _: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ones(len(state)), state, torch.zeros(len(state))

    _, values = answers(solved(critic, dynamics, 1, 250, discount=0.75, initial_temperature=1e-4, polyak=0.1), 1)
    np.testing.assert_allclose(values, 4.0, atol=0.3)


def test_quantiles_are_those_of_the_return() -> None:
    """Returns uniform on (-6, 6), so Z(tau) = 12 tau - 6, but for the Huber corner's pull at the ends."""

    def dynamics(state: Tensor, action: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        return 12 * torch.rand(len(state), generator=generator) - 6, state, torch.ones(len(state))

    learner = solved("quantile", dynamics, 1, 400, fractions="iqn")
    tau = torch.tensor([[0.15, 0.3, 0.5, 0.7, 0.85]])
    with torch.no_grad():
        values = learner.critics(torch.ones(1, 1), torch.zeros(1, 1), tau).mean(0)[0]
    np.testing.assert_allclose(values, 12 * tau[0] - 6, atol=0.9)


@pytest.mark.parametrize(("risk", "parameter", "bold"), [("neutral", 0.0, True), ("cvar", 0.25, False), ("wang", 1.5, False)])
def test_risk_measures_choose_between_a_safe_and_a_bold_arm(risk: str, parameter: float, bold: bool) -> None:
    """r = 0.4 a + (1 + a) noise: the bold end pays 0.4 +- 2, the safe end -0.4 for certain."""

    def dynamics(state: Tensor, action: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        arm = action.squeeze(-1)
        return 0.4 * arm + (1 + arm) * torch.randn(len(state), generator=generator), state, torch.ones(len(state))

    actions, _ = answers(solved("quantile", dynamics, 1, 250, risk=risk, risk_parameter=parameter), 1)
    assert (actions[0] > 0.3) if bold else (actions[0] < -0.3)


TARGETS = np.array([[-0.7], [0.7]])


def target_reward(outcome: Any, task: Any) -> Any:
    """1 at the task's target, less with the squared distance of the action (the outcome) from it."""
    return 1.0 - (outcome[..., 0] - task[..., 0]) ** 2


PROBLEM = toy_problem(
    observation_dim=1, action_dim=1, horizon=4, episodes_per_trial=1, train_tasks=TARGETS, reward=target_reward, reconstruction_dims=0
)
LEARNER: dict[str, dict[str, Any]] = {
    "inference": {
        "latent_dim": 1,
        "window": 4,
        "encoder_hidden": (16, 16),
        "decoder_hidden": (16, 16),
        "learning_rate": 1e-2,
        "batch_size": 64,
        "validation_interval": 20,
        "patience": 100,
    },
    "actor_critic": {
        "hidden": (24, 24),
        "fraction_count": 6,
        "learning_rate": 1e-2,
        "batch_size": 64,
        "discount": 0.3,
        "polyak": 0.1,
        "initial_temperature": 0.05,
        "temperature": "fixed",
    },
    "exploration": {"initial": "coloured", "colour_high": 0.0},
    "schedule": {"reconstruction_updates": 100, "policy_updates": 120, "replay_trials": 500},
}


def played(agent: Cemrl, task_index: np.ndarray, iteration: int | None) -> Trials:
    """A trial in each of the tasks: the observation says nothing, only rewards tell tasks apart."""
    count, nothing = len(task_index), np.zeros(len(task_index), dtype=bool)
    trials = random_trials(PROBLEM, count, 0, task_index=task_index)
    for part in (trials.observation, trials.next_observation):
        part[...] = 0.0
    trials.terminated[...] = False
    if iteration is None:
        agent.begin_trial(count)
    else:
        agent.begin_training_trial(count, iteration)
    agent.begin_episode()
    still = np.zeros((count, 1), dtype=np.float32)
    for step in range(PROBLEM.horizon):
        action = agent.act(still, iteration is None)
        trials.action[:, step] = trials.outcome[:, step] = action
        trials.reward[:, step] = target_reward(action, TARGETS[task_index])
        agent.observe(Transition(still, action, trials.reward[:, step], still, nothing, nothing, ~nothing))
    return trials


def test_inference_tells_two_tasks_apart_by_their_rewards() -> None:
    only_inference = {**LEARNER, "schedule": {**LEARNER["schedule"], "reconstruction_updates": 400, "policy_updates": 0}}
    agent = Cemrl(small_config(**only_inference), PROBLEM, np.random.SeedSequence(0), "cpu")
    agent.learn(played(agent, np.arange(120) % 2, 1))
    assert agent.inference is not None
    rows = agent.inference.encoder.rows(
        agent.replay.transitions(torch.arange(120).unsqueeze(-1), slice(None)).squeeze(1), torch.ones(120, 4)
    )
    with torch.no_grad():
        belief = agent.inference.encoder.along(rows)
    mean, deviation = belief.mean[..., 0, 0].numpy(), belief.deviation[..., 0, 0].numpy()
    assert np.ptp(mean[:, 0]) == 0.0  # nothing seen, nothing known
    first, second = mean[::2, -1], mean[1::2, -1]
    threshold = (first.mean() + second.mean()) / 2
    right = np.concatenate([(first > threshold) == (first.mean() > threshold), (second > threshold) == (second.mean() > threshold)])
    assert right.mean() >= 0.95
    assert abs(first.mean() - second.mean()) > 4 * deviation[:, -1].mean()
    assert (np.diff(deviation.mean(0)) < 0).all()  # every transition makes the belief sharper


@pytest.mark.parametrize(("critic", "relabel"), [("quantile", "hfr"), ("scalar", "none")])
def test_the_whole_agent_adapts_to_a_hidden_task(critic: str, relabel: str) -> None:
    """Whoever does not know the task earns at most 1 - 0.7^2 = 0.51 a step over both; who has found out earns 1 in each."""
    sections = {**LEARNER, "actor_critic": {**LEARNER["actor_critic"], "critic": critic}, "relabel": {"kind": relabel}}
    agent = Cemrl(small_config(**sections), PROBLEM, np.random.SeedSequence(0), "cpu")
    for iteration in range(1, 5):
        agent.learn(played(agent, np.arange(32) % 2, iteration))
    assert played(agent, np.array([0, 1]), None).reward[:, -1].min() > 0.85
