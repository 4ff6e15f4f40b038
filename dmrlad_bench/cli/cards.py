"""`envs` and `agents`: show the cards."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from dmrlad_bench.cards import agent_names, family_names, load_agent, load_family, resolve_agent
from dmrlad_bench.cli.options import DEFAULT_ENV, Budget, Overrides, complete_agents, complete_families, import_from_here
from dmrlad_bench.cli.output import table_console
from dmrlad_bench.protocol import SPLITS


def envs(
    name: Annotated[str | None, typer.Argument(metavar="[ID]", help="Family to show.", autocompletion=complete_families)] = None,
) -> None:
    """List the task families, or show one."""
    console = table_console()
    if name is not None:
        _show_family(console, name)
        return
    table = Table(Column("id", no_wrap=True), "body", "goal", "reward", "success")
    for column in ("horizon", *SPLITS):
        table.add_column(column, justify="right")
    for entry in family_names():
        card = load_family(entry)
        sizes = (str(len(getattr(card.tasks, split))) for split in SPLITS)
        table.add_row(card.id, card.body, card.goal.kind, card.reward.kind, card.success, str(card.horizon), *sizes)
    console.print(table)


def agents(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Agent to show, resolved for a family and a budget.", autocompletion=complete_agents),
    ] = None,
    env: Annotated[str, typer.Option("--env", metavar="ID", help="Family.", autocompletion=complete_families)] = DEFAULT_ENV,
    budget: Budget = "quick",
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """List the agent presets, or show one's resolved configuration."""
    console = table_console()
    if name is None:
        table = Table("name", "track", "description")
        for entry in agent_names():
            config = resolve_agent(card := load_agent(entry), load_family(env).name, budget)
            table.add_row(entry, config.track, card.description.strip())
        console.print(table)
        return
    import tomli_w

    card = load_family(env)
    config = resolve_agent(load_agent(name), card.name, budget, tuple(overrides))
    if config.import_path is not None:
        from dmrlad_bench.agents.external import complete

        import_from_here()
        config = complete(config)
    console.print(f"# {config.name} on {card.id}, budget {budget}, digest {config.digest}", soft_wrap=True)
    console.print(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)), soft_wrap=True, markup=False)


def _show_family(console: Console, name: str) -> None:
    card = load_family(name)
    console.print(card.id)
    console.print(" ".join(card.description.split()), markup=False)
    table = Table("key", "value", show_header=False)
    content = card.model_dump(mode="json", exclude={"description", "tasks", "name", "version"}, exclude_none=True)
    written = card.goal.model_dump(mode="json", exclude_defaults=True)  # other keys are those that other goal kinds read
    content["goal"] = {key: value for key, value in written.items() if value} | {key: getattr(card.goal, key) for key in ("low", "high")}
    for key, value in content.items():
        for part, entry in value.items() if isinstance(value, dict) else (("", value),):
            table.add_row(f"{key}.{part}" if part else key, " ".join(str(entry).split()))
    for split in SPLITS:
        table.add_row(f"tasks.{split}", str(len(getattr(card.tasks, split))))
    table.add_row("digest", card.digest)
    console.print(table)
