"""Foreign text in figures: in fonts that have its letters, in lines that fit into their room."""

# The stubs of matplotlib leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple
from weakref import WeakSet

from attrib.plot._arrays import notify
from attrib.plot.labels import shortened, visible

__all__ = ["lettered", "need_matplotlib", "printable", "ruler", "within", "wrapped"]

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
# Words with the spaces behind them; where a script has no spaces, a line may end anywhere.
_PIECES = re.compile(r"[\u2e80-\ud7ff\uf900-\ufaff\uff00-\uffef]|[^\s\u2e80-\uffef]+\s*|\s+|.")

# Figures of which it was told that letters are missing.
_told: WeakSet[Any] = WeakSet()


class _Letters(NamedTuple):
    """How a text can be drawn."""

    text: str
    families: tuple[str, ...]
    """Fonts beyond those that matplotlib is set to."""
    missing: str
    """Letters that no font has; another sign stands for them in the text."""


class _Fonts(NamedTuple):
    """What the letters of a text depend on."""

    set: tuple[str, ...]
    """The files of the fonts that matplotlib is set to."""
    known: int
    """How many fonts it knows: one may have been added."""


def need_matplotlib() -> None:
    """Raise an error that names the extra where matplotlib is not installed."""
    try:
        import_module("matplotlib.figure")
    except ImportError as error:
        raise ImportError(
            "attrib.plot draws with matplotlib, which is not installed: pip install 'attrib[plot]'"
        ) from error


def printable(text: object) -> str:
    """Foreign text as a font can show it: fonts have no pictures of control characters."""
    lines = map(visible, str(text).split("\n"))
    return re.sub("[\u2400-\u2421]", _UNKNOWN, "\n".join(lines))


def lettered(text: object, figure: Any) -> tuple[str, dict[str, Any]]:
    """Foreign text and how to draw it: as no formula, in fonts that have its letters.

    What no font has is told once for each figure.

    Args:
        text: Any text.
        figure: Where it is to be drawn.

    Returns:
        What to write, and options of `matplotlib.text.Text`.
    """
    letters = _letters(printable(text), _fonts())
    if letters.missing and figure not in _told:
        _told.add(figure)
        notify(
            f"text: no font that matplotlib finds here has {shortened(letters.missing, 12)!r}, "
            f"shown as {_UNKNOWN}; install a font that does, such as Noto Sans CJK"
        )
    options: dict[str, Any] = {"parse_math": False}
    if letters.families:
        options["fontfamily"] = _with_default(letters.families)
    return letters.text, options


def wrapped(text: object, inches: float, points: float) -> str:
    """Text in lines of at most so many inches, broken between words where that can be."""
    measure = ruler(points)
    return "\n".join(
        line for part in printable(text).split("\n") for line in _lines(part, inches, measure)
    )


def within(text: object, inches: float, points: float) -> str:
    """Text of which every line is shortened in its middle until it fits."""
    measure = ruler(points)
    return "\n".join(_fitting(line, inches, measure) for line in printable(text).split("\n"))


def ruler(points: float) -> Callable[[str], float]:
    """A function that tells the width of printable text in inches, for letters of this size."""
    need_matplotlib()
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    dpi = 100
    renderer, fonts = RendererAgg(10, 10, dpi), _fonts()

    def width(text: str) -> float:
        letters = _letters(text, fonts)
        font = FontProperties(family=_with_default(letters.families), size=points)
        return renderer.get_text_width_height_descent(letters.text, font, False)[0] / dpi

    # Spaces at an end have no width of their own.
    end = width("||")
    return lambda text: width(f"|{text}|") - end if text else 0.0


def _lines(text: str, inches: float, measure: Callable[[str], float]) -> Iterator[str]:
    line = ""
    for piece in _PIECES.findall(text):
        if line and measure((line + piece).rstrip()) > inches:
            yield line.rstrip()
            line = ""
        line += piece
        while len(line) > 1 and measure(line.rstrip()) > inches:  # one word that is too long
            end = _most(len(line), lambda count, of=line: measure(of[:count]) <= inches)
            yield line[:end]
            line = line[end:]
    yield line.rstrip()


def _fitting(line: str, inches: float, measure: Callable[[str], float]) -> str:
    if measure(line) <= inches:
        return line
    return shortened(line, _most(len(line), lambda n: measure(shortened(line, n)) <= inches))


def _most(count: int, fits: Callable[[int], bool]) -> int:
    """How many letters of so many fit, one at least."""
    return max(bisect_left(range(1, count + 1), True, key=lambda n: not fits(n)), 1)


def _fonts() -> _Fonts:
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    families = FontProperties().get_family()
    files = tuple(str(findfont(FontProperties(family=[family]))) for family in families)
    return _Fonts(files, len(fontManager.ttflist))


def _with_default(families: tuple[str, ...]) -> list[str]:
    from matplotlib.font_manager import FontProperties

    return [*FontProperties().get_family(), *families]


@lru_cache(maxsize=4096)
def _letters(text: str, fonts: _Fonts) -> _Letters:
    wanted = [] if text.isascii() else sorted(set(text) - {"\n"})
    strange = [one for one in wanted if not any(_draws(file, one) for file in fonts.set)]
    if not strange:
        return _Letters(text, (), "")
    found = {one: _family_with(one, fonts.known) for one in strange}
    families = tuple(dict.fromkeys(name for name in found.values() if name is not None))
    missing = [one for one, name in found.items() if name is None and one != _UNKNOWN]
    if not missing:
        return _Letters(text, families, "")
    # Marks that only change the letter before them have no sign of their own.
    marks = [one for one in missing if unicodedata.category(one) in ("Cf", "Mn")]
    signs = str.maketrans({one: "" if one in marks else _UNKNOWN for one in missing})
    shown, others, _ = _letters(text.translate(signs), fonts)
    return _Letters(shown, others, "".join(one for one in missing if one not in marks))


@lru_cache(maxsize=4096)
def _family_with(letter: str, count: int) -> str | None:
    """A font that has a letter, among so many that are known: upright ones come first."""
    from matplotlib.font_manager import fontManager

    fonts = sorted(
        fontManager.ttflist[:count], key=lambda font: (font.style != "normal", font.name)
    )
    # The font that is called the last resort has a box with a frame for every letter.
    known = (font for font in fonts if not font.name.lstrip(".").startswith("Last"))
    return next((font.name for font in known if _draws(font.fname, letter)), None)


def _draws(file: str, letter: str) -> bool:
    from matplotlib.font_manager import get_font

    try:
        return bool(get_font(file).get_char_index(ord(letter)))
    except (OSError, RuntimeError):
        return False  # a file that is gone, or is no font after all
