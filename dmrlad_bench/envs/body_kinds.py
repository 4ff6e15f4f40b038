"""The bodies that cards may name: those of this package, and anyone's by `package.module:Body`."""

from __future__ import annotations

from dmrlad_bench.cards import CardError, FamilyCard, nearest
from dmrlad_bench.cards.foreign import import_foreign, refusing
from dmrlad_bench.envs.bodies import Body, HalfCheetah, Point
from dmrlad_bench.envs.locomotion import Ant, Hopper, Walker2d
from dmrlad_bench.envs.metaworld import MetaWorld
from dmrlad_bench.envs.sawyer import SAWYER_BODIES

BODIES: dict[str, type[Body]] = {
    "point": Point,
    "half_cheetah": HalfCheetah,
    "hopper": Hopper,
    "walker2d": Walker2d,
    "ant": Ant,
    **SAWYER_BODIES,
    "metaworld": MetaWorld,
}


def body_of(card: FamilyCard) -> type[Body]:
    """The class of a card's body.

    Raises:
        CardError: an unknown name, something that cannot be imported or is no body, or an observation extra that the body lacks.
    """
    body = _imported(card) if ":" in card.body else _packaged(card)
    for extra in card.observation_extras:
        if extra not in body.extras:
            accepted = ", ".join(body.extras) or "none"
            raise CardError(f"{card.id}: key 'observation_extras': body {card.body!r} has no {extra!r}; accepted: {accepted}")
    return body


def _packaged(card: FamilyCard) -> type[Body]:
    if card.body not in BODIES:
        accepted = f"{', '.join(BODIES)}, or package.module:Body"
        raise CardError(f"{card.id}: key 'body': unknown body {card.body!r}{nearest(card.body, BODIES)}; accepted: {accepted}")
    return BODIES[card.body]


def _imported(card: FamilyCard) -> type[Body]:
    module_name, _, name = card.body.partition(":")
    where = f"{card.id}: key 'body': {card.body!r}"
    module = import_foreign(module_name, f"{where}: importing {module_name!r} failed")
    with refusing(where):
        found = getattr(module, name, None)
    if not isinstance(found, type) or not issubclass(found, Body):
        raise CardError(f"{where} is no class derived from dmrlad_bench.envs.bodies.Body")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    missing += [key for key in ("action_dim", "measures") if not hasattr(found, key)]
    if missing:
        raise CardError(f"{where} lacks {', '.join(missing)}")
    return found
