"""Agent cards: who solves it. One `agents/<name>.toml` a preset; an ablation extends another card.

A card's sections are resolved in this order, later ones winning: model defaults, the extended card, the card's own
sections, `[budget.<name>]`, `[family.<Name>]`, `[family.<Name>.budget.<name>]`, and `--set key=value`. What `[like]` maps a
family to comes just before the family's own sections, in the card and in those that extend it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field

from dmrlad_bench.cards.agent_config import OWN_SECTIONS, AgentConfig, Algorithm, Track
from dmrlad_bench.cards.external import EXTERNAL, SCHEDULED_AS, applicable, card_content
from dmrlad_bench.cards.reading import FEW_KEYS, KEYS_SHOWN, CardError, CardModel, nearest, parse_toml, read_toml, register_folder, validate

BUDGETS = ("smoke", "quick", "standard", "full")


class Sections(CardModel):
    """What a card says for a budget, or for a family: sections of keys, which the resolved configuration validates."""

    inference: dict[str, Any] = {}
    actor_critic: dict[str, Any] = {}
    relabel: dict[str, Any] = {}
    exploration: dict[str, Any] = {}
    schedule: dict[str, Any] = {}
    pearl: dict[str, Any] = {}
    recurrent: dict[str, Any] = {}
    posterior: dict[str, Any] = {}
    reward_model: dict[str, Any] = {}

    def given(self) -> dict[str, dict[str, Any]]:
        """The sections that were written."""
        return {name: dict(getattr(self, name)) for name in Sections.model_fields if name in self.model_fields_set}


class FamilySections(Sections):
    """What a card says for a family, and for a family with a budget."""

    budget: dict[str, Sections] = {}


class AgentCard(Sections):
    """An agent card as written, before a family and a budget are chosen."""

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    description: str
    extends: str | None = None
    algorithm: Algorithm | None = None
    import_path: str | None = None
    track: Track | None = None
    task_observable: bool | None = None
    budget: dict[str, Sections] = {}
    family: dict[str, FamilySections] = {}
    like: dict[str, str] = Field(default={}, description="family -> the family whose sections it has, too")
    search: dict[str, dict[str, Any]] = Field(default={}, description="what is tuned, see `cards.search`; decides no result")
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
    for family, specific in card.family.items():
        for budget in specific.budget:
            _known_budget(budget, f"{path}: key 'family.{family}.budget.{budget}'")
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
    chain = extended_chain(card)
    families = _families(chain, family)
    content: dict[str, Any] = {}
    for link in chain:
        _extend(content, link, families, budget)
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


def extended_chain(card: AgentCard) -> list[AgentCard]:
    """The card, behind the one that it extends, and so on down to the first."""
    chain = [card]
    while (name := _extended_by(chain[0])) is not None:
        extended = load_agent(name)
        if extended.path in [above.path for above in chain]:
            raise CardError(f"{extended.path}: key 'extends': the card extends itself by way of {extended.extends!r}")
        chain.insert(0, extended)
    return chain


def _extended_by(card: AgentCard) -> str | Path | None:
    if card.extends is not None:
        return card.path.parent / card.extends if card.extends.endswith(".toml") else card.extends
    return SCHEDULED_AS if card.algorithm == EXTERNAL else None


def _families(chain: list[AgentCard], family: str) -> tuple[str, ...]:
    """The families whose sections are read, later ones winning: what `family` is like, and `family`."""
    likes = {name: (other, card.path) for card in chain for name, other in card.like.items()}
    if family not in likes:
        return (family,)
    other, path = likes[family]
    if other in likes:
        raise CardError(f"{path}: key 'like.{family}': {other!r} is itself like {likes[other][0]!r}")
    return other, family


def _extend(content: dict[str, Any], card: AgentCard, families: tuple[str, ...], budget: str) -> None:
    """Lay the card's own content over that of the card that it extends."""
    if card.algorithm == EXTERNAL:
        kept = applicable(content)
        content.clear()
        content.update(kept)
    if card.algorithm is not None and card.algorithm != content.get("algorithm"):
        content.pop("inference", None)  # another algorithm infers in its own way
    for name in ("algorithm", "import_path", "track", "task_observable"):
        if getattr(card, name) is not None:
            content[name] = getattr(card, name)
    _merge(content, card.given())
    if budget in card.budget:
        _merge(content, card.budget[budget].given())
    for specific in (card.family[family] for family in families if family in card.family):
        _merge(content, specific.given())
        if budget in specific.budget:
            _merge(content, specific.budget[budget].given())


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
        accepted = f"accepted: {', '.join(known)}" if len(known) <= FEW_KEYS else KEYS_SHOWN
        raise CardError(f"--set: unknown key {key!r}{nearest(key, known)}; {accepted}")
    try:
        value = parse_toml(f"value = {text}", f"--set {key}")["value"]
    except CardError as error:
        if "nested" in str(error) or "digits" in str(error):
            raise
        value = text
    section, name = key.split(".")
    content[section][name] = value
