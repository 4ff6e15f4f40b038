"""Hindsight-foresight relabelling against slow loops: per trial, per task, one window at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from agent_references import array, window_belief
from scipy.stats import chisquare
from toy_problem import filled_replay, generator_of, random_trials, toy_problem

from dmrlad_bench.agents.inference import TaskInference
from dmrlad_bench.agents.interface import Trials
from dmrlad_bench.agents.relabel import Hindsight, Relabeller, hindsight_beliefs, utility
from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.cards.agent_sections import ActorCritic, Inference, Relabel

PROBLEM = toy_problem()
TASKS = PROBLEM.train_tasks[:, 0]
LENGTHS = np.array([10, 2, 7, 4])
WEIGHTS = np.array([0.7, -1.1, 0.4, 1.3, -0.6])


class StubLearner:
    """A learner whose answers can be written down: a = tanh of the state's sum, Q = sin(weights . state) + product with a."""

    def __init__(self, scale: float = 1.0) -> None:
        self.config, self.quantile, self.policy, self.scale = ActorCritic(hidden=(8,)), False, self, scale

    def draw(self, state: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.tanh(state.sum(-1, keepdim=True))

    def mean_value(
        self, state: torch.Tensor, action: torch.Tensor, generator: torch.Generator, fraction_count: int | None = None
    ) -> torch.Tensor:
        return self.scale * (torch.sin(state @ torch.as_tensor(WEIGHTS, dtype=state.dtype)) + action.squeeze(-1) * state[:, 0])


def stub_value(start: np.ndarray, belief: np.ndarray, scale: float = 1.0) -> float:
    state = np.concatenate([start, belief])
    return scale * float(np.sin(WEIGHTS @ state) + np.tanh(state.sum()) * state[0])


def inference_of(**changes: Any) -> TaskInference:
    content = {"encoder_hidden": (6,), "decoder_hidden": (4,), "latent_dim": 2, "window": 3, "classes": 2, **changes}
    return TaskInference(
        Inference.model_validate(content), PROBLEM.observation_dim, PROBLEM.action_dim, PROBLEM.reconstruction_dims, generator_of(0)
    )


def one_trial_a_task() -> tuple[Trials, TrialReplay]:
    trials = random_trials(PROBLEM, 4, 0, length=LENGTHS, task_index=np.arange(4))
    return trials, filled_replay(PROBLEM, trials)


def relabeller_of(**changes: Any) -> Relabeller:
    tasks = torch.as_tensor(PROBLEM.train_tasks, dtype=torch.float32)
    return Relabeller(Relabel.model_validate({"utility_batch": 3, "normaliser_trials": 2, **changes}), Hindsight(tasks, PROBLEM.reward))


def slow_belief(inference: TaskInference, replay: TrialReplay, trials: Trials, trial: int, rewards: np.ndarray, context: str) -> np.ndarray:
    """Point belief of one trial under given rewards `(steps,)`."""
    config, length = inference.config, int(trials.length[trial])
    whole = config.window == 0 or (context == "trajectory" and config.encoder != "trajectory" and config.merge not in ("linear", "mlp"))
    mean = [array(part) for part in replay.statistics.means]
    deviation = [array(part) for part in replay.statistics.deviations]
    rows = []
    for step in range(0 if whole else max(0, length - config.window), length):
        parts = (
            trials.observation[trial, step],
            trials.action[trial, step],
            rewards[step : step + 1],
            trials.next_observation[trial, step],
        )
        rows.append(np.concatenate([(part - mean[i]) / deviation[i] for part, i in zip(parts, (0, 1, 2, 0), strict=True)]))
    belief = window_belief(inference.encoder, np.array(rows))
    return belief.mean[int(belief.classes.argmax())]


def hindsight_rewards(trials: Trials, trial: int, task: float) -> np.ndarray:
    return -((trials.outcome[trial, :, 0].astype(np.float64) - task) ** 2)


DESIGNS = [
    {"window": 3},
    {"window": 0},
    {"window": 20},
    {"encoder": "per_transition_class"},
    {"encoder": "trajectory"},
    {"merge": "mlp"},
    {"merge": "softmax_of_sum"},
]


@pytest.mark.parametrize("context", ["window", "trajectory"])
@pytest.mark.parametrize("design", DESIGNS)
def test_beliefs_equal_a_loop_over_trials_and_tasks(context: str, design: dict[str, Any]) -> None:
    inference, (trials, replay) = inference_of(**design), one_trial_a_task()
    rewards = relabeller_of().hindsight.rewards(replay.data["outcome"][:4])
    assert rewards.shape == (4, 4, 10)
    slots = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        ours = hindsight_beliefs(inference, replay, slots, rewards[slots], context)
    for row, trial in enumerate(slots.tolist()):
        for task in range(4):
            expected = slow_belief(inference, replay, trials, trial, hindsight_rewards(trials, trial, TASKS[task]), context)
            np.testing.assert_allclose(ours[row, task].numpy(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("context", ["window", "trajectory"])
@pytest.mark.parametrize("design", [{"window": 3}, {"window": 0}, {"encoder": "trajectory"}])
def test_scores_equal_a_loop(context: str, design: dict[str, Any]) -> None:
    """With one trial a task, start observations and log Z leave nothing to chance: Z is the utility of that trial in its task."""
    inference, (trials, replay) = inference_of(**design), one_trial_a_task()
    relabeller: Any = relabeller_of(context=context)
    with torch.no_grad():
        ours = relabeller.scores(torch.arange(4), replay, inference, StubLearner(), generator_of(1))
    expected = np.zeros((4, 4))
    for task in range(4):
        start = trials.observation[task, 0].astype(np.float64)
        lived = slow_belief(inference, replay, trials, task, trials.reward[task].astype(np.float64), context)
        for trial in range(4):
            belief = slow_belief(inference, replay, trials, trial, hindsight_rewards(trials, trial, TASKS[task]), context)
            expected[trial, task] = stub_value(start, belief) - stub_value(start, lived)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-3, atol=1e-3)


def crowded_replay() -> tuple[Trials, TrialReplay]:
    """Unequal numbers of trials a task, scattered over the slots."""
    owner = np.random.default_rng(3).permutation(np.repeat(np.arange(4), [1, 2, 5, 8]))
    trials = random_trials(PROBLEM, 16, 1, length=np.tile(LENGTHS, 4), task_index=owner)
    return trials, filled_replay(PROBLEM, trials)


def test_start_observations_come_from_the_task_s_own_trials() -> None:
    trials, replay = crowded_replay()
    start = relabeller_of(utility_batch=400).starts(replay, generator_of(0)).numpy()
    assert start.shape == (4, 400, 3)
    for task in range(4):
        own = np.flatnonzero(trials.task_index == task)
        match = (start[task][:, None] == trials.observation[own, 0]).all(-1)
        assert match.any(-1).all()
        assert len(own) == 1 or chisquare(match.sum(0)).pvalue > 1e-3


def test_utilities_are_means_over_start_observations() -> None:
    belief = torch.randn(3, 4, 2, generator=generator_of(0))
    start = torch.randn(4, 5, 3, generator=generator_of(1))
    learner: Any = StubLearner()
    ours = utility(learner, belief, start, generator_of(2))
    for trial in range(3):
        for task in range(4):
            expected = np.mean([stub_value(array(start[task, i]), array(belief[trial, task])) for i in range(5)])
            assert float(ours[trial, task]) == pytest.approx(expected, abs=1e-5)


def test_the_normaliser_is_the_log_mean_exp_of_utilities_of_stored_trials() -> None:
    inference, (trials, replay) = inference_of(), crowded_replay()
    learner: Any = StubLearner(scale=2.0)
    relabeller = relabeller_of(normaliser_trials=20_000)
    start = torch.stack([torch.as_tensor(trials.observation[trials.task_index == task][:1, 0]) for task in range(4)])
    with torch.no_grad():
        ours = relabeller.log_normaliser(replay, inference, learner, start, generator_of(1)).numpy()
    for task in range(4):
        values = []
        for trial in np.flatnonzero(trials.task_index == task).tolist():
            belief = slow_belief(inference, replay, trials, trial, trials.reward[trial].astype(np.float64), "trajectory")
            values.append(stub_value(array(start[task, 0]), belief, 2.0))
        assert ours[task] == pytest.approx(np.log(np.mean(np.exp(values))), abs=0.03)


def test_equal_utilities_are_their_own_normaliser() -> None:
    """Not the utility plus log M."""
    inference, (_, replay) = inference_of(), crowded_replay()
    learner: Any = StubLearner(scale=0.0)
    start = torch.zeros(4, 2, 3)
    normaliser = relabeller_of(normaliser_trials=50).log_normaliser(replay, inference, learner, start, generator_of(1))
    torch.testing.assert_close(normaliser.detach(), torch.zeros(4), rtol=0, atol=1e-5)


def test_scores_do_not_depend_on_how_they_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    inference, (_, replay) = inference_of(), one_trial_a_task()
    relabeller: Any = relabeller_of()
    with torch.no_grad():
        whole = relabeller.scores(torch.arange(4), replay, inference, StubLearner(), generator_of(1))
        monkeypatch.setattr("dmrlad_bench.agents.relabel.CHUNK_BYTES", 1)
        split = relabeller.scores(torch.arange(4), replay, inference, StubLearner(), generator_of(1))
    torch.testing.assert_close(whole, split)


def test_a_task_without_trials_still_has_a_finite_score() -> None:
    trials = random_trials(PROBLEM, 3, 0, task_index=np.array([0, 0, 2]))
    relabeller: Any = relabeller_of()
    with torch.no_grad():
        scores = relabeller.scores(torch.arange(3), filled_replay(PROBLEM, trials), inference_of(), StubLearner(), generator_of(0))
    assert scores.shape == (3, 4)
    assert torch.isfinite(scores).all()


LOGITS = torch.tensor([0.0, 1.0, -1.0, 2.0])


def drawn_tasks(count: int, seed: int = 0, **changes: Any) -> np.ndarray:
    """Tasks drawn for `count` trials whose scores are `LOGITS`."""
    relabeller: Any = relabeller_of(**changes)
    relabeller.scores = lambda slots, *rest: LOGITS.expand(len(slots), -1)
    return relabeller.draw(torch.arange(count), one_trial_a_task()[1], inference_of(), StubLearner(), generator_of(seed)).numpy()


def test_tasks_are_drawn_from_the_softmax_of_scores() -> None:
    chosen = drawn_tasks(8000)
    assert chosen.shape == (8000, 1)
    probabilities = np.exp(LOGITS.numpy()) / np.exp(LOGITS.numpy()).sum()
    assert chisquare(np.bincount(chosen[:, 0], minlength=4), 8000 * probabilities).pvalue > 1e-3


def test_greedy_takes_the_best() -> None:
    assert (drawn_tasks(50, draw="greedy") == 3).all()
    assert (drawn_tasks(50, draw="greedy", copies=2) == [3, 1]).all()


def test_random_relabelling_is_uniform_whatever_the_scores() -> None:
    for draw in ("sample", "greedy"):
        assert chisquare(np.bincount(drawn_tasks(8000, kind="random", draw=draw)[:, 0], minlength=4)).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["hfr", "random"])
def test_copies_of_a_trial_get_different_tasks(kind: str) -> None:
    chosen = drawn_tasks(500, kind=kind, copies=3)
    assert chosen.shape == (500, 3)
    assert all(len(set(row)) == 3 for row in chosen)
    assert drawn_tasks(5, kind=kind, copies=9).shape == (5, 4)  # there are only four tasks


def trial_return(trials: Trials, trial: int, task: float) -> float:
    return float(hindsight_rewards(trials, trial, task)[: int(trials.length[trial])].sum())


def test_hindsight_scores_are_returns_against_those_of_the_task_s_own_trials() -> None:
    """One trial a task, so every stored return drawn for log Z is that trial's."""
    trials, replay = one_trial_a_task()
    relabeller = relabeller_of(kind="hindsight", temperature=3.0, normaliser_trials=6)
    ours = relabeller.return_scores(torch.tensor([2, 0]), replay, generator_of(0)).numpy()
    for row, trial in enumerate((2, 0)):
        for task in range(4):
            own = float(trials.reward[task, : int(trials.length[task])].sum())
            np.testing.assert_allclose(ours[row, task], (trial_return(trials, trial, TASKS[task]) - own) / 3.0, rtol=1e-4, atol=1e-4)


def test_hindsight_needs_neither_beliefs_nor_critics_and_takes_the_best_task() -> None:
    trials, replay = one_trial_a_task()
    relabeller: Any = relabeller_of(kind="hindsight", draw="greedy")
    chosen = relabeller.draw(torch.arange(4), replay, None, None, generator_of(0))[:, 0].tolist()
    own = [float(trials.reward[task, : int(trials.length[task])].sum()) for task in range(4)]
    gains = [[trial_return(trials, trial, TASKS[task]) - own[task] for task in range(4)] for trial in range(4)]
    assert chosen == [int(np.argmax(row)) for row in gains]


@pytest.mark.parametrize("shown", [False, True])
def test_copies_show_their_new_task_where_tasks_are_shown(shown: bool) -> None:
    trials, replay = one_trial_a_task()
    relabeller: Any = Relabeller(Relabel(kind="random", copies=2), relabeller_of().hindsight, task_observable=shown)
    slots, _ = relabeller.store_copies(torch.arange(4), replay, None, None, generator_of(0))
    for copy, slot in enumerate(slots.tolist()):
        source, length = copy // 2, int(LENGTHS[copy // 2])
        task = TASKS[int(replay.data["task_index"][slot])]
        for name in ("observation", "next_observation"):
            stored, before = replay.data[name][slot, :length].numpy(), getattr(trials, name)[source, :length]
            np.testing.assert_array_equal(stored[:, :-1], before[:, :-1])
            np.testing.assert_allclose(stored[:, -1], np.float32(task) if shown else before[:, -1])


@pytest.mark.parametrize("kind", ["hfr", "hindsight"])
def test_log_z_leaves_copies_out(kind: str) -> None:
    """Where one trial alone was collected, it is no better than usual under any task, whatever its copies are worth."""
    _, replay = one_trial_a_task()
    replay.data["copy"][torch.tensor([0, 1, 3])] = True
    relabeller: Any = relabeller_of(kind=kind, temperature=2.0)
    slots = torch.arange(4)
    with torch.no_grad():
        if kind == "hfr":
            scores = relabeller.scores(slots, replay, inference_of(), StubLearner(), generator_of(0))
        else:
            scores = relabeller.return_scores(slots, replay, generator_of(0))
    torch.testing.assert_close(scores[2], torch.zeros(4), atol=1e-5, rtol=0.0)
    assert (scores[[0, 1, 3]].abs() > 1e-3).any()
    assert set(replay.draw_originals(50, generator_of(1)).tolist()) == {2}


@pytest.mark.parametrize("kind", ["hfr", "hindsight"])
def test_log_z_of_a_task_is_that_of_the_trials_collected_in_it(kind: str) -> None:
    """One trial was collected in each task, so it is no better than usual there, whatever is stored as copies."""
    _, replay = one_trial_a_task()
    slots, learner = torch.arange(4), StubLearner()
    relabeller: Any = relabeller_of(kind=kind, temperature=2.0, copies=3)
    relabeller.store_copies(slots, replay, inference_of(), learner, generator_of(0))
    assert sorted(set(relabeller.collected_in_every_task(replay, 50, generator_of(1))[2].tolist())) == [2]
    with torch.no_grad():
        if kind == "hfr":
            scores = relabeller.scores(slots, replay, inference_of(), learner, generator_of(0))
        else:
            scores = relabeller.return_scores(slots, replay, generator_of(0))
    torch.testing.assert_close(scores.diagonal(), torch.zeros(4), atol=1e-5, rtol=0.0)


def test_copies_by_gain_go_to_the_best_trial_of_tasks_in_proportion_to_its_gain() -> None:
    trials, replay = one_trial_a_task()
    returns = np.array([[trial_return(trials, trial, TASKS[task]) for task in range(4)] for trial in range(4)])
    gain = returns.max(0) - returns.mean(0)
    source, task = relabeller_of().pairs_by_gain(torch.arange(4), 4000, replay, generator_of(0))
    assert (source.numpy() == returns.argmax(0)[task.numpy()]).all()
    assert chisquare(np.bincount(task.numpy(), minlength=4), 4000 * gain / gain.sum()).pvalue > 1e-3


def test_copies_by_gain_are_some_of_hfr_s_copies() -> None:
    for by_gain in (0, 1, 3):
        _, replay = one_trial_a_task()
        relabeller: Any = relabeller_of(copies=3, copies_by_gain=by_gain)
        assert relabeller.draw(torch.arange(4), replay, inference_of(), StubLearner(), generator_of(0)).shape == (4, 3 - by_gain)
        slots, _ = relabeller.store_copies(torch.arange(4), replay, inference_of(), StubLearner(), generator_of(0))
        assert len(slots) == 4 * 3
    with pytest.raises(ValueError, match="must not exceed"):
        relabeller_of(copies=1, copies_by_gain=2)
