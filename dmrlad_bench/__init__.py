"""A meta-reinforcement-learning benchmark: task families, agents and a protocol.

Importing registers every family with Gymnasium and loads neither a learner nor a simulator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium

from dmrlad_bench.cards import family_names, load_family

if TYPE_CHECKING:
    from dmrlad_bench.envs.family import family
    from dmrlad_bench.envs.wrappers import RL2Observation, TrialWrapper
    from dmrlad_bench.harness.api import evaluate, train
    from dmrlad_bench.harness.recording import record
    from dmrlad_bench.reports.comparison import compare

__version__ = "0.1.0"
__all__ = ["RL2Observation", "TrialWrapper", "__version__", "compare", "evaluate", "families", "family", "record", "train"]


def families() -> list[str]:
    """Gymnasium ids of the published task families, sorted."""
    return [load_family(name).id for name in family_names()]


def __getattr__(name: str) -> Any:
    # PEP 562: what needs more than cards is imported when it is asked for.
    if name == "family":
        from dmrlad_bench.envs.family import family

        return family
    if name in ("RL2Observation", "TrialWrapper"):
        from dmrlad_bench.envs import wrappers

        return getattr(wrappers, name)
    if name == "compare":
        from dmrlad_bench.reports.comparison import compare

        return compare
    if name == "record":
        from dmrlad_bench.harness.recording import record

        return record
    if name in ("train", "evaluate"):
        from dmrlad_bench.harness import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})  # what is imported when asked for, too


def _register_families() -> None:
    for name in family_names():
        card = load_family(name)
        if card.id not in gymnasium.registry:
            gymnasium.register(
                card.id,
                entry_point="dmrlad_bench.envs.single:DMRLADEnv",
                vector_entry_point="dmrlad_bench.envs.vector:DMRLADVectorEnv",
                max_episode_steps=card.horizon,
                kwargs={"family": card.id},
            )


_register_families()
