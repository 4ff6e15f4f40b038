"""Updates replayed from a graph are the updates that run. Where there is no GPU, a recorder on the CPU stands for CUDA's."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from toy_problem import as_tensors, generator_of, random_trials, small_config, toy_problem

from dmrlad_bench.agents import graphs
from dmrlad_bench.agents.actor_critic import SoftActorCritic
from dmrlad_bench.agents.cemrl import Cemrl
from dmrlad_bench.agents.graphs import WARM_UP, GraphedUpdate, in_blocks
from dmrlad_bench.agents.inference import TaskInference
from dmrlad_bench.agents.optimisers import FusedAdam
from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.cards.agent_sections import ActorCritic, Inference

Function = Callable[[], Tensor]
Recorded = tuple[Callable[[], object], Tensor]


def record_on_the_cpu(function: Function, generator: torch.Generator) -> Recorded:
    """As CUDA does it: inputs are read from, and outputs written to, the same tensors at every replay."""
    output = function().clone()
    return lambda: output.copy_(function()), output


@dataclass(frozen=True)
class Numbers:
    factor: Tensor
    label: str = "kept"


class Walk:
    """An update of one tensor: a drawn step, times the input's."""

    def __init__(self) -> None:
        self.place, self.generator = torch.zeros(3), generator_of(0)

    def update(self, inputs: Numbers) -> dict[str, Tensor]:
        step = inputs.factor * torch.randn(3, generator=self.generator)
        self.place += step
        return {"length": step.norm(), "sum": step.sum()}

    def graphed(self, reason: str | None = None) -> GraphedUpdate[Numbers]:
        return GraphedUpdate(self.update, lambda: [self.place], self.generator, reason)


@pytest.fixture(autouse=True)
def _record_on_the_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "on_a_gpu" not in request.node.name:
        monkeypatch.setattr(graphs, "record_cuda_graph", record_on_the_cpu)


def inputs_of(number: int) -> Numbers:
    return Numbers(torch.tensor(float(number + 1)))


def test_replayed_updates_are_the_updates_that_run() -> None:
    run, walk = Walk(), Walk()
    graphed = walk.graphed()
    given = []
    for number in range(WARM_UP + 5):
        expected, outputs = run.update(inputs_of(number)), graphed(inputs_of(number))
        assert graphed.recorded == (number >= WARM_UP)
        assert torch.equal(walk.place, run.place)
        assert outputs.keys() == expected.keys()
        given.append((outputs, expected))
    for outputs, expected in given:  # no later replay has written to what was given before
        assert all(torch.equal(outputs[name], expected[name]) for name in expected)
    assert graphed.reason is None


def record_wrongly(function: Function, generator: torch.Generator) -> Recorded:
    replay, outputs = record_on_the_cpu(function, generator)
    return lambda: (replay(), replay())[0], outputs


def fail_half_way(function: Function, generator: torch.Generator) -> Recorded:
    function()
    raise RuntimeError("operation not permitted\nwhen stream is capturing")


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [
        (record_wrongly, r"a replayed update differed from one that was run by up to \d\S*"),
        (fail_half_way, "recording a CUDA graph failed: operation not permitted when stream is capturing"),
    ],
)
def test_where_a_recording_is_wrong_or_fails_updates_go_on_and_the_reason_is_one_line(
    monkeypatch: pytest.MonkeyPatch, recorder: object, reason: str
) -> None:
    monkeypatch.setattr(graphs, "record_cuda_graph", recorder)
    run, walk = Walk(), Walk()
    graphed = walk.graphed()
    for number in range(WARM_UP + 3):
        run.update(inputs_of(number))
        graphed(inputs_of(number))
        assert torch.equal(walk.place, run.place)
    assert not graphed.recorded
    assert graphed.reason is not None and re.fullmatch(reason, graphed.reason)


def test_a_reason_against_graphs_is_heeded() -> None:
    walk = Walk()
    graphed = walk.graphed(reason="no")
    for number in range(WARM_UP + 3):
        graphed(inputs_of(number))
    assert (graphed.recorded, graphed.reason) == (False, "no")


def agents_without_and_with_graphs(**sections: dict[str, object]) -> tuple[Cemrl, Cemrl]:
    """Two agents alike; the second one's updates go through graphs that are recorded on the CPU."""
    plain, other = (Cemrl(small_config(**sections), toy_problem(), np.random.SeedSequence(3), "cpu") for _ in range(2))
    assert other.inference is not None
    other.graphed = {"policy": other.learner.use_graph(other.generator), "reconstruction": other.inference.use_graph(other.generator)}
    return plain, other


@pytest.mark.parametrize("fractions", ["iqn", "learned"])
@pytest.mark.parametrize("temperature", ["tuned", "latent", "fixed"])
def test_an_agent_learns_the_same_through_graphs(fractions: str, temperature: str) -> None:
    plain, other = agents_without_and_with_graphs(
        actor_critic={"fractions": fractions, "temperature": temperature, "learning_rate_end": 1e-4, "averaging": 0.1}
    )
    for iteration in range(4):
        trials = random_trials(toy_problem(), 6, seed=iteration)
        first, second = plain.learn(trials), other.learn(trials)
        assert first == second
    assert all(graphed.recorded for graphed in other.graphed.values())
    assert other.notices == []
    assert plain.gradient_updates == other.gradient_updates
    for one, two in zip(tensors_of(plain), tensors_of(other), strict=True):
        assert torch.equal(one, two)


class NothingForTheHost(TorchDispatchMode):
    """Refuses what a GPU could not record: operations whose result the host must wait for."""

    REFUSED = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.REFUSED, f"{name} waits for the device"
        if name in ("index", "index_put_", "_index_put_impl_"):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), f"{name} with a mask waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("encoder", "window"), [("shared_class", 0), ("shared_class", 3), ("per_transition_class", 3), ("trajectory", 4)])
@pytest.mark.parametrize("actor_critic", [{}, {"fractions": "learned", "temperature": "latent"}, {"critic": "scalar", "averaging": 0.1}])
def test_no_update_waits_for_the_device(encoder: str, window: int, actor_critic: dict[str, object]) -> None:
    inference = {"encoder": encoder, "window": window}
    agent = Cemrl(small_config(inference=inference, actor_critic=actor_critic), toy_problem(), np.random.SeedSequence(3), "cpu")
    agent.learn(random_trials(toy_problem(), 6, seed=0))
    assert agent.inference is not None
    segments = agent.replay.segments(3, 4, agent.inference.config.window, False, False, agent.generator)
    batch = agent.replay.batch(16, True, agent.generator)
    with NothingForTheHost():
        agent.inference.update(segments, agent.generator)
        agent.learner.update(batch, agent.generator)
    with pytest.raises(AssertionError, match="waits"), NothingForTheHost():
        batch.reward.sum().item()


def test_the_reason_reaches_the_user() -> None:
    changing = {"risk": "cvar", "risk_parameter": 0.5, "risk_parameter_end": 1.0, "risk_updates": 10}
    plain, other = agents_without_and_with_graphs(actor_critic=changing)
    for iteration in range(3):
        trials = random_trials(toy_problem(), 6, seed=iteration)
        assert plain.learn(trials) == other.learn(trials)
    assert other.notices == ["policy are not replayed from a CUDA graph: the risk parameter changes with every update"]


def tensors_of(agent: Cemrl) -> list[Tensor]:
    assert agent.inference is not None
    found: list[Tensor] = []

    def collect(value: object) -> None:
        if torch.is_tensor(value):
            found.append(value)
        elif isinstance(value, dict):
            for part in value.values():
                collect(part)
        elif isinstance(value, list | tuple):
            for part in value:
                collect(part)

    collect(agent.state_dict())
    return found


def test_loading_an_optimiser_s_state_writes_into_the_tensors_that_it_has() -> None:
    weights = torch.nn.Parameter(torch.ones(3))
    optimiser = FusedAdam([weights], 0.1)
    empty = copy.deepcopy(optimiser.state_dict())
    states = []
    for gradient in (1.0, -2.0):
        weights.grad = torch.full((3,), gradient)
        optimiser.step()
        states.append((copy.deepcopy(optimiser.state_dict()), weights.detach().clone()))
    held = dict(optimiser.state[weights])
    saved, place = states[0]
    optimiser.load_state_dict(saved)
    with torch.no_grad():
        weights.copy_(place)
    assert all(optimiser.state[weights][name] is tensor for name, tensor in held.items())
    weights.grad = torch.full((3,), -2.0)
    optimiser.step()
    assert torch.equal(weights, states[1][1])
    optimiser.load_state_dict(empty | {"param_groups": [empty["param_groups"][0] | {"lr": 0.25}]})
    assert all(not tensor.any() for tensor in optimiser.state[weights].values())
    assert optimiser.param_groups[0]["lr"] == 0.25


def test_many_drawn_at_a_time_are_the_same_rows_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.arange(24)
    drawn = []

    def draw(count: int) -> Numbers:
        drawn.append(count)
        return Numbers(rows[:count])

    monkeypatch.setitem(graphs.DRAWN_AT_A_TIME, "cpu", 3)
    batches = in_blocks(draw, 4, torch.device("cpu"))
    assert [next(batches).factor.tolist() for _ in range(4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [0, 1, 2, 3]]
    assert drawn == [12, 12]


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_cuda
def test_on_a_gpu_policy_updates_are_recorded_and_are_those_that_run() -> None:
    config = ActorCritic(hidden=(32, 32), fraction_count=4, cosines=8, batch_size=16)
    generator = torch.Generator("cuda").manual_seed(0)
    learner = SoftActorCritic(config, 5, 2, 2, generator)
    graphed = learner.use_graph(generator)
    replay = on_the_gpu(belief_dim=2)
    for _ in range(WARM_UP + 4):
        learner.update(replay.batch(16, True, generator), generator)
    assert graphed.reason is None and graphed.recorded
    for _ in range(3):
        batch = replay.batch(16, True, generator)
        before, drawn = copy.deepcopy(learner.state_dict()), generator.get_state()
        learner.update(batch, generator)
        replayed = [parameter.clone() for parameter in learner.critics.parameters()]
        twin = SoftActorCritic(config, 5, 2, 2, torch.Generator("cuda").manual_seed(0))
        twin.load_state_dict(before)
        generator.set_state(drawn)
        twin.update(batch, generator)
        for ours, run in zip(replayed, twin.critics.parameters(), strict=True):
            torch.testing.assert_close(ours, run, rtol=1e-4, atol=1e-6)


@needs_cuda
def test_on_a_gpu_reconstruction_updates_are_recorded() -> None:
    config = Inference(encoder_hidden=(16, 16), decoder_hidden=(16, 16), window=3, batch_size=12, segment=4, learning_rate_end=1e-4)
    generator = torch.Generator("cuda").manual_seed(0)
    problem = toy_problem()
    inference = TaskInference(config, problem.observation_dim, problem.action_dim, problem.reconstruction_dims, generator)
    graphed = inference.use_graph(generator)
    replay = on_the_gpu(belief_dim=0)
    for _ in range(WARM_UP + 4):
        inference.update(replay.segments(3, 4, 3, False, False, generator), generator)
    assert graphed.reason is None and graphed.recorded


@needs_cuda
def test_on_a_gpu_a_recording_that_fails_leaves_stream_and_random_numbers_as_they_were() -> None:
    generator, before = torch.Generator("cuda").manual_seed(0), torch.cuda.current_stream()
    place = torch.zeros(3, device="cuda")

    def update(inputs: Numbers) -> dict[str, Tensor]:
        place.add_(inputs.factor.item() * torch.randn(3, generator=generator, device="cuda"))  # waits for the device
        return {"sum": place.sum()}

    graphed = GraphedUpdate(update, lambda: [place], generator)
    for number in range(WARM_UP + 3):
        graphed(Numbers(torch.tensor(float(number + 1), device="cuda")))
    assert graphed.reason is not None and not graphed.recorded
    assert torch.cuda.current_stream() == before
    again, expected = torch.Generator("cuda").manual_seed(0), torch.zeros(3, device="cuda")
    for number in range(WARM_UP + 3):
        expected += (number + 1) * torch.randn(3, generator=again, device="cuda")
    torch.testing.assert_close(place, expected)


def on_the_gpu(belief_dim: int) -> TrialReplay:
    replay = TrialReplay(toy_problem(), 100, belief_dim, torch.device("cuda"))
    replay.add({name: value.cuda() for name, value in as_tensors(random_trials(toy_problem(), 8, seed=0)).items()})
    return replay
