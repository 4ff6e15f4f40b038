"""Task inference at the reference's sizes: beliefs of 10 000 stored steps, and a reconstruction update.

Beliefs are compared with the plain way, which encodes the window of every step by itself, so each transition ten times. An update from
stretches of 16 targets that share their context is compared with one from 256 independent windows, with an optimiser that is not fused:
the number of targets is the same. Everything is processor time of one thread.

The reference's own times on a two-core machine, one thread: 2.0 s for the beliefs, 134 ms for the update.
"""

from __future__ import annotations

import torch
from reference_sizes import HORIZON, medians, reference_agent, report

TRIALS, PLAIN_TRIALS = 50, 5


def test_re_inference(benchmark) -> None:
    agent = reference_agent(TRIALS)
    inference, replay = agent.inference, agent.replay
    assert inference is not None
    encoder, window = inference.encoder, inference.config.window

    @torch.no_grad()
    def plain() -> torch.Tensor:
        beliefs = []
        for trial in range(PLAIN_TRIALS):
            transitions = replay.transitions(torch.tensor(trial), slice(None))
            steps = torch.arange(HORIZON).unsqueeze(-1) - window + torch.arange(window)
            rows = encoder.rows(transitions[steps.clamp(min=0)], steps >= 0)
            beliefs.append(encoder.of_windows(rows).point())
        return torch.stack(beliefs)

    ours = lambda: agent._reinfer(inference)  # noqa: E731
    ours()
    torch.testing.assert_close(replay.belief[:PLAIN_TRIALS, :HORIZON], plain(), rtol=1e-4, atol=1e-5)
    taken = medians({"ours": ours, "plain": plain}, rounds=5)
    report(
        benchmark,
        taken["ours"],
        times_every_window_by_itself=TRIALS / PLAIN_TRIALS * taken["plain"] / taken["ours"],
        share_of_the_reference_s_seconds=taken["ours"] / 2.0,
    )


def test_reconstruction_update(benchmark) -> None:
    updates = {}
    for name, segment in (("ours", 16), ("plain", 1)):
        agent = reference_agent(TRIALS, segment=segment)
        inference, replay, generator = agent.inference, agent.replay, agent.generator
        assert inference is not None
        config = inference.config
        if name == "plain":
            inference.optimiser = torch.optim.Adam(inference.parameters, lr=config.learning_rate, foreach=False)

        def update(inference=inference, replay=replay, generator=generator, config=config) -> None:
            stretches = config.batch_size // config.segment
            inference.update(replay.segments(stretches, config.segment, config.window, False, False, generator), generator)

        updates[name] = update
    taken = medians(updates, rounds=7)
    report(
        benchmark,
        taken["ours"],
        share_of_independent_windows=taken["ours"] / taken["plain"],
        share_of_the_reference_s_milliseconds=taken["ours"] / 0.134,
    )
