"""PEARL (Rakelly et al., arXiv 1903.08254): off-policy meta-learning by a probabilistic context that the critic trains.

One training iteration (`learn`) is: store, relabel, improve.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmrlad_bench.agents.actor_critic import Batch, SoftActorCritic
from dmrlad_bench.agents.belief import Belief
from dmrlad_bench.agents.interface import Metrics, Problem, Transition, Trials
from dmrlad_bench.agents.learning import averaged_updates, timed_phase
from dmrlad_bench.agents.optimisers import FusedAdam
from dmrlad_bench.agents.pearl_posterior import PosteriorEncoder, divergence_from_prior
from dmrlad_bench.agents.relabel import Hindsight, Relabeller
from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.agents.replay_agent import Part, ReplayAgent
from dmrlad_bench.agents.task_batches import TaskBatches
from dmrlad_bench.cards.agent_config import AgentConfig
from dmrlad_bench.cards.agent_sections import Pearl


class PosteriorInference:
    """The encoder and its optimiser; also what relabelling asks about beliefs."""

    def __init__(self, config: Pearl, observation_dim: int, action_dim: int, generator: torch.Generator) -> None:
        self.encoder = PosteriorEncoder(config, observation_dim, action_dim, generator)
        self.optimiser = FusedAdam(self.encoder.parameters(), config.learning_rate)
        self.widest = max(*config.encoder_hidden, 2 * observation_dim + action_dim + 1)

    def reach(self, context: str) -> int:
        """All of a trial: contexts have no window."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        return {"encoder": self.encoder.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.encoder.load_state_dict(state["encoder"])
        self.optimiser.load_state_dict(state["optimiser"])


class PearlAgent(ReplayAgent):
    """`inference`, `learner` (a soft actor-critic on [o, z]), `replay` and `relabeller` (or none).

    Acting: z is chosen when an episode begins and held to its end. In the first `prior_episodes` episodes of a training trial, or
    `exploration_episodes` at test time, it is a draw from the prior N(0, I), a new one each episode; from then on it follows the
    posterior of everything seen in the trial, earlier exploration included: a draw, or the mean where acting is deterministic.
    (Exploring by draws from the prior is the method, so deterministic acting explores by them too.)

    Learning: the value target is the smaller target critic's at an action of the target policy; there is no state-value network,
    and the entropy temperature is tuned unless the card fixes it. The encoder descends the critics' loss, plus `kl_weight` times
    the divergence of q(z|c) from the prior, summed over the tasks of the update; policy and temperature see z as a constant.
    """

    def __init__(self, config: AgentConfig, problem: Problem, seed: np.random.SeedSequence, device: str) -> None:
        assert config.pearl is not None
        super().__init__(config, problem, seed, device)
        self.pearl, generator = config.pearl, self.initial_generator
        latent_dim = self.pearl.latent_dim
        self.inference = PosteriorInference(self.pearl, problem.observation_dim, problem.action_dim, generator)
        self.learner = SoftActorCritic(config.actor_critic, problem.observation_dim + latent_dim, latent_dim, problem.action_dim, generator)
        self.replay = TrialReplay(problem, config.schedule.replay_trials, 0, self.device)
        self.relabeller: Relabeller | None = None
        if config.relabel.kind != "none" and problem.relabelable:
            tasks = torch.as_tensor(problem.train_tasks, dtype=torch.float32, device=self.device)
            self.relabeller = Relabeller(config.relabel, Hindsight(tasks, problem.reward), self.pearl.reward_scale)
        self.begin_trial(1)

    def parts(self) -> dict[str, Part | None]:
        return {"inference": self.inference, "learner": self.learner}

    # ---- acting -------------------------------------------------------------------------------------------------------

    def begin_trial(self, num_envs: int) -> None:
        """Start `num_envs` trials of which nothing is known."""
        super().begin_trial(num_envs)
        self._sums = torch.zeros((num_envs, 2 * self.pearl.latent_dim + 1), device=self.device)
        self._latent: Tensor | None = None
        self._episode = -1
        self._exploring = self.pearl.exploration_episodes

    def begin_training_trial(self, num_envs: int, iteration: int) -> None:
        """As `begin_trial`, with the training's number of exploring episodes, and noise where the card asks for it."""
        super().begin_training_trial(num_envs, iteration)
        self._exploring = self.pearl.prior_episodes

    def begin_episode(self) -> None:
        """The environments were reset; the context stays, and z is chosen anew."""
        self._episode += 1
        self._latent = None
        super().begin_episode()

    @torch.no_grad()
    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """Actions for observations `(num_envs, observation_dim)`."""
        if self._latent is None:
            self._latent = self._choose_latent(deterministic)
        state = torch.cat([torch.as_tensor(observation, dtype=torch.float32, device=self.device), self._latent], -1)
        action = self.learner.act(state, self.generator, deterministic, self.policy_noise())
        return self.with_noise(action)

    def _choose_latent(self, deterministic: bool) -> Tensor:
        exploring = max(self._episode, 0) < self._exploring
        sums = torch.zeros_like(self._sums) if exploring else self._sums
        belief = self.inference.encoder.of_sums(sums)
        return belief.point() if deterministic and not exploring else belief.sample(self.generator)

    @torch.no_grad()
    def observe(self, transition: Transition) -> None:
        """Add the transition to the context of every trial still running."""
        seen, valid = self.seen(transition)
        self._sums = self._sums + self.inference.encoder.rows(torch.where(valid.unsqueeze(-1), seen, torch.zeros_like(seen)), valid)

    # ---- learning -----------------------------------------------------------------------------------------------------

    def learn(self, trials: Trials) -> Metrics:
        """One training iteration on newly collected trials.

        Raises:
            Diverged: a loss is not finite.
        """
        self.learner.schedule(self.progress)
        with timed_phase(self.phase_seconds, "relabel", self.device):
            metrics = self._store(trials)
        with timed_phase(self.phase_seconds, "improve", self.device):
            batches = TaskBatches(self.replay, self.pearl.recent_trials)
            metrics.update(
                averaged_updates(lambda: self.update(batches), self.config.schedule.policy_updates, self.learner, self.phase_seconds)
            )
        return metrics

    def _store(self, trials: Trials) -> Metrics:
        slots = self.store(trials)
        if self.relabeller is None:
            return {}
        copies, metrics = self.relabeller.store_copies(slots, self.replay, self.inference, self.learner, self.generator)
        self._fresh = torch.cat([slots, copies])
        return metrics

    def update(self, batches: TaskBatches) -> dict[str, Tensor]:
        """One gradient step on encoder, critics, policy and temperature, for a batch of tasks; returns scalar tensors to log."""
        places = batches.draw_tasks(self.pearl.meta_batch, self.generator)
        belief = self.posterior(batches, places)
        mean, deviation = belief.mean.squeeze(-2), belief.deviation.squeeze(-2)
        noise = torch.randn(mean.shape, generator=self.generator, device=self.device)
        latent = mean + deviation * noise
        received = latent.detach().requires_grad_()  # collects what the critics' loss says of z, for one pass through the encoder
        metrics = self.learner.update(self._batch(batches, places, received), self.generator)
        divergence = divergence_from_prior(mean, deviation)
        self.inference.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward([latent, self.pearl.kl_weight * divergence.sum()], [received.grad, None])
        self.inference.optimiser.step()
        return {**metrics, "posterior_divergence": divergence.detach().mean(), "posterior_deviation": deviation.detach().mean()}

    def posterior(self, batches: TaskBatches, places: Tensor) -> Belief:
        """q(z|c) of each task, for a context drawn from its recent trials, `(M, 1, L)`."""
        trial, step, valid = batches.contexts(places, self.pearl.context_batch, self.generator)
        encoder = self.inference.encoder
        return encoder.of_context(encoder.rows(self.replay.transitions(trial, step), valid))

    def _batch(self, batches: TaskBatches, places: Tensor, latent: Tensor) -> Batch:
        """`batch_size` transitions of each task beside the task's one z, `(M, L)`; `(M batch_size, ...)`, task after task."""
        size, data = self.config.actor_critic.batch_size, self.replay.data
        trial, step = (index.flatten() for index in batches.steps(places, size, self.generator))
        held = latent.repeat_interleave(size, 0)
        constant = held.detach()
        return Batch(
            state=torch.cat([data["observation"][trial, step], held], -1),
            next_state=torch.cat([data["next_observation"][trial, step], constant], -1),
            belief=constant,
            action=data["action"][trial, step],
            reward=data["reward"][trial, step] * self.pearl.reward_scale,
            terminated=data["terminated"][trial, step].float(),
        )
