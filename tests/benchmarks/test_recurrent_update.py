"""Time of one update of the recurrent actor-critic, against the same update with a Python loop over time steps."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dmrlad_bench.agents.interface import Problem, Trials
from dmrlad_bench.agents.recurrent import RecurrentActorCritic
from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.agents.sequences import draw_sequences
from dmrlad_bench.cards.agent_sections import ActorCritic, Recurrent

EPISODES, TASKS, TRIALS = 2, 10, 40
# observation entries, action entries, steps of an episode, and the memory: the full budget on CheetahVelSparse and on PointGoalSparse
SHAPES = {"cheetah": (17, 6, 200, Recurrent(sequence=32, burn_in=64)), "point": (2, 2, 30, Recurrent())}


class Looped(nn.Module):
    """A GRU as a naive loop: one `GRUCell` call a step."""

    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        self.cell = nn.GRUCell(gru.input_size, gru.hidden_size)
        self.cell.load_state_dict({name.removesuffix("_l0"): value for name, value in gru.state_dict().items()})

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        state, outputs = hidden[0], []
        for step in range(inputs.shape[1]):
            state = self.cell(inputs[:, step], state)
            outputs.append(state)
        return torch.stack(outputs, 1), state.unsqueeze(0)


def replay_of(observation_dim: int, action_dim: int, horizon: int) -> TrialReplay:
    """A replay of random whole trials."""
    problem = Problem(
        observation_dim=observation_dim,
        action_dim=action_dim,
        horizon=horizon,
        episodes_per_trial=EPISODES,
        train_tasks=np.zeros((TASKS, 1)),
        reward=lambda outcome, task: outcome[..., 0] - task[..., 0],
        outcome_dim=1,
        reconstruction_dims=1,
        relabelable=True,
    )
    generator, shape = np.random.default_rng(0), (TRIALS, horizon * EPISODES)

    def normal(width: int) -> np.ndarray:
        return generator.standard_normal((*shape, width)).astype(np.float32)

    trials = Trials(
        observation=normal(observation_dim),
        next_observation=normal(observation_dim),
        action=np.tanh(normal(action_dim)),
        reward=normal(1)[..., 0],
        terminated=np.zeros(shape, dtype=bool),
        outcome=normal(1),
        episode=np.broadcast_to(np.arange(shape[1]) // horizon, shape).copy(),
        task_index=np.arange(TRIALS) % TASKS,
        length=np.full(TRIALS, shape[1]),
    )
    replay = TrialReplay(problem, TRIALS, 0, torch.device("cpu"))
    nothing = np.zeros(TRIALS, dtype=bool)
    replay.add({name: torch.as_tensor(value) for name, value in {**vars(trials), "held_out": nothing, "copy": nothing}.items()})
    return replay


@pytest.mark.parametrize("name", SHAPES)
def test_recurrent_update(benchmark, name):
    observation_dim, action_dim, horizon, recurrent = SHAPES[name]
    replay = replay_of(observation_dim, action_dim, horizon)
    config = ActorCritic(critic="scalar", batch_size=16)

    def updates(looped: bool):
        learner = RecurrentActorCritic(config, recurrent, observation_dim, action_dim, torch.Generator().manual_seed(0))
        if looped:
            for part in (learner.actor, learner.critic, learner.target_critic):
                part.memory.gru = Looped(part.memory.gru)  # pyright: ignore[reportAttributeAccessIssue]
        generator = torch.Generator().manual_seed(1)
        return lambda: learner.update(draw_sequences(replay, config.batch_size, recurrent, generator), generator)

    ours, naive = updates(looped=False), updates(looped=True)
    torch.testing.assert_close(ours(), naive(), rtol=1e-4, atol=1e-5)  # the same update, before it is timed
    benchmark(ours)
    if benchmark.stats is None:  # --benchmark-disable
        return
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        naive()
        best = min(best, time.perf_counter() - start)
    benchmark.extra_info["times_naive_loop"] = round(best / benchmark.stats.stats.min, 2)
    benchmark.extra_info["updates_per_second"] = round(1 / benchmark.stats.stats.min, 1)
    print(f"\n{benchmark.name}: {benchmark.extra_info}")
