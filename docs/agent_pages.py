"""A page for each agent preset, from its card."""

from __future__ import annotations

import math
from pathlib import Path

from markup import card_listing, flowing, page, table, value
from pydantic import BaseModel

from dmrlad_bench.cards import BUDGETS, AgentCard, AgentConfig, family_names, load_agent, resolve_agent
from dmrlad_bench.cards.agent_config import OWN_SECTIONS
from dmrlad_bench.envs.family import TaskFamily, family
from dmrlad_bench.harness.expected import SCORED_ONLY

SHOWN_FAMILY = "CheetahVelSparse"
SCRIPTED_FAMILY = "SawyerReachSparse"
SECTIONS = ("inference", "actor_critic", "relabel", "exploration", "schedule")
BASELINES = "[How the baselines work](../../how-the-baselines-work.md)"
EXPLAINED = {
    "pearl": "[How PEARL works](../../how-pearl-works.md)",
    "rl2": "[How RL2 works](../../how-rl2-works.md)",
    "thompson": BASELINES,
    "task-posterior": BASELINES,
}


def agent_page(name: str, folder: Path) -> str:
    """An agent's page: its parts, how much it trains, its configuration for every budget, and the card."""
    card = load_agent(name)
    shown = resolve_agent(card, SHOWN_FAMILY, "full")
    sees = "yes" if shown.task_observable else "while training" if shown.shown_while_training else "no"
    track = f"[{shown.track}](../../protocol.md#tracks)"
    facts = [("algorithm", f"`{shown.algorithm}`"), ("track", track), ("sees the task", sees)]
    if card.extends is not None:
        facts.append(("extends", f"[{card.extends}]({card.extends}.md)"))
    solved = SCRIPTED_FAMILY if shown.algorithm == "scripted" else SHOWN_FAMILY
    usage = f"```console\n$ dmrlad-bench run --agent {name} --env DMRLAD/{solved}-v0\n```"
    if shown.algorithm in SCORED_ONLY:
        nothing = "It does not learn: a run consists of the final scores, and the sections of a configuration are not read."
        return page(name, flowing(card.description), table(("", ""), facts), usage, nothing, card_listing("agents", name, folder))
    facts += [
        ("task inference", "none" if shown.inference.kind == "none" else f"`{shown.inference.kind}`, encoder `{shown.inference.encoder}`"),
        ("critic", f"`{shown.actor_critic.critic}`"),
        ("relabelling", f"`{shown.relabel.kind}`"),
    ]
    explained = EXPLAINED.get(shown.algorithm, "[How DMRLAD works](../../how-dmrlad-works.md)")
    links = f"The algorithm is described in {explained}, "
    links += "what it logs in [Logged scalars](../../logged-scalars.md)."
    parts = [flowing(card.description), links, table(("", ""), facts), usage, _amounts(card), _configuration(card)]
    return page(name, *parts, _differences(card), card_listing("agents", name, folder))


def _amounts(card: AgentCard) -> str:
    rows = []
    for name in family_names():
        solved = family(name)
        for budget in BUDGETS:
            config = resolve_agent(card, name, budget)
            schedule = config.schedule
            reconstruction = schedule.iterations * schedule.reconstruction_updates if config.inference.kind != "none" else 0
            counts = (training_steps(config, solved), schedule.iterations * schedule.policy_updates, reconstruction)
            rows.append((name, budget, schedule.iterations, *(f"{count:,}" for count in counts)))
    heading = ("family", "budget", "iterations", "environment steps", "policy updates", "reconstruction updates, at most")
    return f"## How much a budget is\n{table(heading, rows)}"


def training_steps(config: AgentConfig, solved: TaskFamily) -> int:
    """Environment steps that a whole training collects, if no episode terminates early."""
    schedule = config.schedule
    steps = solved.horizon * (schedule.episodes_per_trial or solved.episodes_per_trial)
    every = len(solved.tasks("train"))
    visited = min(schedule.initial_tasks or every, every)
    initial = min(config.exploration.initial_iterations, schedule.iterations)
    first = initial * visited * math.ceil(schedule.initial_steps_per_task / steps)
    later = (schedule.iterations - initial) * min(schedule.tasks_per_iteration, every) * schedule.trials_per_task
    return (first + later) * steps


def _configuration(card: AgentCard) -> str:
    configs = [resolve_agent(card, SHOWN_FAMILY, budget) for budget in BUDGETS]
    parts = [f"## Configuration on {SHOWN_FAMILY}", "Keys are set on the command line as `--set section.key=value`."]
    for section in _sections(configs[0]):
        models: list[BaseModel] = [getattr(config, section) for config in configs]
        if getattr(models[0], "kind", "") == "none":
            parts.append(f'### {section}\n`kind = "none"`: the section\'s other keys are not read.')
            continue
        rows = []
        for key, field in type(models[0]).model_fields.items():
            values = [value(getattr(model, key)) for model in models]
            rows.append((f"`{key}`", *values, field.description or ""))
        parts.append(f"### {section}\n{table(('key', *BUDGETS, 'meaning'), rows)}")
    return "\n\n".join(parts)


def _differences(card: AgentCard) -> str:
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for name in family_names():
        for budget in BUDGETS:
            usual, own = (_flat(resolve_agent(card, solved, budget)) for solved in (SHOWN_FAMILY, name))
            for key, chosen in own.items():
                if chosen != usual[key]:
                    found.setdefault((name, key, chosen, usual[key]), []).append(budget)
    if not found:
        return f"## Other families\nThe configuration is that of {SHOWN_FAMILY}."
    rows = [(name, f"`{key}`", value, usual, ", ".join(budgets)) for (name, key, value, usual), budgets in found.items()]
    return f"## What differs on other families\n{table(('family', 'key', 'value', f'on {SHOWN_FAMILY}', 'budgets'), rows)}"


def _sections(config: AgentConfig) -> tuple[str, ...]:
    """The sections of a configuration, the one that its algorithm alone has included."""
    own = OWN_SECTIONS.get(config.algorithm)
    return SECTIONS if own is None else (*SECTIONS, own)


def _flat(config: AgentConfig) -> dict[str, str]:
    """`section.key` -> value, without the sections that are not read."""
    sections = {name: getattr(config, name) for name in _sections(config)}
    read = {name: section for name, section in sections.items() if getattr(section, "kind", "") != "none"}
    return {f"{name}.{key}": value(entry) for name, section in read.items() for key, entry in section}
