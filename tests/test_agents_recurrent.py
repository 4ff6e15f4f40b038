"""The recurrent learner: its losses and gradients against a step-by-step reference, padding, what is drawn, how it starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from recurrent_agents import PROBLEM, Reference, double_precision, recurrent_agent, recurrent_config
from torch import Tensor
from toy_problem import filled_replay, generator_of, random_trials

from dmrlad_bench.agents.interface import Trials
from dmrlad_bench.agents.recurrent import Memory, RecurrentActorCritic
from dmrlad_bench.agents.sequences import Sequences, draw_sequences, read_sequences
from dmrlad_bench.cards import CardError, family_names, load_agent, load_family, resolve_agent
from dmrlad_bench.cards.agent_config import AgentConfig
from dmrlad_bench.cards.agent_sections import Recurrent

LENGTHS = np.array([10, 4, 7, 9])


def stored_trials(seed: int = 0) -> Trials:
    """Four trials of 10, 4, 7 and 9 steps; a first episode that ended early, and one cut at its horizon."""
    trials = random_trials(PROBLEM, 4, seed, length=LENGTHS)
    trials.episode[2] = np.arange(10) >= 3
    return trials


def learner_of(seed: int = 0, **recurrent: Any) -> RecurrentActorCritic:
    config = recurrent_config(recurrent=recurrent, actor_critic={"initial_temperature": 0.3, "discount": 0.9})
    assert config.recurrent is not None
    learner = RecurrentActorCritic(config.actor_critic, config.recurrent, PROBLEM.observation_dim, PROBLEM.action_dim, generator_of(seed))
    other = RecurrentActorCritic(config.actor_critic, config.recurrent, PROBLEM.observation_dim, PROBLEM.action_dim, generator_of(seed + 1))
    learner.target_critic.load_state_dict(other.critic.state_dict())  # targets that differ from the critics
    return learner


def in_float64(batch: Sequences) -> Sequences:
    return replace(batch, **{name: value.double() for name, value in vars(batch).items() if value.is_floating_point()})


@pytest.mark.parametrize("bootstrap", ["trial", "episode"])
@pytest.mark.parametrize(
    ("length", "burn_in", "rows", "starts"),
    [(10, 0, [0, 1, 2, 3], [0, 0, 0, 0]), (4, 0, [0, 0, 1, 2], [3, -2, 2, 1]), (3, 2, [0, 3, 2, 0, 1], [4, 1, 2, -1, 0])],
)
def test_losses_and_gradients_are_those_of_the_definition(
    bootstrap: str, length: int, burn_in: int, rows: list[int], starts: list[int]
) -> None:
    """Every parameter's gradient too: none of the policy loss reaches the critics or their memory, and the other way round."""
    recurrent: dict[str, Any] = {"bootstrap": bootstrap, "burn_in": burn_in, "sequence": length if burn_in else 0}
    trials, learner = stored_trials(), double_precision(learner_of(**recurrent))
    replay = filled_replay(PROBLEM, trials, belief_dim=0)
    expected = Reference(learner, trials, bootstrap, burn_in, length).losses(rows, starts, seed=5)
    critics, actors = list(learner.critic.parameters()), list(learner.actor.parameters())
    gradients = [*torch.autograd.grad(expected[0], critics), *torch.autograd.grad(expected[1], actors)]
    batch = read_sequences(replay, torch.tensor(rows), torch.tensor(starts), length, Recurrent(**recurrent))
    found = learner.update(in_float64(batch), generator_of(5))
    for name, loss in zip(("critic", "policy"), expected, strict=True):
        assert float(found[name]) == pytest.approx(float(loss.detach()), rel=1e-5)
    for parameter, gradient in zip([*critics, *actors], gradients, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in learner.target_critic.parameters())


@pytest.mark.parametrize("recurrent", [{}, {"sequence": 4, "burn_in": 3}, {"sequence": 6, "bootstrap": "episode"}])
def test_what_padding_holds_does_not_matter(recurrent: dict[str, Any]) -> None:
    replay, config = filled_replay(PROBLEM, stored_trials(), belief_dim=0), Recurrent(**recurrent)
    batch = draw_sequences(replay, 12, config, generator_of(1))
    used = torch.cat([batch.valid, torch.zeros_like(batch.valid[:, :1])], 1)
    used[:, 1:] |= batch.valid & ~batch.apart
    assert not used.all() and not batch.valid.all()

    def spoilt(values: Tensor, kept: Tensor) -> Tensor:
        return torch.where(kept.reshape(kept.shape + (1,) * (values.dim() - 2)), values, torch.full_like(values, 50.0))

    burned = torch.arange(batch.burn_in.shape[1]) < batch.burned.unsqueeze(-1)
    parts = {name: spoilt(getattr(batch, name), batch.valid) for name in ("action", "reward", "terminated")}
    other = replace(batch, inputs=spoilt(batch.inputs, used), burn_in=spoilt(batch.burn_in, burned), **parts)
    learners = [learner_of(**recurrent), learner_of(**recurrent)]
    metrics = [learner.update(entry, generator_of(2)) for learner, entry in zip(learners, (batch, other), strict=True)]
    assert metrics[0] == metrics[1]
    for part in ("actor", "critic", "target_critic"):
        for one, another in zip(*(getattr(learner, part).parameters() for learner in learners), strict=True):
            assert torch.equal(one, another)
    assert torch.equal(*(learner.temperature(batch.reward) for learner in learners))


@pytest.mark.parametrize("sequence", [0, 3, 6])
def test_every_stored_step_is_equally_likely_to_be_trained_on(sequence: int) -> None:
    trials = stored_trials()
    trials.reward[:] = 1 + np.arange(40).reshape(4, 10)  # a name for each step
    batch = draw_sequences(filled_replay(PROBLEM, trials, belief_dim=0), 12_000, Recurrent(sequence=sequence), generator_of(0))
    counts = np.bincount(batch.reward[batch.valid].long().numpy(), minlength=41)[1:].reshape(4, 10)
    lived = np.arange(10) < LENGTHS[:, None]
    assert (counts[~lived] == 0).all()
    np.testing.assert_allclose(counts[lived], counts[lived].mean(), rtol=0.1)
    if sequence:  # steps are consecutive, and nothing comes from behind a trial
        follows = batch.valid[:, 1:] & batch.valid[:, :-1]
        assert (batch.reward.diff(dim=1)[follows] == 1).all()


def test_weights_come_from_the_given_generator_and_touch_no_other() -> None:
    before = torch.get_rng_state()
    first, same, other = (Memory(Recurrent(embedding=5, width=16), 3, 2, generator_of(seed)) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    for name, value in first.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
        assert not torch.equal(value, other.state_dict()[name])
        bound = 0.25 if name.startswith("gru") else 1 / np.sqrt(7)
        assert 0.6 * bound < float(value.abs().max()) <= bound


def test_learning_touches_no_global_generator() -> None:
    agent = recurrent_agent()
    before = torch.get_rng_state()
    agent.learn(random_trials(PROBLEM, 4, 0))
    assert torch.equal(before, torch.get_rng_state())


# ---- the card -----------------------------------------------------------------------------------------------------------


def test_the_preset_has_its_section_and_others_have_none() -> None:
    config = resolve_agent(load_agent("rl2"), "CheetahVelSparse", "quick")
    assert config.recurrent is not None and config.recurrent.sequence > 0
    assert (config.inference.kind, config.relabel.kind, config.actor_critic.critic) == ("none", "none", "scalar")
    assert resolve_agent(load_agent("dmrlad"), "CheetahVelSparse", "quick").recurrent is None


@pytest.mark.parametrize("name", family_names())
def test_the_preset_explores_and_values_as_dmrlad_does(name: str) -> None:
    """Only what a comparison is about may differ: the same noise, discount and entropy target, on equally many steps."""
    ours, theirs = (resolve_agent(load_agent(agent), name, "quick") for agent in ("rl2", "dmrlad"))
    for section, keys in {
        "actor_critic": ("discount", "target_entropy_factor", "initial_temperature"),
        "exploration": ("initial", "colour_low", "colour_high", "constant_share", "coloured_share"),
    }.items():
        for key in keys:
            assert getattr(getattr(ours, section), key) == getattr(getattr(theirs, section), key)
    assert quick_steps(ours, name) == quick_steps(theirs, name)


def quick_steps(config: AgentConfig, name: str) -> int:
    """Environment steps of a whole training: the initial iterations visit every training task, the others draw some."""
    solved, schedule, initial = load_family(name), config.schedule, config.exploration.initial_iterations
    steps = solved.horizon * (schedule.episodes_per_trial or solved.episodes_per_trial)
    first = initial * len(solved.tasks.train) * -(-schedule.initial_steps_per_task // steps)
    return steps * (first + (schedule.iterations - initial) * schedule.tasks_per_iteration * schedule.trials_per_task)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("actor_critic.critic=quantile", "'rl2' does not read actor_critic.critic: it must be 'scalar'"),
        ("actor_critic.temperature=latent", "'rl2' has no beliefs: actor_critic.temperature"),
        ("exploration.stored_share=0.5", "'rl2' does not read exploration.stored_share"),
        ("inference.kind=mixture_vae", "inference.kind and relabel.kind must be 'none'"),
        ("relabel.kind=random", "inference.kind and relabel.kind must be 'none'"),
        ("recurrent.width=0", "recurrent.width"),
        ("recurrent.sequence=0", "burn_in precedes a sequence"),
        ("recurrent.bootstrap=never", "recurrent.bootstrap"),
        ("recurrent.length=3", "unknown key 'recurrent.length'"),
    ],
)
def test_settings_that_mean_nothing_are_refused_in_one_line(override: str, message: str) -> None:
    with pytest.raises(CardError, match=message) as caught:
        resolve_agent(load_agent("rl2"), "CheetahVelSparse", "quick", [override])
    assert "\n" not in str(caught.value)


def test_the_section_belongs_to_this_algorithm_alone() -> None:
    with pytest.raises(CardError, match=r"unknown key 'recurrent\.width'"):
        resolve_agent(load_agent("dmrlad"), "PointGoal", "quick", ["recurrent.width=3"])
    with pytest.raises(ValueError, match="recurrent"):
        AgentConfig(name="toy", algorithm="cemrl", description="", recurrent=Recurrent())
