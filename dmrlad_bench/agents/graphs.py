"""A gradient update as a CUDA graph: recorded once, then replayed by a single launch.

At the sizes of this benchmark a GPU waits for the launches of an update's hundreds of small kernels. A graph is used only where it gives
what running the update one operation after the other gives, which is checked when it is recorded; else updates go on as before, and
`GraphedUpdate.reason` says why.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from dmrlad_bench.agents.networks import copy_all

Inputs = TypeVar("Inputs")
Outputs = dict[str, Tensor]

_recording = threading.Lock()
DRAWN_AT_A_TIME = {"cpu": 1, "cuda": 32}
WARM_UP = 3  # updates before the recording, in which libraries choose their kernels and optimisers make their moments
RELATIVE, ABSOLUTE = 1e-4, 1e-6  # of the check: replayed against run


def record_cuda_graph(function: Callable[[], Tensor], generator: torch.Generator) -> tuple[Callable[[], None], Tensor]:
    """Record what `function` launches; returns what replays it, and the tensor that every replay writes what it gives to."""
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    graph.register_generator_state(generator)
    # A stream of its own, for products recorded on one stream share a workspace; the mode lets other runs of this process go on meanwhile.
    recording = torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local")
    try:
        with _recording, recording:
            output = function()
    except RuntimeError:  # what a recording that fails leaves behind: its stream, and (before torch 2.13) a generator that still records
        torch.cuda.set_stream(before)
        generator.graphsafe_set_state(torch.Generator(generator.device))
        raise
    return graph.replay, output


class GraphedUpdate(Generic[Inputs]):
    """`update(inputs)`, replayed from a graph once one has been recorded and checked.

    Attributes:
        reason: why updates run one operation after the other; None before the recording and while the graph is in use.
        recorded: whether the graph is in use.
    """

    def __init__(
        self,
        update: Callable[[Inputs], Outputs],
        state: Callable[[], Sequence[Tensor]],
        generator: torch.Generator,
        reason: str | None = None,
    ) -> None:
        """
        Args:
            update: takes a dataclass of tensors, changes tensors in place, and returns scalar tensors. It must launch the same
                operations at every call.
            state: every tensor that `update` changes, as they are once it has been called.
            generator: what `update` draws from.
            reason: why no graph may be recorded, if there is a reason.
        """
        self._update, self._state, self._generator = update, state, generator
        self.reason = reason
        self._calls = 0
        self._replay: Callable[[], None] | None = None
        self._inputs: Inputs | None = None
        self._names: tuple[str, ...] = ()
        self._outputs = torch.empty(0)

    @property
    def recorded(self) -> bool:
        return self._replay is not None

    def __call__(self, inputs: Inputs) -> Outputs:
        """One update; the outputs are the caller's to keep."""
        if self._replay is not None:
            _copy_into(self._inputs, inputs)
            self._replay()
            return _unstacked(self._names, self._outputs.clone())
        self._calls += 1
        if self.reason is not None or self._calls <= WARM_UP:
            return self._update(inputs)
        return self._record(inputs)

    def _record(self, inputs: Inputs) -> Outputs:
        """Run the update, record it, replay it from where it began, and compare. What it ran to stays."""
        before, drawn_before = _copies(self._state()), self._generator.get_state()
        result = self._update(inputs)
        after, drawn_after = _copies(self._state()), self._generator.get_state()
        self._inputs = _own(inputs)
        self._set(before, drawn_before)
        try:
            self._names = tuple(result)
            self._replay, self._outputs = record_cuda_graph(self._stacked_update, self._generator)
            self._set(before, drawn_before)  # recording runs nothing on a GPU, but advances what is kept on the host
            self._replay()
            self.reason = self._difference(after, result)
        except RuntimeError as error:
            self.reason = f"recording a CUDA graph failed: {' '.join(str(error).split())}"
        if self.reason is not None:
            self._replay, self._inputs, self._outputs = None, None, torch.empty(0)
        self._set(after, drawn_after)
        return result

    def _stacked_update(self) -> Tensor:
        assert self._inputs is not None
        return torch.stack(list(self._update(self._inputs).values()))

    def _difference(self, after: Sequence[Tensor], result: Outputs) -> str | None:
        pairs = [*zip(self._state(), after, strict=True), *zip(self._outputs, result.values(), strict=True)]
        for replayed, run in pairs:
            if not torch.allclose(replayed, run, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True):
                furthest = float((replayed - run).abs().max())
                return f"a replayed update differed from one that was run by up to {furthest:.2g}"
        return None

    def _set(self, values: Sequence[Tensor], drawn: Tensor) -> None:
        copy_all(self._state(), values)
        self._generator.set_state(drawn)


def in_blocks(draw: Callable[[int], Inputs], size: int, device: torch.device) -> Iterator[Inputs]:
    """Dataclasses of tensors of `size` rows without end; on a GPU, whose launches are what drawing costs, many are drawn at a time."""
    block = DRAWN_AT_A_TIME[device.type]
    while True:
        drawn = draw(size * block)
        if block == 1:
            yield drawn
            continue
        for first in range(0, size * block, size):
            yield _replaced(drawn, {name: value[first : first + size] for name, value in _tensors(drawn).items()})


def changing_tensors(modules: Sequence[nn.Module], optimisers: Sequence[torch.optim.Optimizer]) -> list[Tensor]:
    """Parameters of the modules and moments of the optimisers: what gradient updates change."""
    parameters = [parameter.data for module in modules for parameter in module.parameters()]
    moments = [value for optimiser in optimisers for kept in optimiser.state.values() for value in kept.values() if torch.is_tensor(value)]
    return parameters + moments


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def _tensors(inputs: Any) -> dict[str, Tensor]:
    values = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
    return {name: value for name, value in values.items() if torch.is_tensor(value)}


def _replaced(inputs: Any, tensors: dict[str, Tensor]) -> Any:
    return replace(inputs, **tensors)


def _own(inputs: Any) -> Any:
    return _replaced(inputs, {name: value.detach().clone() for name, value in _tensors(inputs).items()})


def _copy_into(kept: Any, inputs: Any) -> None:
    """Copy all tensors of `inputs` to those of `kept`, those of one type at a time."""
    ours, given = _tensors(kept), _tensors(inputs)
    for kind in {tensor.dtype for tensor in ours.values()}:
        names = [name for name, tensor in ours.items() if tensor.dtype == kind]
        copy_all([ours[name] for name in names], [given[name] for name in names])


def _unstacked(names: Sequence[str], values: Tensor) -> Outputs:
    return dict(zip(names, values.unbind(), strict=True))
