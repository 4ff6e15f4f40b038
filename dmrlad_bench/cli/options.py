"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from dmrlad_bench.cards import BUDGETS, agent_names, family_names, load_family
from dmrlad_bench.cards.family import NAMESPACE

DEFAULT_ENV = "DMRLAD/CheetahVelSparse-v0"
THREADS = "Threads of torch and of the simulation. [default: the {}]"
TORCH_THREADS = (
    "Threads of torch, and of the simulation unless given. [default: 1 in budgets smoke and quick, else the cores allowed / jobs]"
)
SIMULATION_THREADS = "Threads of the simulation; they change no result. [default: --threads where given, else the cores allowed / jobs]"


def whole_number(text: str) -> int:
    """Parse an integer; typer's own message for a bad one names no value."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"expected a whole number, got {text!r}") from None


def import_from_here() -> None:
    """Look for someone's class in the current folder first, as `python -m` does; the installed program would not."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def complete_families(incomplete: str) -> list[str]:
    """Bare names of families, and their ids where an id was begun."""
    known = [*family_names(), *(f"{NAMESPACE}/{name}-v{load_family(name).version}" for name in family_names())]
    return [name for name in known if name.startswith(incomplete)]


def complete_agents(incomplete: str) -> list[str]:
    """Names of presets."""
    return [name for name in agent_names() if name.startswith(incomplete)]


def complete_budgets(incomplete: str) -> list[str]:
    """Names of budgets."""
    return [name for name in BUDGETS if name.startswith(incomplete)]


Agents = Annotated[
    list[str],
    typer.Option(
        "--agent",
        metavar="NAME",
        help="Preset's name, TOML file, or package.module:Class. May be repeated.",
        autocompletion=complete_agents,
    ),
]
Envs = Annotated[
    list[str],
    typer.Option("--env", metavar="ID", help="Family: its id, bare name or TOML file. May be repeated.", autocompletion=complete_families),
]
Budget = Annotated[str, typer.Option(metavar="NAME", help=f"One of {', '.join(BUDGETS)}.", autocompletion=complete_budgets)]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the agent's configuration. May be repeated.")
]
