"""Coloured text as a figure: lines are broken where the width ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from attrib.plot._arrays import notify
from attrib.plot._canvas import (
    GREY,
    SMALL,
    Room,
    inches_of,
    pictures,
    write,
)
from attrib.plot._lettering import printable, ruler
from attrib.plot._passages import FAINT, Passage, Word, gap_between, heading, words_of
from attrib.plot._strips import scale_room, shared_scale
from attrib.plot.labels import shortened

# The stubs of matplotlib leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw"]

_POINTS = 10.0  # size of the letters
_LINE = 0.27  # inches from line to line
_MOST = 800  # tokens
_WIDTH = 7.6  # inches


class _Placed(NamedTuple):
    """A piece of text, from the left and from the top in inches."""

    text: str
    left: float
    top: float
    width: float
    word: Word | None


def draw(passages: tuple[Passage, ...], title: str | None, scale: bool, ax: Any = None) -> Figure:
    """The texts below one another."""
    width = _WIDTH if ax is None else inches_of(ax)[0]
    placed, height = _layout(passages, width)
    unit = passages[0].heat.unit if passages else ""
    room = Room(strip=scale_room(unit, width) * scale)
    figure, (axes,), strip = pictures(ax, 1, 1, (width, height), room, title)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for piece in placed:
        _draw_piece(axes, piece)
    if strip is not None and passages:
        shared_scale(strip, passages[0].heat)
    return figure


def _layout(passages: tuple[Passage, ...], width: float) -> tuple[list[_Placed], float]:
    measure = ruler(_POINTS)
    placed: list[_Placed] = []
    top, left_over = 0.06, _MOST
    for passage in passages:
        if passage.facts:
            placed.append(_Placed(heading(passage), 0.0, top, width, None))
            top += 0.85 * _LINE
        words = words_of(passage)[:left_over]
        left_over -= len(words)
        space = measure(" ") if gap_between(passage.words) else 0.0
        left = 0.0
        for word in words:
            for number, line in enumerate(word.text.split("\n")):
                if number:
                    left, top = 0.0, top + _LINE
                text = shortened(printable(line), 60)
                length = measure(text)
                if left and left + length > width:
                    left, top = 0.0, top + _LINE
                placed.append(_Placed(text, left, top, length, word))
                left += length + max(space, 0.03)
        top += 1.35 * _LINE
    if not left_over:
        notify(f"tokens: a figure shows {_MOST} of them; the view as HTML has all")
    return placed, top


def _draw_piece(axes: Any, piece: _Placed) -> None:
    from matplotlib.patches import Rectangle

    word = piece.word
    middle = piece.top + _LINE / 2
    if word is None:
        write(axes, 0.0, middle, piece.text, va="center", fontsize=SMALL + 0.5, color=GREY)
        return
    options: Any = {"va": "center", "fontsize": _POINTS}
    coloured = word.broken or abs(word.part) >= FAINT
    if coloured:
        low, high = piece.top + 0.035, _LINE - 0.07
        face = {"facecolor": word.ground, "linewidth": 0}
        hatched: Any = {"hatch": "/////", "edgecolor": "#777777"} if word.broken else {}
        axes.add_patch(
            Rectangle((piece.left - 0.012, low), piece.width + 0.024, high, **face, **hatched)
        )
        style = "-" if word.part > 0 else (0, (2.5, 1.5))
        below = [piece.top + _LINE - 0.03] * 2
        if not word.broken:
            ends = [piece.left - 0.01, piece.left + piece.width + 0.01]
            axes.plot(ends, below, color=word.line, linewidth=1.5, linestyle=style)
    style_of = "italic" if word.special else "normal"
    colour = word.ink if coloured else "#000000"
    write(axes, piece.left, middle, piece.text, color=colour, fontstyle=style_of, **options)
