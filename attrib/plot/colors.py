"""Colours of attributions: palettes, the numbers behind full colour, ink that can be read on them.

Needs NumPy only. A palette is a name in `PALETTES`, the name of a colour map of matplotlib, or any
function from numbers in [0, 1] to rows of RGB or RGBA in [0, 1], as colour maps of matplotlib are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from attrib.errors import AttribTypeError, AttribValueError

__all__ = [
    "MAGNITUDES",
    "MISSING",
    "PALETTES",
    "Array",
    "Palette",
    "Sign",
    "contrast",
    "hexadecimal",
    "hexadecimals",
    "ink",
    "inks",
    "keep_sign",
    "limit",
    "luminance",
    "paint",
    "parts_of",
    "unpaint",
]

Array: TypeAlias = NDArray[np.float64]
Sign: TypeAlias = Literal["all", "positive", "negative", "absolute"]
Palette: TypeAlias = str | Callable[[Array], Any]

PALETTES: dict[str, tuple[str, ...]] = {
    # Apart for every kind of colour vision, lightness falls towards both ends.
    "attrib": ("#14549c", "#62a0d8", "#f7f7f7", "#f0a24d", "#a34a00"),
    # ColorBrewer's RdBu, reversed (Harrower and Brewer, 2003, https://colorbrewer2.org).
    "rdbu": (
        *("#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7"),
        *("#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"),
    ),
    # Moreland (2009), https://doi.org/10.1007/978-3-642-10520-3_9
    "coolwarm": (
        *("#3b4cc0", "#6282ea", "#8db0fe", "#b9d0f9", "#dddcdc"),
        *("#f5c4ac", "#f4987a", "#dd5f4b", "#b40426"),
    ),
    # What Captum draws: unreadable for those who do not tell red from green.
    "captum": ("#ff0000", "#ffffff", "#008000"),
}
"""Evenly spaced stops from -1 (lowers the score) over 0 to +1 (raises it)."""

MAGNITUDES: dict[str, tuple[str, ...]] = {
    "attrib": ("#f7f7f7", "#a58fd0", "#4b1d91"),
    "rdbu": ("#f7f7f7", "#a58fd0", "#4b1d91"),
    "coolwarm": ("#dddcdc", "#a58fd0", "#4b1d91"),
    "captum": ("#ffffff", "#0000ff"),
}
"""Evenly spaced stops from 0 to 1, for numbers without a sign: a hue that no sign has."""

MISSING = "#b8b8b8"
"""What stands for a number that is NaN or infinite, under hatching where that can be drawn."""


def keep_sign(values: Array, sign: Sign = "all") -> Array:
    """The entries of one sign, zero in place of the others; or all their sizes."""
    if sign == "positive":
        return np.maximum(values, 0.0)
    if sign == "negative":
        return np.minimum(values, 0.0)
    return np.abs(values) if sign == "absolute" else values


def limit(values: Array, clip: float = 99.0) -> float:
    """The number behind full colour: the size that ``clip`` per cent of the entries do not exceed.

    It is the size of one of the entries, so that among fewer than 100 none is clipped. What is not
    finite does not count. Where so many entries are zero that they would all be clipped, it is the
    largest size, and 1.0 where everything is zero.

    Example:
        >>> limit(np.array([0.1, -0.4, np.nan]))
        0.4
    """
    sizes = np.abs(values[np.isfinite(values)])
    if not sizes.size:
        return 1.0
    found = float(np.percentile(sizes, clip, method="higher")) or float(sizes.max())
    # Dividing by a number below the smallest normal one would overflow.
    return found if found >= np.finfo(np.float64).tiny else 1.0


def paint(
    values: Any, limit: float = 1.0, *, sign: Sign = "all", palette: Palette = "attrib"
) -> Array:
    """The colour of every number, ``(*shape, 3)`` in [0, 1].

    Args:
        values: Numbers, already of the sign that is meant: `keep_sign`.
        limit: The size that gets full colour. What exceeds it gets the same.
        sign: For ``"absolute"`` the colours of magnitudes, else those of signed numbers.
        palette: Which colours; what is not finite gets `MISSING`.

    Example:
        >>> [hexadecimal(colour) for colour in paint([-2.0, 0.0, 1.0], 2.0)]
        ['#14549c', '#f7f7f7', '#f0a24d']
    """
    numbers = np.asarray(values, np.float64)
    share = parts_of(numbers, limit)
    if sign == "absolute":
        colours = _colours(np.abs(share), palette, MAGNITUDES)
    else:
        colours = _colours((share + 1.0) / 2.0, palette, PALETTES)
    return np.where(np.isfinite(numbers)[..., None], colours, unpaint(MISSING))


def parts_of(values: Array, limit: float) -> Array:
    """Numbers as a part of full colour, in [-1, 1]; zero for what is not finite."""
    with np.errstate(over="ignore"):
        return np.maximum(np.minimum(np.where(np.isfinite(values), values, 0.0) / limit, 1.0), -1.0)


def unpaint(colour: str) -> Array:
    """The three numbers in [0, 1] of ``#rrggbb``."""
    return np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255.0


def hexadecimal(colour: Array) -> str:
    """The ``#rrggbb`` of three numbers in [0, 1]."""
    return hexadecimals(colour[None, :3])[0]


def hexadecimals(colours: Array) -> list[str]:
    """The ``#rrggbb`` of every row, ``(colours, 3)``."""
    rows: list[list[int]] = np.rint(255 * colours).astype(np.int64).tolist()
    return ["#{:02x}{:02x}{:02x}".format(*row) for row in rows]


def luminance(colour: Array) -> Array:
    """Relative luminance, ``(*shape, 3) -> (*shape,)`` (WCAG 2.1, https://www.w3.org/TR/WCAG21/)."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def contrast(first: Array, second: Array) -> Array:
    """The contrast ratio of WCAG 2.1, between 1 and 21; text needs 4.5."""
    a, b = luminance(first), luminance(second)
    return (np.maximum(a, b) + 0.05) / (np.minimum(a, b) + 0.05)


def ink(colour: Array) -> str:
    """Black or white, whichever reads better on a colour: a contrast of at least 4.58.

    Example:
        >>> ink(unpaint("#14549c")), ink(unpaint("#f0a24d"))
        ('#ffffff', '#000000')
    """
    return inks(colour[None])[0]


def inks(colours: Array) -> list[str]:
    """The same for every row, ``(colours, 3)``."""
    black, white = np.zeros(3), np.ones(3)
    dark = contrast(colours, black) >= contrast(colours, white)
    return ["#000000" if each else "#ffffff" for each in dark.tolist()]


def _colours(share: Array, palette: Palette, stops: dict[str, tuple[str, ...]]) -> Array:
    """Colours at numbers in [0, 1], ``(*shape, 3)``."""
    if callable(palette):
        return np.asarray(palette(share), np.float64)[..., :3]
    if palette not in stops:
        return _colours(share, _map_of_matplotlib(palette), stops)
    table = [unpaint(stop) for stop in stops[palette]]
    places = np.linspace(0.0, 1.0, len(table))
    channels = [[colour[channel] for colour in table] for channel in range(3)]
    return np.stack([np.interp(share, places, channel) for channel in channels], -1)


def _map_of_matplotlib(palette: Any) -> Callable[[Array], Any]:
    known = ", ".join(map(repr, PALETTES))
    if not isinstance(palette, str):
        raise AttribTypeError(
            f"palette: must be a name or a colour map, got {type(palette).__name__}; pass one of "
            f"{known}, or a colour map of matplotlib or its name",
            code="palette.type",
        )
    try:
        from matplotlib import colormaps
    except ImportError:
        maps: Any = {}
    else:
        maps = colormaps
    if palette not in maps:
        raise AttribValueError(
            f"palette: unknown, got {palette!r}; must be one of {known}, or a colour map of "
            "matplotlib or its name",
            code="palette.unknown",
        )
    return maps[palette]
