"""The wheel: cards travel in it, and an environment is made from it in another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import dmrlad_bench

ROOT = Path(__file__).parent.parent
SCRIPT = """
import pathlib, sys
import gymnasium, dmrlad_bench
from dmrlad_bench.cards import agent_names, load_agent, register_folder
assert pathlib.Path(dmrlad_bench.__file__).is_relative_to(sys.argv[1]), dmrlad_bench.__file__
assert "_registers" in str(register_folder("envs"))
environment = gymnasium.make(dmrlad_bench.families()[0])
observation, _ = environment.reset(seed=0)
assert environment.observation_space.contains(observation)
for name in agent_names():
    load_agent(name)
print(len(dmrlad_bench.families()), len(agent_names()))
"""


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of what is published, so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("dmrlad_bench", "agents", "envs", "leaderboards", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_module_and_card(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dmrlad_bench").rglob("*.py")}
    cards = {f"dmrlad_bench/_registers/{kind}/{path.name}" for kind in ("agents", "envs") for path in (ROOT / kind).glob("*.toml")}
    assert cards
    boards = (path for path in (ROOT / "leaderboards").rglob("*") if path.is_file())
    cards |= {f"dmrlad_bench/_registers/{path.relative_to(ROOT).as_posix()}" for path in boards}
    assert modules | cards <= held
    assert not [name for name in held if name.startswith(("tests", "docs"))]


def test_the_installed_wheel_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(site)], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    families, agents = map(int, done.stdout.split())
    assert (families, agents) == (len(list((ROOT / "envs").glob("*.toml"))), len(list((ROOT / "agents").glob("*.toml"))))


def test_versions_agree() -> None:
    assert project()["version"] == dmrlad_bench.__version__


def test_constraints_pin_every_dependency() -> None:
    content = project()
    extras = content["optional-dependencies"]
    assert isinstance(extras, dict)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    wanted = [*content["dependencies"], *(entry for extra in extras.values() for entry in extra)]  # pyright: ignore[reportGeneralTypeIssues]
    for entry in wanted:
        name = entry.partition(">")[0].partition("=")[0].strip().lower()
        assert name in pinned, name
