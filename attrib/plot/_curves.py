"""Scores along the way: deletion and insertion curves, convergence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attrib.errors import AttribValueError
from attrib.plot._arrays import check_names, notify, numbers, shape
from attrib.plot._canvas import charts, name_axes, name_lines, open_frame
from attrib.plot._shapes import line
from attrib.plot.colors import Array
from attrib.plot.labels import plain

# The stubs of NumPy leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["curve"]

# Okabe and Ito (2008); lines differ in their dashes, too.
_HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#333333", "#56b4e9", "#e69f00")
_DASHES = ("-", "--", "-.", ":")


def curve(
    scores: Any,
    x: Any = None,
    *,
    names: Sequence[object] | None = None,
    area: bool = True,
    xlabel: str = "share of the features",
    ylabel: str = "score",
    title: str | None = None,
    ax: Any = None,
) -> Figure:
    """The score while features are hidden or shown, a line for each method.

    Args:
        scores: What `attrib.metrics.curve` returns, ``(steps,)``, or ``(steps, curves)``, such as
            one for each example; or a mapping from the names of methods to such. Of several
            curves of one method the mean is drawn, and the quarter to three quarters of them.
            Where there is no number, a line has a gap.
        x: The places of the steps; evenly from 0 to 1 if left out.
        names: Of the methods, if they are not the keys of a mapping.
        area: Whether to write the area under each line beside its name; under one with a gap, it
            is not known.
        xlabel: What the steps are.
        ylabel: What the numbers are.
        title: Above the picture.
        ax: Axes to draw into, instead of a new figure.

    Returns:
        The figure.

    Raises:
        AttribError: If there are not as many places as scores.

    Warns:
        PlotWarning: If some of the scores are not finite.

    Example:
        >>> figure = curve({"saliency": [1.0, 0.4, 0.1], "random": [1.0, 0.7, 0.1]})
    """
    pairs = list(scores.items()) if isinstance(scores, Mapping) else [("", scores)]
    labels = check_names(names or [name for name, _ in pairs], len(pairs), "names", "")
    lines = [_line(value, x) for _, value in pairs]
    figure, (axes,) = charts(ax, 1, 6.0, 3.8, title)
    open_frame(axes, grid="both")
    handles: list[Any] = []
    for place, (shares, table) in enumerate(lines):
        hue, dash = _HUES[place % len(_HUES)], _DASHES[place % len(_DASHES)]
        middle, low, high = _middle(table)
        handles.append(line(axes, shares, middle, color=hue, linewidth=1.7, linestyle=dash))
        if table.shape[1] > 1:
            axes.fill_between(shares, low, high, color=hue, alpha=0.15, linewidth=0)
        if not np.isfinite(middle).any():
            labels[place] += "  nothing finite"
        elif area and len(middle) > 1 and np.isfinite(middle).all():
            labels[place] += f"  area {plain(_area(shares, middle), 3)}"
    name_axes(axes, x=xlabel, y=ylabel)
    if any(labels):
        name_lines(axes, handles, labels)
    return figure


def _line(value: Any, x: Any) -> tuple[Array, Array]:
    """Places and scores, ``(steps,)`` and ``(steps, curves)``."""
    shares = getattr(value, "shares", x)
    table = numbers(getattr(value, "scores", value), "scores")
    if not table.size:
        raise AttribValueError(
            f"scores: there are none, got shape {shape(table)}; pass (steps,) or (steps, curves)",
            code="scores.shape",
        )
    table = table.reshape(len(table) if table.ndim else 1, -1)
    broken = int((~np.isfinite(table)).sum())
    if broken:
        notify(f"scores: {broken} of {table.size} numbers are NaN or infinite; they are left out")
    if shares is None:
        return np.linspace(0.0, 1.0, len(table)), table
    places = numbers(shares, "x").reshape(-1)
    if len(places) != len(table):
        raise AttribValueError(
            f"x: one place for each step, got shape {shape(places)} for scores of shape "
            f"{shape(table)}; pass (steps,)",
            code="x.shape",
        )
    return places, table


def _middle(table: Array) -> tuple[Array, Array, Array]:
    """The mean of every row and its quartiles, of what is finite there; NaN where nothing is."""
    told = np.where(np.isfinite(table), table, np.nan)
    some = ~np.isnan(told).all(1)
    known = np.full((3, len(told)), np.nan)
    known[0, some] = np.nanmean(told[some], 1)
    known[1:, some] = np.nanpercentile(told[some], [25, 75], axis=1)
    return known[0], known[1], known[2]


def _area(shares: Array, middle: Array) -> float:
    return float(((middle[1:] + middle[:-1]) / 2 * np.diff(shares)).sum())
