"""One page for each task family and each agent, generated from its card; `conf.py` calls `write_all` before a build."""

from __future__ import annotations

import inspect
import json
import math
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dmrlad_bench.cards import BUDGETS, AgentCard, AgentConfig, agent_names, family_names, load_agent, register_folder, resolve_agent
from dmrlad_bench.cards.agent_config import OWN_SECTIONS
from dmrlad_bench.envs.bodies import STEP_OF_THE_POINT, Body, MujocoBody, Point
from dmrlad_bench.envs.family import TaskFamily, family

SHOWN_FAMILY = "CheetahVelSparse"
SECTIONS = ("inference", "actor_critic", "relabel", "exploration", "schedule")
EXPLAINED = {"pearl": "[How PEARL works](../../how-pearl-works.md)", "rl2": "[How RL2 works](../../how-rl2-works.md)"}

TASKS = {
    "velocity": "a forward velocity in m/s",
    "planar_goal": "a point (x, y) in m",
}
OUTCOMES = {
    "velocity": "mean forward velocity over the step (m/s), $\\sum a^2$",
    "planar_goal": "position (x, y) after the step (m), $\\sum a^2$",
}
ERRORS = {
    "velocity": "the distance between the forward velocity and the task's, in m/s",
    "planar_goal": "the Euclidean distance to the goal, in m",
}
SUCCESS = {
    "any": "some step of the episode lies within the radius",
    "final": "the last step of the episode lies within the radius",
    "fraction": "at least half of the steps of the episode's second half lie within the radius",
}


def write_all(folder: Path) -> None:
    """Write `families/*.md` and `agents/*.md`, each with its index, in place of what `folder` held."""
    shutil.rmtree(folder, ignore_errors=True)
    kinds = (("families", families_index, family_page, family_names()), ("agents", agents_index, agent_page, agent_names()))
    for kind, index, page, names in kinds:
        (folder / kind).mkdir(parents=True)
        (folder / kind / "index.md").write_text(index(names), encoding="utf-8")
        for name in names:
            (folder / kind / f"{name}.md").write_text(page(name, folder / kind), encoding="utf-8")


def families_index(names: Sequence[str]) -> str:
    """The table of all families."""
    rows = []
    for name in names:
        card = family(name).card
        sizes = " / ".join(str(len(tasks)) for tasks in (card.tasks.train, card.tasks.test, card.tasks.ood))
        rows.append((f"[{name}]({name}.md)", card.body, card.goal.kind, card.reward.kind, card.horizon, sizes))
    heading = ("family", "body", "goal", "reward", "horizon", "train / test / ood tasks")
    intro = "A family is a card in `envs/`. These pages are generated from the cards when the documentation is built."
    return _page("Task families", intro, _table(heading, rows), _toctree(names))


def agents_index(names: Sequence[str]) -> str:
    """The table of all agents."""
    rows = [(f"[{name}]({name}.md)", _flowing(load_agent(name).description)) for name in names]
    intro = "An agent preset is a card in `agents/`. These pages are generated from the cards when the documentation is built."
    return _page("Agents", intro, _table(("agent", "description"), rows), _toctree(names))


# ---- families -----------------------------------------------------------------------------------------------------------


def family_page(name: str, folder: Path) -> str:
    """A family's page: spaces, reward, success, tasks, source, versions and the card."""
    solved = family(name)
    card = solved.card
    facts = [
        ("Gymnasium id", f"`{card.id}`"),
        ("body", f"`{card.body}`"),
        ("horizon", f"{card.horizon} steps"),
        ("episodes in a training trial", card.episodes_per_trial),
        ("relabelling", "rewards of a trajectory can be recomputed for any task" if solved.relabelable else "not possible"),
        ("digest", f"`{card.digest}`"),
    ]
    return _page(
        name,
        _flowing(card.description),
        _table(("", ""), facts),
        _python(f'import dmrlad_bench\nimport gymnasium\n\nenv = gymnasium.make("{card.id}", split="train")'),
        _spaces(solved),
        _reward(solved),
        _tasks(solved),
        f"## Source\n{_flowing(card.source)}",
        f"## Versions\n`v{card.version}` is the version that this package holds. Whatever changes a family's results makes a new version.",
        _card_listing("envs", name, folder),
    )


def _spaces(solved: TaskFamily) -> str:
    body = solved.make_body()
    observation, action = _entries_of(body, solved.observation_dim)
    body.close()
    about = _flowing(inspect.getdoc(type(body)) or "")
    parts = [
        f"## Body, observations and actions\n{about}",
        f"An observation is {solved.observation_dim} numbers, float64; `task_observable=True` appends the task.",
        _table(("#", "observation", "unit"), [(number, *entry) for number, entry in enumerate(observation)]),
        f"An action is {solved.action_dim} numbers in [-1, 1]; whatever lies outside is clipped.",
        _table(("#", "action", "at 1"), [(number, *entry) for number, entry in enumerate(action)]),
    ]
    return "\n\n".join(part for part in parts if part)


def _entries_of(body: Body, observation_dim: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Names and units of observation and action entries; empty where the body does not tell them."""
    if isinstance(body, Point):
        observation = [("x position", "m"), ("y position", "m")]
        return observation, [(f"step along {axis}", f"{STEP_OF_THE_POINT} m") for axis in "xy"]
    if not isinstance(body, MujocoBody):
        return [], []
    model = body.simulator.model
    action = [(f"torque of `{model.actuator(number).name}`", f"{model.actuator_gear[number, 0]:g} N m") for number in range(model.nu)]
    sliding, turning = 2, 3  # mjtJoint: slide, hinge
    kinds = model.jnt_type.tolist()
    if not set(kinds) <= {sliding, turning}:
        return [], action
    names = [model.joint(number).name for number in range(model.njnt)]
    lengths = ["m" if kind == sliding else "rad" for kind in kinds]
    entries = [(f"position of `{name}`", unit) for name, unit in zip(names, lengths, strict=True)]
    entries += [(f"velocity of `{name}`", f"{unit}/s") for name, unit in zip(names, lengths, strict=True)]
    return entries[len(entries) - observation_dim :], action  # what an observation hides stands first in the state


def _reward(solved: TaskFamily) -> str:
    card, terms = solved.card, solved.card.reward
    sparse_cost, dense_cost = (_cost(weight) for weight in (terms.sparse_control_cost, terms.dense_control_cost))
    sparse = rf"r = \begin{{cases}} {terms.inside:g} - e & e \le {terms.radius:g} \\ {terms.outside:g} & \text{{else}} \end{{cases}}"
    formulas = {"sparse": f"$$\n{sparse}{sparse_cost}\n$$", "dense": f"$$\nr = -e{dense_cost}\n$$"}
    other = "dense" if terms.kind == "sparse" else "sparse"
    ends = type(solved.make_body()).terminated is not Body.terminated
    ending = "the body may end an episode before its horizon" if ends else f"never; episodes are truncated after {card.horizon} steps"
    text = f"""## Reward, success, termination
$e$ is {ERRORS[card.goal.kind]}; $a$ is the action. The family's reward is the {terms.kind} one:

{formulas[terms.kind]}

`info["{other}_reward"]` holds the {other} one, which is not what agents are trained on here:

{formulas[other]}

- Outcome, which the reward is computed from: {OUTCOMES[card.goal.kind]}.
- A step succeeds within the radius, $e \\le {terms.radius:g}$; an episode succeeds when {SUCCESS[card.success]} (rule `{card.success}`).
- Termination: {ending}."""
    if card.reference is None:
        return f"{text}\n- Reference scores of `random` and `oracle`, the ends of the normalised score, are not on the card yet."
    reference = f"`random` {card.reference.random:g}, `oracle` {card.reference.oracle:g}"
    return f"{text}\n- Reference scores (mean return of one episode on the test tasks), the ends of the normalised score: {reference}."


def _cost(weight: float) -> str:
    return rf" - {weight:g} \sum a^2" if weight else ""


def _tasks(solved: TaskFamily) -> str:
    goal = solved.card.goal
    what = f"A task is {TASKS[goal.kind]}, drawn from [{goal.low:g}, {goal.high:g}] m/s"
    if goal.kind == "planar_goal":
        arc = f"between {math.degrees(goal.low):g} and {math.degrees(goal.high):g} degrees"
        what = f"A task is {TASKS[goal.kind]} on the circle of radius {goal.radius:g} m around the origin, {arc}"
    rows = []
    for split in solved.splits:
        tasks = solved.tasks(split)
        spans = ", ".join(f"{low:g} to {high:g}" for low, high in zip(tasks.min(0), tasks.max(0), strict=True))
        rows.append((split, len(tasks), spans))
    text = f"## Tasks\n{what}; `ood` tasks lie outside. The lists are frozen and disjoint."
    return f"{text}\n\n{_table(('split', 'tasks', 'smallest to largest, for each entry'), rows)}"


# ---- agents -------------------------------------------------------------------------------------------------------------


def agent_page(name: str, folder: Path) -> str:
    """An agent's page: its parts, how much it trains, its configuration for every budget, and the card."""
    card = load_agent(name)
    shown = resolve_agent(card, SHOWN_FAMILY, "full")
    facts = [("algorithm", f"`{shown.algorithm}`"), ("sees the task", "yes" if shown.task_observable else "no")]
    if card.extends is not None:
        facts.append(("extends", f"[{card.extends}]({card.extends}.md)"))
    usage = f"```console\n$ dmrlad-bench run --agent {name} --env DMRLAD/{SHOWN_FAMILY}-v0\n```"
    if shown.algorithm == "random":
        nothing = "It does not learn: a run consists of the final scores, and the sections of a configuration are not read."
        return _page(name, _flowing(card.description), _table(("", ""), facts), usage, nothing, _card_listing("agents", name, folder))
    facts += [
        ("task inference", "none" if shown.inference.kind == "none" else f"`{shown.inference.kind}`, encoder `{shown.inference.encoder}`"),
        ("critic", f"`{shown.actor_critic.critic}`"),
        ("relabelling", f"`{shown.relabel.kind}`"),
    ]
    explained = EXPLAINED.get(shown.algorithm, "[How DMRLAD works](../../how-dmrlad-works.md)")
    links = f"The algorithm is described in {explained}, "
    links += "what it logs in [Logged scalars](../../logged-scalars.md)."
    parts = [_flowing(card.description), links, _table(("", ""), facts), usage, _amounts(card), _configuration(card)]
    return _page(name, *parts, _differences(card), _card_listing("agents", name, folder))


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
    return f"## How much a budget is\n{_table(heading, rows)}"


def training_steps(config: AgentConfig, solved: TaskFamily) -> int:
    """Environment steps that a whole training collects, if no episode terminates early."""
    schedule = config.schedule
    steps = solved.horizon * (schedule.episodes_per_trial or solved.episodes_per_trial)
    tasks = len(solved.tasks("train"))
    initial = min(config.exploration.initial_iterations, schedule.iterations)
    first = initial * tasks * math.ceil(schedule.initial_steps_per_task / steps)
    later = (schedule.iterations - initial) * min(schedule.tasks_per_iteration, tasks) * schedule.trials_per_task
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
            values = [_value(getattr(model, key)) for model in models]
            rows.append((f"`{key}`", *values, field.description or ""))
        parts.append(f"### {section}\n{_table(('key', *BUDGETS, 'meaning'), rows)}")
    return "\n\n".join(parts)


def _differences(card: AgentCard) -> str:
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for name in family_names():
        for budget in BUDGETS:
            usual, own = (_flat(resolve_agent(card, solved, budget)) for solved in (SHOWN_FAMILY, name))
            for key, value in own.items():
                if value != usual[key]:
                    found.setdefault((name, key, value, usual[key]), []).append(budget)
    if not found:
        return f"## Other families\nThe configuration is that of {SHOWN_FAMILY}."
    rows = [(name, f"`{key}`", value, usual, ", ".join(budgets)) for (name, key, value, usual), budgets in found.items()]
    return f"## What differs on other families\n{_table(('family', 'key', 'value', f'on {SHOWN_FAMILY}', 'budgets'), rows)}"


def _sections(config: AgentConfig) -> tuple[str, ...]:
    """The sections of a configuration, the one that its algorithm alone has included."""
    own = OWN_SECTIONS.get(config.algorithm)
    return SECTIONS if own is None else (*SECTIONS, own)


def _flat(config: AgentConfig) -> dict[str, str]:
    """`section.key` -> value, without the sections that are not read."""
    sections = {name: getattr(config, name) for name in _sections(config)}
    read = {name: section for name, section in sections.items() if getattr(section, "kind", "") != "none"}
    return {f"{name}.{key}": _value(value) for name, section in read.items() for key, value in section}


# ---- Markdown -----------------------------------------------------------------------------------------------------------


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *(part for part in parts if part)]) + "\n"


def _table(heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [_row(row) for row in rows]
    return "\n".join([_row(heading), _row(["---"] * len(heading)), *lines]) if lines else ""


def _row(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _toctree(names: Sequence[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])


def _python(code: str) -> str:
    return f"```python\n{code}\n```"


def _card_listing(kind: str, name: str, folder: Path) -> str:
    path = os.path.relpath(register_folder(kind) / f"{name}.toml", folder)
    return f"## The card\n`{kind}/{name}.toml`:\n\n```{{literalinclude}} {Path(path).as_posix()}\n:language: toml\n```"


def _flowing(text: str) -> str:
    """Docstring or card text as Markdown paragraphs."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    return "\n\n".join(paragraph.replace("*", "\\*") for paragraph in paragraphs if not paragraph.startswith("Attributes:"))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace("null", "none")
