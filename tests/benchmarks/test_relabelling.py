"""Hindsight-foresight relabelling at the reference's sizes: one iteration's utilities, and log Z.

An iteration scores 10 trajectories of 200 steps under 50 tasks with 64 start observations each; log Z scores 20 stored trajectories a
task. The baseline is the plain way, on a fraction of the work in the same run: trial by trial and task by task, the whole trajectory
encoded for every task, the critics asked about that task's 64 states with 16 fractions each. Ours averages over the critics' 16 drawn
fractions, or by the Gauss-Legendre rule of 2 as budget `full` does. Everything is processor time of one thread.

The reference's own seconds on a two-core machine, one thread, per trajectory and 100 tasks: 6.8 s for utilities; 40 s for log Z of 100
tasks.
"""

from __future__ import annotations

import pytest
import torch
from reference_sizes import TASKS, medians, one_thread, reference_agent, report

from dmrlad_bench.agents.cemrl import Cemrl

TRIALS, PLAIN_TASKS = 10, 3
REFERENCE_SECONDS = {"utilities": TRIALS * TASKS / 100 * 6.8, "log_normaliser": TASKS / 100 * 40.0}


@torch.no_grad()
def plain(agent: Cemrl, start: torch.Tensor) -> torch.Tensor:
    """U of one trial under `PLAIN_TASKS` tasks, in a loop."""
    relabeller, replay, learner, inference = agent.relabeller, agent.replay, agent.learner, agent.inference
    assert relabeller is not None and inference is not None
    data, encoder, answers = replay.data, inference.encoder, []
    for task in range(PLAIN_TASKS):
        reward = relabeller.hindsight.reward(data["outcome"][0], relabeller.hindsight.tasks[task]).float()
        transitions = replay.statistics.transition(data["observation"][0], data["action"][0], reward, data["next_observation"][0])
        belief = encoder.of_context(encoder.rows(transitions, torch.ones(replay.steps))).point()
        state = torch.cat([start[task], belief.expand(len(start[task]), -1)], -1)
        action, _ = learner.policy.sample(state, agent.generator)
        answers.append(learner.mean_value(state, action, agent.generator).mean())
    return torch.stack(answers)


@pytest.mark.parametrize("fractions", [None, 2], ids=["drawn", "two"])
@pytest.mark.parametrize("part", ["utilities", "log_normaliser"])
def test_relabelling(benchmark, part: str, fractions: int | None) -> None:
    agent = reference_agent(100, utility_fractions=fractions)
    relabeller, inference = agent.relabeller, agent.inference
    assert relabeller is not None and inference is not None
    slots = torch.arange(TRIALS)
    with torch.no_grad(), one_thread():
        start = relabeller.starts(agent.replay, agent.generator)
        shared = agent.replay, inference, agent.learner, start, agent.generator
        work = {"utilities": lambda: relabeller.utilities(slots, *shared), "log_normaliser": lambda: relabeller.log_normaliser(*shared)}
        taken = medians({"plain": lambda: plain(agent, start)}, rounds=3) | medians({"ours": work[part]}, rounds=1, warm_up=False)
    pairs = TRIALS * TASKS if part == "utilities" else relabeller.config.normaliser_trials * TASKS
    report(
        benchmark,
        taken["ours"],
        times_plain_loop=pairs / PLAIN_TASKS * taken["plain"] / taken["ours"],
        share_of_the_reference_s_seconds=taken["ours"] / REFERENCE_SECONDS[part],
    )


def test_beliefs_of_hindsight(benchmark) -> None:
    """The encoder's part alone, whole trajectories under every task: a reward that is the same for most tasks is encoded once."""
    from dmrlad_bench.agents.relabel import hindsight_beliefs

    agent = reference_agent(20)
    replay, relabeller, inference = agent.replay, agent.relabeller, agent.inference
    assert relabeller is not None and inference is not None
    with torch.no_grad():
        slots = torch.arange(2)
        rewards = relabeller.hindsight.rewards(replay.data["outcome"][slots])
        data = {
            name: replay.data[name][slots].unsqueeze(1).expand(-1, TASKS, -1, -1) for name in ("observation", "action", "next_observation")
        }

        def every_task_anew() -> None:
            transitions = replay.statistics.transition(data["observation"], data["action"], rewards, data["next_observation"])
            inference.encoder.of_context(inference.encoder.rows(transitions, torch.ones_like(rewards))).point()

        taken = medians(
            {"ours": lambda: hindsight_beliefs(inference, replay, slots, rewards, "trajectory"), "plain": every_task_anew}, rounds=3
        )
    report(benchmark, taken["ours"], times_every_task_anew=taken["plain"] / taken["ours"])
