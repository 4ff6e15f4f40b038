"""The soft actor-critic update from the formulas, in float64 and with loops over fractions, to check the learner against."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dmrlad_bench.agents.actor_critic import Batch, SoftActorCritic

NETWORKS = ("policy", "critics", "target_policy", "target_critics")


class Recording:
    """Notes the randomness that a learner used: the noise of each policy draw, and the fractions for each question."""

    def __init__(self, learner: SoftActorCritic) -> None:
        self.noise: dict[str, Tensor] = {}
        self.fractions: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for name in ("policy", "target_policy"):
            self._watch(name, getattr(learner, name))
        draw = learner.fractions

        def noted(state: Tensor, action: Tensor, generator: torch.Generator) -> Any:
            drawn = draw(state, action, generator)
            self.fractions.append((state, action.detach(), drawn.weights.double(), drawn.midpoints.double()))
            return drawn

        learner.fractions = noted  # pyright: ignore[reportAttributeAccessIssue]

    def _watch(self, name: str, policy: Any) -> None:
        sample = policy.sample

        def noted(state: Tensor, generator: torch.Generator) -> Any:
            before = generator.clone_state()
            action, log_density = sample(state, generator)
            self.noise[name] = torch.randn(action.shape, generator=before).double()
            return action, log_density

        policy.sample = noted

    def of(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and midpoints that were last drawn for these states and actions."""
        found = [entry for entry in self.fractions if torch.equal(entry[0], state) and torch.allclose(entry[1], action, atol=1e-4)]
        return found[-1][2], found[-1][3]


class Reference:
    """The update, step by step in float64, with its own Adam."""

    def __init__(self, learner: SoftActorCritic) -> None:
        self.config, self.quantile = learner.config, learner.config.critic == "quantile"
        self.names = {name: list(dict(getattr(learner, name).named_parameters())) for name in NETWORKS}
        self.parameters = {
            name: [parameter.detach().double().clone() for parameter in getattr(learner, name).parameters()] for name in NETWORKS
        }
        self.log_alpha = math.log(learner.config.initial_temperature)
        self.moments: dict[str, list[Any]] = {}
        self.gradients: dict[str, list[Tensor]] = {}
        self.step = 0

    def policy(self, which: str, parameters: list[Tensor], state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        values = state
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        for weight, bias in layers[:-1]:
            values = torch.relu(values @ weight.T + bias)
        mean, log_deviation = (values @ layers[-1][0].T + layers[-1][1]).chunk(2, -1)
        raw = mean + noise * log_deviation.clamp(-20, 2).exp()
        density = torch.distributions.Normal(mean, log_deviation.clamp(-20, 2).exp()).log_prob(raw)
        return torch.tanh(raw), (density - torch.log(1 - torch.tanh(raw) ** 2)).sum(-1)

    def critic(self, which: str, parameters: list[Tensor], twin: int, state: Tensor, action: Tensor, tau: Tensor | None) -> Tensor:
        own = {name[2:]: value for name, value in zip(self.names[which], parameters, strict=True) if name.startswith(f"{twin}.")}
        inputs = torch.cat([state, action], -1)

        def normalised(values: Tensor, name: str) -> Tensor:
            return functional.layer_norm(values, values.shape[-1:], own[f"{name}.weight"], own[f"{name}.bias"])

        if tau is None:
            normed = self.config.critic_norm == "layer"
            first, second, last = (0, 3, 6) if normed else (0, 2, 4)
            for layer in (first, second):
                inputs = functional.linear(inputs, own[f"trunk.{layer}.weight"], own[f"trunk.{layer}.bias"])
                inputs = torch.relu(normalised(inputs, f"trunk.{layer + 1}") if normed else inputs)
            return functional.linear(inputs, own[f"trunk.{last}.weight"], own[f"trunk.{last}.bias"]).squeeze(-1)

        base = torch.relu(normalised(functional.linear(inputs, own["base.0.weight"], own["base.0.bias"]), "base.1"))
        cosines = torch.cos(math.pi * tau.unsqueeze(-1) * torch.arange(1, self.config.cosines + 1))
        embedding = torch.sigmoid(normalised(functional.linear(cosines, own["embedding.weight"], own["embedding.bias"]), "embedding_norm"))
        merged = functional.linear(base.unsqueeze(1) * embedding, own["merged.0.weight"], own["merged.0.bias"])
        return functional.linear(torch.relu(normalised(merged, "merged.1")), own["merged.3.weight"], own["merged.3.bias"]).squeeze(-1)

    def update(self, batch: Batch, recording: Recording) -> float:
        """One update; returns the critic loss."""
        state, following, action, reward, over = (
            part.double() for part in (batch.state, batch.next_state, batch.action, batch.reward, batch.terminated)
        )
        config, alpha = self.config, math.exp(self.log_alpha)
        self.step += 1
        next_action, next_density = self.policy(
            "target_policy", self.parameters["target_policy"], following, recording.noise["target_policy"]
        )
        here = ahead = (None, None)
        if self.quantile:
            here, ahead = recording.of(batch.state, batch.action), recording.of(batch.next_state, next_action.float())
        twins = [
            self.critic("target_critics", self.parameters["target_critics"], twin, following, next_action, ahead[1]) for twin in range(2)
        ]
        soft = torch.minimum(*twins) - alpha * (next_density.unsqueeze(-1) if self.quantile else next_density)
        keep = config.discount * (1 - over)
        target = reward.unsqueeze(-1) + keep.unsqueeze(-1) * soft if self.quantile else reward + keep * soft
        leaves = [parameter.clone().requires_grad_() for parameter in self.parameters["critics"]]
        loss = torch.zeros((), dtype=torch.float64)
        for twin in range(2):
            prediction = self.critic("critics", leaves, twin, state, action, here[1])
            if not self.quantile:
                loss = loss + 0.5 * ((prediction - target.detach()) ** 2).mean()
                continue
            assert here[1] is not None and ahead[0] is not None
            for i in range(prediction.shape[1]):
                for j in range(target.shape[1]):
                    delta = target[:, j].detach() - prediction[:, i]
                    asymmetry = torch.where(delta < 0, 1 - here[1][:, i], here[1][:, i])
                    huber = functional.huber_loss(delta, torch.zeros_like(delta), reduction="none")
                    loss = loss + (ahead[0][:, j] * asymmetry * huber).mean() / prediction.shape[1]
        loss.backward()
        self._adam("critics", [leaf.grad for leaf in leaves], config.learning_rate)

        leaves = [parameter.clone().requires_grad_() for parameter in self.parameters["policy"]]
        own_action, density = self.policy("policy", leaves, state, recording.noise["policy"])
        weights, tau = recording.of(batch.state, own_action.detach().float()) if self.quantile else (None, None)
        value = torch.minimum(*(self.critic("critics", self.parameters["critics"], twin, state, own_action, tau) for twin in range(2)))
        value = (weights * value).sum(-1) if weights is not None else value
        (alpha * density - value).mean().backward()
        self._adam("policy", [leaf.grad for leaf in leaves], config.learning_rate)

        entropy_gap = float((density.detach() - action.shape[1] * config.target_entropy_factor).mean())
        leaf = [torch.tensor(self.log_alpha, dtype=torch.float64)]
        self.parameters["alpha"] = leaf
        self._adam("alpha", [torch.tensor(-entropy_gap, dtype=torch.float64)], config.temperature_learning_rate)
        self.log_alpha = float(self.parameters.pop("alpha")[0])
        for name in ("policy", "critics"):
            for entry, online in enumerate(self.parameters[name]):
                old = self.parameters[f"target_{name}"][entry]
                self.parameters[f"target_{name}"][entry] = (1 - config.polyak) * old + config.polyak * online
        return float(loss.detach())

    def _adam(self, name: str, gradients: list[Any], rate: float) -> None:
        moments = self.moments.setdefault(name, [[torch.zeros_like(value) for value in self.parameters[name]] for _ in range(2)])
        self.gradients[name] = gradients
        for entry, gradient in enumerate(gradients):
            moments[0][entry] = 0.9 * moments[0][entry] + 0.1 * gradient
            moments[1][entry] = 0.999 * moments[1][entry] + 0.001 * gradient**2
            first, second = moments[0][entry] / (1 - 0.9**self.step), moments[1][entry] / (1 - 0.999**self.step)
            self.parameters[name][entry] = self.parameters[name][entry] - rate * first / (second.sqrt() + 1e-8)
