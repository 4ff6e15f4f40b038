"""Bad input is one line and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import refused, shown


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--agent", "dmrald"], ["unknown agent 'dmrald'", "did you mean 'dmrlad'?", "accepted:", "random"]),
        (["--agent", "missing.toml"], ["missing.toml: cannot be read"]),
        (["--agent", "package.module:Class"], ["agent 'package.module:Class': no module named 'package'"]),
        (["--agent", "package.module:"], ["agent 'package.module:': expected package.module:Class"]),
        (["--jobs", "0"], ["jobs: expected at least 1, got 0"]),
        (["--jobs", "-2"], ["jobs: expected at least 1, got -2"]),
        (["--jobs", "all"], ["'--jobs'", "expected a whole number, got 'all'"]),
        (["--env", "CheetahVelSprase"], ["unknown family 'CheetahVelSprase'", "did you mean 'CheetahVelSparse'?", "dmrlad-bench envs"]),
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


def test_references_in_the_wrong_order(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    card = tmp_path / "my.toml"
    card.write_text(
        (Path(__file__).parent.parent / "envs" / "PointGoal.toml").read_text() + "\n[reference]\nrandom = 0.0\nblind = 1.0\noracle = 1.0\n"
    )
    assert "my.toml: key 'reference': oracle must exceed blind, and by more than rounding, got 1.0 and 1.0" in refused(capsys, "envs", card)


def test_resuming_with_another_configuration_names_the_key_before_anything_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["run", "--agent", "random", "--env", "PointGoal", "--quiet", "--device", "cpu", "--out", str(tmp_path), "--threads"]
    before = shown(capsys, *arguments, "1", "--seed", "1")
    changed = [*arguments, "1", "--seed", "0", "--seed", "1", "--resume"]
    message = refused(capsys, *changed, "--set", "schedule.iterations=7")
    assert (
        "seed1/config.toml: cannot resume with another configuration: key 'agent.schedule.iterations' is 501 there, asked for 7" in message
    )
    message = refused(capsys, *changed, "--set", "relabel.kind=random")
    assert "key 'agent.relabel.kind' is 'hfr' there, asked for 'random'" in message
    assert shown(capsys, *arguments, "2", "--seed", "1", "--resume") == before  # threads may differ
    assert [path.name for path in (tmp_path / "PointGoal").iterdir()] == ["random--quick--seed1"]
