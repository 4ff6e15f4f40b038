"""The program as a user meets it: bad input, interruption, kill and resume, what is printed where."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmrlad_bench.cli import main
from dmrlad_bench.harness.errors import Interrupted, RunFailed

PROGRAM = [sys.executable, "-m", "dmrlad_bench"]
SMOKE = ["run", "--agent", "dmrlad", "--env", "PointGoal", "--budget", "smoke", "--device", "cpu", "--threads", "1"]
PATIENCE = 120.0


def program(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE, **options
    )


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the process has made a file that matches."""
    deadline = time.monotonic() + PATIENCE
    while not list(path.parent.glob(path.name)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Call the program in this process; it must exit with 2 and one line, which is returned."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert caught.value.code == 2, printed.err
    assert printed.out == ""
    assert printed.err.count("\n") == 1, printed.err
    assert printed.err.startswith("dmrlad-bench: error: ")
    return printed.err


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Call the program in this process; it must succeed. Returns standard output."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert caught.value.code == 0, printed.err
    return printed.out


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--agent", "dmrald"], ["unknown agent 'dmrald'", "did you mean 'dmrlad'?", "accepted:", "random"]),
        (["--agent", "missing.toml"], ["missing.toml: cannot be read"]),
        (["--agent", "package.module:Class"], ["agent 'package.module:Class': a class cannot be named", "dmrlad", "path of a TOML file"]),
        (["--env", "CheetahVelSprase"], ["unknown family 'CheetahVelSprase'", "did you mean 'CheetahVelSparse'?", "DMRLAD/PointGoal-v0"]),
        (["--env", "DMRLAD/PointGoal-v9"], ["unknown version of family 'DMRLAD/PointGoal-v9'", "DMRLAD/PointGoal-v0"]),
        (["--budget", "huge"], ["unknown budget 'huge'", "smoke, quick, standard, full"]),
        (["--device", "tpu"], ["unknown device 'tpu'", "auto, cpu, cuda"]),
        (["--seed", "one"], ["'--seed'", "expected a whole number, got 'one'"]),
        (["--seed", "1.5"], ["'--seed'", "expected a whole number, got '1.5'"]),
        (["--seed", "-3"], ["seed: expected a whole number from 0 on, got -3"]),
        (["--threads", "0"], ["threads: expected at least 1, got 0"]),
        (["--set", "schedule.iteration=3"], ["unknown key 'schedule.iteration'", "did you mean 'schedule.iterations'?"]),
        (["--set", "schedule.iterations"], ["--set 'schedule.iterations': expected key=value"]),
        (["--set", "schedule.iterations=few"], ["--set: key 'schedule.iterations'", "integer", "'few'"]),
        (["--set", "schedule.iterations=0"], ["--set: key 'schedule.iterations'", "greater than or equal to 1", "got 0"]),
        (["--out", "/dev/null"], ["/dev/null", "cannot be written"]),
        (["--speed", "9"], ["No such option", "--speed"]),
        (["--seed", "0", "--seed", "0"], ["asked for twice"]),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], fragments: list[str]) -> None:
    defaults = {"--agent": "random", "--env": "PointGoal", "--out": str(tmp_path / "runs")}
    given = [part for name, value in defaults.items() if name not in arguments for part in (name, value)]
    message = refused(capsys, "run", *given, *arguments)
    for fragment in fragments:
        assert fragment in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["evaluate", "nowhere"], "nowhere: not a run folder"),
        (["evaluate"], "Missing argument 'RUN'"),
        (["envs", "Cheeta"], "unknown family 'Cheeta'"),
        (["agents", "dmrlad", "--budget", "tiny"], "unknown budget 'tiny'"),
        (["fly"], "No such command 'fly'"),
    ],
)
def test_bad_input_of_the_other_commands(capsys: pytest.CaptureFixture[str], arguments: list[str], fragment: str) -> None:
    assert fragment in refused(capsys, *arguments)


def test_cuda_without_a_device(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    message = refused(capsys, "run", "--agent", "dmrlad", "--env", "PointGoal", "--device", "cuda", "--out", tmp_path)
    assert "device 'cuda': torch sees no CUDA device here; accepted here: auto, cpu" in message


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        ('name = "mine"\ndescription = "cut of', ["not valid TOML"]),
        (
            'name = "mine"\ndescription = "d"\nextends = "dmrlad"\n[schedule]\niteration = 3\n',
            ["unknown key 'schedule.iteration'", "iterations"],
        ),
        ('name = "mine"\ndescription = "d"\nextends = "dmrlad"\ncolour = "red"\n', ["unknown key 'colour'"]),
        ('name = "mine"\ndescription = "d"\nextends = "dmrlad"\n[relabel]\nkind = "hrf"\n', ["key 'relabel.kind'", "'hfr'", "got 'hrf'"]),
    ],
)
def test_a_bad_agent_card(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, fragments: list[str]) -> None:
    card = tmp_path / "mine.toml"
    card.write_text(content)
    message = refused(capsys, "run", "--agent", card, "--env", "PointGoal", "--out", tmp_path / "runs")
    for fragment in ("mine.toml", *fragments):
        assert fragment in message


def test_a_truncated_family_card(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    card = tmp_path / "Mine.toml"
    whole = (Path(__file__).parent.parent / "envs" / "PointGoal.toml").read_text()
    card.write_text(whole[: len(whole) // 2])
    assert "Mine.toml: not valid TOML" in refused(capsys, "run", "--agent", "random", "--env", card, "--out", tmp_path / "runs")


def test_all_is_checked_before_anything_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    taken = tmp_path / "PointGoalSparse" / "random--quick--seed0"
    taken.mkdir(parents=True)
    (taken / "notes.txt").write_text("keep")
    message = refused(capsys, "run", "--agent", "random", "--env", "PointGoal", "--env", "PointGoalSparse", "--out", tmp_path)
    assert f"{taken}: exists and is not empty; pass --resume" in message
    assert [path.name for path in tmp_path.iterdir()] == ["PointGoalSparse"]
    assert [path.name for path in taken.iterdir()] == ["notes.txt"]


def test_the_matrix_runs_one_after_another_and_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["run", "--agent", "random", "--env", "PointGoal", "--env", "PointGoalSparse", "--seed", "3", "--seed", "4", "--quiet"]
    arguments += ["--threads", "1", "--device", "cpu", "--out", str(tmp_path)]
    first = shown(capsys, *arguments)
    folders = re.findall(r"^run folder: (.*)$", first, re.MULTILINE)
    assert [Path(folder).relative_to(tmp_path).as_posix() for folder in folders] == [
        f"{name}/random--quick--seed{seed}" for name in ("PointGoal", "PointGoalSparse") for seed in (3, 4)
    ]
    table = first[first.index("all runs") :]
    found = [(name, seed) for name, seed in re.findall(r"random *│ DMRLAD/(\w+)-v0 *│ quick *│ *(\d+) │", table)]
    assert found == [(name, seed) for name in ("PointGoal", "PointGoalSparse") for seed in ("3", "4")]
    assert shown(capsys, *arguments, "--resume") == first  # finished runs are shown again


def test_a_run_that_fails_does_not_keep_the_others_from_running(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["run", "--agent", "dmrlad", "--agent", "random", *SMOKE[3:], "--quiet", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--set", "actor_critic.learning_rate=1e30"])
    printed = capsys.readouterr()
    assert caught.value.code == 1
    assert printed.err.count("\n") == 1, printed.err
    assert re.match(r"dmrlad-bench: error: stopped at environment step .*/dmrlad--smoke--seed0/checkpoint-\d{6}\.json$", printed.err)
    assert re.findall(r"^run folder: (.*)$", printed.out, re.MULTILINE) == [f"{tmp_path}/PointGoal/random--smoke--seed0"]
    assert printed.out.count("all runs") == 1


def test_an_interrupt_stops_the_whole_matrix(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def fail_then_interrupt(config: Any, folder: Path, **_: Any) -> None:
        asked.append(config.seed)
        if config.seed == 0:
            raise RunFailed(f"{folder}: stopped")
        raise Interrupted("interrupted: nothing is saved yet")

    monkeypatch.setattr("dmrlad_bench.harness.train.train_run", fail_then_interrupt)
    with pytest.raises(SystemExit) as caught:
        main([*SMOKE, "--out", str(tmp_path), "--seed", "0", "--seed", "1", "--seed", "2"])
    assert (caught.value.code, asked) == (130, [0, 1])
    failed, interrupted = capsys.readouterr().err.splitlines()
    assert failed == f"dmrlad-bench: error: {tmp_path}/PointGoal/dmrlad--smoke--seed0: stopped"
    assert interrupted == "dmrlad-bench: interrupted: nothing is saved yet"


def test_resuming_with_another_configuration_names_the_key_before_anything_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["run", "--agent", "random", "--env", "PointGoal", "--quiet", "--device", "cpu", "--out", str(tmp_path), "--threads"]
    shown(capsys, *arguments, "1", "--seed", "1")
    changed = [*arguments, "1", "--seed", "0", "--seed", "1", "--resume"]
    message = refused(capsys, *changed, "--set", "schedule.iterations=7")
    assert (
        "seed1/config.toml: cannot resume with another configuration: key 'agent.schedule.iterations' is 501 there, asked for 7" in message
    )
    message = refused(capsys, *changed, "--set", "relabel.kind=random")
    assert "key 'agent.relabel.kind' is 'hfr' there, asked for 'random'" in message
    assert "key 'threads' is 1 there, asked for 2" in refused(capsys, *arguments, "2", "--seed", "1", "--resume")
    assert [path.name for path in (tmp_path / "PointGoal").iterdir()] == ["random--quick--seed1"]


def test_cards_of_ones_own_in_another_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards, elsewhere = tmp_path / "cards", tmp_path / "elsewhere"
    cards.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (cards / "base.toml").write_text('name = "base"\ndescription = "d"\nextends = "dmrlad"\n[schedule]\npolicy_updates = 2\n')
    (cards / "mine.toml").write_text('name = "my-agent"\ndescription = "d"\nextends = "base.toml"\n[inference]\nlatent_dim = 2\n')
    published = (Path(__file__).parent.parent / "envs" / "PointGoal.toml").read_text()
    reference = "\n[reference]\nrandom = -40.0\noracle = -8.0\n"
    (cards / "my.toml").write_text(published.replace('name = "PointGoal"', 'name = "MyPointGoal"') + reference)
    printed = shown(capsys, "run", "--agent", "../cards/mine.toml", "--env", "../cards/my.toml", *SMOKE[5:], "--quiet", "--out", "results")
    folder = Path("results/MyPointGoal/my-agent--smoke--seed0")
    assert f"run folder: {folder}" in printed
    assert "my-agent on DMRLAD/MyPointGoal-v0" in printed
    content = json.loads((folder / "result.json").read_bytes())
    last = np.array(content["final"][0]["normalised"])[:, 2].mean()
    assert re.search(rf"│ *3 │.*│ *{last:.3f} │", printed), printed
    config = tomllib.loads((folder / "config.toml").read_text())
    assert (config["agent"]["inference"]["latent_dim"], config["agent"]["schedule"]["policy_updates"]) == (2, 2)
    assert f"│ {last:.3f}" in re.sub(" +", " ", shown(capsys, "evaluate", folder))
    assert "reference.oracle" in shown(capsys, "envs", "../cards/my.toml")


def test_references_in_the_wrong_order(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    card = tmp_path / "my.toml"
    card.write_text((Path(__file__).parent.parent / "envs" / "PointGoal.toml").read_text() + "\n[reference]\nrandom = 1.0\noracle = 1.0\n")
    assert "my.toml: key 'reference': oracle must exceed random, got 1.0 and 1.0" in refused(capsys, "envs", card)


def test_listing_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert "DMRLAD/CheetahVelSparse-v0" in shown(capsys, "envs")
    assert "goal.radius" in shown(capsys, "envs", "DMRLAD/PointGoal-v0")
    assert "random" in shown(capsys, "agents")
    resolved = shown(capsys, "agents", "dmrlad", "--env", "PointGoal", "--budget", "full", "--set", "schedule.iterations=7")
    assert "iterations = 7" in resolved
    assert "[relabel]" in resolved


def test_a_piped_run_prints_plainly(tmp_path: Path) -> None:
    done = program(*SMOKE, "--out", tmp_path, "--profile", env=os.environ | {"FORCE_COLOR": ""})
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "iteration 3/3" in done.stderr
    assert "left" in done.stderr
    assert "wall seconds by phase" in done.stdout
    assert "reconstruct" in done.stdout
    assert done.stdout.rstrip().endswith(f"run folder: {tmp_path}/PointGoal/dmrlad--smoke--seed0")
    again = program("evaluate", tmp_path / "PointGoal" / "dmrlad--smoke--seed0", "--episodes", "2", "--split", "ood")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("│") > 10


def test_interrupt_and_terminate(tmp_path: Path) -> None:
    for number, name in ((signal.SIGINT, "int"), (signal.SIGTERM, "term")):
        process = started(*SMOKE, "--out", tmp_path / name, "--set", "schedule.iterations=100000", "--quiet")
        folder = tmp_path / name / "PointGoal" / "dmrlad--smoke--seed0"
        wait_for(folder / "checkpoint-000002.json", process)
        process.send_signal(number)
        _, printed = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130, printed
        assert printed.count("\n") == 1, printed
        saved = re.match(
            r"dmrlad-bench: interrupted: iteration (\d+) is saved in .*; continue with: dmrlad-bench run .* --resume$", printed
        )
        assert saved, printed
        assert (folder / f"checkpoint-{int(saved[1]):06d}.json").exists()


def test_kill_at_any_moment_and_resume(tmp_path: Path) -> None:
    arguments = [*SMOKE, "--set", "schedule.iterations=12", "--set", "schedule.evaluation_interval=4", "--quiet"]
    whole = program(*arguments, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    folder = tmp_path / "cut" / "PointGoal" / "dmrlad--smoke--seed0"
    for number, delay in ((1, 0.0), (5, 0.05), (9, 0.1)):
        process = started(*arguments, "--out", tmp_path / "cut", "--resume")
        wait_for(folder / f"checkpoint-{number:06d}.*", process)
        time.sleep(delay)
        process.kill()
        process.communicate()
        assert not (folder / "result.json").exists()
    resumed = program(*arguments, "--out", tmp_path / "cut", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert timeless(folder) == timeless(tmp_path / "whole" / "PointGoal" / "dmrlad--smoke--seed0")


def test_a_file_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk; it strikes whichever thread writes."""
    for limit in (1_000, 30_000):

        def limited(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        done = program(*SMOKE, "--out", tmp_path / str(limit), "--quiet", preexec_fn=limited)
        assert done.returncode == 1
        assert re.fullmatch(r"dmrlad-bench: error: stopped: .*: File too large; continue with --resume\n", done.stderr), done.stderr


def test_a_diverging_loss_ends_the_run(tmp_path: Path) -> None:
    done = program(*SMOKE, "--out", tmp_path, "--quiet", "--set", "actor_critic.learning_rate=1e30")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert re.search(r"stopped at environment step \d+: .*loss.*; last checkpoint: .*checkpoint-\d{6}\.json$", done.stderr.strip()), (
        done.stderr
    )


HELP = """
import sys
from dmrlad_bench.cli import main
try:
    main(["--help"])
except SystemExit:
    print(sorted({"torch", "mujoco", "metaworld"} & set(sys.modules)))
"""


def test_help_needs_neither_torch_nor_simulator() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr


def test_doctor() -> None:
    done = program("doctor")
    assert done.returncode == 0, done.stderr
    for what in ("torch", "mujoco", "device", "renderer", "cores"):
        assert what in done.stdout


def timeless(folder: Path) -> dict[str, Any]:
    """The content of `result.json` apart from times and the command."""
    content = json.loads((folder / "result.json").read_bytes())
    del content["wall_seconds"], content["command"]
    for point in content["curve"]:
        del point["seconds"]
    return content
