"""Coloured text as HTML that every notebook shows, also one that is not trusted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np

from attrib.plot._heat import Heat, ends
from attrib.plot._passages import FAINT, Passage, Word, gap_between, words_of
from attrib.plot.colors import hexadecimals, paint
from attrib.plot.labels import plain, shortened, signed
from attrib.plot.markup import Html, element, escaped, join

__all__ = ["fragment"]

_BOX = {
    "background-color": "#ffffff",
    "color": "#000000",
    "font-family": "sans-serif",
    "font-size": "14px",
    "line-height": "1.9",
    "padding": "8px 12px",
}
_SMALL = {"font-size": "12px", "color": "#4a4a4a", "line-height": "1.4"}
_CELL = {
    "text-align": "left",
    "padding": "4px 10px 4px 0",
    "vertical-align": "top",
    "border-top": "1px solid #d9d9d9",
}
_FACT = {**_CELL, "white-space": "nowrap"}


class _Room(NamedTuple):
    """How much of a text is written."""

    tokens: int
    """So many, of largest attribution, have colours; the others are folded together."""
    folded: int
    """Characters of what is folded."""
    letters: int
    """Of one token."""
    texts: int


_EVERYTHING = _Room(2**31, 2**31, 2**31, 2**31)
_ROOMS = (
    _Room(600, 4000, 400, 400),
    _Room(300, 1000, 120, 100),
    _Room(100, 200, 60, 40),
    _Room(40, 0, 40, 10),
)


def fragment(
    passages: tuple[Passage, ...], title: str | None, scale: bool, *, limit: int | None
) -> Html:
    """The view as one element, of at most so many bytes; less and less is written until it fits."""
    rooms = (_EVERYTHING,) if limit is None else _ROOMS
    words = [words_of(passage) for passage in passages[: rooms[0].texts]]
    written = Html("")
    for room in rooms:
        written = _view(passages, words, title, scale, room)
        if limit is None or len(written.encode()) <= limit:
            break
    return written


def _view(
    passages: tuple[Passage, ...],
    words: list[list[Word]],
    title: str | None,
    scale: bool,
    room: _Room,
) -> Html:
    shown = list(zip(passages, words, strict=False))[: room.texts]
    parts: list[Html] = []
    if title is not None:
        parts.append(element("div", element("b", shortened(title, 300))))
    if any(passage.facts for passage, _ in shown):
        parts.append(_table(shown, room))
    else:
        parts += [_paragraph(passage, found, room) for passage, found in shown]
    if len(passages) > len(shown):
        parts.append(element("div", f"… and {len(passages) - len(shown)} more", style=_SMALL))
    if scale and passages:
        parts.append(_legend(passages[0].heat))
    return element("div", *parts, style=_BOX)


def _table(shown: list[tuple[Passage, list[Word]]], room: _Room) -> Html:
    names = list(dict.fromkeys(name for passage, _ in shown for name, _ in passage.facts))
    style = {"text-align": "left", "padding": "2px 10px 2px 0", "font-size": "12px"}
    head = element("tr", *(element("th", name, style=style) for name in [*names, "text"]))
    rows: list[Html] = []
    for passage, words in shown:
        facts = dict(passage.facts)
        cells = [
            element("td", shortened(facts.get(name, ""), 60), style=_FACT, dir="auto")
            for name in names
        ]
        text = _paragraph(passage, words, room)
        rows.append(element("tr", *cells, element("td", text, style=_CELL)))
    table = {"border-collapse": "collapse", "background-color": "#ffffff"}
    return element("table", element("thead", head), element("tbody", *rows), style=table)


def _paragraph(passage: Passage, words: list[Word], room: _Room) -> Html:
    parts = _with_folds(words, gap_between(passage.words), room)
    style = {"white-space": "pre-wrap", "overflow-wrap": "break-word"}
    return element("div", *parts, style=style, dir="auto")


def _with_folds(words: list[Word], gap: str, room: _Room) -> Iterator[Html]:
    sizes = np.array([2.0 if word.broken else abs(word.part) for word in words])
    strong = np.zeros(len(words), bool)
    strong[np.argsort(-sizes, kind="stable")[: room.tokens]] = True
    place = 0
    for kept, group in groupby(range(len(words)), key=lambda n: bool(strong[n])):
        run = [words[n] for n in group]
        if place:
            yield escaped(gap)
        if kept or len(run) < 4:
            yield join(*_between([_token(word, room) for word in run], escaped(gap)))
        else:
            yield _fold(run, gap, room)
        place += len(run)


def _between(parts: list[Html], gap: Html) -> Iterator[Html]:
    for place, part in enumerate(parts):
        if place:
            yield gap
        yield part


def _token(word: Word, room: _Room) -> Html:
    style: dict[str, str] = {}
    if word.broken:
        style = {"border": "1px dashed #333333", "background-color": word.ground, "color": word.ink}
    elif abs(word.part) >= FAINT:
        line = f"2px {'solid' if word.part > 0 else 'dashed'} {word.line}"
        style = {"background-color": word.ground, "color": word.ink, "border-bottom": line}
    if word.special:
        style |= {"font-size": "80%"}
    lines = shortened(word.text, room.letters).split("\n")
    text = join(*_between([escaped(line) for line in lines], join("␊", element("br"))))
    return element("span", text, style=style, title=word.number)


def _fold(run: list[Word], gap: str, room: _Room) -> Html:
    total = signed(sum(word.value for word in run))
    words = gap.join(shortened(word.text, room.letters) for word in run)
    summary = {"display": "inline-block", "color": "#4a4a4a", "cursor": "pointer"}
    return element(
        "details",
        element("summary", f"…{len(run)} tokens, total {total}…", style=summary),
        *([escaped(shortened(words, room.folded))] if room.folded else []),
        style={"display": "inline-block"},
    )


def _legend(heat: Heat) -> Html:
    low, high = ends(heat)
    steps = paint(np.linspace(low, high, 13), heat.limit, sign=heat.sign, palette=heat.palette)
    cells = [
        element("span", "\u00a0\u00a0", style={"background-color": colour})
        for colour in hexadecimals(steps)
    ]
    write = plain if heat.sign == "absolute" else signed
    left = f"lowers {write(low)} " if low < 0 else f"{write(low)} "
    right = f" {write(high)} raises" if high > 0 and heat.sign != "absolute" else f" {write(high)}"
    note = f", {heat.note}" if heat.note else ""
    words = f" ({heat.unit}{note})"
    return element("div", left, *cells, right, words, style={**_SMALL, "padding-top": "6px"})
