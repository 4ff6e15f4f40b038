"""Does it hurt the inferred beliefs that 16 targets of a batch share an encoded stretch, when the number of targets is the same?

Encoder and decoder of budget `quick` are trained on real trials of CheetahVel (coloured noise in all training tasks, so that velocities
vary) with batches of 256 targets: 256 independent windows, or 16 stretches of 16 targets. Both see as many targets, and are compared
by the same 4096 held-out targets, each with a window of its own, after every `UPDATES` / 4 updates. Several seeds, for networks and draws.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from reference_sizes import one_thread, report

from dmrlad_bench.agents.cemrl import Cemrl
from dmrlad_bench.envs.family import family
from dmrlad_bench.harness.agent import make_agent
from dmrlad_bench.harness.api import plan
from dmrlad_bench.harness.collect import Environments, roll_out

SEEDS, UPDATES, TARGETS, WINDOW, HELD_OUT = (0, 1, 2), 2000, 256, 10, 4096


def filled_agent(folder, seed: int) -> Cemrl:
    """An agent that knows two trials of coloured noise in every training task, a fifth of them held out."""
    config, _ = plan("dmrlad", "CheetahVel", seed=seed, budget="quick", device="cpu", out=folder, threads=1)
    cheetah = family("CheetahVel")
    agent = make_agent(config, cheetah)
    assert isinstance(agent, Cemrl)
    environments = Environments(cheetah, False, 1)
    tasks = np.repeat(np.arange(len(cheetah.tasks("train"))), 2)
    rolled = roll_out(
        environments,
        agent,
        "train",
        tasks,
        episodes=1,
        generator=np.random.default_rng(seed),
        deterministic=False,
        training_iteration=1,
        keep=True,
    )
    environments.close()
    assert rolled.trials is not None
    agent.store(rolled.trials, np.random.default_rng(seed).permutation(len(tasks)) % 5 == 0)
    return agent


def validation_errors(agent: Cemrl, segment: int) -> tuple[list[float], float]:
    """Validation errors (loss with equal shares of state and reward errors) along the training, and the processor seconds it took."""
    inference, replay, generator = agent.inference, agent.replay, agent.generator
    assert inference is not None
    judged = replay.segments(HELD_OUT, 1, WINDOW, True, False, torch.Generator().manual_seed(99))
    noise, errors, seconds = torch.Generator().manual_seed(7), [], 0.0
    for _ in range(4):
        began = time.process_time()
        for _ in range(UPDATES // 4):
            inference.update(replay.segments(TARGETS // segment, segment, WINDOW, False, False, generator), generator)
        seconds += time.process_time() - began
        errors.append(inference._validate(judged, noise)[0])
    return errors, seconds


def test_segments_do_not_hurt_the_validation_error(benchmark, tmp_path) -> None:
    last: dict[int, list[float]] = {1: [], 16: []}
    seconds = {1: 0.0, 16: 0.0}
    with one_thread():
        for seed in SEEDS:
            for segment in last:
                errors, taken = validation_errors(filled_agent(tmp_path, seed), segment)
                last[segment].append(errors[-1])
                seconds[segment] += taken
                print(f"\nseed {seed}, {TARGETS // segment} stretches of {segment}: {', '.join(f'{error:.4f}' for error in errors)}")
    ratio = statistics.mean(last[16]) / statistics.mean(last[1])
    assert ratio < 1.1  # measured: 1.04
    report(
        benchmark,
        seconds[16] / len(SEEDS) / UPDATES,
        validation_error_of_segments=statistics.mean(last[16]),
        validation_error_of_windows=statistics.mean(last[1]),
        ratio=ratio,
        largest_ratio_of_a_seed=max(ours / plain for ours, plain in zip(last[16], last[1], strict=True)),
        share_of_the_time=seconds[16] / seconds[1],
    )
