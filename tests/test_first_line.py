"""The first line of `run`: there before torch or a simulator is imported, and true."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from program import PATIENCE, shown

import dmrlad_bench
from dmrlad_bench.cli import main
from dmrlad_bench.harness.api import draft
from dmrlad_bench.harness.expected import announcement, iterations, training_steps

NOTING = """
import sys

class Noting:
    def __init__(self, stream):
        self.stream, self.loaded = stream, None
    def write(self, text):
        if self.loaded is None:
            self.loaded = sorted({"torch", "mujoco", "metaworld", "tensorboard"} & set(sys.modules))
        return self.stream.write(text)
    def __getattr__(self, name):
        return getattr(self.stream, name)

sys.stderr = noting = Noting(sys.stderr)
from dmrlad_bench.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
import json
noting.stream.write("loaded " + json.dumps([noting.loaded, "torch" in sys.modules]))
"""


def test_it_is_there_before_torch(tmp_path: Path) -> None:
    command = [
        "run",
        "--agent",
        "random",
        "--env",
        "CheetahVelSparse",
        "--budget",
        "smoke",
        "--out",
        str(tmp_path),
        "--threads",
        "1",
        "--set",
        "schedule.final_tasks=1",
    ]
    done = subprocess.run([sys.executable, "-c", NOTING, *command], capture_output=True, text=True, timeout=PATIENCE)
    first, *_, last = done.stderr.splitlines()
    assert first == (
        "CheetahVelSparse random seed 0: budget smoke, scoring only; 1 thread of torch, 1 of the simulation; "
        f"run folder: {tmp_path}/CheetahVelSparse/random--smoke--seed0"
    )
    assert json.loads(last.partition("loaded ")[2]) == [[], True]


@pytest.mark.parametrize(("agent", "env"), [("dmrlad", "PointGoal"), ("rl2", "PointGoalSparse")])
def test_it_promises_the_steps_that_are_lived(tmp_path: Path, capsys: pytest.CaptureFixture[str], agent: str, env: str) -> None:
    run = dmrlad_bench.train(agent, env, budget="smoke", device="cpu", threads=1, out=tmp_path)
    result = run.result
    first, second = capsys.readouterr().err.splitlines()[:2]
    assert f"{result.iterations} iterations, up to {result.environment_steps} environment steps; 1 thread" in first
    assert first.endswith(f"run folder: {run.folder}")
    assert second.startswith(f"{env} {agent} seed 0: iteration 1/{result.iterations}: collecting, up to ")


def test_steps_of_the_published_budgets() -> None:
    """Initial iterations visit every task, later ones some; counted by hand from the cards."""
    quick = draft("dmrlad", "CheetahVelSparse", budget="quick", device="cpu").drafted
    card, schedule = quick.family, quick.agent.schedule
    assert iterations(quick.agent) == schedule.iterations == 50
    initial = quick.agent.exploration.initial_iterations
    assert (card.horizon, len(card.tasks.train), initial, schedule.episodes_per_trial) == (200, 50, 1, 2)
    assert training_steps(quick.agent, card) == 50 * 2 * 200 + 49 * 10 * 2 * 200
    random = draft("random", "CheetahVelSparse", budget="quick", device="cpu").drafted
    assert training_steps(random.agent, random.family) == 0


def test_a_matrix_has_one_and_one_table_at_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "--agent", "random", "--env", "PointGoal", "--seed", "0", "--seed", "1", "--budget", "smoke", "--threads", "1"]
    command += ["--device", "cpu", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 0
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert lines[0] == f"2 runs: budget smoke, scoring only; 1 thread of torch, 1 of the simulation each; in {tmp_path}"
    ended = [line for line in lines if ": finished after 0:00:0" in line]
    assert [line.partition(": ")[0] for line in ended] == [f"{tmp_path}/PointGoal/random--smoke--seed{seed}" for seed in (0, 1)]
    assert printed.out.count("┏") == 1
    assert printed.out.startswith("all runs: ")
    again = shown(capsys, *command)
    assert again == printed.out  # both are taken as they are
    assert shown(capsys, *command, "--quiet") == printed.out


def test_quiet_leaves_one_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "--agent", "random", "--env", "PointGoal", "--budget", "smoke", "--device", "cpu", "--quiet", "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        main(command)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.count("┏") == 1
    assert printed.out.splitlines()[0] == "random on DMRLAD/PointGoal-v0, budget smoke, seed 0, 0 steps"


def test_a_folder_with_markup_in_its_name_is_printed_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x[/y][b]"
    command = ["run", "--agent", "random", "--env", "PointGoal", "--budget", "smoke", "--device", "cpu", "--out", out]
    assert f"run folder: {out}/PointGoal/random--smoke--seed0\n" in shown(capsys, *command)
    assert f"run folders: {out}\n" in shown(capsys, *command, "--seed", "0", "--seed", "1")


def test_nothing_is_announced_where_all_has_finished(tmp_path: Path) -> None:
    drafted = draft("random", "PointGoal", budget="smoke", device="cpu", out=tmp_path)
    plans = {drafted.folder: drafted.drafted}
    assert announcement(plans) is not None
    drafted.folder.mkdir(parents=True)
    (drafted.folder / "result.json").touch()
    assert announcement(plans) is None
