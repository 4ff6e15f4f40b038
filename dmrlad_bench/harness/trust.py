"""Consent: a run folder may name code, and that of a folder which came from elsewhere must not run unasked."""

from __future__ import annotations

from pathlib import Path

from dmrlad_bench.cards import CardError
from dmrlad_bench.harness.run import RunConfig


def named_code(config: RunConfig) -> list[str]:
    """What scoring a run imports beside this package, as lines of its configuration: the agent's class, the family's body."""
    named = {"agent.import_path": config.agent.import_path, "family.body": config.family.body if ":" in config.family.body else None}
    return [f"{path!r} ({key})" for key, path in named.items() if path is not None]


def check_trust(folder: Path, config: RunConfig, trust_code: bool) -> None:
    """Raises `CardError` where a run names code and nobody said that it is trusted; it comes before anything is imported."""
    if (named := named_code(config)) and not trust_code:
        raise CardError(
            f"{folder}: scoring it imports {' and '.join(named)} and runs that code with your rights; "
            "if you trust it, pass --trust-code (in Python trust_code=True)"
        )
