"""What the agents have in common that learn from a replay of whole trials: generators, noise, forks, and what is saved."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from dmrlad_bench.agents.exploration import NoiseActions, PolicyNoise, training_noise
from dmrlad_bench.agents.interface import Phases, Problem, Transition, Trials
from dmrlad_bench.agents.learning import Learner, seeded_generator
from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.cards.agent_config import AgentConfig


class Part(Protocol):
    """What a checkpoint saves of an agent under a name."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class ReplayAgent:
    """Base of `Cemrl`, `PearlAgent` and `Rl2`. They build `learner`, `replay` and the other parts, act, and learn."""

    learner: Any
    replay: TrialReplay

    def __init__(self, config: AgentConfig, problem: Problem, seed: np.random.SeedSequence, device: str) -> None:
        self.config, self.problem, self.device = config, problem, torch.device(device)
        initial, stream, exploration = seed.spawn(3)
        self.initial_generator = seeded_generator(initial, self.device)  # of the networks' first weights
        self.generator = seeded_generator(stream, self.device)
        self.numpy_generator = np.random.default_rng(exploration)
        self.task_observable = config.task_observable
        self.phase_seconds = Phases()
        self._fresh: Tensor | None = None
        self._noise: NoiseActions | None = None
        self._policy_noise: PolicyNoise | None = None

    def parts(self) -> dict[str, Part | None]:
        """What is saved by name, beside the replay's statistics and the generators."""
        return {"learner": self.learner}

    @property
    def gradient_updates(self) -> int:
        """Updates so far."""
        learner: Learner = self.learner
        return learner.updates

    @property
    def progress(self) -> float:
        """The share of the run's policy updates that is done."""
        schedule = self.config.schedule
        return self.learner.updates / max(1, schedule.iterations * schedule.policy_updates)

    # ---- acting -------------------------------------------------------------------------------------------------------

    def begin_trial(self, num_envs: int) -> None:
        """Start `num_envs` trials of which nothing is known."""
        self._noise = None
        self._policy_noise = None

    def begin_training_trial(self, num_envs: int, iteration: int) -> None:
        """As `begin_trial`, with the noise that the card asks for; `iteration` counts from 1."""
        self.begin_trial(num_envs)
        problem, exploration = self.problem, self.config.exploration
        self._noise = training_noise(exploration, num_envs, iteration, problem.action_dim, problem.horizon, self.numpy_generator)
        if exploration.policy_colour > 0:
            shape = (num_envs, problem.action_dim, problem.horizon)
            self._policy_noise = PolicyNoise(exploration.policy_colour, shape, self.numpy_generator)

    def begin_episode(self) -> None:
        """The environments were reset; the task, and so what is known of it, stays."""
        if self._noise is not None:
            self._noise.begin_episode()
        if self._policy_noise is not None:
            self._policy_noise.begin_episode()

    def policy_noise(self) -> Tensor | None:
        """What the next training actions are to be drawn from the policy with, `(num_envs, action_dim)`; None = white noise."""
        if self._policy_noise is None:
            return None
        return torch.as_tensor(self._policy_noise.next(), dtype=torch.float32, device=self.device)

    def seen(self, transition: Transition) -> tuple[Tensor, Tensor]:
        """Normalised (o, a, r, o') `(num_envs, transition_dim)`, and `(num_envs,)` bool, where it counts; one copy to the device."""
        columns = (transition.reward[:, None], transition.active[:, None])
        parts = (transition.observation, transition.action, transition.next_observation, *columns)
        together = torch.as_tensor(np.concatenate(parts, 1, dtype=np.float32), device=self.device)
        observation, action, following, reward, active = together.split([part.shape[1] for part in parts], 1)
        return self.replay.statistics.transition(observation, action, reward.squeeze(1), following), active.squeeze(1) > 0

    def with_noise(self, action: Tensor) -> np.ndarray:
        """The policy's actions `(num_envs, action_dim)`, those of noise-driven trials replaced."""
        actions = action.cpu().numpy()
        return actions if self._noise is None else self._noise.replace(actions)

    def fork(self, seed: np.random.SeedSequence) -> Self:
        """An actor that shares this agent's parameters but has generators and trials of its own."""
        actor = copy.copy(self)
        stream, exploration = seed.spawn(2)
        actor.generator = seeded_generator(stream, self.device)
        actor.numpy_generator = np.random.default_rng(exploration)
        actor.begin_trial(1)
        return actor

    # ---- storing and saving -------------------------------------------------------------------------------------------

    def store(self, trials: Trials, held_out: np.ndarray | None = None) -> Tensor:
        """Add new trials to the replay; returns their slots. `held_out` `(trials,)` bool are kept for validation."""
        nothing = np.zeros(len(trials), dtype=bool)
        fields = {**vars(trials), "held_out": nothing if held_out is None else held_out, "copy": nothing}
        self._fresh = self.replay.add({name: torch.as_tensor(value, device=self.device) for name, value in fields.items()})
        return self._fresh

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, statistics and generators; stored trials travel as replay shards."""
        return {name: None if part is None else part.state_dict() for name, part in self.parts().items()} | {
            "statistics": self.replay.statistics.state_dict(),
            "generator": self.generator.get_state(),
            "numpy_generator": self.numpy_generator.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name, part in self.parts().items():
            if part is not None:
                part.load_state_dict(state[name])
        self.replay.statistics.load_state_dict(state["statistics"])
        if state["generator"].shape == self.generator.get_state().shape:  # another device's means nothing here
            self.generator.set_state(state["generator"])
        self.numpy_generator.bit_generator.state = state["numpy_generator"]

    def new_replay_shard(self) -> dict[str, np.ndarray] | None:
        """The trials and copies stored by the last `learn`, for an append-only record."""
        return None if self._fresh is None else self.replay.shard(self._fresh)

    def load_replay_shards(self, shards: Iterable[dict[str, np.ndarray]]) -> None:
        """Fill the replay again, in order, after `load_state_dict`."""
        statistics = copy.deepcopy(self.replay.statistics.state_dict())
        for shard in shards:
            self.replay.add_shard(shard)
        self.replay.statistics.load_state_dict(statistics)
