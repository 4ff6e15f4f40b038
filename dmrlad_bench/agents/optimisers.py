"""The optimiser that every learner uses, and its learning rate's schedule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn


class FusedAdam(torch.optim.Adam):
    """Fused Adam that loads a state into the tensors that it has, for a recorded update (`graphs`) holds on to them.

    On a GPU the learning rate is a tensor, too, which every replay reads anew.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
        parameters = list(parameters)
        device = parameters[0].device if parameters else torch.device("cpu")
        graphs = device.type == "cuda"
        rate = torch.tensor(learning_rate, device=device) if graphs else learning_rate
        super().__init__(parameters, lr=rate, fused=True, capturable=graphs)

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore moments and learning rates; what depends on the device stays as it is here."""
        held = [self.state.get(parameter, {}) for group in self.param_groups for parameter in group["params"]]
        if all(held):
            for number, moments in enumerate(held):
                kept = state_dict["state"].get(number)
                for name, value in moments.items():
                    value.copy_(kept[name]) if kept is not None else value.zero_()  # none yet is all zero
        else:
            here = [{name: group[name] for name in ("lr", "capturable", "fused")} for group in self.param_groups]
            super().load_state_dict(state_dict)
            for group, own in zip(self.param_groups, here, strict=True):
                group.update(own)
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            set_learning_rate(group, float(saved["lr"]))


def set_learning_rate(group: dict[str, Any], rate: float) -> None:
    """Change the learning rate of one of an optimiser's groups."""
    if torch.is_tensor(group["lr"]):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def schedule_learning_rate(optimisers: Sequence[torch.optim.Optimizer], start: float, end: float | None, progress: float) -> None:
    """Set the learning rate to where a linear schedule stands when `progress` in [0, 1] of the run is done; constant without an end."""
    rate = start if end is None else start + (end - start) * min(max(progress, 0.0), 1.0)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            set_learning_rate(group, rate)
