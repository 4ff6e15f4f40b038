"""The Python functions as a script in another folder uses them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dmrlad_bench

SCRIPT = """
import numpy as np
import dmrlad_bench

class Still:
    def begin_trial(self, num_envs):
        self.num_envs = num_envs

    def act(self, observation, deterministic):
        return np.zeros((self.num_envs, 2))

    def observe(self, transition):
        pass

options = {"seed": 3, "budget": "smoke", "device": "cpu", "threads": 1, "overrides": ["schedule.iterations=2"], "quiet": True}
run = dmrlad_bench.train("dmrlad", "PointGoal", **options)
assert run.finished
for again in map(dmrlad_bench.evaluate, (run, run.folder, "runs/PointGoal/dmrlad--smoke--seed3")):
    np.testing.assert_array_equal(again.returns, run.result.scores().returns)
still = dmrlad_bench.evaluate(Still(), "DMRLAD/PointGoalSparse-v0", episodes=2)
assert still.returns.shape == (20, 2) and not still.success.any()
try:
    dmrlad_bench.train("dmrald")
except ValueError as error:
    print(error)
print(run.folder)
"""


def test_a_script_in_another_folder(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(dmrlad_bench.__file__).parent.parent)}
    done = subprocess.run([sys.executable, script.name], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    error, folder = done.stdout.splitlines()
    assert error.startswith("unknown agent 'dmrald' (did you mean 'dmrlad'?)")
    assert folder == "runs/PointGoal/dmrlad--smoke--seed3"
    assert (tmp_path / folder / "result.json").exists()
