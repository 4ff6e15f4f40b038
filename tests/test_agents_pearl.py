"""PEARL as an agent: when z is drawn from what, saving and forking, relabelling by its own posterior, and a problem that it solves."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from agent_references import array, multiply, network, softplus
from test_agents_relabel import StubLearner, stub_value
from toy_agents import transition_of
from toy_pearl import PROBLEM, pearl_of, pearl_trials
from toy_problem import generator_of, random_trials, toy_problem

from dmrlad_bench.agents.interface import Diverged, Transition, Trials
from dmrlad_bench.agents.pearl import PearlAgent

TASKS = PROBLEM.train_tasks[:, 0]


def learnt(seed: int = 0, **sections: Any) -> PearlAgent:
    agent = pearl_of(seed, **sections)
    agent.learn(pearl_trials(0))
    return agent


def slow_posterior(agent: PearlAgent, transitions: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the product of the factors of raw (o, a, r, o'), two Gaussians at a time."""
    means = [array(part) for part in agent.replay.statistics.means]
    deviations = [array(part) for part in agent.replay.statistics.deviations]
    result: list[tuple[float, float]] = []
    for parts in transitions:
        normal = [(np.atleast_1d(part) - means[i]) / deviations[i] for part, i in zip(parts, (0, 1, 2, 0), strict=True)]
        inputs = np.concatenate(normal if agent.pearl.next_observation else normal[:3])
        mean, raw = network(agent.inference.encoder.network, inputs).reshape(2, -1)
        factor = list(zip(mean.tolist(), (softplus(raw) + 1e-3).tolist(), strict=True))
        result = factor if not result else [multiply(one, other) for one, other in zip(result, factor, strict=True)]
    return np.array([entry[0] for entry in result]), np.array([entry[1] for entry in result])


# ---- acting -----------------------------------------------------------------------------------------------------------


def latents_of(agent: PearlAgent, num_envs: int, episodes: int, deterministic: bool, training: bool = False) -> list[np.ndarray]:
    """z `(num_envs, L)` of every step of a trial, three steps an episode; all environments report the same."""
    if training:
        agent.begin_training_trial(num_envs, 9)
    else:
        agent.begin_trial(num_envs)
    latents = []
    for episode in range(episodes):
        agent.begin_episode()
        for step in range(3):
            agent.act(np.zeros((num_envs, 3)), deterministic)
            assert agent._latent is not None
            latents.append(agent._latent.numpy().copy())
            same = transition_of(10 * episode + step, 1)
            agent.observe(Transition(*(np.repeat(part, num_envs, 0) for part in vars(same).values())))
    return latents


def seen_until(episode: int) -> list[tuple[np.ndarray, ...]]:
    """What `latents_of` has let every environment see before an episode."""
    transitions = (transition_of(10 * before + step, 1) for before in range(episode) for step in range(3))
    return [(one.observation[0], one.action[0], one.reward[0], one.next_observation[0]) for one in transitions]


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("next_observation", [True, False])
def test_at_test_time_two_episodes_explore_by_the_prior_and_the_rest_follow_all_that_was_seen(
    deterministic: bool, next_observation: bool
) -> None:
    agent = learnt(pearl={"next_observation": next_observation})
    latents = latents_of(agent, 4000, 4, deterministic)
    for episode in range(4):
        held = latents[3 * episode]
        assert all((held == later).all() for later in latents[3 * episode : 3 * episode + 3])
        mean, deviation = (np.zeros(2), np.ones(2)) if episode < 2 else slow_posterior(agent, seen_until(episode))
        if deterministic and episode >= 2:
            np.testing.assert_allclose(held, np.tile(mean, (4000, 1)), rtol=1e-3, atol=1e-4)
        else:
            np.testing.assert_allclose(held.mean(0), mean, atol=4 * deviation.max() / np.sqrt(4000))
            np.testing.assert_allclose(held.std(0), deviation, rtol=0.06)
    assert not (latents[0] == latents[3]).any()  # a new draw for every episode


def test_a_training_trial_has_its_own_number_of_prior_episodes() -> None:
    agent = learnt(pearl={"prior_episodes": 1, "exploration_episodes": 3})
    latents = latents_of(agent, 4000, 2, False, training=True)
    np.testing.assert_allclose(latents[0].std(0), 1.0, rtol=0.06)
    mean, deviation = slow_posterior(agent, seen_until(1))
    np.testing.assert_allclose(latents[3].mean(0), mean, atol=4 * deviation.max() / np.sqrt(4000))
    np.testing.assert_allclose(latents[3].std(0), deviation, rtol=0.06)


def test_what_ended_environments_report_is_not_context() -> None:
    agent = learnt(pearl={"exploration_episodes": 0})
    agent.begin_trial(3)
    agent.begin_episode()
    agent.observe(transition_of(0, 3, np.array([True, False, True])))
    agent.begin_episode()
    agent.act(np.zeros((3, 3)), True)
    assert agent._latent is not None
    assert (agent._latent[1] == 0).all() and (agent._latent[[0, 2]] != 0).all()


def test_noise_drives_the_initial_iterations_as_it_does_for_the_other_agents() -> None:
    agent = pearl_of(exploration={"initial": "coloured", "constant_share": 1.0, "initial_iterations": 2})

    def constant(iteration: int) -> bool:
        agent.begin_training_trial(3, iteration)
        agent.begin_episode()
        actions = [agent.act(np.zeros((3, 3)), False) for _ in range(4)]
        return all((actions[0] == action).all() for action in actions)

    assert [constant(iteration) for iteration in (1, 2, 3)] == [True, True, False]


# ---- saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sections", [{}, {"relabel": {"kind": "hfr", "revisited": 2}}, {"actor_critic": {"critic": "quantile"}}])
def test_a_restored_agent_acts_and_learns_the_same(sections: dict[str, Any]) -> None:
    small = {**sections, "schedule": {"replay_trials": 20}}
    first, second = pearl_of(0, **small), pearl_of(1, **small)
    shards = []
    for seed in range(3):  # 8 trials each, with copies more; the ring of 20 wraps
        first.learn(pearl_trials(seed))
        shards.append(copy.deepcopy(first.new_replay_shard()))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.load_replay_shards(shards)
    assert first.learn(pearl_trials(9)) == second.learn(pearl_trials(9))
    for one, other in zip(latents_of(first, 3, 4, False), latents_of(second, 3, 4, False), strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("inference", "learner"):
        states = [torch.cat([value.flatten() for value in parameters_of(getattr(agent, name))]) for agent in (first, second)]
        assert torch.equal(*states)
    assert first.gradient_updates == second.gradient_updates == 12


def parameters_of(part: Any) -> list[torch.Tensor]:
    modules = [part.encoder] if hasattr(part, "encoder") else [part.policy, part.critics, part.target_critics]
    return [parameter.detach() for module in modules for parameter in module.parameters()]


def test_a_fork_acts_with_its_own_noise_and_disturbs_nothing() -> None:
    agent, undisturbed = learnt(), learnt()
    forks = [agent.fork(np.random.SeedSequence(seed)) for seed in (5, 5, 6)]
    one, same, other = (latents_of(fork, 2, 4, True) for fork in forks)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one[0], other[0])
    assert agent.learn(pearl_trials(1)) == undisturbed.learn(pearl_trials(1))


def test_a_loss_that_is_not_finite_names_itself() -> None:
    agent = learnt()
    with torch.no_grad():
        next(agent.inference.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(Diverged, match="policy update"):
        agent.learn(pearl_trials(1))


# ---- relabelling ------------------------------------------------------------------------------------------------------


def test_relabelling_scores_pearl_s_own_posterior_in_units_of_return() -> None:
    """Every trial and task by itself: hindsight rewards, the product of all transitions' factors, the value at the task's start."""
    agent = pearl_of(
        schedule={"policy_updates": 0},
        relabel={"kind": "hfr", "temperature": 1.5, "normaliser_trials": 2, "utility_batch": 3},
        pearl={"reward_scale": 4.0},
    )
    trials = random_trials(PROBLEM, 4, 0, length=np.array([10, 2, 7, 4]), task_index=np.arange(4))
    relabeller, agent.relabeller = agent.relabeller, None
    assert relabeller is not None
    agent.learn(trials)  # one trial a task, no copies: start observations and log Z have nothing to choose from
    learner: Any = StubLearner()
    with torch.no_grad():
        ours = relabeller.scores(torch.arange(4), agent.replay, agent.inference, learner, generator_of(1))

    def belief_of(trial: int, rewards: np.ndarray) -> np.ndarray:
        lived = range(int(trials.length[trial]))
        parts = [(trials.observation[trial, i], trials.action[trial, i], rewards[i], trials.next_observation[trial, i]) for i in lived]
        return slow_posterior(agent, parts)[0]

    for task in range(4):
        start = trials.observation[task, 0].astype(np.float64)
        usual = stub_value(start, belief_of(task, trials.reward[task].astype(np.float64)))
        for trial in range(4):
            rewards = -((trials.outcome[trial, :, 0].astype(np.float64) - TASKS[task]) ** 2)
            expected = (stub_value(start, belief_of(trial, rewards)) - usual) / (1.5 * 4.0)
            assert float(ours[trial, task]) == pytest.approx(expected, abs=1e-3)


def test_copies_are_stored_under_their_new_task_with_its_rewards() -> None:
    agent = pearl_of(relabel={"kind": "hfr"})
    metrics = agent.learn(pearl_trials(0))
    assert agent.replay.size == 16
    data = {name: value[8:16].numpy() for name, value in agent.replay.data.items()}
    lived = np.arange(10) < data["length"][:, None]
    expected = -((data["outcome"][..., 0] - TASKS[data["task_index"]][:, None]) ** 2) * lived
    np.testing.assert_allclose(data["reward"], expected, rtol=1e-5, atol=1e-6)
    assert data["copy"].all()
    assert metrics["relabelled_return"] == pytest.approx(expected.sum(-1).mean(), rel=1e-4)


# ---- a problem that it must solve ------------------------------------------------------------------------------------

TARGETS = np.array([[-0.7], [0.7]])


def target_reward(outcome: Any, task: Any) -> Any:
    """1 at the task's target, less with the squared distance of the action (the outcome) from it."""
    return 1.0 - (outcome[..., 0] - task[..., 0]) ** 2


BLIND = toy_problem(
    observation_dim=1, action_dim=1, horizon=3, episodes_per_trial=2, train_tasks=TARGETS, reward=target_reward, reconstruction_dims=0
)


def played(agent: PearlAgent, task_index: np.ndarray, iteration: int | None) -> Trials:
    """A trial in each of the tasks: the observation says nothing, only rewards tell tasks apart."""
    count, nothing = len(task_index), np.zeros(len(task_index), dtype=bool)
    trials = random_trials(BLIND, count, 0, task_index=task_index)
    trials.observation[...] = trials.next_observation[...] = 0.0
    trials.terminated[...] = False
    if iteration is None:
        agent.begin_trial(count)
    else:
        agent.begin_training_trial(count, iteration)
    still = np.zeros((count, 1), dtype=np.float32)
    for step in range(6):
        if step % 3 == 0:
            agent.begin_episode()
        action = agent.act(still, iteration is None)
        trials.action[:, step] = trials.outcome[:, step] = action
        trials.reward[:, step] = target_reward(action, TARGETS[task_index])
        agent.observe(Transition(still, action, trials.reward[:, step], still, nothing, nothing, ~nothing))
    return trials


@pytest.mark.parametrize("relabel", ["none", "hfr"])
def test_it_adapts_to_a_hidden_task(relabel: str) -> None:
    """Whoever does not know the task earns at most 1 - 0.7^2 = 0.51 a step over both; who has found out earns 1 in each."""
    agent = pearl_of(
        problem=BLIND,
        actor_critic={
            "hidden": (24, 24),
            "learning_rate": 1e-2,
            "batch_size": 32,
            "discount": 0.3,
            "polyak": 0.1,
            "initial_temperature": 0.05,
            "temperature": "fixed",
        },
        pearl={
            "encoder_hidden": (16, 16),
            "learning_rate": 1e-2,
            "context_batch": 6,
            "recent_trials": 16,
            "meta_batch": 2,
            "kl_weight": 1e-3,
            "exploration_episodes": 1,
            "reward_scale": 1.0,
        },
        relabel={"kind": relabel},
        exploration={"initial": "coloured", "colour_high": 0.0},
        schedule={"policy_updates": 100, "replay_trials": 500},
    )
    for iteration in range(1, 5):
        agent.learn(played(agent, np.arange(32) % 2, iteration))
    reward = played(agent, np.arange(64) % 2, None).reward
    assert reward[:, :3].mean() < 0.6  # draws from the prior know nothing yet
    assert reward[:, 3:].mean() > 0.75  # not all: a draw that acts near 0 earns the same in both tasks, and finds out nothing
