"""What each feature of one example contributes: bars, steps from the base to the score, forces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attrib._checks import check_count, check_number
from attrib.plot._canvas import (
    GREY,
    SMALL,
    charts,
    inches_of,
    name_axes,
    name_ticks,
    open_frame,
    write,
)
from attrib.plot._heat import axis_label, heat
from attrib.plot._lettering import ruler, within, wrapped
from attrib.plot._rows import Rows, estimated, feature_labels, rows_of
from attrib.plot.colors import Array, Palette, Sign, paint
from attrib.plot.labels import aligned, plain, signed

# The stubs of NumPy leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["bar", "force", "waterfall"]

_TONE = 0.62  # of the palette, where each sign has one colour
_NUMBER = 0.5  # inches for a number at each end of an axis
_THICK = 0.36  # half of a bar, in rows
# Behind text, so that lines do not cross it.
_GROUND: dict[str, Any] = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5}


def bar(
    names: Sequence[object] | None,
    attr: Any,
    *,
    error: Any = None,
    values: Any = None,
    max_display: int = 12,
    sort: bool = True,
    sign: Sign = "all",
    scale: float | None = None,
    palette: Palette = "attrib",
    unit: str = "attribution",
    title: str | None = None,
    ax: Any = None,
) -> Figure:
    """A bar for each feature, to the right where it raises the score.

    Args:
        names: Of the features, or ``None``.
        attr: ``(features,)``, or an `attrib.Estimate`, whose standard errors are drawn.
        error: The standard error of each, drawn twice to both sides.
        values: What the features are, written beside their names.
        max_display: How many bars at most; the last one is the sum of all others.
        sort: Whether the longest bar comes first; in the order given otherwise.
        sign: As for `attrib.plot.image`.
        scale: The number at the end of the axis.
        palette: As for `attrib.plot.image`.
        unit: What the numbers are, written at the axis.
        title: Above the picture.
        ax: Axes to draw into, instead of a new figure.

    Returns:
        The figure.

    Raises:
        AttribError: If there are not as many names or values as attributions.

    Warns:
        PlotWarning: If the picture shows less than it seems to.

    Example:
        >>> figure = bar(["age", "income"], [0.5, -0.25])
    """
    given, errors = estimated(attr, error)
    check_count(max_display, "max_display")
    shown = heat(given, sign=sign, clip=100.0, scale=scale, palette=palette, unit=unit)
    labels = feature_labels(names, values, given.size)
    rows = rows_of(shown.values, labels, errors, max_display, sort=sort)
    figure, (axes,) = charts(ax, 1, 6.4, 0.30 * max(len(rows.values), 2) + 1.1, title)
    _frame(axes, rows, axis_label(shown))
    known = np.nan_to_num(rows.values)
    colours = paint(_TONE * np.sign(known), sign=sign, palette=palette)
    axes.barh(np.arange(len(known)), known, height=2 * _THICK, color=colours)
    reach = _errors(axes, rows, known)
    axes.axvline(0.0, color="#333333", linewidth=0.8)
    both = np.concatenate([reach, 2 * known - reach])
    _span(axes, both if scale is None else np.array([-scale, scale]))
    _numbers(axes, rows, reach, signs=sign != "absolute")
    return figure


def waterfall(
    attr: Any,
    values: Any = None,
    names: Sequence[object] | None = None,
    *,
    base: float = 0.0,
    max_display: int = 12,
    palette: Palette = "attrib",
    unit: str = "score",
    title: str | None = None,
    ax: Any = None,
) -> Figure:
    """How the features lead from the base, the score of the baseline, to the score.

    Args:
        attr: ``(features,)``, or an `attrib.Estimate`, whose standard errors are drawn, twice to
            both sides of the points of the arrows.
        values: What the features are, written beside their names.
        names: Of the features.
        base: The score without them, where the lowest arrow begins.
        max_display: How many arrows at most; the lowest one is the sum of all others.
        palette: As for `attrib.plot.image`.
        unit: What the axis is.
        title: Above the picture.
        ax: Axes to draw into, instead of a new figure.

    Returns:
        The figure. Its last arrow ends at ``base + attr.sum()``.

    Raises:
        AttribError: If there are not as many names or values as attributions.

    Warns:
        PlotWarning: If the picture shows less than it seems to.

    Example:
        >>> figure = waterfall([0.5, -0.25], values=[38, 1200.0], names=["age", "income"], base=0.1)
    """
    base = _finite(base)
    rows, label = _rows(attr, values, names, max_display, palette, unit)
    known = np.nan_to_num(rows.values)
    # The largest step is on top, and the last one.
    ends = base + known[::-1].cumsum()[::-1]
    starts = ends - known
    score = base + float(known.sum())
    figure, (axes,) = charts(ax, 1, 6.4, 0.32 * max(len(known), 2) + 1.5, title, above=20.0)
    _frame(axes, rows, label)
    reach = _errors(axes, rows, ends)
    span = _span(axes, np.concatenate([starts, ends, reach, 2 * ends - reach]), base)
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        _arrow(axes, start, end, place, span, palette)
    for place in range(1, len(known)):
        across = [place - 1 - _THICK, place + _THICK]
        axes.plot([ends[place]] * 2, across, color=GREY, linewidth=0.7, zorder=0.5)
    axes.set_ylim(max(len(known), 1), -0.6)
    _mark(axes, base, f"base {plain(base, 3)}", top=False)
    _mark(axes, score, f"f(x) {plain(score, 3)}", left=base >= score, bold=True)
    _numbers(axes, rows, reach)
    return figure


def force(
    attr: Any,
    values: Any = None,
    names: Sequence[object] | None = None,
    *,
    base: float = 0.0,
    max_display: int = 12,
    palette: Palette = "attrib",
    unit: str = "score",
    title: str | None = None,
    ax: Any = None,
) -> Figure:
    """What pushes the score up, from the left, against what pushes it down, from the right.

    They meet at the score. Names are written where there is room, and behind the number of an
    `attrib.Estimate` twice its standard error.

    Args:
        attr, values, names, base: As for `attrib.plot.waterfall`.
        max_display: How many arrows at most; one is the sum of all others.
        palette, unit, title, ax: As for `attrib.plot.waterfall`.

    Returns:
        The figure.

    Raises:
        AttribError: If there are not as many names or values as attributions.

    Warns:
        PlotWarning: If the picture shows less than it seems to.

    Example:
        >>> figure = force([0.5, -0.25, 0.1], names=["age", "income", "height"])
    """
    base = _finite(base)
    rows, label = _rows(attr, values, names, max_display, palette, unit)
    known = np.nan_to_num(rows.values)
    score = base + float(known.sum())
    order = np.argsort(-np.abs(known), kind="stable")
    figure, (axes,) = charts(ax, 1, 9.0, 2.3, title, above=20.0)
    open_frame(axes)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(1.5, -1.1)
    name_axes(axes, x=label)
    up, down = np.maximum(known, 0).sum(), np.maximum(-known, 0).sum()
    span = _span(axes, np.array([score - up, score + down]), base)
    told = [signed(number) for number in known.tolist()]
    if rows.errors is not None:
        told = [
            f"{number} ± {plain(2 * error)}" if np.isfinite(error) else number
            for number, error in zip(told, rows.errors.tolist(), strict=True)
        ]
    for side in (1.0, -1.0):
        end = score
        for place in order[side * known[order] > 0].tolist():
            start = end - float(known[place])
            _arrow(axes, start, end, 0, span, palette)
            _name(axes, start, end, rows.labels[place], told[place])
            end = start
    _mark(axes, base, f"base {plain(base, 3)}", left=base < score)
    _mark(axes, score, f"f(x) {plain(score, 3)}", left=base >= score, bold=True)
    return figure


def _rows(
    attr: Any, values: Any, names: Sequence[object] | None, most: int, palette: Palette, unit: str
) -> tuple[Rows, str]:
    given, errors = estimated(attr)
    check_count(most, "max_display")
    shown = heat(given, sign="all", clip=100.0, scale=None, palette=palette, unit=unit)
    rows = rows_of(shown.values, feature_labels(names, values, given.size), errors, most)
    return rows, axis_label(shown)


def _finite(base: Any) -> float:
    return check_number(float(base), "base", least=-np.finfo(np.float64).max)


def _frame(axes: Any, rows: Rows, label: str) -> None:
    open_frame(axes, grid="x")
    axes.spines["left"].set_visible(False)
    count = len(rows.values)
    name_ticks(axes.yaxis, np.arange(count), rows.labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(count, 1) - 0.4, -0.6)
    name_axes(axes, x=label)


def _span(axes: Any, places: Array, *others: float) -> float:
    """Room for all places, and for a number beside the outermost ones."""
    within = [*places.tolist(), *(others or [0.0])]
    low, high = min(within), max(within)
    span = (high - low) or 1.0
    width = inches_of(axes)[0]
    margin = span * _NUMBER / max(width - 2 * _NUMBER, 0.2 * width)
    axes.set_xlim(low - margin, high + margin)
    return span


def _errors(axes: Any, rows: Rows, ends: Array) -> Array:
    """Standard errors, twice to both sides of the ends of bars; how far these reach then."""
    if rows.errors is None:
        return ends
    spread = np.nan_to_num(2 * rows.errors)
    options: Any = {"fmt": "none", "ecolor": "#333333", "elinewidth": 1, "capsize": 2.5}
    axes.errorbar(ends, np.arange(len(ends)), xerr=spread, **options)
    return ends + np.where(rows.values < 0, -spread, spread)


def _arrow(axes: Any, start: float, end: float, row: float, span: float, palette: Palette) -> None:
    """A bar with a point, so that its direction is seen without its colour."""
    from matplotlib.patches import Polygon

    neck = end - np.sign(end - start) * min(abs(end - start), 0.015 * span)
    top, low = row - _THICK, row + _THICK
    corners = [(start, top), (neck, top), (end, row), (neck, low), (start, low)]
    colour = paint(_TONE * np.sign(end - start), palette=palette)
    axes.add_patch(
        Polygon(corners, closed=True, facecolor=colour, edgecolor="white", linewidth=0.6)
    )


def _numbers(axes: Any, rows: Rows, ends: Array, *, signs: bool = True) -> None:
    largest = float(np.abs(np.nan_to_num(rows.values)).max(initial=0.0))
    for row, (value, end) in enumerate(zip(rows.values.tolist(), ends.tolist(), strict=True)):
        side = -1 if value < 0 else 1
        text = aligned(value, largest) if np.isfinite(value) else "not finite"
        axes.annotate(
            text if signs else text.lstrip("+"),
            (end, row),
            xytext=(4 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=SMALL,
            bbox=_GROUND,
        )


def _name(axes: Any, start: float, end: float, name: str, number: str) -> None:
    low, high = axes.get_xlim()
    room = abs(end - start) / (high - low) * inches_of(axes)[0]
    if room >= 0.5 and ruler(SMALL)(number) <= room:
        lines = wrapped(name, room, SMALL)
        lines = lines if lines.count("\n") < 2 else within(name, room, SMALL)
        options: Any = {"ha": "center", "va": "top", "linespacing": 1.3, "bbox": _GROUND}
        write(axes, (start + end) / 2, 0.5, f"{lines}\n{number}", **options)


def _mark(
    axes: Any, place: float, text: str, *, top: bool = True, left: bool = False, bold: bool = False
) -> None:
    axes.axvline(place, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.4)
    axes.annotate(
        text,
        (place, 1.0 if top else 0.0),
        xycoords=("data", "axes fraction"),
        xytext=(-3 if left else 3, 3),
        textcoords="offset points",
        ha="right" if left else "left",
        va="bottom",
        fontsize=SMALL + 0.5,
        fontweight="bold" if bold else "normal",
        color="#222222" if bold else GREY,
    )
