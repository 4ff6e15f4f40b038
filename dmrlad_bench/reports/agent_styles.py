"""How agents look in figures: colour, marker and dashes belong to an agent's name, so that it looks the same in every figure.

Eight colours that colour-blind readers tell apart (Okabe and Ito), and beside them marker and dashes, so that no two presets differ by
colour alone in the same family of marks. Other names get theirs by a hash of the name.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#C9B500",  # darker than Okabe and Ito's, which is hard to see as a line on white
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
COLOURS = (BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE)
Dashes = str | tuple[int, tuple[float, ...]]
SOLID, DASHED, DOTTED, MIXED, LONG = "-", (0, (4.0, 1.5)), (0, (1.2, 1.2)), (0, (5.0, 1.2, 1.2, 1.2)), (0, (8.0, 2.0))
OTHER_MARKERS = ("P", "X", "*", "h", "8", "p")
OTHER_DASHES: tuple[Dashes, ...] = (DOTTED, MIXED, LONG)


class Style(NamedTuple):
    """An agent's looks."""

    colour: str
    marker: str
    dashes: Dashes

    @property
    def line(self) -> dict[str, Any]:
        """What a line is drawn with."""
        return {"color": self.colour, "linestyle": self.dashes}

    @property
    def marked(self) -> dict[str, Any]:
        """What a line with marks is drawn with."""
        return {**self.line, "marker": self.marker}


PRESETS: dict[str, Style] = {
    "dmrlad": Style(BLUE, "o", SOLID),
    "dmrlad-plus": Style(VERMILION, "s", SOLID),
    "cemrl": Style(GREEN, "^", SOLID),
    "cemrl-hfr": Style(ORANGE, "v", SOLID),
    "pearl": Style(PURPLE, "D", SOLID),
    "rl2": Style(SKY, "<", SOLID),
    "oracle": Style(BLACK, ">", SOLID),
    "task-posterior": Style(YELLOW, "d", SOLID),
    "dmrlad-no-relabel": Style(BLUE, "v", DASHED),
    "dmrlad-random-relabel": Style(SKY, "^", DASHED),
    "dmrlad-plus-no-probing": Style(VERMILION, "D", DASHED),
    "dmrlad-plus-no-transitions": Style(ORANGE, "s", DASHED),
    "cemrl-hfr-no-norm": Style(GREEN, "o", DASHED),
    "pearl-hfr": Style(PURPLE, ">", DASHED),
    "thompson": Style(BLACK, "d", DASHED),
    "blind": Style(YELLOW, "<", DASHED),
    "random": Style(BLACK, "x", DOTTED),
    "scripted": Style(GREEN, "+", DOTTED),
    "still": Style(SKY, "1", DOTTED),
}


def style_of(agent: str) -> Style:
    """The looks of an agent by its name alone, whoever else is in the figure."""
    if agent in PRESETS:
        return PRESETS[agent]
    number = int.from_bytes(hashlib.sha256(agent.encode()).digest()[:8], "big")
    number, colour = divmod(number, len(COLOURS))
    number, marker = divmod(number, len(OTHER_MARKERS))
    return Style(COLOURS[colour], OTHER_MARKERS[marker], OTHER_DASHES[number % len(OTHER_DASHES)])
