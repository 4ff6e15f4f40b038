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
from dmrlad_bench.envs.metaworld import MetaWorld
from dmrlad_bench.envs.sawyer import Sawyer

PICTURES = Path(__file__).resolve().parent / "pictures"  # made by pictures.py
SHOWN_FAMILY = "CheetahVelSparse"
SCRIPTED_FAMILY = "SawyerReachSparse"
SECTIONS = ("inference", "actor_critic", "relabel", "exploration", "schedule")
EXPLAINED = {"pearl": "[How PEARL works](../../how-pearl-works.md)", "rl2": "[How RL2 works](../../how-rl2-works.md)"}

TASKS = {
    "velocity": "a forward velocity in m/s",
    "position": "an x position in m",
    "physics": "one multiplier for each scaled number of the body's model ([which](../../changing-tasks.md))",
    "direction": "a direction, 1 for forward and -1 for backward",
    "planar_goal": "a point (x, y) in m",
    "multi_task": "the number of a variant and a value",
    "hand_goal": "a point (x, y, z) in m",
    "object_goal": "a point (x, y, z) in m",
    "meta_world": "the number of one of Meta-World's scenes and the six numbers of its `rand_vec`: where objects start, where the goal is",
}
OUTCOMES = {
    "velocity": "mean forward velocity over the step (m/s), $\\sum a^2$",
    "position": "x position after the step (m), $\\sum a^2$",
    "physics": "mean forward velocity over the step (m/s), $\\sum a^2$",
    "direction": "mean forward velocity over the step (m/s), $\\sum a^2$",
    "planar_goal": "position (x, y) after the step (m), $\\sum a^2$",
    "hand_goal": "position (x, y, z) of the point between the fingertips after the step (m), $\\sum a^2$",
    "object_goal": "position (x, y, z) of the object after the step (m), $\\sum a^2$",
    "meta_world": "reward and success as Meta-World gives them, $\\sum a^2$",
    "multi_task": "x position after the step (m), mean forward and vertical velocity (m/s) and pitch velocity (rad/s) over it, $\\sum a^2$",
}
ERRORS = {
    "velocity": "the distance between the forward velocity and the task's, in m/s",
    "position": "the distance between the x position and the task's, in m",
    "physics": "minus the forward velocity, in m/s, whatever the task",
    "direction": "minus the forward velocity in the task's direction, in m/s",
    "planar_goal": "the Euclidean distance to the goal, in m",
    "multi_task": "what the task's variant asks for (see the table of variants)",
    "hand_goal": "the Euclidean distance of the point between the fingertips to the goal, in m",
    "object_goal": "the Euclidean distance of the object to the goal, in m",
    "meta_world": "0 where Meta-World says success and 1 everywhere else",
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
        *([("task within an episode", _changes(solved))] if solved.tasks_change else []),
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


def _changes(solved: TaskFamily) -> str:
    rule = solved.card.changes
    assert rule is not None
    span = f"{rule.every:g} to {rule.every + rule.spread:g}"
    when = f"whenever the body has come {span} m from where the task began" if rule.kind == "place" else f"after {span} steps"
    return f"[changes](../../changing-tasks.md) {when}, to another one of the same split"


def _spaces(solved: TaskFamily) -> str:
    body = solved.make_body()
    observation, action = _entries_of(body, solved.observation_dim)
    body.close()
    about = _flowing(inspect.getdoc(type(body)) or "")
    pictured = (PICTURES / f"{solved.card.body}.png").exists()
    parts = [
        f"## Body, observations and actions\n{about}",
        f"![The body with the marker that shows a task](../../pictures/{solved.card.body}.png)" if pictured else "",
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
    if isinstance(body, Sawyer | MetaWorld):
        frame = [(f"hand position {axis}", "m") for axis in "xyz"] + [("gripper opening", "0.1 m")]
        frame += [(f"first object's position {axis}", "m") for axis in "xyz"] + [(f"its quaternion, {axis}", "1") for axis in "xyzw"]
        second = [(f"second object's position {axis}", "m") for axis in "xyz"] + [(f"its quaternion, {axis}", "1") for axis in "xyzw"]
        frame += second if isinstance(body, MetaWorld) else [("0", "")] * len(second)
        before = [(f"{name}, a step before" if unit else name, unit) for name, unit in frame]
        action = [(f"step of the hand along {axis}", "0.01 m") for axis in "xyz"] + [("force of the gripper, closing", "its largest")]
        return frame + before + [("0, which hides the goal", "")] * 3, action
    if not isinstance(body, MujocoBody):
        return [], []
    model = body.simulator.model
    action = [(f"torque of `{model.actuator(number).name}`", f"{model.actuator_gear[number, 0]:g} N m") for number in range(model.nu)]
    free, sliding, turning = 0, 2, 3  # mjtJoint: free, slide, hinge
    kinds = model.jnt_type.tolist()
    positions: list[tuple[str, str]] = []
    velocities: list[tuple[str, str]] = []
    for name, kind in zip([model.joint(number).name for number in range(model.njnt)], kinds, strict=True):
        if kind in (sliding, turning):
            unit = "m" if kind == sliding else "rad"
            positions.append((f"position of `{name}`", unit))
            velocities.append((f"velocity of `{name}`", f"{unit}/s"))
        elif kind == free:
            positions += [(f"{axis} of `{name}`", "m") for axis in "xyz"] + [(f"quaternion of `{name}`, {axis}", "1") for axis in "wxyz"]
            velocities += [(f"velocity of `{name}` along {axis}", "m/s") for axis in "xyz"]
            velocities += [(f"angular velocity of `{name}` about {axis}", "rad/s") for axis in "xyz"]
        else:
            return [], action
    entries = positions + velocities
    return entries[len(entries) - observation_dim :], action  # what an observation hides stands first in the state


def _reward(solved: TaskFamily) -> str:
    card, terms = solved.card, solved.card.reward
    general = _cost(terms.contact_cost, "f^2") + (f" + {terms.alive_bonus:g}" if terms.alive_bonus else "")
    sparse_cost, dense_cost = (_cost(weight) + general for weight in (terms.sparse_control_cost, terms.dense_control_cost))
    inside = f"{terms.inside:g} - e" if terms.error_weight == 1 else f"{terms.inside:g}"
    sparse = rf"r = \begin{{cases}} {inside} & e \le {terms.radius:g} \\ {terms.outside:g} & \text{{else}} \end{{cases}}"
    dense = r"r_\text{Meta-World}" if card.goal.kind == "meta_world" else "-e"
    if card.goal.variants:
        sparse = sparse.replace(rf"\le {terms.radius:g}", r"\le \rho")
    formulas = {"sparse": f"$$\n{sparse}{sparse_cost}\n$$", "dense": f"$$\nr = {dense}{dense_cost}\n$$"}
    bound = r"\rho" if card.goal.variants else f"{terms.radius:g}"
    other = "dense" if terms.kind == "sparse" else "sparse"
    ends = card.terminates and type(solved.make_body()).terminated is not Body.terminated
    ending = "the body may end an episode before its horizon" if ends else f"never; episodes are truncated after {card.horizon} steps"
    text = f"""## Reward, success, termination
$e$ is {_error(solved)}. The family's reward is the {terms.kind} one:

{formulas[terms.kind]}

`info["{other}_reward"]` holds the {other} one, which is not what agents are trained on here:

{formulas[other]}

- Outcome, which the reward is computed from: {_outcome(solved)}.
- A step succeeds within the radius, $e \\le {bound}$; an episode succeeds when {SUCCESS[card.success]} (rule `{card.success}`).
- Termination: {ending}."""
    if card.reference is None:
        return f"{text}\n- Reference scores of `random` and `oracle`, the ends of the normalised score, are not on the card yet."
    reference = f"`random` {card.reference.random:g}, `oracle` {card.reference.oracle:g}"
    return f"{text}\n- Reference scores (mean return of one episode on the test tasks), the ends of the normalised score: {reference}."


def _cost(weight: float, squares: str = "a^2") -> str:
    return rf" - {weight:g} \sum {squares}" if weight else ""


def _error(solved: TaskFamily) -> str:
    text = ERRORS[solved.card.goal.kind]
    if solved.card.goal.norm == "l1":
        text = "the distance to the goal summed over both axes, in m"
    forces = "; $f$ are the contact forces and torques on all bodies (N, N m), each clipped to [-1, 1]"
    return f"{text}; $a$ is the action{forces if solved.card.reward.contact_cost else ''}"


def _outcome(solved: TaskFamily) -> str:
    text = OUTCOMES[solved.card.goal.kind]
    return text.replace(", $\\sum a^2$", ", $\\sum f^2$, $\\sum a^2$") if solved.card.reward.contact_cost else text


def _variants(solved: TaskFamily) -> str:
    distances = {
        "velocity": "distance of the forward velocity from the value, m/s",
        "position": "distance of the x position from the value, m",
        "direction": "minus the forward velocity in the direction, m/s",
        "flip": "distance of the pitch velocity from the value, rad/s",
        "jump": "distance of the vertical speed, up or down, from the value, m/s",
    }
    rows = []
    for number, variant in enumerate(solved.card.goal.variants):
        error = distances[variant.quantity] + (", divided by the value's magnitude" if variant.relative else "")
        radius = solved.card.reward.radius if variant.radius is None else variant.radius
        rows.append((number, variant.name, variant.base_class, f"{variant.low:g} to {variant.high:g}", error, f"{radius:g}"))
    return _table(("#", "variant", "base class", "values", "$e$", "radius $\\rho$"), rows)


def _tasks(solved: TaskFamily) -> str:
    goal = solved.card.goal
    what = f"A task is {TASKS[goal.kind]}, drawn from [{goal.low:g}, {goal.high:g}] m/s"
    if goal.kind == "planar_goal":
        arc = f"between {math.degrees(goal.low):g} and {math.degrees(goal.high):g} degrees"
        place = "on the circle" if goal.region == "circle" else "in the disc"
        what = f"A task is {TASKS[goal.kind]} {place} of radius {goal.radius:g} m around the origin, {arc}"
    if goal.kind in ("hand_goal", "object_goal"):
        what = f"A task is {TASKS[goal.kind]} in the box " + " x ".join(f"[{low:g}, {high:g}]" for low, high in goal.box)
    if goal.kind == "physics":
        numbers = ", ".join(f"`{name}`" for name in goal.scaled)
        what = f"A task is {TASKS[goal.kind]}, {solved.task_dim} numbers: {numbers}; exponents are drawn from [{goal.low:g}, {goal.high:g}]"
    if goal.kind == "position":
        what = what.removesuffix("/s")
    if goal.kind in ("direction", "multi_task", "meta_world"):
        what = f"A task is {TASKS[goal.kind]}"
    rows = []
    for split in solved.splits:
        tasks = solved.tasks(split)
        ranges = [(tasks.min(), tasks.max())] if solved.scaled else zip(tasks.min(0), tasks.max(0), strict=True)
        spans = ", ".join(f"{low:g} to {high:g}" for low, high in ranges)
        rows.append((split, len(tasks), spans))
    disjoint = "disjoint but for the two directions, which train and test share" if solved.card.tasks.same_tasks else "disjoint"
    outside = "; `ood` tasks lie outside" if "ood" in solved.splits else ""
    text = f"## Tasks\n{what}{outside}. The lists are frozen and {disjoint}."
    if goal.variants:
        text += f"\n\n{_variants(solved)}"
    return f"{text}\n\n{_table(('split', 'tasks', 'smallest to largest, for each entry'), rows)}"


# ---- agents -------------------------------------------------------------------------------------------------------------


def agent_page(name: str, folder: Path) -> str:
    """An agent's page: its parts, how much it trains, its configuration for every budget, and the card."""
    card = load_agent(name)
    shown = resolve_agent(card, SHOWN_FAMILY, "full")
    facts = [("algorithm", f"`{shown.algorithm}`"), ("sees the task", "yes" if shown.task_observable else "no")]
    if card.extends is not None:
        facts.append(("extends", f"[{card.extends}]({card.extends}.md)"))
    solved = SCRIPTED_FAMILY if shown.algorithm == "scripted" else SHOWN_FAMILY
    usage = f"```console\n$ dmrlad-bench run --agent {name} --env DMRLAD/{solved}-v0\n```"
    if shown.algorithm in ("random", "scripted"):
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
