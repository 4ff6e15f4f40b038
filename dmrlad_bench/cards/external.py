"""Anyone's agent, named `package.module:Class`: what stands for its card, and the keys of a configuration that it has."""

from __future__ import annotations

import re
from typing import Any

from dmrlad_bench.cards.reading import CardError, CardModel

EXTERNAL = "external"
SCHEDULED_AS = "dmrlad"  # whose schedule such an agent gets: as many environment steps on every family and budget
IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
# section -> the keys that the harness itself reads; what is left are the parts of this package's learners
EXPLORATION_KEYS = frozenset({"initial_iterations"})
LEARNERS_SCHEDULE_KEYS = frozenset({"reconstruction_updates", "policy_updates", "replay_trials"})
GENERAL_KEYS = ("name", "algorithm", "import_path", "track", "task_observable", "description")


def card_content(import_path: str) -> dict[str, Any]:
    """The content of the card that `package.module:Class` stands for.

    Raises:
        CardError: not of that form.
    """
    check_import_path(import_path, f"agent {import_path!r}")
    name = kebab_case(import_path.partition(":")[2])
    return {"name": name, "description": f"The class {import_path}.", "algorithm": EXTERNAL, "import_path": import_path}


def check_import_path(import_path: str, where: str) -> None:
    """Raises `CardError` where `import_path` is not of the form `package.module:Class`."""
    if not IMPORT_PATH.fullmatch(import_path):
        raise CardError(f"{where}: expected package.module:Class, as my_agents.linear:LinearAgent")


def kebab_case(class_name: str) -> str:
    """`MyHTTPAgent2` -> `my-http-agent2`: the name of the agent and of its run folders."""
    words = re.findall(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z][a-z0-9]*|[0-9]+", class_name)
    return "-".join(word.lower() for word in words) or "agent"


def applicable(content: dict[str, Any]) -> dict[str, Any]:
    """What of a configuration's content concerns an agent of anyone's: its name, and how much is collected and evaluated."""
    kept = {key: content[key] for key in GENERAL_KEYS if key in content}
    if "exploration" in content:
        kept["exploration"] = {key: value for key, value in content["exploration"].items() if key in EXPLORATION_KEYS}
    if "schedule" in content:
        kept["schedule"] = {key: value for key, value in content["schedule"].items() if key not in LEARNERS_SCHEDULE_KEYS}
    return kept


def given(model: CardModel) -> dict[str, Any]:
    """What was given to a model, its defaults left out; sections are dicts of keys."""
    values = {key: getattr(model, key) for key in model.model_fields_set}
    return {key: given(value) if isinstance(value, CardModel) else value for key, value in values.items() if value is not None}


def inapplicable_key(content: dict[str, Any]) -> str | None:
    """The first given key that an agent of anyone's does not have, as `section.key`; None where there is none."""
    kept = applicable(content)
    for key, value in content.items():
        if key not in kept:
            return key
        for inner in value if isinstance(value, dict) else ():
            if inner not in kept[key]:
                return f"{key}.{inner}"
    return None
