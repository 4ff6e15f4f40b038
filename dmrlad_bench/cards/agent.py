"""Agent cards: who solves it. One `agents/<name>.toml` a preset; an ablation extends another card.

A card's sections are resolved in this order, later ones winning: model defaults, the extended card, the card's own
sections, `[budget.<name>]`, `[family.<Name>]`, `[family.<Name>.budget.<name>]`, and `--set key=value`.
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dmrlad_bench.cards.external import EXTERNAL, SCHEDULED_AS, applicable, card_content, check_import_path, given, inapplicable_key
from dmrlad_bench.cards.reading import CardError, CardModel, digest, nearest, read_toml, register_folder, validate

BUDGETS = ("smoke", "quick", "standard", "full")
Widths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
MERGES_OF_A_FIXED_WINDOW = ("linear", "mlp")
Algorithm = Literal["cemrl", "pearl", "rl2", "random", "scripted", "external"]
OWN_SECTIONS = {"pearl": "pearl", "rl2": "recurrent"}  # algorithm -> the section that it alone has
NOT_READ_BY_PEARL: tuple[tuple[str, str, Any], ...] = (  # section, key, the only value that says so
    ("actor_critic", "belief_input", "mean"),
    ("actor_critic", "bootstrap_belief", "held"),
    ("relabel", "context", "trajectory"),
    ("exploration", "sampled_share", 0.0),
    ("exploration", "stored_share", 0.0),
    ("exploration", "resample_interval", 0),
    ("schedule", "reconstruction_updates", 0),
)
NOT_READ_BY_RL2: tuple[tuple[str, str, Any], ...] = (
    ("actor_critic", "critic", "scalar"),
    ("actor_critic", "belief_input", "mean"),
    ("actor_critic", "bootstrap_belief", "held"),
    ("exploration", "sampled_share", 0.0),
    ("exploration", "stored_share", 0.0),
    ("exploration", "resample_interval", 0),
    ("schedule", "reconstruction_updates", 0),
)


class Inference(CardModel):
    """Task inference by a mixture VAE over a context window (CEMRL, arXiv 2006.14393)."""

    kind: Literal["none", "mixture_vae"] = "mixture_vae"
    encoder: Literal["shared_class", "per_transition_class", "trajectory"] = "shared_class"
    latent_dim: int = Field(default=1, ge=1)
    classes: int = Field(default=1, ge=1)
    window: int = Field(default=10, ge=0, description="transitions in the context; 0 = the whole trial so far")
    merge: Literal["mean", "softmax_of_sum", "softmax_of_product", "linear", "mlp"] = "mean"
    prior: Literal["fixed", "learned"] = "fixed"
    prior_deviation: float = Field(default=0.5, gt=0, le=50)
    encoder_hidden: Widths = (470, 470)
    decoder_hidden: Widths = (470, 470)
    state_target: Literal["next", "difference"] = "next"
    reward_weight: float = Field(default=0.5, ge=0, le=1, description="w_r before the first re-balancing")
    kl_weight: float = Field(default=1e-3, ge=0, description="alpha")
    class_kl_weight: float = Field(default=1e-3, ge=0, description="beta")
    class_labels: bool = Field(default=False, description="train q(y|c) with the true base class")
    learning_rate: float = Field(default=3e-4, gt=0)
    batch_size: int = Field(default=256, ge=1)
    segment: int = Field(default=16, ge=1, description="consecutive targets that share one encoded stretch; 1 = independent windows")
    validation_share: float = Field(default=0.2, gt=0, lt=1, description="share of trials held out for early stopping")
    validation_interval: int = Field(default=50, ge=1, description="updates between validations")
    patience: int = Field(default=500, ge=1, description="updates without improvement before stopping")

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
    hidden: Widths = (300, 300, 300)
    fractions: Literal["iqn", "fixed", "learned"] = "iqn"
    fraction_count: int = Field(default=16, ge=1)
    shared_fractions: bool = Field(default=False, description="one draw of fractions for the whole batch: a cheaper embedding")
    cosines: int = Field(default=64, ge=1)
    fraction_learning_rate: float = Field(default=1e-5, gt=0, description="only for fractions = 'learned'")
    risk: Literal["neutral", "cvar", "wang", "cpw", "var", "mean_std"] = "neutral"
    risk_parameter: float = 0.0
    risk_parameter_end: float | None = Field(default=None, description="linear schedule's end; none = constant")
    risk_updates: int = Field(default=1, ge=1, description="policy updates over which the risk parameter moves")
    temperature: Literal["tuned", "fixed", "latent"] = "tuned"
    initial_temperature: float = Field(default=1.0, gt=0)
    temperature_learning_rate: float = Field(default=3e-4, gt=0)
    target_entropy_factor: float = Field(default=1.0, gt=0)
    discount: float = Field(default=0.99, ge=0, lt=1)
    polyak: float = Field(default=5e-3, gt=0, le=1)
    learning_rate: float = Field(default=3e-4, gt=0)
    learning_rate_end: float | None = Field(default=None, gt=0, description="linear schedule's end, over the run; none = constant")
    batch_size: int = Field(default=256, ge=1)
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

    latent_dim: int = Field(default=5, ge=1)
    encoder_hidden: Widths = (300, 300, 300)
    next_observation: bool = Field(default=False, description="context transitions are (o, a, r, o'), not (o, a, r)")
    context_batch: int = Field(default=100, ge=1, description="transitions in a training context")
    recent_trials: int = Field(default=4, ge=1, description="newest stored trials of a task, copies included, that contexts are drawn from")
    meta_batch: int = Field(default=16, ge=1, description="tasks in an update")
    kl_weight: float = Field(default=0.1, ge=0, description="lambda, of the divergence from N(0, I) summed over the tasks of an update")
    learning_rate: float = Field(default=3e-4, gt=0, description="the encoder's")
    reward_scale: float = Field(default=5.0, gt=0, description="multiplies the rewards that policy and critics learn from")
    prior_episodes: int = Field(default=1, ge=0, description="first episodes of a training trial that act on draws from the prior")
    exploration_episodes: int = Field(default=2, ge=0, description="the same at test time")


class Recurrent(CardModel):
    """Memory of the recurrent actor-critic (RL2, arXiv 1611.02779; off-policy as in arXiv 2110.05038)."""

    embedding: int = Field(default=64, ge=1, description="width of the layer that a step passes on its way into the GRU")
    width: int = Field(default=128, ge=1, description="entries of the GRU's hidden state")
    sequence: int = Field(default=0, ge=0, description="consecutive steps that a training sequence has; 0 = the whole trial")
    burn_in: int = Field(default=0, ge=0, description="steps before a sequence that only bring the memory up to its beginning")
    bootstrap: Literal["trial", "episode"] = Field(
        default="trial", description="what follows an episode's last step: the trial's next episode, or the same episode going on"
    )

    @model_validator(mode="after")
    def _begun(self) -> Recurrent:
        if self.burn_in and not self.sequence:
            raise ValueError("burn_in precedes a sequence inside a trial; with sequence = 0 (the whole trial) it must be 0")
        return self


class Relabel(CardModel):
    """Relabelling of stored trials (HFR, arXiv 2109.09031)."""

    kind: Literal["none", "random", "hfr"] = "hfr"
    draw: Literal["sample", "greedy"] = "sample"
    temperature: float = Field(default=1.0, gt=0, description="of the draw, in units of return; log Z is taken at the same temperature")
    context: Literal["window", "trajectory"] = "trajectory"
    utility_batch: int = Field(default=256, ge=1, description="start observations a utility is averaged over")
    normaliser_trials: int = Field(default=20, ge=1, description="M, stored trials that log Z of a task is estimated from")
    copies: int = Field(default=1, ge=1, description="relabelled copies of every collected trial")
    revisited: int = Field(default=0, ge=0, description="trials of earlier iterations that each iteration relabels once more")


class Exploration(CardModel):
    """Where training data come from, beyond the stochastic policy."""

    initial: Literal["policy", "coloured"] = Field(default="coloured", description="actions of the initial iterations")
    initial_iterations: int = Field(default=1, ge=1, description="iterations that visit every training task")
    colour_low: float = Field(default=0.0, ge=0, description="lowest exponent of the noise's power spectrum (0 = white)")
    colour_high: float = Field(default=2.0, ge=0, description="highest exponent (2 = Brownian)")
    constant_share: float = Field(default=0.0, ge=0, le=1, description="share of noise-driven episodes with one direction throughout")
    coloured_share: float = Field(default=0.0, ge=0, le=1, description="share of later trials that coloured noise drives")
    sampled_share: float = Field(
        default=0.0, ge=0, le=1, description="share of training trials that act on a draw from the current belief (at first the prior)"
    )
    stored_share: float = Field(
        default=0.0, ge=0, le=1, description="share that act on the final belief of the best stored trial of a random task"
    )
    resample_interval: int = Field(default=0, ge=0, description="steps a sampled belief is held; 0 = the episode")

    @model_validator(mode="after")
    def _ordered(self) -> Exploration:
        if self.colour_low > self.colour_high:
            raise ValueError("colour_low must not exceed colour_high")
        if self.sampled_share + self.stored_share > 1:
            raise ValueError("sampled_share and stored_share must not exceed 1 together")
        return self


class Schedule(CardModel):
    """How much of everything: one training iteration is collect, store, reconstruct, re-infer, improve, evaluate."""

    iterations: int = Field(default=501, ge=1)
    tasks_per_iteration: int = Field(default=10, ge=1)
    trials_per_task: int = Field(default=1, ge=1)
    episodes_per_trial: int | None = Field(
        default=None, ge=1, description="consecutive episodes in one task that make a training trial; none = the family's"
    )
    initial_steps_per_task: int = Field(default=100, ge=1, description="least steps of every training task in each initial iteration")
    reconstruction_updates: int = Field(default=5000, ge=0)
    policy_updates: int = Field(default=2000, ge=0)
    evaluation_interval: int = Field(default=10, ge=1, description="iterations between evaluations")
    evaluation_tasks: int = Field(default=0, ge=0, description="tasks a split in evaluations while training; 0 = all")
    replay_trials: int = Field(default=20_000, ge=1, description="capacity of the replay, in trials; copies count")


class AgentConfig(CardModel):
    """Everything about an agent, resolved for one family and one budget."""

    name: str
    algorithm: Algorithm = Field(description="the class that the parts below are composed by")
    import_path: str | None = Field(default=None, description="package.module:Class; only where algorithm = 'external'")
    task_observable: bool = Field(default=False, description="the task is appended to the observation (the oracle's view)")
    description: str
    inference: Inference = Inference()
    actor_critic: ActorCritic = ActorCritic()
    relabel: Relabel = Relabel()
    exploration: Exploration = Exploration()
    schedule: Schedule = Schedule()
    pearl: Pearl | None = Field(default=None, description="only where algorithm = 'pearl'")
    recurrent: Recurrent | None = Field(default=None, description="only where algorithm = 'rl2'")

    @model_validator(mode="after")
    def _own_section_only(self) -> AgentConfig:
        for algorithm, section in OWN_SECTIONS.items():
            if algorithm != self.algorithm and getattr(self, section) is not None:
                raise ValueError(f"section {section!r} is read by algorithm {algorithm!r} only, not by {self.algorithm!r}")
            if algorithm == self.algorithm and getattr(self, section) is None:
                raise ValueError(f"algorithm {algorithm!r} needs its section {section!r}")
        return self

    @model_validator(mode="after")
    def _fit_for_pearl(self) -> AgentConfig:
        if self.algorithm != "pearl":
            return self
        if self.inference != Inference(kind="none"):
            raise ValueError("algorithm 'pearl' infers by section 'pearl': inference.kind must be 'none' and nothing else of it set")
        if self.task_observable:
            raise ValueError("algorithm 'pearl' infers the task: task_observable must be false")
        for section, key, only in NOT_READ_BY_PEARL:
            value = getattr(getattr(self, section), key)
            if value != only:
                raise ValueError(f"algorithm 'pearl' does not read {section}.{key}: it must be {only!r}, got {value!r}")
        return self

    @model_validator(mode="after")
    def _fit_for_rl2(self) -> AgentConfig:
        if self.algorithm != "rl2":
            return self
        if self.inference.kind != "none" or self.relabel.kind != "none":
            raise ValueError("algorithm 'rl2' has no beliefs: inference.kind and relabel.kind must be 'none'")
        if self.actor_critic.temperature == "latent":
            raise ValueError("algorithm 'rl2' has no beliefs: actor_critic.temperature must be 'tuned' or 'fixed', got 'latent'")
        for section, key, only in NOT_READ_BY_RL2:
            value = getattr(getattr(self, section), key)
            if value != only:
                raise ValueError(f"algorithm 'rl2' does not read {section}.{key}: it must be {only!r}, got {value!r}")
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
        if self.algorithm != EXTERNAL and self.task_observable and self.relabel.kind != "none":
            raise ValueError(
                "relabelling rewrites rewards, not a task in the observation: with task_observable, relabel.kind must be 'none'"
            )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the resolved configuration, its prose left out."""
        return digest(self, exclude={"description"})


class AgentCard(CardModel):
    """An agent card as written, before a family and a budget are chosen."""

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    description: str
    extends: str | None = None
    algorithm: Algorithm | None = None
    import_path: str | None = None
    task_observable: bool | None = None
    inference: dict[str, Any] = {}
    actor_critic: dict[str, Any] = {}
    relabel: dict[str, Any] = {}
    exploration: dict[str, Any] = {}
    schedule: dict[str, Any] = {}
    pearl: dict[str, Any] = {}
    recurrent: dict[str, Any] = {}
    budget: dict[str, dict[str, Any]] = {}
    family: dict[str, dict[str, Any]] = {}
    path: Path = Field(exclude=True)


@lru_cache(maxsize=1)
def agent_names() -> tuple[str, ...]:
    """Names of the published presets, sorted."""
    return tuple(sorted(path.stem for path in register_folder("agents").glob("*.toml")))


def load_agent(name: str | Path) -> AgentCard:
    """Read an agent card by preset name or by the path of a TOML file, or make the one that `package.module:Class` stands for.

    Raises:
        CardError: unknown name, unreadable file or bad content.
    """
    text = str(name)
    if text.endswith(".toml"):
        path = Path(text)
    elif text in agent_names():
        path = register_folder("agents") / f"{text}.toml"
    elif ":" in text:
        return validate(AgentCard, {**card_content(text), "path": text}, text)
    else:
        raise CardError(
            f"unknown agent {text!r}{nearest(text, agent_names())}; accepted: {', '.join(agent_names())}, the path of a TOML file, "
            "or package.module:Class"
        )
    content = read_toml(path)
    if "path" in content:
        raise CardError(f"{path}: unknown key 'path'")
    card = validate(AgentCard, {**content, "path": path}, str(path))
    for budget in card.budget:
        _known_budget(budget, f"{path}: key 'budget.{budget}'")
    return card


def _known_budget(name: str, where: str) -> None:
    if name not in BUDGETS:
        raise CardError(f"{where}: unknown budget {name!r}{nearest(name, BUDGETS)}; accepted: {', '.join(BUDGETS)}")


def resolve_agent(card: AgentCard, family: str, budget: str, overrides: tuple[str, ...] | list[str] = ()) -> AgentConfig:
    """The configuration of `card` on one family (bare name) with one budget and `key=value` overrides.

    Raises:
        CardError: unknown budget or key, ill-typed value, or a card that extends itself.
    """
    _known_budget(budget, "budget")
    content = _resolve(card, family, budget, ())
    content.update(name=card.name, description=card.description)
    if content.get("algorithm") in OWN_SECTIONS:
        content.setdefault(OWN_SECTIONS[content["algorithm"]], {})
    config = validate(AgentConfig, content, str(card.path))
    if overrides:
        content = config.model_dump()
        for override in overrides:
            _apply(content, override)
        config = validate(AgentConfig, content, "--set")
    return config


def _resolve(card: AgentCard, family: str, budget: str, above: tuple[Path, ...]) -> dict[str, Any]:
    if card.path in above:
        raise CardError(f"{card.path}: key 'extends': the card extends itself by way of {card.extends!r}")
    content: dict[str, Any] = {}
    if card.extends is not None:
        extended = card.path.parent / card.extends if card.extends.endswith(".toml") else card.extends
        content = _resolve(load_agent(extended), family, budget, (*above, card.path))
    elif card.algorithm == EXTERNAL:
        content = _resolve(load_agent(SCHEDULED_AS), family, budget, (*above, card.path))
    if card.algorithm == EXTERNAL:
        content = applicable(content)
    if card.algorithm is not None and card.algorithm != content.get("algorithm"):
        content.pop("inference", None)  # another algorithm infers in its own way
    for name in ("algorithm", "import_path", "task_observable"):
        if getattr(card, name) is not None:
            content[name] = getattr(card, name)
    sections = ("inference", "actor_critic", "relabel", "exploration", "schedule", *OWN_SECTIONS.values())
    own = {name: dict(getattr(card, name)) for name in sections if getattr(card, name)}
    specific = dict(card.family.get(family, {}))
    specific_budgets = specific.pop("budget", {})
    for name in specific_budgets:
        _known_budget(name, f"{card.path}: key 'family.{family}.budget.{name}'")
    for layer in (own, card.budget.get(budget, {}), specific, specific_budgets.get(budget, {})):
        _merge(content, layer)
    return content


def _merge(content: dict[str, Any], layer: dict[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(content.get(key), dict):
            content[key] = {**content[key], **value}
        else:
            content[key] = value


def _apply(content: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    sections = {name: list(value) for name, value in content.items() if isinstance(value, dict)}
    known = [f"{section}.{name}" for section, names in sections.items() for name in names]
    if not separator:
        raise CardError(f"--set {override!r}: expected key=value, as schedule.iterations=20")
    if key not in known:
        raise CardError(f"--set: unknown key {key!r}{nearest(key, known)}; accepted: {', '.join(known)}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    section, name = key.split(".")
    content[section][name] = value
