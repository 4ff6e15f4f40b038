"""The sections of an agent's configuration: every key, its range and its default."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dmrlad_bench.cards.reading import CardModel

Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=16_384)], ...], Field(min_length=1, max_length=64)]
MERGES_OF_A_FIXED_WINDOW = ("linear", "mlp")
STEEPEST = 10.0  # exponent of a noise spectrum: beyond it, a series is one slow wave, and far beyond it no number


class Inference(CardModel):
    """Task inference by a mixture VAE over a context window (CEMRL, arXiv 2006.14393)."""

    kind: Literal["none", "mixture_vae"] = "mixture_vae"
    encoder: Literal["shared_class", "per_transition_class", "trajectory"] = "shared_class"
    latent_dim: int = Field(default=1, ge=1, le=1_024)
    classes: int = Field(default=1, ge=1, le=1_024)
    window: int = Field(default=10, ge=0, le=100_000, description="transitions in the context; 0 = the whole trial so far")
    merge: Literal["mean", "softmax_of_sum", "softmax_of_product", "linear", "mlp"] = "mean"
    prior: Literal["fixed", "learned"] = "fixed"
    prior_deviation: float = Field(default=0.5, gt=0, le=50)
    encoder_hidden: Widths = (470, 470)
    decoder_hidden: Widths = (470, 470)
    state_target: Literal["next", "difference"] = "next"
    reward_sees: Literal["action", "next_state"] = Field(
        default="action", description="what the reward is reconstructed from, beside the belief: (o, a), or these and the next state, too"
    )
    reward_weight: float = Field(default=0.5, ge=0, le=1, description="w_r before the first re-balancing")
    kl_weight: float = Field(default=1e-3, ge=0, description="alpha")
    class_kl_weight: float = Field(default=1e-3, ge=0, description="beta")
    class_labels: bool = Field(default=False, description="train q(y|c) with the true base class")
    learning_rate: float = Field(default=3e-4, gt=0)
    learning_rate_end: float | None = Field(default=None, gt=0, description="linear schedule's end, over the run; none = constant")
    learning_rate_span: float = Field(
        default=1.0, gt=0, le=1, description="share of the run over which the rate falls to learning_rate_end; then beliefs are settled"
    )
    batch_size: int = Field(default=256, ge=1, le=1_000_000)
    segment: int = Field(
        default=16, ge=1, le=100_000, description="consecutive targets that share one encoded stretch; 1 = independent windows"
    )
    validation_share: float = Field(default=0.2, gt=0, lt=1, description="share of trials held out for early stopping")
    validation_interval: int = Field(default=50, ge=1, le=1_000_000_000, description="updates between validations")
    patience: int = Field(default=500, ge=1, le=1_000_000_000, description="updates without improvement before stopping")

    @model_validator(mode="after")
    def _windowed(self) -> Inference:
        if self.window == 0 and self.encoder == "trajectory":
            raise ValueError("encoder 'trajectory' flattens the window, so window must be at least 1")
        if self.window == 0 and self.merge in MERGES_OF_A_FIXED_WINDOW:
            raise ValueError(f"merge {self.merge!r} has a weight for each window entry, so window must be at least 1")
        return self


class ActorCritic(CardModel):
    """Soft actor-critic (arXiv 1812.05905) with scalar or quantile critics (DSAC, arXiv 2004.14547)."""

    critic: Literal["scalar", "quantile"] = "quantile"
    critic_norm: Literal["layer", "none"] = Field(default="layer", description="LayerNorm in the critics, of either kind")
    hidden: Widths = (300, 300, 300)
    fractions: Literal["iqn", "fixed", "learned"] = "iqn"
    fraction_count: int = Field(default=16, ge=1, le=10_000)
    shared_fractions: bool = Field(default=False, description="one draw of fractions for the whole batch: a cheaper embedding")
    cosines: int = Field(default=64, ge=1, le=10_000)
    fraction_learning_rate: float = Field(default=1e-5, gt=0, description="only for fractions = 'learned'")
    risk: Literal["neutral", "cvar", "wang", "cpw", "var", "mean_std"] = "neutral"
    risk_parameter: float = 0.0
    risk_parameter_end: float | None = Field(default=None, description="linear schedule's end; none = constant")
    risk_updates: int = Field(default=1, ge=1, le=1_000_000_000_000, description="policy updates over which the risk parameter moves")
    temperature: Literal["tuned", "fixed", "latent"] = "tuned"
    initial_temperature: float = Field(default=1.0, gt=0)
    temperature_learning_rate: float = Field(default=3e-4, gt=0)
    target_entropy_factor: float = Field(default=1.0, gt=0)
    discount: float = Field(default=0.99, ge=0, lt=1)
    polyak: float = Field(default=5e-3, gt=0, le=1)
    averaging: float = Field(
        default=1.0, gt=0, le=1, description="rate of the running average of policies whose mode acts deterministically; 1 = the newest"
    )
    learning_rate: float = Field(default=3e-4, gt=0)
    learning_rate_end: float | None = Field(default=None, gt=0, description="linear schedule's end, over the run; none = constant")
    batch_size: int = Field(default=256, ge=1, le=1_000_000)
    belief_input: Literal["mean", "mean_and_deviation"] = Field(default="mean", description="what of the belief policy and critics see")
    bootstrap_belief: Literal["held", "next"] = Field(default="held", description="belief in the bootstrap state")

    @model_validator(mode="after")
    def _risk_in_range(self) -> ActorCritic:
        for value in (self.risk_parameter, self.risk_parameter_end):
            if value is None:
                continue
            if self.risk in ("cvar", "var") and not 0 < value <= 1:
                raise ValueError(f"risk_parameter of {self.risk!r} must lie in (0, 1], got {value}")
            if self.risk == "cpw" and value <= 0:
                raise ValueError(f"risk_parameter of 'cpw' must be positive, got {value}")
        if self.critic == "scalar" and self.risk != "neutral":
            raise ValueError(f"risk {self.risk!r} needs critic = 'quantile'")
        return self


class Pearl(CardModel):
    """A probabilistic context that the critic trains (PEARL, arXiv 1903.08254); `actor_critic.batch_size` transitions a task."""

    latent_dim: int = Field(default=5, ge=1, le=1_024)
    encoder_hidden: Widths = (300, 300, 300)
    next_observation: bool = Field(default=False, description="context transitions are (o, a, r, o'), not (o, a, r)")
    context_batch: int = Field(default=100, ge=1, le=1_000_000, description="transitions in a training context")
    recent_trials: int = Field(
        default=4, ge=1, le=1_000_000, description="newest stored trials of a task, copies included, that contexts are drawn from"
    )
    meta_batch: int = Field(default=16, ge=1, le=10_000, description="tasks in an update")
    kl_weight: float = Field(default=0.1, ge=0, description="lambda, of the divergence from N(0, I) summed over the tasks of an update")
    learning_rate: float = Field(default=3e-4, gt=0, description="the encoder's")
    reward_scale: float = Field(default=5.0, gt=0, description="multiplies the rewards that policy and critics learn from")
    prior_episodes: int = Field(
        default=1, ge=0, le=1_000_000, description="first episodes of a training trial that act on draws from the prior"
    )
    exploration_episodes: int = Field(default=2, ge=0, le=1_000_000, description="the same at test time")


class Recurrent(CardModel):
    """Memory of the recurrent actor-critic (RL2, arXiv 1611.02779; off-policy as in arXiv 2110.05038)."""

    embedding: int = Field(default=64, ge=1, le=16_384, description="width of the layer that a step passes on its way into the GRU")
    width: int = Field(default=128, ge=1, le=16_384, description="entries of the GRU's hidden state")
    sequence: int = Field(default=0, ge=0, le=1_000_000, description="consecutive steps that a training sequence has; 0 = the whole trial")
    burn_in: int = Field(
        default=0, ge=0, le=1_000_000, description="steps before a sequence that only bring the memory up to its beginning"
    )
    bootstrap: Literal["trial", "episode"] = Field(
        default="trial", description="what follows an episode's last step: the trial's next episode, or the same episode going on"
    )

    @model_validator(mode="after")
    def _begun(self) -> Recurrent:
        if self.burn_in and not self.sequence:
            raise ValueError("burn_in precedes a sequence inside a trial; with sequence = 0 (the whole trial) it must be 0")
        return self


class Posterior(CardModel):
    """The posterior over the training tasks that follows from the family's reward function."""

    deviation: float = Field(
        default=0.05, ge=1e-6, le=1e6, description="s: how far, in units of reward, a reward may be from what its task predicts"
    )


class RewardModel(CardModel):
    """A learnt model of the reward of (o, a, o', task), and the posterior over the training tasks that follows from it."""

    hidden: Widths = (200, 200)
    learning_rate: float = Field(default=1e-3, gt=0)
    batch_size: int = Field(default=256, ge=3, le=1_000_000, description="steps in an update; a third of each kind")
    updates: int = Field(default=1000, ge=1, le=1_000_000_000, description="in an iteration")


STEP_KEYS = ("crossed_share", "crossed_targets")  # of section relabel: shares of single steps, not of stored copies


class Relabel(CardModel):
    """Relabelling of stored trials (HFR, arXiv 2109.09031)."""

    kind: Literal["none", "random", "hindsight", "hfr"] = Field(
        default="hfr", description="hindsight: by the trial's return under each task; hfr: by the value that the agent foresees"
    )
    draw: Literal["sample", "greedy"] = "sample"
    temperature: float = Field(default=1.0, gt=0, description="of the draw, in units of return; log Z is taken at the same temperature")
    context: Literal["window", "trajectory"] = "trajectory"
    utility_batch: int = Field(default=256, ge=1, le=1_000_000, description="start observations a utility is averaged over")
    utility_fractions: int | None = Field(
        default=None,
        ge=1,
        le=1_000,
        description="fractions of the Gauss-Legendre rule by which utilities average quantile critics; none = the critics' own draws",
    )
    normaliser_trials: int = Field(default=20, ge=1, le=1_000_000, description="M, trials collected in a task, for its log Z")
    copies: int = Field(default=1, ge=1, le=10_000, description="relabelled copies of every collected trial")
    copies_by_gain: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="hfr: how many of the copies go, instead, to tasks by what their best trial gains over the mean one",
    )
    crossed_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="hindsight, hfr: share of a policy update's transitions that are single steps under a task met later in their episode, "
        "beside a belief that knows it",
    )
    crossed_targets: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="hindsight, hfr: share of the reconstructed steps that are other trials', under the task of the context's trial",
    )
    revisited: int = Field(default=0, ge=0, le=1_000_000, description="trials of earlier iterations that each iteration relabels once more")

    @property
    def judges_steps(self) -> bool:
        """Whether there is hindsight, so that the shares of `STEP_KEYS` count."""
        return self.kind in ("hindsight", "hfr")

    @model_validator(mode="after")
    def _by_gain_is_a_part(self) -> Relabel:
        if self.copies_by_gain > self.copies:
            raise ValueError("copies_by_gain counts some of the copies: it must not exceed them")
        if self.copies_by_gain and self.kind != "hfr":
            raise ValueError(f"copies_by_gain goes with kind 'hfr'; with {self.kind!r} it must be 0")
        if not self.judges_steps and (asked := [key for key in STEP_KEYS if getattr(self, key) > 0]):
            raise ValueError(f"{asked[0]} needs hindsight: kind must be 'hindsight' or 'hfr', got {self.kind!r}")
        return self


class Exploration(CardModel):
    """Where training data come from, beyond the stochastic policy."""

    initial: Literal["policy", "coloured"] = Field(default="coloured", description="actions of the initial iterations")
    initial_iterations: int = Field(default=1, ge=1, le=1_000_000_000, description="iterations that visit every training task")
    colour_low: float = Field(default=0.0, ge=0, le=STEEPEST, description="lowest exponent of the noise's power spectrum (0 = white)")
    colour_high: float = Field(default=2.0, ge=0, le=STEEPEST, description="highest exponent (2 = Brownian)")
    constant_share: float = Field(default=0.0, ge=0, le=1, description="share of noise-driven episodes with one direction throughout")
    coloured_share: float = Field(default=0.0, ge=0, le=1, description="share of later trials that coloured noise drives")
    policy_colour: float = Field(
        default=0.0,
        ge=0,
        le=STEEPEST,
        description="exponent of the noise that training actions are drawn from the policy with (0 = white, 1 = pink)",
    )
    sampled_share: float = Field(
        default=0.0, ge=0, le=1, description="share of training trials that act on a draw from the current belief (at first the prior)"
    )
    stored_share: float = Field(
        default=0.0, ge=0, le=1, description="share that act on the final belief of the best stored trial of a random task"
    )
    resample_interval: int = Field(default=0, ge=0, le=1_000_000_000, description="steps a sampled belief is held; 0 = the episode")
    test_episodes: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="first episodes of a scored trial that act on hypotheses: final beliefs of the best stored trials of training tasks",
    )
    test_interval: int = Field(
        default=0, ge=0, le=1_000_000_000, description="steps a hypothesis is held in such an episode; 0 = the episode"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Exploration:
        if self.colour_low > self.colour_high:
            raise ValueError("colour_low must not exceed colour_high")
        if self.sampled_share + self.stored_share > 1:
            raise ValueError("sampled_share and stored_share must not exceed 1 together")
        return self


class Schedule(CardModel):
    """How much of everything: one training iteration is collect, store, reconstruct, re-infer, improve, evaluate."""

    iterations: int = Field(default=501, ge=1, le=1_000_000_000)
    tasks_per_iteration: int = Field(default=10, ge=1, le=1_000_000)
    trials_per_task: int = Field(default=1, ge=1, le=1_000_000)
    episodes_per_trial: int | None = Field(
        default=None, ge=1, le=10_000, description="consecutive episodes in one task that make a training trial; none = the family's"
    )
    initial_tasks: int = Field(
        default=0, ge=0, le=1_000_000, description="training tasks that an initial iteration visits, spread evenly over the split; 0 = all"
    )
    initial_steps_per_task: int = Field(
        default=100, ge=1, le=1_000_000_000, description="least steps of every visited task in each initial iteration"
    )
    reconstruction_updates: int = Field(default=5000, ge=0, le=1_000_000_000)
    policy_updates: int = Field(default=2000, ge=0, le=1_000_000_000)
    evaluation_interval: int = Field(default=10, ge=1, le=1_000_000_000, description="iterations between evaluations")
    evaluation_tasks: int = Field(default=0, ge=0, le=1_000_000, description="tasks a split in evaluations while training; 0 = all")
    final_tasks: int = Field(
        default=0, ge=0, le=1_000_000, description="tasks a split in the final scores; 0 = all, as a published entry needs"
    )
    final_trials: int = Field(
        default=5, ge=1, le=10_000, description="trials a task of test and ood in the final scores; a published entry needs 5"
    )
    replay_trials: int = Field(default=20_000, ge=1, le=1_000_000_000, description="capacity of the replay, in trials; copies count")
