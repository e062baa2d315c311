"""What every way to show coloured text needs to know of it."""

from __future__ import annotations

import math
from typing import NamedTuple

from attrib.plot._heat import Heat, colours, share
from attrib.plot.colors import hexadecimals, inks, paint
from attrib.plot.labels import plain, signed
from attrib.plot.words import is_special

__all__ = ["FAINT", "Passage", "Word", "gap_between", "heading", "words_of"]

FAINT = 0.02  # of full colour: what is weaker has none


class Passage(NamedTuple):
    """A text, its attributions on a scale, and facts of it to be told beside it."""

    words: list[str]
    heat: Heat
    facts: tuple[tuple[str, str], ...]


class Word(NamedTuple):
    """A token and how it looks."""

    text: str
    value: float
    """Zero where not finite."""
    number: str
    part: float
    """Of full colour, in [-1, 1]."""
    ground: str
    ink: str
    line: str
    """The colour of the line below, which is solid where the score is raised."""
    special: bool
    broken: bool


def words_of(passage: Passage) -> list[Word]:
    """All tokens of a text."""
    heat = passage.heat
    parts, grounds = share(heat), colours(heat)
    write = plain if heat.sign == "absolute" else signed
    lines = hexadecimals(paint([-1.0, 1.0], sign=heat.sign, palette=heat.palette))
    painted = zip(hexadecimals(grounds), inks(grounds), strict=True)
    return [
        Word(
            text=text,
            value=value if math.isfinite(value) else 0.0,
            number=write(value) if math.isfinite(value) else "not finite",
            part=part,
            ground=ground,
            ink=ink,
            line=lines[int(part > 0)],
            special=is_special(text),
            broken=not math.isfinite(value),
        )
        for text, value, part, (ground, ink) in zip(
            passage.words, heat.values.tolist(), parts.tolist(), painted, strict=True
        )
    ]


def gap_between(words: list[str]) -> str:
    """What stands between tokens: nothing where they have spaces of their own."""
    spaced = any(word != word.strip(" \n\t") and word.strip() for word in words)
    return "" if spaced else " "


def heading(passage: Passage) -> str:
    """The facts of a text in one line."""
    return " · ".join(f"{name} {fact}" for name, fact in passage.facts)
