"""What docs/adding-a-family.md shows: a family as one TOML file, and a body in Python that a card names."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from program import PROGRAM

from dmrlad_bench.cards import CardError
from dmrlad_bench.envs.family import family
from dmrlad_bench.envs.single import DMRLADEnv
from dmrlad_bench.harness.run import Run

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"


def in_folder(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([*PROGRAM, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("files", [("PointDiscSparse.toml",), ("CartVel.toml", "cart.py")])
def test_the_documented_families_train(tmp_path, files):
    page = (ROOT / "docs" / "adding-a-family.md").read_text()
    for file in files:
        assert f"examples/{file}" in page
        shutil.copy(EXAMPLES / file, tmp_path)
    command = f"run --agent dmrlad --env {files[0]} --budget smoke"
    assert f"$ dmrlad-bench {command}\n" in page
    done = in_folder(tmp_path, *command.split(), "--threads", "1", "--quiet")
    assert done.returncode == 0, done.stderr
    solved = Run(tmp_path / "runs" / Path(files[0]).stem / "dmrlad--smoke--seed0").result.scores()
    assert np.isfinite(solved.mean_returns).all()
    shown = in_folder(tmp_path, "envs", files[0])
    assert shown.returncode == 0, shown.stderr
    assert Path(files[0]).stem in shown.stdout


def test_a_body_in_python_is_a_body(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(EXAMPLES)
    solved = family(EXAMPLES / "CartVel.toml")
    env = solved.make_vec(3, split="ood")
    observations = [env.reset(seed=0)[0]]
    singles = [DMRLADEnv(solved, split="ood") for _ in range(3)]
    for row, single in enumerate(singles):
        np.testing.assert_array_equal(single.reset(seed=row)[0], observations[0][row])
    for action in np.random.default_rng(0).uniform(-1, 1, (40, 3, 1)):
        observation, reward, _, truncated, info = env.step(action)
        np.testing.assert_array_equal(reward, solved.reward(info["outcome"], info["task"]))
        for row, single in enumerate(singles):
            np.testing.assert_array_equal(single.step(action[row])[0], observation[row])
    assert truncated.all()


BAD_BODIES = [
    ("no_such_module:Cart", r"importing 'no_such_module' failed: ModuleNotFoundError"),
    ("cart:Wagon", r"'cart:Wagon' is no class derived from dmrlad_bench.envs.bodies.Body"),
    ("cart:FORCE", r"is no class derived from"),
    ("half_body:Half", r"'half_body:Half' lacks initial_state, measure, observation_dim, observe, step, measures"),
    ("broken:Cart", r"importing 'broken' failed: ZeroDivisionError: division by zero"),
    ("half_cheeta", r"unknown body 'half_cheeta' \(did you mean 'half_cheetah'\?\); accepted: .*, or package.module:Body"),
]


@pytest.mark.parametrize(("body", "message"), BAD_BODIES)
def test_bad_bodies_are_one_clear_line(monkeypatch, tmp_path, body, message):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "half_body.py").write_text("from dmrlad_bench.envs.bodies import Body\nclass Half(Body):\n    action_dim = 1\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    card = tmp_path / "CartVel.toml"
    card.write_text((EXAMPLES / "CartVel.toml").read_text().replace("cart:Cart", body))
    with pytest.raises(CardError, match=message) as caught:
        family(card)
    assert "\n" not in str(caught.value)
