"""Cards and overrides that are not what they should be: exit code 2 and one line that names the place, whatever is in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import refused

from dmrlad_bench.cards.reading import nearest

HEAD = 'name = "mine"\ndescription = "d"\nextends = "dmrlad"\n'
LONG = "9" * 5000
DEEP = "[" * 3000 + "]" * 3000
TEXTS = {
    "[family.PointGoal]\nbudget = 5\n": "key 'family.PointGoal.budget'",
    '[family.PointGoal]\nbudget = ["smoke"]\n': "key 'family.PointGoal.budget'",
    "[family.PointGoal.budget]\nsmoke = 3\n": "key 'family.PointGoal.budget.smoke'",
    "[family]\nPointGoal = 3\n": "key 'family.PointGoal'",
    "family = 3\n": "key 'family'",
    '[budget.smoke]\nalgorithm = ["x"]\n': "unknown key 'budget.smoke.algorithm'",
    "[budget.smoke]\ninference = 3\n": "key 'budget.smoke.inference'",
    "[budget]\nsmoke = 3\n": "key 'budget.smoke'",
    "[budget.weird]\nschedule = {}\n": "unknown budget 'weird'",
    "[family.PointGoal.budget.weird]\nschedule = {}\n": "unknown budget 'weird'",
    "schedule = 3\n": "key 'schedule'",
    f"[schedule]\niterations = {LONG}\n": "not valid TOML",
    f"[schedule]\niterations = {DEEP}\n": "nested too deeply",
    "[like]\nPointGoal = 3\n": "key 'like.PointGoal'",
    "[schedule]\niterations = 2020-01-01\n": "key 'schedule.iterations'",
    "[schedule]\niterations = nan\n": "key 'schedule.iterations'",
    "[schedule]\niterations = true\n": "key 'schedule.iterations'",
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_card_is_refused_in_one_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(HEAD + text)
    message = refused(capsys, "agents", path, "--env", "PointGoal", "--budget", "smoke")
    assert "mine.toml" in message and TEXTS[text] in message and len(message) < 1000


def test_a_parent_s_fault_is_the_parent_s_also_under_anyone_s_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "parent.toml").write_text('name = "parent"\ndescription = "d"\nextends = "dmrlad"\n[budget.smoke]\nschedule = 7\n')
    child = 'name = "child"\ndescription = "d"\nextends = "parent.toml"\nalgorithm = "external"\nimport_path = "some:Class"\n'
    (tmp_path / "child.toml").write_text(child)
    assert "parent.toml: key 'budget.smoke.schedule'" in refused(capsys, "agents", tmp_path / "child.toml", "--budget", "smoke")


@pytest.mark.parametrize("extends", ["a\\u0000b.toml", "missing.toml", "/", "."])
def test_a_parent_that_no_file_can_be(extends: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text(f'name = "mine"\ndescription = "d"\nextends = "{extends}"\n')
    assert refused(capsys, "agents", tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (f"schedule.iterations={LONG}", "--set schedule.iterations: not valid TOML"),
        (f"actor_critic.hidden={DEEP}", "nested too deeply"),
        ("lr=3", "unknown key 'lr' (did you mean 'inference.learning_rate' or 'actor_critic.learning_rate'?)"),
        ("relabel.tempratur=3", "(did you mean 'relabel.temperature'?)"),
        ("kl=3", "unknown key 'kl'"),
        ("zzz=3", "unknown key 'zzz'; all keys: dmrlad-bench agents NAME"),
        ("schedule.iterations", "expected key=value"),
    ],
)
def test_an_override_is_refused_in_one_line(override: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "agents", "dmrlad", "--set", override)
    assert expected in message and len(message) < 400


def test_names_are_suggested_by_initials_parts_and_slips() -> None:
    keys = ("inference.learning_rate", "relabel.kind", "actor_critic.risk", "actor_critic.discount", "relabel.temperature")
    assert nearest("lr", keys) == " (did you mean 'inference.learning_rate'?)"
    assert nearest("temp", keys) == " (did you mean 'relabel.temperature'?)"
    assert nearest("discuont", keys) == " (did you mean 'actor_critic.discount'?)"
    assert nearest("xyz", keys) == ""
