"""A page for each task family, from its card."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

from markup import card_listing, flowing, page, python, table

from dmrlad_bench.envs.bodies import STEP_OF_THE_POINT, Body, MujocoBody, Point
from dmrlad_bench.envs.family import TaskFamily, family
from dmrlad_bench.envs.metaworld import MetaWorld
from dmrlad_bench.envs.sawyer import Sawyer

PICTURES = Path(__file__).resolve().parent / "pictures"  # made by pictures.py

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
    return page(
        name,
        flowing(card.description),
        table(("", ""), facts),
        python(f'import dmrlad_bench\nimport gymnasium\n\nenv = gymnasium.make("{card.id}", split="train")'),
        _spaces(solved),
        _reward(solved),
        _tasks(solved),
        f"## Source\n{flowing(card.source)}",
        f"## Versions\n`v{card.version}` is the version that this package holds. Whatever changes a family's results makes a new version.",
        card_listing("envs", name, folder),
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
    about = flowing(inspect.getdoc(type(body)) or "")
    pictured = (PICTURES / f"{solved.card.body}.png").exists()
    parts = [
        f"## Body, observations and actions\n{about}",
        f"![The body with the marker that shows a task](../../pictures/{solved.card.body}.png)" if pictured else "",
        f"An observation is {solved.observation_dim} numbers, float64; `task_observable=True` appends the task.",
        table(("#", "observation", "unit"), [(number, *entry) for number, entry in enumerate(observation)]),
        f"An action is {solved.action_dim} numbers in [-1, 1]; whatever lies outside is clipped.",
        table(("#", "action", "at 1"), [(number, *entry) for number, entry in enumerate(action)]),
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
        return f"{text}\n- Reference scores of `blind` and `oracle`, the ends of the normalised score, are not on the card yet."
    reference = f"`blind` {card.reference.blind:g}, `oracle` {card.reference.oracle:g}, and beside them `random` {card.reference.random:g}"
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
    return table(("#", "variant", "base class", "values", "$e$", "radius $\\rho$"), rows)


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
    return f"{text}\n\n{table(('split', 'tasks', 'smallest to largest, for each entry'), rows)}"
