"""Markdown as the generated pages use it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dmrlad_bench.cards import register_folder


def page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *(part for part in parts if part)]) + "\n"


def table(heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [row(cells) for cells in rows]
    return "\n".join([row(heading), row(["---"] * len(heading)), *lines]) if lines else ""


def row(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def toctree(names: Sequence[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])


def python(code: str) -> str:
    return f"```python\n{code}\n```"


def card_listing(kind: str, name: str, folder: Path) -> str:
    path = os.path.relpath(register_folder(kind) / f"{name}.toml", folder)
    return f"## The card\n`{kind}/{name}.toml`:\n\n```{{literalinclude}} {Path(path).as_posix()}\n:language: toml\n```"


def flowing(text: str) -> str:
    """Docstring or card text as Markdown paragraphs."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    return "\n\n".join(paragraph.replace("*", "\\*") for paragraph in paragraphs if not paragraph.startswith("Attributes:"))


def value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace("null", "none")
