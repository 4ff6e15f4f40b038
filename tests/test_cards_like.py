"""`[like]` of an agent card: a family that has another's sections, its own on top."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmrlad_bench.cards import CardError, load_agent, resolve_agent

BASE = """
name = "base"
description = "d"
extends = "dmrlad"

[like]
AntVelSparse = "PointGoal"

[family.PointGoal]
inference = { latent_dim = 7, kl_weight = 0.5 }

[family.PointGoal.budget.quick]
schedule = { iterations = 11 }

[family.AntVelSparse]
inference = { kl_weight = 0.25 }
"""
CHILD = 'name = "child"\ndescription = "d"\nextends = "base.toml"\n'


def write(folder: Path, child: str = "") -> Path:
    (folder / "base.toml").write_text(BASE)
    (folder / "child.toml").write_text(CHILD + child)
    return folder / "child.toml"


def test_a_family_has_the_sections_of_the_one_it_is_like_and_its_own_win(tmp_path: Path) -> None:
    write(tmp_path)
    card = load_agent(tmp_path / "base.toml")
    ant, point = (resolve_agent(card, name, "quick") for name in ("AntVelSparse", "PointGoal"))
    assert (ant.inference.latent_dim, ant.inference.kl_weight, ant.schedule.iterations) == (7, 0.25, 11)
    assert (point.inference.latent_dim, point.inference.kl_weight, point.schedule.iterations) == (7, 0.5, 11)
    assert resolve_agent(card, "AntVelSparse", "full").schedule.iterations == 501
    assert resolve_agent(card, "HopperVelSparse", "quick") == resolve_agent(load_agent("dmrlad"), "HopperVelSparse", "quick").model_copy(
        update={"name": "base", "description": "d"}
    )


def test_what_a_card_says_of_the_other_family_goes_for_the_like_one_in_cards_that_extend(tmp_path: Path) -> None:
    card = load_agent(write(tmp_path, "[family.PointGoal]\ninference = { latent_dim = 2 }\n"))
    assert resolve_agent(card, "AntVelSparse", "quick").inference.latent_dim == 2


def test_an_extending_card_may_say_what_else_a_family_is_like(tmp_path: Path) -> None:
    card = load_agent(write(tmp_path, '[like]\nAntVelSparse = "CheetahVelSparse"\n'))
    ant, cheetah = (resolve_agent(card, name, "quick") for name in ("AntVelSparse", "CheetahVelSparse"))
    assert ant.schedule == cheetah.schedule
    assert ant.inference == cheetah.inference.model_copy(update={"kl_weight": 0.25})


def test_a_family_like_one_that_is_like_a_third_is_refused(tmp_path: Path) -> None:
    card = load_agent(write(tmp_path, '[like]\nHopperVelSparse = "AntVelSparse"\n'))
    with pytest.raises(CardError, match=r"child\.toml: key 'like\.HopperVelSparse': 'AntVelSparse' is itself like 'PointGoal'"):
        resolve_agent(card, "HopperVelSparse", "quick")
