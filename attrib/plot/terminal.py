"""Attributions in a terminal: coloured text, bars, small images."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from attrib._checks import check_count
from attrib.plot._arrays import check_names
from attrib.plot._heat import colours, heat, share
from attrib.plot._passages import FAINT, Passage, Word, gap_between, heading, words_of
from attrib.plot._pixels import Layout, plane
from attrib.plot._rows import estimated
from attrib.plot.colors import Palette, Sign, unpaint
from attrib.plot.labels import aligned, plain, shortened, visible

# The stubs of NumPy leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

__all__ = [
    "bar",
    "coloured_passage",
    "image",
    "marked_passage",
    "plain_text",
    "styled_passage",
    "supports_colour",
]

_END = "\x1b[0m"
_TOLD = 0.1  # of full colour: what is weaker has no number beside it


def supports_colour() -> bool:
    """Whether standard output is a terminal that shows colours, and may (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout.isatty()


def bar(
    names: Sequence[object] | None, attr: Any, *, width: int = 40, max_display: int = 20
) -> str:
    """Bars of characters, full ones to the right of zero, light ones to the left.

    Args:
        names: Of the features, or ``None``.
        attr: ``(features,)``, or an `attrib.Estimate`: twice its standard errors stand behind the
            numbers.
        width: Characters for all bars.
        max_display: How many features, those of largest attribution.

    Returns:
        One line for each feature.

    Example:
        >>> print(bar(["age", "income"], [0.5, -0.25], width=10))
           age      │█████    +0.50
        income    ░░│         −0.25
    """
    check_count(width, "width", least=4)
    check_count(max_display, "max_display")
    values, errors = estimated(attr)
    labels = [
        shortened(visible(n), 24) for n in check_names(names, values.size, "names", "feature")
    ]
    shown = heat(values, sign="all", clip=100.0, scale=None, palette="attrib", unit="attribution")
    kept = np.argsort(-np.abs(np.nan_to_num(values)), kind="stable")[:max_display].tolist()
    widths = [_columns(label) for label in labels]
    longest = max([widths[place] for place in kept] or [0])
    half = width // 2
    lines: list[str] = []
    for place in kept:
        length = round(half * abs(float(share(shown)[place])))
        left, right = ("", "█" * length) if values[place] > 0 else ("░" * length, "")
        number = aligned(float(values[place]), shown.limit)
        spread = "" if errors is None else f" ± {plain(2 * float(errors[place]))}"
        bars = f"{left:>{half}}│{right:<{half}}"
        label = " " * (longest - widths[place]) + labels[place]
        lines.append(f"{label} {bars} {number:>8}{spread}")
    return "\n".join(lines)


def image(
    attr: Any,
    *,
    width: int = 60,
    sign: Sign = "all",
    clip: float = 99.0,
    scale: float | None = None,
    palette: Palette = "attrib",
    layout: Layout | None = None,
) -> str:
    """The heat map of an image in half blocks, two pixels a character, with 24-bit colours.

    Args:
        attr, sign, clip, scale, palette, layout: As for `attrib.plot.image`.
        width: Characters for a line; the map is thinned to it.

    Returns:
        Lines with escape sequences: print them where there are colours.
    """
    check_count(width, "width", least=2)
    values = plane(attr, layout)
    step = -(-values.shape[1] // width)
    shown = heat(values, sign=sign, clip=clip, scale=scale, palette=palette, unit="attribution")
    pixels = colours(shown)[::step, ::step]
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, pixels[-1:]])
    pairs = np.concatenate([pixels[::2], pixels[1::2]], -1)
    line = "\x1b[38;2;%d;%d;%dm\x1b[48;2;%d;%d;%dm▀" * pairs.shape[1] + _END
    return "\n".join([line] * len(pairs)) % tuple(np.rint(255 * pairs).astype(int).flat)


def coloured_passage(passage: Passage) -> str:
    """A text in 24-bit colours; what raises the score is underlined as well."""
    words = [_coloured(word) for word in words_of(passage)]
    return _with_heading(passage, gap_between(passage.words).join(words))


def marked_passage(passage: Passage) -> str:
    """A text with numbers beside the stronger tokens."""
    words = [_marked(word) for word in words_of(passage)]
    return _with_heading(passage, gap_between(passage.words).join(words))


def styled_passage(passage: Passage) -> Any:
    """A text for Rich."""
    from rich.text import Text

    styled = Text(visible(heading(passage)) + "\n" if passage.facts else "")
    for place, word in enumerate(words_of(passage)):
        styled.append(gap_between(passage.words) if place else "")
        line = " underline" if word.part > 0 else ""
        plain = abs(word.part) < FAINT
        styled.append(_shown(word.text), None if plain else f"{word.ink} on {word.ground}{line}")
    return styled


def plain_text(text: str) -> Any:
    """Text for Rich in which nothing is markup."""
    from rich.text import Text

    return Text(visible(text))


def _columns(text: str) -> int:
    """How many columns of a terminal text takes: wide letters take two, marks over others none."""
    marks = sum(unicodedata.combining(letter) != 0 for letter in text)
    return len(text) - marks + sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)


def _with_heading(passage: Passage, body: str) -> str:
    return f"{visible(heading(passage))}\n{body}" if passage.facts else body


def _shown(text: str) -> str:
    # A line break is shown, and obeyed as well.
    return "\n".join(visible(line + "\n") for line in text.split("\n"))[:-1]


def _coloured(word: Word) -> str:
    if abs(word.part) < FAINT and not word.broken:
        return _shown(word.text)
    line = "\x1b[4m" if word.part > 0 else ""
    codes = f"{_code(48, unpaint(word.ground))}{_code(38, unpaint(word.ink))}{line}"
    return f"{codes}{_shown(word.text)}{_END}"


def _marked(word: Word) -> str:
    if abs(word.part) < _TOLD and not word.broken:
        return _shown(word.text)
    # The number goes before the space or the line break that a token ends with.
    body = word.text.rstrip(" \n")
    return f"{_shown(body)}({word.number}){_shown(word.text[len(body) :])}"


def _code(kind: int, colour: Any) -> str:
    return f"\x1b[{kind};2;" + ";".join(str(round(255 * float(part))) for part in colour) + "m"
