"""An agent's configuration, resolved for one family and one budget, and which sections go together."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dmrlad_bench.cards.agent_sections import (
    STEP_KEYS,
    ActorCritic,
    Exploration,
    Inference,
    Pearl,
    Posterior,
    Recurrent,
    Relabel,
    RewardModel,
    Schedule,
)
from dmrlad_bench.cards.external import EXTERNAL, applicable, check_import_path, given, inapplicable_key
from dmrlad_bench.cards.reading import CardModel, digest, unused

Algorithm = Literal["cemrl", "pearl", "rl2", "thompson", "task-posterior", "random", "still", "scripted", "external"]
Track = Literal["standard", "privileged"]
# algorithm -> the section that it alone has
OWN_SECTIONS = {"pearl": "pearl", "rl2": "recurrent", "thompson": "posterior", "task-posterior": "reward_model"}
SHOWN_WHILE_TRAINING = ("thompson", "task-posterior")  # act by a policy of (observation, task): the true one in training, a drawn one after
PRIVILEGED = ("thompson", "scripted")  # algorithms that are handed more than observations, actions, rewards and ends while scored
NOT_READ: tuple[tuple[str, str, Any], ...] = (  # by pearl and rl2: section, key, the only value that says so
    ("actor_critic", "belief_input", "mean"),
    ("actor_critic", "bootstrap_belief", "held"),
    ("exploration", "sampled_share", 0.0),
    ("exploration", "stored_share", 0.0),
    ("exploration", "resample_interval", 0),
    ("exploration", "test_episodes", 0),
    ("exploration", "test_interval", 0),
    *(("relabel", key, 0.0) for key in STEP_KEYS),
    ("schedule", "reconstruction_updates", 0),
)
NOT_READ_BY = {
    "pearl": (*NOT_READ, ("relabel", "context", "trajectory")),
    "rl2": (*NOT_READ, ("actor_critic", "critic", "scalar"), ("actor_critic", "averaging", 1.0)),
}
# Keys that came after the first published results, by section: see `unused`.
LATER_KEYS = {
    "": ("posterior", "reward_model"),
    "inference": ("learning_rate_span", "reward_sees"),
    "actor_critic": ("averaging",),
    "relabel": ("copies_by_gain", "utility_fractions", *STEP_KEYS),
    "exploration": ("policy_colour", "test_episodes", "test_interval"),
    "schedule": ("initial_tasks", "final_tasks", "final_trials"),
}


class AgentConfig(CardModel):
    """Everything about an agent, resolved for one family and one budget."""

    name: str
    algorithm: Algorithm = Field(description="the class that the parts below are composed by")
    import_path: str | None = Field(default=None, description="package.module:Class; only where algorithm = 'external'")
    track: Track = Field(
        default="standard", description="privileged: while scored, it is shown the task, or is handed reward function or task list"
    )
    task_observable: bool = Field(default=False, description="the task is appended to the observation (the oracle's view)")
    description: str
    inference: Inference = Inference()
    actor_critic: ActorCritic = ActorCritic()
    relabel: Relabel = Relabel()
    exploration: Exploration = Exploration()
    schedule: Schedule = Schedule()
    pearl: Pearl | None = Field(default=None, description="only where algorithm = 'pearl'")
    recurrent: Recurrent | None = Field(default=None, description="only where algorithm = 'rl2'")
    posterior: Posterior | None = Field(default=None, description="only where algorithm = 'thompson'")
    reward_model: RewardModel | None = Field(default=None, description="only where algorithm = 'task-posterior'")

    @model_validator(mode="after")
    def _own_section_only(self) -> AgentConfig:
        for algorithm, section in OWN_SECTIONS.items():
            if algorithm != self.algorithm and getattr(self, section) is not None:
                raise ValueError(f"section {section!r} is read by algorithm {algorithm!r} only, not by {self.algorithm!r}")
            if algorithm == self.algorithm and getattr(self, section) is None:
                raise ValueError(f"algorithm {algorithm!r} needs its section {section!r}")
        return self

    @model_validator(mode="after")
    def _in_its_track(self) -> AgentConfig:
        if self.task_observable and self.track != "privileged":
            raise ValueError("task_observable = true shows the task to the agent: track must be 'privileged'")
        if self.algorithm == EXTERNAL:
            return self
        track = "privileged" if self.task_observable or self.algorithm in PRIVILEGED else "standard"
        if self.track != track:
            why = f"algorithm {self.algorithm!r} with task_observable = {str(self.task_observable).lower()}"
            raise ValueError(f"{why}: track must be {track!r}, got {self.track!r}")
        return self

    @model_validator(mode="after")
    def _fit_for_a_posterior(self) -> AgentConfig:
        if self.algorithm in SHOWN_WHILE_TRAINING and (self.task_observable or self.inference.kind != "none"):
            raise ValueError(
                f"algorithm {self.algorithm!r} finds the task among those of training: "
                "task_observable must be false, inference.kind must be 'none'"
            )
        return self

    @model_validator(mode="after")
    def _fit_for_pearl(self) -> AgentConfig:
        if self.algorithm != "pearl":
            return self
        if self.inference != Inference(kind="none"):
            raise ValueError("algorithm 'pearl' infers by section 'pearl': inference.kind must be 'none' and nothing else of it set")
        if self.task_observable:
            raise ValueError("algorithm 'pearl' infers the task: task_observable must be false")
        return self

    @model_validator(mode="after")
    def _fit_for_rl2(self) -> AgentConfig:
        if self.algorithm != "rl2":
            return self
        if self.inference.kind != "none" or self.relabel.kind != "none":
            raise ValueError("algorithm 'rl2' has no beliefs: inference.kind and relabel.kind must be 'none'")
        if self.actor_critic.temperature == "latent":
            raise ValueError("algorithm 'rl2' has no beliefs: actor_critic.temperature must be 'tuned' or 'fixed', got 'latent'")
        return self

    @model_validator(mode="after")
    def _unread_keys_are_left_alone(self) -> AgentConfig:
        for section, key, only in NOT_READ_BY.get(self.algorithm, ()):
            value = getattr(getattr(self, section), key)
            if value != only:
                raise ValueError(f"algorithm {self.algorithm!r} does not read {section}.{key}: it must be {only!r}, got {value!r}")
        return self

    @model_validator(mode="after")
    def _external_has_a_class(self) -> AgentConfig:
        if (self.algorithm == EXTERNAL) != (self.import_path is not None):
            raise ValueError(f"import_path goes with algorithm {EXTERNAL!r}, and that one needs it, as package.module:Class")
        if self.import_path is not None:
            check_import_path(self.import_path, f"import_path {self.import_path!r}")
            if key := inapplicable_key(given(self)):
                raise ValueError(f"algorithm {EXTERNAL!r} does not read {key!r}")
        return self

    @model_serializer(mode="wrap")
    def _without_what_does_not_apply(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = handler(self)
        if self.algorithm == EXTERNAL:
            return applicable(content)
        content.pop("import_path", None)
        return content

    @model_validator(mode="after")
    def _consistent(self) -> AgentConfig:
        if self.algorithm != "pearl" and self.inference.kind == "none" and self.relabel.kind == "hfr":
            raise ValueError("relabel.kind 'hfr' scores beliefs, so inference.kind must not be 'none'")
        if self.algorithm != EXTERNAL and self.shown_while_training and self.relabel.kind == "hfr":
            raise ValueError(
                "relabel.kind 'hfr' foresees what a belief is worth: with the task in the observation, it must be 'none', 'random' or "
                "'hindsight'"
            )
        return self

    @property
    def shown_while_training(self) -> bool:
        """Whether training observations, and the states that are learnt from, end with the task."""
        return self.task_observable or self.algorithm in SHOWN_WHILE_TRAINING

    @property
    def digest(self) -> str:
        """SHA-256 of the resolved configuration, without its prose, its track and later keys that it does not use."""
        left_out = unused(self, LATER_KEYS)
        return digest(self, exclude={"description": True, "track": True} | left_out)
