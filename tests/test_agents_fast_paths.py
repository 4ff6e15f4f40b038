"""Every fast path against the plain one in float64 on fresh random inputs: passes that fit the cache, shared encodings, batched scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from agent_references import array, network
from toy_problem import filled_replay, generator_of, random_trials, small_config, toy_problem

from dmrlad_bench.agents import networks
from dmrlad_bench.agents.actor_critic import SoftActorCritic
from dmrlad_bench.agents.belief import Belief, merged_classes
from dmrlad_bench.agents.cemrl import REINFER_BLOCK, Cemrl
from dmrlad_bench.agents.critics import draw_fractions
from dmrlad_bench.agents.inference import TaskInference
from dmrlad_bench.agents.networks import MLP, TanhGaussianPolicy
from dmrlad_bench.agents.pearl_posterior import PosteriorEncoder
from dmrlad_bench.agents.relabel import Hindsight, Relabeller, hindsight_beliefs, utility
from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.cards.agent_sections import ActorCritic, Inference, Pearl

PROBLEM = toy_problem()
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-7}


def passes_of(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Passes of `size` bytes on the CPU; never less than 16 rows."""
    monkeypatch.setitem(networks.PASS_BYTES, "cpu", size)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("size", [1, 4 * 9 * 50, 2**30])
def test_a_network_in_passes_is_the_network_row_by_row(monkeypatch: pytest.MonkeyPatch, size: int, layer_norm: bool) -> None:
    passes_of(monkeypatch, size)
    layers = MLP(5, (9, 7), 3, generator_of(0), layer_norm=layer_norm).double()
    inputs = torch.randn(11, 13, 5, dtype=torch.float64)
    with torch.no_grad():
        ours = layers(inputs)
    assert ours.shape == (11, 13, 3)
    np.testing.assert_allclose(array(ours), network(layers, array(inputs)), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(layers(inputs).detach(), ours, rtol=1e-9, atol=1e-12)  # with gradients, in one pass
    assert layers(torch.zeros(0, 5, dtype=torch.float64)).shape == (0, 3)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("size", [1, 4000, 2**30])
def test_quantile_critics_in_passes_answer_as_state_by_state(monkeypatch: pytest.MonkeyPatch, size: int, shared: bool) -> None:
    passes_of(monkeypatch, size)
    config = ActorCritic(hidden=(8, 8), fraction_count=5, cosines=6)
    critics = SoftActorCritic(config, 4, 1, 2, generator_of(0)).critics.double()
    state, action = torch.randn(70, 4, dtype=torch.float64), torch.randn(70, 2, dtype=torch.float64)
    tau = torch.rand(1 if shared else 70, 5, dtype=torch.float64)
    with torch.no_grad():
        ours = critics(state, action, tau)
        each = [[critic(state[[i]], action[[i]], tau[[0 if shared else i]])[0] for i in range(70)] for critic in critics]
    torch.testing.assert_close(ours, torch.stack([torch.stack(rows) for rows in each]), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(critics(state, action, tau).detach(), ours, rtol=1e-9, atol=1e-12)


def test_actions_are_those_of_a_sample_and_take_as_much_randomness() -> None:
    policy, state = TanhGaussianPolicy(4, 3, (8,), generator_of(0)), torch.randn(7, 4)
    first, second = generator_of(1), generator_of(1)
    with torch.no_grad():
        assert torch.equal(policy.draw(state, first), policy.sample(state, second)[0])
    assert torch.equal(first.get_state(), second.get_state())


@pytest.mark.parametrize("merge", ["mean", "softmax_of_sum", "softmax_of_product"])
def test_a_single_class_is_certain_with_and_without_gradients(merge: str) -> None:
    statistic, count = torch.tensor([[0.0], [3.0], [10.0]]), torch.tensor([[0.0], [3.0], [10.0]])
    plain = merged_classes(statistic.clone().requires_grad_(), count, merge).detach()
    assert torch.equal(merged_classes(statistic, count, merge), plain)
    assert torch.equal(plain, torch.ones(3, 1))


@pytest.mark.parametrize("with_deviation", [False, True])
def test_the_point_of_a_single_class_is_that_of_the_likeliest_of_two(with_deviation: bool) -> None:
    mean, deviation = torch.randn(4, 5, 1, 2), torch.rand(4, 5, 1, 2)
    alone = Belief(torch.ones(4, 5, 1), mean, deviation).point(with_deviation)
    certain = torch.tensor([1.0, 0.0]).expand(4, 5, 2)
    both = Belief(certain, mean.repeat(1, 1, 2, 1), deviation.repeat(1, 1, 2, 1)).point(with_deviation)
    assert torch.equal(alone, both)


class Encoding:
    """PEARL's posterior as relabelling sees it."""

    widest = 8

    def __init__(self) -> None:
        self.encoder = PosteriorEncoder(
            Pearl(encoder_hidden=(8,), latent_dim=2), PROBLEM.observation_dim, PROBLEM.action_dim, generator_of(0)
        )

    def reach(self, context: str) -> int:
        return 0


DESIGNS: list[dict[str, Any] | None] = [
    {"window": 3},
    {"window": 0},
    {"window": 0, "classes": 3},
    {"encoder": "per_transition_class", "classes": 2},
    {"encoder": "trajectory"},
    {"merge": "mlp", "classes": 2},
    None,
]


def in_doubles(replay: TrialReplay) -> None:
    """Make everything that a replay gives float64."""
    replay.data = {name: value.double() if value.is_floating_point() else value for name, value in replay.data.items()}
    statistics = replay.statistics
    statistics.means, statistics.deviations = (
        [part.double() for part in statistics.means],
        [part.double() for part in statistics.deviations],
    )


def rewards_of(kind: str, trials: int, steps: int, seed: int) -> torch.Tensor:
    """Rewards `(trials, 7, steps)` under seven tasks: each its own, one number and now and then another, or one for all."""
    own = torch.randn(trials, 7, steps, generator=generator_of(seed), dtype=torch.float64)
    share = {"dense": 1.0, "sparse": 0.2, "same": 0.0}[kind]
    return torch.where(torch.rand(own.shape, generator=generator_of(seed + 1)) < share, own, own[:, :1].clone())


@pytest.mark.parametrize("size", [1, 2**20])
@pytest.mark.parametrize("kind", ["dense", "sparse", "same"])
@pytest.mark.parametrize("context", ["window", "trajectory"])
@pytest.mark.parametrize("design", DESIGNS)
def test_beliefs_from_shared_encodings_equal_every_task_by_itself(
    monkeypatch: pytest.MonkeyPatch, design: dict[str, Any] | None, context: str, kind: str, size: int
) -> None:
    passes_of(monkeypatch, size)
    content = {"encoder_hidden": (8,), "decoder_hidden": (4,), "latent_dim": 2, "window": 4, **(design or {})}
    inference: Any = Encoding() if design is None else TaskInference(Inference.model_validate(content), 3, 2, 2, generator_of(0))
    inference.encoder.double()
    replay = filled_replay(PROBLEM, random_trials(PROBLEM, 5, 0, length=np.array([10, 3, 7, 1, 10])))
    in_doubles(replay)
    slots, rewards = torch.tensor([4, 1, 2]), rewards_of(kind, 3, replay.steps, 2)
    with torch.no_grad():
        ours = hindsight_beliefs(inference, replay, slots, rewards, context)
        for row, slot in enumerate(slots.tolist()):
            length = int(replay.data["length"][slot])
            reach = inference.reach(context)
            lived = torch.arange(max(0, length - reach) if reach else 0, length)
            for task in range(7):
                data = {name: replay.data[name][slot, lived] for name in ("observation", "action", "next_observation")}
                transitions = replay.statistics.transition(
                    data["observation"], data["action"], rewards[row, task, lived], data["next_observation"]
                )
                if reach:  # encoders of whole windows look at missing entries in front
                    transitions = torch.nn.functional.pad(transitions, (0, 0, reach - len(lived), 0))
                valid = torch.arange(len(transitions)) >= len(transitions) - len(lived)
                expected = inference.encoder.of_context(inference.encoder.rows(transitions, valid)).point()
                torch.testing.assert_close(ours[row, task].double(), expected.double(), **CLOSE)


def scoring(critic: str, fractions: str = "iqn", **relabel: Any) -> tuple[Relabeller, Cemrl]:
    sections = {
        "actor_critic": {"critic": critic, "fractions": fractions},
        "relabel": {"utility_batch": 3, "normaliser_trials": 4, **relabel},
    }
    agent = Cemrl(small_config(**sections), PROBLEM, np.random.SeedSequence(1), "cpu")
    agent.store(random_trials(PROBLEM, 9, 3))
    assert agent.relabeller is not None
    return agent.relabeller, agent


@pytest.mark.parametrize(("critic", "fractions"), [("quantile", "iqn"), ("quantile", "fixed"), ("quantile", "learned"), ("scalar", "iqn")])
def test_scores_are_the_same_for_passes_of_any_size(monkeypatch: pytest.MonkeyPatch, critic: str, fractions: str) -> None:
    """Randomness included: what is drawn does not depend on how much is computed at a time."""
    relabeller, agent = scoring(critic, fractions)
    assert agent.inference is not None
    found = []
    for size in (1, 3000, 20_000, 2**30):
        passes_of(monkeypatch, size)
        monkeypatch.setattr("dmrlad_bench.agents.relabel.CHUNK_BYTES", size)
        generator = generator_of(4)
        with torch.no_grad():
            scores = relabeller.scores(torch.arange(9), agent.replay, agent.inference, agent.learner, generator)
        found.append((scores, generator.get_state()))
    for scores, state in found[1:]:
        torch.testing.assert_close(scores, found[0][0], rtol=1e-4, atol=1e-5)
        assert torch.equal(state, found[0][1])


@pytest.mark.parametrize("size", [1, 2**30])
@pytest.mark.parametrize("critic", ["quantile", "scalar"])
def test_utilities_equal_one_state_after_the_other(monkeypatch: pytest.MonkeyPatch, critic: str, size: int) -> None:
    """The critics and the policy in float64, asked state by state with the noise and the fractions that the batch was given."""
    passes_of(monkeypatch, size)
    config = ActorCritic.model_validate({"critic": critic, "hidden": (8, 8), "fraction_count": 4, "cosines": 6})
    learner = SoftActorCritic(config, 5, 2, 2, generator_of(0))
    for part in (learner.policy, learner.critics):
        part.double()
    belief, start = torch.randn(3, 4, 2, dtype=torch.float64), torch.randn(4, 6, 3, dtype=torch.float64)
    drawn = generator_of(5)
    noise = torch.randn(3 * 4 * 6, 2, generator=drawn, dtype=torch.float64).view(3, 4, 6, 2)
    fractions = draw_fractions(3 * 4 * 6, config, drawn)
    weights, midpoints = (part.double().view(3, 4, 6, -1) for part in (fractions.weights, fractions.midpoints))
    with torch.no_grad():
        ours = utility(learner, belief, start, generator_of(5))
        for trial, task in np.ndindex(3, 4):
            values = []
            for number in range(6):
                state = torch.cat([start[task, number], belief[trial, task]])
                mean, log_deviation = learner.policy(state)
                action = torch.tanh(mean + log_deviation.exp() * noise[trial, task, number])
                pair = state.unsqueeze(0), action.unsqueeze(0)
                if critic == "scalar":
                    values.append(min(float(one(*pair)) for one in learner.critics))
                    continue
                tau = midpoints[trial, task, [number]]
                twins = [one(*pair, tau)[0] for one in learner.critics]
                values.append(float((weights[trial, task, number] * torch.minimum(*twins)).sum()))
            assert float(ours[trial, task]) == pytest.approx(np.mean(values), rel=1e-4, abs=1e-7)


def test_relabelling_in_blocks_equals_trial_by_trial_where_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixed fractions and a policy without noise: every block size gives the utilities of the trials one by one."""
    relabeller, agent = scoring("quantile", "fixed")
    inference, learner = agent.inference, agent.learner
    assert inference is not None
    monkeypatch.setattr(learner.policy, "draw", lambda state, generator: learner.policy.mode(state))
    with torch.no_grad():
        start = relabeller.starts(agent.replay, generator_of(0))
        shared = agent.replay, inference, learner, start, generator_of(0)
        alone = torch.cat([relabeller.utilities(torch.tensor([slot]), *shared) for slot in range(9)])
        for size in (1, 30_000, 2**28):
            monkeypatch.setattr("dmrlad_bench.agents.relabel.DRAW_BYTES", size)
            torch.testing.assert_close(relabeller.utilities(torch.arange(9), *shared), alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2**20])
def test_the_beliefs_of_the_whole_replay_equal_every_window_in_float64(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    passes_of(monkeypatch, size)
    monkeypatch.setitem(REINFER_BLOCK, "cpu", 30 if size == 1 else 100_000)
    agent = Cemrl(small_config(), PROBLEM, np.random.SeedSequence(1), "cpu")
    agent.store(random_trials(PROBLEM, 6, 2, length=np.array([10, 1, 4, 10, 7, 2])))
    in_doubles(agent.replay)
    inference = agent.inference
    assert inference is not None
    inference.encoder.double()
    agent.replay.belief = agent.replay.belief.double()
    agent._reinfer(inference)
    prior_mean, prior_deviation = (part.detach() for part in inference.encoder.prior())
    for trial, length in enumerate(agent.replay.data["length"][:6].tolist()):
        transitions = agent.replay.transitions(torch.tensor(trial), slice(None))
        for step in range(length + 1):
            _, means, deviations = inference.encoder._heads(inference.encoder.trunk(transitions[max(0, step - 3) : step]))
            precision = prior_deviation**-2 + (deviations**-2).sum(0)
            expected = (prior_mean * prior_deviation**-2 + (means * deviations**-2).sum(0)) / precision
            torch.testing.assert_close(agent.replay.belief[trial, step], expected[0].detach(), **CLOSE)


def test_hindsight_rewards_of_a_batch_equal_task_by_task() -> None:
    tasks = torch.as_tensor(PROBLEM.train_tasks)
    trials = random_trials(PROBLEM, 5, 7)
    ours = Hindsight(tasks, PROBLEM.reward).rewards(torch.as_tensor(trials.outcome))
    for trial, task in np.ndindex(5, len(tasks)):
        np.testing.assert_allclose(
            ours[trial, task], PROBLEM.reward(trials.outcome[trial], PROBLEM.train_tasks[task]), rtol=1e-4, atol=1e-6
        )


def test_how_many_trials_share_a_draw_never_changes() -> None:
    """It is part of what a seed means: with another number, runs of the same seed would differ."""
    relabeller, agent = scoring("quantile")
    assert agent.inference is not None
    starts, fractions, width, tasks = 3, 4, 8, 4
    expected = 256 * 2**20 // (4 * tasks * starts * 2 * fractions * width)
    assert relabeller._sharing(agent.replay, agent.inference, agent.learner) == expected
