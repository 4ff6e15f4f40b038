"""Whose results an entry holds: the resolved agent, so that it can be run again, its track, and what is told of its authors."""

from __future__ import annotations

import datetime
import hashlib
import re
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from dmrlad_bench.cards import AgentConfig, CardError
from dmrlad_bench.cards.external import IMPORT_PATH
from dmrlad_bench.cards.foreign import printable
from dmrlad_bench.cards.reading import validate
from dmrlad_bench.reports.results import ResultModel

AGENT_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
SHA256 = r"^[0-9a-f]{64}$"
LINK = re.compile(r"https?://[^\s/]+\.[^\s/]+(/\S*)?")
LONGEST_TEXT = 300
Track = Literal["standard", "privileged"]


class PublishedAgent(ResultModel):
    """The agent: its resolved card, or its class and the file that this is in; both where it is a class of anyone's that `run` has run."""

    name: str = Field(pattern=rf"^{AGENT_NAME.pattern}$")
    digest: str = Field(pattern=SHA256, description="SHA-256 of the resolved configuration, the same in all runs")
    preset: bool = Field(description="whether this was the configuration of the published preset of that name")
    track: Track = Field(description="privileged: while scored, it is shown the task, or is handed reward function or task list")
    config: dict[str, JsonValue] | None = Field(default=None, description="the resolved card: every key of it")
    import_path: str | None = Field(default=None, description="package.module:Class of an agent that is not this package's")
    source: str | None = Field(default=None, pattern=SHA256, description="SHA-256 of the source file of that class, when it was submitted")

    @model_validator(mode="after")
    def _resolved(self) -> PublishedAgent:
        if (self.import_path is None) != (self.source is None):
            raise ValueError("import_path and source go together: the class, and SHA-256 of its source file")
        if self.config is None and self.import_path is None:
            raise ValueError("the resolved agent is missing: expected config, or import_path and source")
        if self.import_path is not None and not IMPORT_PATH.fullmatch(self.import_path):
            raise ValueError(f"import_path: expected package.module:Class, got {self.import_path!r}")
        return self

    def resolved(self) -> AgentConfig | None:
        """The configuration; None where there is only a class. Raises `CardError` where this version of the package cannot read it."""
        return None if self.config is None else validate(AgentConfig, dict(self.config), "key 'agent.config'")


class About(ResultModel):
    """What is told of an entry, beside its numbers."""

    authors: tuple[str, ...] = ()
    paper: str | None = Field(default=None, description="link")
    code: str | None = Field(default=None, description="link")
    date: str = Field(default_factory=lambda: datetime.date.today().isoformat(), description="of the submission, YYYY-MM-DD")
    reproduced: str | None = Field(default=None, description="which seed was run again, by whom and when; none = nobody has done so")

    @field_validator("authors")
    @classmethod
    def _names(cls, authors: tuple[str, ...]) -> tuple[str, ...]:
        for author in authors:
            _one_line("author", author)
        if len(set(authors)) < len(authors):
            raise ValueError(f"author: each once, got {', '.join(authors)}")
        return authors

    @field_validator("reproduced")
    @classmethod
    def _told(cls, text: str | None) -> str | None:
        return text if text is None else _one_line("reproduced", text)

    @field_validator("paper", "code")
    @classmethod
    def _links(cls, link: str | None) -> str | None:
        if link is not None and (not LINK.fullmatch(link) or len(link) > LONGEST_TEXT):
            raise ValueError(f"expected a link that begins with https:// or http://, got {printable(link, LONGEST_TEXT)!r}")
        return link

    @field_validator("date")
    @classmethod
    def _day(cls, date: str) -> str:
        try:
            day = datetime.date.fromisoformat(date)
        except ValueError:
            raise ValueError(f"date: expected YYYY-MM-DD, got {printable(date)!r}") from None
        if date != day.isoformat() or day > datetime.date.today() + datetime.timedelta(days=1):  # elsewhere it may be tomorrow
            raise ValueError(f"date: expected YYYY-MM-DD, not later than today, got {date!r}")
        return date


def told(**content: Any) -> About:
    """What a user told of an entry; raises `CardError` where it is not valid."""
    return validate(About, content, "submit")


def _one_line(what: str, text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > LONGEST_TEXT:
        raise ValueError(f"{what}: expected one line of at most {LONGEST_TEXT} characters, got {printable(text)!r}")
    return text


def source_digest(import_path: str) -> str:
    """SHA-256 of the file that `package.module:Class` would be imported from, the current folder first; nothing is imported.

    Raises:
        CardError: there is no such file.
    """
    parts = import_path.partition(":")[0].split(".")
    for folder in (Path.cwd(), *(Path(entry) for entry in sys.path if entry)):
        for path in (folder.joinpath(*parts).with_suffix(".py"), folder.joinpath(*parts, "__init__.py")):
            if path.is_file():
                return hashlib.sha256(path.read_bytes()).hexdigest()
    raise CardError(f"agent {import_path!r}: no source file of {'.'.join(parts)!r} in the current folder or among the installed packages")
