"""The cards: what to solve (`envs/*.toml`) and who solves it (`agents/*.toml`), read, validated and hashed."""

from dmrlad_bench.cards.agent import BUDGETS, AgentCard, agent_names, load_agent, resolve_agent
from dmrlad_bench.cards.agent_config import AgentConfig
from dmrlad_bench.cards.family import FamilyCard, family_names, load_family
from dmrlad_bench.cards.reading import CardError, digest, nearest, register_folder

__all__ = [
    "BUDGETS",
    "AgentCard",
    "AgentConfig",
    "CardError",
    "FamilyCard",
    "agent_names",
    "digest",
    "family_names",
    "load_agent",
    "load_family",
    "nearest",
    "register_folder",
    "resolve_agent",
]
