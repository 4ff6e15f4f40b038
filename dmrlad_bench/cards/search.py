"""What of an agent is tuned: the section `[search]` of its card, `section.key = { low, high, log }` or `{ choices }`.

A card that extends another has that one's dimensions, too; `section.key = false` takes one out. Another algorithm begins anew.
"""

from __future__ import annotations

import json
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from dmrlad_bench.cards.agent import AgentCard, extended_chain, resolve_agent
from dmrlad_bench.cards.agent_config import AgentConfig
from dmrlad_bench.cards.reading import KEYS_SHOWN, CardError, CardModel, nearest, validate

Value = bool | int | float | str | tuple[int | float, ...]
FEWEST_CHOICES = 2


class Dimension(CardModel):
    """A key's values: an interval, uniform or in its logarithm, or some values."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: tuple[Value, ...] | None = Field(default=None, description="values to choose from, in place of low and high")

    @model_validator(mode="after")
    def _one_kind(self) -> Dimension:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("expected low and high, or choices, not both")
            if len(self.choices) < FEWEST_CHOICES or len({json.dumps(value) for value in self.choices}) < len(self.choices):
                raise ValueError("choices must be at least two different values")
            return self
        if self.low is None or self.high is None:
            raise ValueError("expected { low = ..., high = ... } or { choices = [...] }")
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, got {self.low}")
        return self


@dataclass(frozen=True)
class Searched:
    """One tuned key.

    Attributes:
        key: `section.key`.
        dimension: its values.
        kind: `choice`, or what a number of the interval is.
    """

    key: str
    dimension: Dimension
    kind: Literal["int", "float", "choice"]

    def told(self) -> str:
        """`0.0001 to 0.003, log`, or the choices."""
        one = self.dimension
        if one.choices is not None:
            return ", ".join(json.dumps(value) for value in one.choices)
        return f"{one.low:g} to {one.high:g}{', log' if one.log else ''}"


def search_space(card: AgentCard, family: str, budget: str) -> tuple[Searched, ...]:
    """The tuned keys of an agent, in the order of their names; every bound and choice is one that the agent takes.

    Args:
        card: of the agent.
        family: bare name.
        budget: `smoke`, `quick`, `standard` or `full`.

    Raises:
        CardError: no `[search]`, an unknown key, a bound outside of the key's range, or a key that the agent does not read.
    """
    given = _given(card)
    if not given:
        raise CardError(
            f"{card.path}: has no section [search], which says what is tuned: section.key = {{ low, high, log }} or {{ choices }}"
        )
    config = resolve_agent(card, family, budget)
    known = {f"{name}.{key}": field for name, keys in _sections(config).items() for key, field in keys.items()}
    found = []
    for key, (dimension, path) in sorted(given.items()):
        where = f"{path}: key 'search.{key}'"
        if key not in known:
            raise CardError(f"{where}: unknown key {key!r}{nearest(key, known)}; {KEYS_SHOWN}")
        section = key.partition(".")[0]
        if getattr(getattr(config, section), "kind", "") == "none":
            raise CardError(f"{where}: the agent does not read it, for {section}.kind is 'none'; take it out with: {key} = false")
        searched = Searched(key, dimension, _kind(known[key].annotation, dimension, where))
        _check_ends(config, searched, where)
        found.append(searched)
    return tuple(found)


def with_values(config: AgentConfig, values: dict[str, Any], where: str) -> AgentConfig:
    """The configuration with `section.key` values in it; raises `CardError` where they are not accepted, or not together."""
    content = config.model_dump()
    for key, value in values.items():
        section, name = key.split(".")
        content[section][name] = value
    return validate(AgentConfig, content, where)


def _given(card: AgentCard) -> dict[str, tuple[Dimension, Any]]:
    found: dict[str, tuple[Dimension, Any]] = {}
    algorithm = None
    for link in extended_chain(card):
        if link.algorithm is not None and link.algorithm != algorithm:
            found, algorithm = {}, link.algorithm
        for section, keys in link.search.items():
            for name, content in keys.items():
                key, where = f"{section}.{name}", f"{link.path}: key 'search.{section}.{name}'"
                if content is False:
                    found.pop(key, None)
                elif isinstance(content, dict):
                    found[key] = validate(Dimension, content, where), link.path
                else:
                    raise CardError(f"{where}: expected {{ low, high, log }}, {{ choices }} or false, got {content!r}")
    return found


def _sections(config: AgentConfig) -> dict[str, dict[str, Any]]:
    models = {name: value for name, value in config if isinstance(value, CardModel)}
    return {name: dict(type(model).model_fields) for name, model in models.items()}


def _kind(annotation: Any, dimension: Dimension, where: str) -> Literal["int", "float", "choice"]:
    if dimension.choices is not None:
        return "choice"
    plain = set(typing.get_args(annotation)) if isinstance(annotation, types.UnionType) else {annotation}
    if float in plain:
        return "float"
    if int not in plain:
        raise CardError(f"{where}: is no number: give {{ choices = [...] }}")
    if not (isinstance(dimension.low, int) and isinstance(dimension.high, int)):
        raise CardError(f"{where}: low and high of a whole number must be whole, got {dimension.low} and {dimension.high}")
    return "int"


def _check_ends(config: AgentConfig, searched: Searched, where: str) -> None:
    one = searched.dimension
    for value in (one.low, one.high) if one.choices is None else one.choices:
        try:
            with_values(config, {searched.key: value}, where)
        except CardError as error:
            raise CardError(str(error).replace(f"key {searched.key!r}: ", "", 1)) from None
