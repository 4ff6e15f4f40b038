"""The floors: {protocol | cards} <- {envs | agents | reports} <- harness <- cli, and who may import what."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

import dmrlad_bench

PACKAGE = Path(dmrlad_bench.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "_registers" not in path.parts)
# room -> rooms of the package that it may import
ROOMS = {
    "protocol.py": set(),
    "cards": {"protocol", "cards"},
    "envs": {"protocol", "cards", "envs"},
    "agents": {"protocol", "cards", "agents"},
    "reports": {"protocol", "cards", "reports"},
    "harness": {"protocol", "cards", "envs", "agents", "reports", "harness"},
    "cli": {"protocol", "cards", "envs", "agents", "reports", "harness", "cli"},
}
SIMULATORS = {"gymnasium", "mujoco", "metaworld"}
LEARNERS = {"torch"}
FORBIDDEN = {"cards": SIMULATORS | LEARNERS, "envs": LEARNERS, "reports": SIMULATORS | LEARNERS, "agents": SIMULATORS}


def imported(path: Path) -> set[str]:
    """Every module that a file imports anywhere, inside functions and for type checking too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}; imports are absolute here"
            module = node.module or ""
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    room = path.relative_to(PACKAGE).parts[0]
    if room not in ROOMS:  # the package's own __init__ and __main__ stand above all floors
        return
    for name in imported(path):
        parts = name.split(".")
        assert parts[0] not in FORBIDDEN.get(room, set()), f"{room} must not import {name}"
        if parts[0] == "dmrlad_bench" and len(parts) > 1:
            assert parts[1] in ROOMS[room], f"{room} must not import {name}"


def test_every_room_is_listed():
    rooms = {path.relative_to(PACKAGE).parts[0] for path in FILES if path.parent != PACKAGE}
    assert rooms == {room for room in ROOMS if not room.endswith(".py")}


def test_no_module_of_the_reports_is_imported_in_a_circle():
    names = {f"dmrlad_bench.reports.{path.stem}": path for path in FILES if path.parent.name == "reports"}
    graph = {}
    for name, path in names.items():
        at_once = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
        graph[name] = {node.module for node in at_once} & names.keys()
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index("dmrlad_bench.reports.estimates") < order.index("dmrlad_bench.reports.comparison")
    assert "dmrlad_bench.reports.comparison" not in graph["dmrlad_bench.reports.leaderboard"]
