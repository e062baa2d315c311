"""Tables of numbers as colours: tokens by tokens, classes by classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attrib.errors import AttribValueError
from attrib.plot._arrays import check_names, numbers, shape
from attrib.plot._canvas import (
    SMALL,
    charts,
    inches_of,
    name_axes,
    name_ticks,
    write,
)
from attrib.plot._heat import Heat, colours, heat
from attrib.plot._lettering import printable
from attrib.plot._shapes import paint_table
from attrib.plot._strips import colour_scale
from attrib.plot.colors import Array, Palette, Sign, inks
from attrib.plot.labels import aligned, plain

# The stubs of NumPy leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["aligned_in", "cells", "confusion", "table_size", "tokens2d"]

_CELL = (0.54, 0.32)  # inches
_LONGEST = 20  # characters of a name
_LARGEST = (11.0, 9.0)


def tokens2d(
    inputs: Sequence[object],
    outputs: Sequence[object],
    matrix: Any,
    *,
    sign: Sign = "all",
    clip: float = 99.0,
    scale: float | None = None,
    palette: Palette = "attrib",
    unit: str = "attribution",
    title: str | None = None,
    colorbar: bool = True,
    ax: Any = None,
) -> Figure:
    """What every output token owes to every input token.

    Cells hold their number where it fits.

    Args:
        inputs: The input tokens, along the top.
        outputs: The output tokens, from top to bottom.
        matrix: ``(outputs, inputs)``.
        sign, clip, scale, palette, unit, title, colorbar, ax: As for `attrib.plot.image`.

    Returns:
        The figure.

    Raises:
        AttribError: If there are not as many rows and columns as tokens.

    Warns:
        PlotWarning: If the picture shows less than it seems to.

    Example:
        >>> figure = tokens2d(["a", "cat"], ["sat"], [[0.1, 0.8]])
    """
    values = numbers(matrix, "matrix")
    if values.shape != (len(outputs), len(inputs)):
        raise AttribValueError(
            f"matrix: a row for each output and a column for each input, got shape "
            f"{shape(values)} for tokens {(len(outputs), len(inputs))}; pass (outputs, inputs)",
            code="matrix.shape",
        )
    shown = heat(
        values, sign=sign, clip=clip, scale=scale, palette=palette, unit=unit, name="matrix"
    )
    figure, panels = charts(ax, 1, *table_size(values, outputs, inputs), title)
    cells(panels[0], shown, outputs, inputs, aligned_in(shown))
    if colorbar:
        colour_scale(panels[0], shown)
    return figure


def confusion(
    matrix: Any,
    classes: Sequence[object] | None = None,
    *,
    normalise: bool = False,
    palette: Palette = "attrib",
    title: str | None = None,
    colorbar: bool = True,
    ax: Any = None,
) -> Figure:
    """How often each class was taken for each.

    Args:
        matrix: Counts, ``(true classes, predicted classes)``; shares will do.
        classes: Their names.
        normalise: Whether to divide every row by its sum.
        palette, title, colorbar, ax: As for `attrib.plot.image`.

    Returns:
        The figure.

    Raises:
        AttribError: If the matrix is not square, or there are not as many names.

    Warns:
        PlotWarning: If there is nothing to show.

    Example:
        >>> figure = confusion([[8, 1], [2, 9]], ["cat", "dog"])
    """
    values = numbers(matrix, "matrix")
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise AttribValueError(
            f"matrix: must be square, got shape {shape(values)}; pass counts (true, predicted)",
            code="matrix.shape",
        )
    names = check_names(classes, len(values), "classes", "class")
    finite = values[np.isfinite(values)]
    unit = "count" if bool((finite == np.round(finite)).all()) else "share"
    if normalise:
        sums = values.sum(1, keepdims=True)
        values, unit = values / np.where(sums == 0, 1.0, sums), "share of the true class"
    shown = heat(
        values, sign="absolute", clip=100.0, scale=None, palette=palette, unit=unit, name="matrix"
    )
    figure, panels = charts(ax, 1, *table_size(values, names, names), title)
    tell = "{:.0f}".format if unit == "count" else plain
    cells(panels[0], shown, names, names, lambda place: tell(float(values[place])))
    name_axes(panels[0], x="predicted", y="true")
    panels[0].xaxis.set_label_position("top")
    if colorbar:
        colour_scale(panels[0], shown)
    return figure


def cells(
    axes: Any,
    heat: Heat,
    rows: Sequence[object],
    columns: Sequence[object],
    tell: Callable[[tuple[int, int]], str],
) -> None:
    """A coloured table with names at the left and the top, and numbers where they fit."""
    paint_table(axes, heat)
    axes.xaxis.tick_top()
    slanted = any(len(printable(name)) > 5 for name in columns)
    turned: Any = {"rotation": 45, "ha": "left", "rotation_mode": "anchor"} if slanted else {}
    if len(columns) > 24:
        turned = {"rotation": 90, "fontsize": SMALL - 1}
    name_ticks(axes.xaxis, *_not_too_many(columns, 70), length=_LONGEST, **turned)
    name_ticks(axes.yaxis, *_not_too_many(rows, 60), length=_LONGEST)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(1, len(columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(rows)) - 0.5, minor=True)
    axes.tick_params(which="minor", length=0)
    if len(columns) <= 60 and len(rows) <= 60:
        axes.grid(which="minor", color="white", linewidth=1.0)
    _annotate(axes, heat, tell)


def aligned_in(heat: Heat) -> Callable[[tuple[int, int]], str]:
    """How the number of a cell is written, with as many decimals as all others."""
    return lambda place: aligned(float(heat.values[place]), heat.limit)


def table_size(
    values: Array, row_names: Sequence[object], column_names: Sequence[object]
) -> tuple[float, float]:
    """Inches for a table with its names and its scale."""
    rows, columns = values.shape
    left, above = (
        0.075 * max([min(len(str(name)), _LONGEST) for name in names] or [0])
        for names in (row_names, column_names)
    )
    width = min(max(_CELL[0] * columns, 2.0), _LARGEST[0]) + left + 0.6
    return width, min(max(_CELL[1] * rows, 0.6), _LARGEST[1]) + 0.8 * above + 1.4


def _not_too_many(names: Sequence[object], most: int) -> tuple[list[int], list[object]]:
    """Places and names of every name, of every second one, ... so that they do not overlap."""
    places = list(range(0, len(names), -(-len(names) // most) or 1))
    return places, [names[place] for place in places]


def _annotate(axes: Any, heat: Heat, tell: Callable[[tuple[int, int]], str]) -> None:
    rows, columns = heat.values.shape
    width, height = inches_of(axes)
    letters = (72 * width / max(columns, 1) - 2) / (0.62 * SMALL)  # that fit into a cell
    if letters < 2 or 72 * height / max(rows, 1) < 1.3 * SMALL:
        return
    known = list(zip(*np.nonzero(np.isfinite(heat.values)), strict=True))
    texts = [tell(place) for place in known]
    if max(map(len, texts), default=0) > letters:
        return
    readable = inks(colours(heat)[np.isfinite(heat.values)])
    for (row, column), text, colour in zip(known, texts, readable, strict=True):
        write(axes, column, row, text, ha="center", va="center", color=colour)
