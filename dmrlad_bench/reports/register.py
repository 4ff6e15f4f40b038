"""The register of published digests, `leaderboards/digests.toml`: whatever was once published under a preset's name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import tomli_w

from dmrlad_bench.cards import BUDGETS, CardError
from dmrlad_bench.cards.reading import read_toml

REGISTER = "digests.toml"
HEAD = "# Digests of the resolved cards that results were published with, by preset, family and budget. `submit` adds to it.\n"
DIGEST = re.compile(r"[0-9a-f]{64}")
Known = dict[str, dict[str, dict[str, list[str]]]]  # preset -> family -> budget -> digests, oldest first


def read_register(folder: Path) -> Known:
    """The register of a leaderboards folder; empty where there is none. Raises `CardError` for one that is not of this form."""
    path = folder / REGISTER
    if not path.exists():
        return {}
    content = read_toml(path)
    for preset, families in content.items():
        for family, budgets in families.items() if isinstance(families, dict) else [(None, None)]:
            for budget, digests in budgets.items() if isinstance(budgets, dict) else [(None, None)]:
                if budget not in BUDGETS or not isinstance(digests, list) or not all(map(_is_digest, digests)):
                    where = ".".join(str(part) for part in (preset, family, budget) if part is not None)
                    raise CardError(f"{path}: key {where!r}: expected <preset>.<family>.<budget> = [SHA-256, ...]")
    return content


def is_known(register: Known, preset: str, family: str, budget: str, digest: str) -> bool:
    """Whether the register has this digest under a preset's name."""
    return digest in register.get(preset, {}).get(family, {}).get(budget, [])


def register_text(register: Known, new: Iterable[tuple[str, str, str, str]]) -> str:
    """The content of the register's file with `new` (preset, family, budget, digest) added."""
    for preset, family, budget, digest in new:
        digests = register.setdefault(preset, {}).setdefault(family, {}).setdefault(budget, [])
        if digest not in digests:
            digests.append(digest)
    ordered = {
        preset: {
            family: {budget: budgets[budget] for budget in BUDGETS if budget in budgets} for family, budgets in sorted(families.items())
        }
        for preset, families in sorted(register.items())
    }
    return HEAD + tomli_w.dumps(ordered)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and DIGEST.fullmatch(value) is not None
