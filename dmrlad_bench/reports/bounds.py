"""What a family's reward terms allow an episode's return to be."""

from __future__ import annotations

import math

from dmrlad_bench.cards import FamilyCard

# Reports know no simulator, so what they need of bodies stands here, held against the classes by a test.
FALLING = ("hopper", "walker2d", "ant")  # may end an episode
ACTION_ENTRIES = {
    **{"point": 2, "half_cheetah": 6, "hopper": 3, "walker2d": 6, "ant": 8},
    **{"sawyer_reach": 4, "sawyer_push": 4, "sawyer_pick_place": 4, "metaworld": 4},
}
HIGHEST_OF_META_WORLD = 10.0  # reward of one step: its reward functions are scaled to it
UNBOUNDED_KINDS = ("direction", "physics")  # of goals: `err` is minus a velocity

Span = tuple[float, float]


def ends_early(card: FamilyCard) -> bool:
    """Whether an episode may end before the horizon, as when the body fell."""
    return card.terminates and (card.body in FALLING or ":" in card.body)


def return_bounds(card: FamilyCard, success: bool | None = None) -> tuple[float | None, float | None]:
    """Lowest and highest return that an episode can have, by the card's reward terms alone; None where nothing bounds it.

    A step inside the radius is worth `inside - error_weight * err` (sparse) or `-err` (dense) with `err` from 0 to the radius, one outside
    `outside` or less than minus the radius; the control cost takes at most its weight times the entries of an action, the contact cost
    something that the card does not say, and the alive bonus is added. These, times the horizon, are the bounds. Where the episode's
    success is known, so many of its steps at least, or at most, lay inside the radius. Where episodes may end early, any number of steps
    from 1 to the horizon may have been lived, and success says nothing.

    Args:
        card: of the family.
        success: of the episode, by the card's rule; None where it is not known.
    """
    inside, outside = _step(card, True), _step(card, False)
    if ends_early(card):
        low, high = min(inside[0], outside[0]), max(inside[1], outside[1])
        return _finite(low * (card.horizon if low < 0 else 1)), _finite(high * (card.horizon if high > 0 else 1))
    counts = [count for known in (True, False) if success in (None, known) for count in _inside_steps(card, known)]
    sums = [
        [_times(count, inside[end]) + _times(card.horizon - count, outside[end]) for count in (min(counts), max(counts))] for end in (0, 1)
    ]
    return _finite(min(sums[0])), _finite(max(sums[1]))


def _inside_steps(card: FamilyCard, success: bool) -> Span:
    """Fewest and most steps inside the radius of a whole episode that succeeded, or that did not."""
    horizon = card.horizon
    needed = math.ceil((horizon - horizon // 2) / 2)  # of the second half
    fewest, most_of_a_failure = {"any": (1, 0), "final": (1, horizon - 1), "fraction": (needed, horizon // 2 + needed - 1)}[card.success]
    return (fewest, horizon) if success else (0, most_of_a_failure)


def _step(card: FamilyCard, inside: bool) -> Span:
    """Lowest and highest reward of a step inside the radius, or outside."""
    terms, kind = card.reward, card.goal.kind
    radii = [terms.radius if variant.radius is None else variant.radius for variant in card.goal.variants] or [terms.radius]
    directed = kind in UNBOUNDED_KINDS or any(variant.quantity == "direction" for variant in card.goal.variants)
    closest = -math.inf if directed else 0.0
    if terms.kind == "sparse":
        weight, cost = terms.error_weight, terms.sparse_control_cost
        low, high = (terms.inside - _times(weight, max(radii)), terms.inside - _times(weight, closest)) if inside else (terms.outside,) * 2
    elif kind == "meta_world":
        low, high, cost = -math.inf, HIGHEST_OF_META_WORLD, terms.dense_control_cost
    else:
        cost = terms.dense_control_cost
        low, high = (-max(radii), -closest) if inside else (-math.inf, -min(radii))
    low -= _times(cost, ACTION_ENTRIES.get(card.body, math.inf)) + (math.inf if terms.contact_cost > 0 else 0.0)
    return low + terms.alive_bonus, high + terms.alive_bonus


def _times(count: float, value: float) -> float:
    return 0.0 if count == 0 else count * value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
