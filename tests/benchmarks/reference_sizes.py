"""What the benchmarks share: the reference's sizes on the half cheetah, a replay of random trials, and how times are taken.

Sizes are those of the DMRLAD reference's cheetah-vel-sparse settings: encoder and decoder 2 x 470, window 10, latent size 1; policy and
quantile critics 3 x 300, 16 fractions, 64 cosines, batches of 256; 50 training tasks, episodes of 200 steps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from dmrlad_bench.agents.cemrl import Cemrl
from dmrlad_bench.agents.interface import Problem
from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.cards.agent_config import AgentConfig
from dmrlad_bench.cards.agent_sections import ActorCritic, Exploration, Inference, Relabel, Schedule

OBSERVATION, ACTION, HORIZON, TASKS = 17, 6, 200, 50
RADIUS = 0.1
VELOCITIES = np.linspace(0.0, 3.0, TASKS)[:, None]


def sparse_reward(outcome, task):
    """CheetahVelSparse's: 2 - err within the radius and -2 elsewhere, less the control cost; NumPy arrays or tensors."""
    error = abs(outcome[..., 0] - task[..., 0])
    inside = (error < RADIUS) * 1.0
    return inside * (2.0 - error) - 2.0 * (1.0 - inside) - 0.5 * outcome[..., 1]


PROBLEM = Problem(OBSERVATION, ACTION, HORIZON, 1, VELOCITIES, sparse_reward, 2, OBSERVATION, True)


def reference_agent(trials: int, segment: int = 16, device: str = "cpu", **relabel) -> Cemrl:
    """An agent of the reference's sizes whose replay holds `trials` random trials."""
    config = AgentConfig(
        name="reference sizes",
        description="",
        algorithm="cemrl",
        inference=Inference(segment=segment),
        actor_critic=ActorCritic(),
        relabel=Relabel(**{"utility_batch": 64, "normaliser_trials": 20, **relabel}),
        exploration=Exploration(initial="policy"),
        schedule=Schedule(replay_trials=trials),
    )
    agent = Cemrl(config, PROBLEM, np.random.SeedSequence(0), device)
    fill(agent.replay, trials)
    return agent


def fill(replay: TrialReplay, trials: int, seed: int = 0) -> None:
    """Store `trials` random trials, a few at a time, so that filling needs little memory beside the replay's own."""
    drawn = torch.Generator().manual_seed(seed)
    steps, data = replay.steps, replay.data
    for first in range(0, trials, 200):
        count = min(200, trials - first)

        def normal(name: str, count: int = count) -> torch.Tensor:
            return torch.randn((count, steps, data[name].shape[-1]), generator=drawn)

        velocity = 3.0 * torch.rand((count, steps, 1), generator=drawn)
        action = torch.tanh(normal("action"))
        outcome = torch.cat([velocity, action.square().sum(-1, keepdim=True)], -1)[..., : data["outcome"].shape[-1]]
        task = torch.arange(first, first + count) % TASKS
        reward = torch.randn((count, steps), generator=drawn)
        if outcome.shape[-1] == 2:
            reward = sparse_reward(outcome, torch.as_tensor(VELOCITIES, dtype=torch.float32)[task].unsqueeze(1))
        drawn_trials = {
            "observation": normal("observation"),
            "next_observation": normal("next_observation"),
            "action": action,
            "reward": reward,
            "terminated": torch.zeros((count, steps), dtype=torch.bool),
            "outcome": outcome,
            "episode": torch.zeros((count, steps), dtype=torch.int64),
            "task_index": task,
            "length": torch.full((count,), steps),
            "held_out": torch.arange(first, first + count) % 5 == 0,
            "copy": torch.zeros(count, dtype=torch.bool),
        }
        replay.add({name: value.to(replay.device) for name, value in drawn_trials.items()})


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def medians(work: dict[str, Callable[[], object]], rounds: int, warm_up: bool = True) -> dict[str, float]:
    """Median seconds of processor time of each piece of work, taken in turns; the first turn does not count where it is a `warm_up`.

    Processor time of one thread changes little with what else the machine does; wall time would.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    with one_thread():
        for turn in range(-1 if warm_up else 0, rounds):
            for name, run in work.items():
                began = time.process_time()
                run()
                if turn >= 0:
                    seconds[name].append(time.process_time() - began)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def report(benchmark, ours: float, **ratios: float) -> None:
    """Enter our seconds as the benchmark's one round, put the ratios beside them, and print all of it."""
    benchmark.extra_info |= {"processor_seconds": float(f"{ours:.4g}")} | {name: float(f"{value:.3g}") for name, value in ratios.items()}
    benchmark.pedantic(lambda: None, rounds=1)
    print(f"\n{benchmark.name}: {benchmark.extra_info}")
