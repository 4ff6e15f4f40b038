"""One page for each task family and each agent, generated from its card; `conf.py` calls `write_all` before a build."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from agent_pages import agent_page
from family_pages import family_page
from markup import flowing, page, table, toctree

from dmrlad_bench.cards import agent_names, family_names, load_agent
from dmrlad_bench.envs.family import family


def write_all(folder: Path) -> None:
    """Write `families/*.md` and `agents/*.md`, each with its index, in place of what `folder` held."""
    shutil.rmtree(folder, ignore_errors=True)
    kinds = (("families", families_index, family_page, family_names()), ("agents", agents_index, agent_page, agent_names()))
    for kind, index, page_of, names in kinds:
        (folder / kind).mkdir(parents=True)
        (folder / kind / "index.md").write_text(index(names), encoding="utf-8")
        for name in names:
            (folder / kind / f"{name}.md").write_text(page_of(name, folder / kind), encoding="utf-8")


def families_index(names: Sequence[str]) -> str:
    """The table of all families."""
    rows = []
    for name in names:
        card = family(name).card
        sizes = " / ".join(str(len(tasks)) for tasks in (card.tasks.train, card.tasks.test, card.tasks.ood))
        rows.append((f"[{name}]({name}.md)", card.body, card.goal.kind, card.reward.kind, card.horizon, sizes))
    heading = ("family", "body", "goal", "reward", "horizon", "train / test / ood tasks")
    intro = "A family is a card in `envs/`. These pages are generated from the cards when the documentation is built."
    return page("Task families", intro, table(heading, rows), toctree(names))


def agents_index(names: Sequence[str]) -> str:
    """The table of all agents."""
    rows = [(f"[{name}]({name}.md)", flowing(load_agent(name).description)) for name in names]
    intro = "An agent preset is a card in `agents/`. These pages are generated from the cards when the documentation is built."
    return page("Agents", intro, table(("agent", "description"), rows), toctree(names))
