"""Collection with task inference: 20 half cheetahs, the reference's network sizes, against one environment after the other.

The plain way is the reference's: one environment, its window encoded anew before every step, a policy pass for a single row. Both are
timed in the same run, in processor time of one thread; environment steps a second are those of one core. Then ours once more on all
cores, in wall time.
"""

from __future__ import annotations

import statistics
import time
from contextlib import closing

import gymnasium
import numpy as np
import torch
from reference_sizes import TASKS, medians, reference_agent, report

from dmrlad_bench.agents.cemrl import Cemrl
from dmrlad_bench.envs.cores import available_cores
from dmrlad_bench.envs.family import family
from dmrlad_bench.harness.collect import Environments, roll_out
from dmrlad_bench.harness.machine import torch_settings

NUM_ENVS, PLAIN_STEPS = 20, 60


@torch.no_grad()
def one_environment(agent: Cemrl, env: gymnasium.Env) -> None:
    """The plain way, for `PLAIN_STEPS` steps of one environment."""
    assert agent.inference is not None
    observation, _ = env.reset(seed=0)
    window: list[torch.Tensor] = []
    statistics, encoder = agent.replay.statistics, agent.inference.encoder
    for _ in range(PLAIN_STEPS):
        past = torch.stack(window[-10:]) if window else torch.zeros((1, agent.inference.transition_dim))
        belief = encoder.of_context(encoder.rows(past, torch.full((len(past),), float(bool(window)))))
        here = torch.as_tensor(observation, dtype=torch.float32)
        action = agent.learner.policy.sample(torch.cat([here, belief.point()], -1).unsqueeze(0), agent.generator)[0].squeeze(0)
        observation, reward, *_ = env.step(action.numpy().astype(np.float32))
        following = torch.as_tensor(observation, dtype=torch.float32)
        transition = statistics.transition(here[None], action[None], torch.tensor([float(reward)]), following[None])
        window.append(transition[0])


def test_collection(benchmark) -> None:
    agent, cheetah = reference_agent(20), family("CheetahVelSparse")
    plain = gymnasium.make("HalfCheetah-v5")
    tasks = np.arange(NUM_ENVS) % TASKS

    def ours(environments: Environments) -> None:
        generator = np.random.default_rng(0)
        roll_out(environments, agent, "train", tasks, episodes=1, generator=generator, deterministic=False, training_iteration=5, keep=True)

    def on_all_cores(environments: Environments) -> float:
        """Median seconds of wall time, with a thread for every core in the simulation and in torch."""
        taken = []
        with torch_settings(available_cores(), "cpu"):
            for _ in range(5):
                began = time.perf_counter()
                ours(environments)
                taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    with closing(Environments(cheetah, False, 1)) as one, closing(Environments(cheetah, False, available_cores())) as all_cores:
        taken = medians({"ours": lambda: ours(one), "plain": lambda: one_environment(agent, plain)}, rounds=3)
        wall = on_all_cores(all_cores)
    steps = NUM_ENVS * cheetah.horizon
    rate, plain_rate = steps / taken["ours"], PLAIN_STEPS / taken["plain"]
    ratios = {"steps_per_second": rate, "times_one_environment_after_the_other": rate / plain_rate}
    report(benchmark, taken["ours"], **ratios, steps_per_second_of_all_cores=steps / wall)
    plain.close()
