"""What features contribute over many examples: swarms, dependence, heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attrib._checks import check_count
from attrib.errors import AttribValueError
from attrib.plot._arrays import check_names, finite, notify, numbers, shape, total
from attrib.plot._canvas import (
    SMALL,
    charts,
    name_axes,
    name_ticks,
    open_frame,
)
from attrib.plot._heat import axis_label, heat
from attrib.plot._rows import as_many, estimated
from attrib.plot._shapes import paint_table
from attrib.plot._strips import colour_scale, strip_below
from attrib.plot.colors import MISSING, Array, Palette, Sign, unpaint

# The stubs of NumPy leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["beeswarm", "heatmap", "scatter"]

# From low to high values of a feature: a map that has neither the colours of signs nor white.
_LEVELS = "viridis"
_SUMS = 42.0  # points above a heat map that its sums take
_TOP = 0.93  # of that map: its yellow end is hardly seen on white


def beeswarm(
    attr: Any,
    values: Any = None,
    names: Sequence[object] | None = None,
    *,
    max_display: int = 12,
    unit: str = "attribution",
    title: str | None = None,
    colorbar: bool = True,
    ax: Any = None,
) -> Figure:
    """A point for every example and feature, in the colour of the value that the feature has.

    Features of largest mean size come first. Points that lie on each other are moved apart.

    Args:
        attr: ``(examples, features)``.
        values: What the features are, of the same shape.
        names: Of the features.
        max_display: How many features at most.
        unit: What the numbers are, written at the axis.
        title: Above the picture.
        colorbar: Whether to draw the scale of the values.
        ax: Axes to draw into, instead of a new figure.

    Returns:
        The figure.

    Raises:
        AttribError: If attributions, values and names do not fit each other.

    Warns:
        PlotWarning: If the picture shows less than it seems to.

    Example:
        >>> import torch
        >>> figure = beeswarm(torch.randn(20, 3), torch.randn(20, 3), ["a", "b", "c"])
    """
    given = _table(attr)
    check_count(max_display, "max_display")
    labels = check_names(names, given.shape[1], "names", "feature")
    levels = None if values is None else _levels(as_many(values, given, "values"))
    shown = heat(given, sign="all", clip=100.0, scale=None, palette="attrib", unit=unit)
    kept = _largest(shown.values)[:max_display]
    height = 0.42 * max(len(kept), 2) + 1.1 + 0.5 * (levels is not None)
    figure, (axes,) = charts(ax, 1, 6.8, height, title)
    open_frame(axes, grid="x")
    axes.axvline(0.0, color="#333333", linewidth=0.8, zorder=0.5)
    axes.spines["left"].set_visible(False)
    for row, feature in enumerate(kept.tolist()):
        column = shown.values[:, feature]
        known = np.isfinite(column)
        at = row + _apart(column[known], shown.limit)
        tint: Any = "#8a6fc0" if levels is None else levels[known, feature]
        _points(axes, column[known], at, tint)
    name_ticks(axes.yaxis, np.arange(len(kept)), [labels[feature] for feature in kept])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(len(kept), 1) - 0.45, -0.55)
    name_axes(axes, x=axis_label(shown))
    if colorbar and levels is not None:
        _level_scale(axes)
    return figure


def scatter(
    attr: Any,
    values: Any,
    *,
    colour: Any = None,
    name: str = "value",
    colour_name: str = "value",
    unit: str = "attribution",
    title: str | None = None,
    colorbar: bool = True,
    ax: Any = None,
) -> Figure:
    """How the contribution of one feature depends on its value.

    Args:
        attr: The attributions of the feature, ``(examples,)``, or an `attrib.Estimate`, whose
            standard errors are drawn, twice to both sides.
        values: Its values.
        colour: The values of another feature, as the colour of the points.
        name: Of the feature.
        colour_name: Of the other one.
        unit: What the numbers are, written at the axis.
        title: Above the picture.
        colorbar: Whether to draw the scale of the colours.
        ax: Axes to draw into, instead of a new figure.

    Returns:
        The figure.

    Raises:
        AttribError: If there are not as many values as attributions.

    Warns:
        PlotWarning: If the picture shows less than it seems to.

    Example:
        >>> figure = scatter([0.1, -0.2, 0.3], [1.0, 2.0, 3.0], name="age")
    """
    given, errors = estimated(attr)
    places = as_many(np.reshape(numbers(values, "values"), -1), given, "values")
    shown = heat(given, sign="all", clip=100.0, scale=None, palette="attrib", unit=unit)
    tint: Any = "#8a6fc0"
    if colour is not None:
        other = as_many(np.reshape(numbers(colour, "colour"), -1), given, "colour")
        tint = _levels(other[:, None])[:, 0]
    known = np.isfinite(shown.values) & np.isfinite(places)
    if known.sum() < np.isfinite(shown.values).sum():
        notify("values: some are NaN or infinite; their points are left out")
    figure, (axes,) = charts(ax, 1, 5.6, 4.0 + 0.5 * (colour is not None), title)
    open_frame(axes, grid="both")
    axes.axhline(0.0, color="#333333", linewidth=0.8, zorder=0.5)
    if errors is not None:
        options: Any = {"fmt": "none", "ecolor": "#8c8c8c", "elinewidth": 0.7, "zorder": 0.8}
        spread = np.nan_to_num(2 * errors[known])
        axes.errorbar(places[known], shown.values[known], yerr=spread, **options)
    _points(axes, places[known], shown.values[known], tint if colour is None else tint[known])
    name_axes(axes, x=name, y=axis_label(shown))
    if colorbar and colour is not None:
        _level_scale(axes, colour_name)
    return figure


def heatmap(
    attr: Any,
    names: Sequence[object] | None = None,
    *,
    max_display: int = 12,
    sort: bool = True,
    sign: Sign = "all",
    clip: float = 99.0,
    scale: float | None = None,
    palette: Palette = "attrib",
    unit: str = "attribution",
    title: str | None = None,
    colorbar: bool = True,
    ax: Any = None,
) -> Figure:
    """The attributions of many examples, a column for each, and their sums above.

    Args:
        attr: ``(examples, features)``.
        names: Of the features.
        max_display: How many features at most, those of largest mean size first; the last row is
            the sum of all others.
        sort: Whether examples are put in the order of their sums.
        sign, clip, scale, palette, unit, title, colorbar, ax: As for `attrib.plot.image`.

    Returns:
        The figure.

    Raises:
        AttribError: If ``attr`` is not a table, or there are not as many names as features.

    Warns:
        PlotWarning: If the picture shows less than it seems to.

    Example:
        >>> import torch
        >>> figure = heatmap(torch.randn(30, 3), ["a", "b", "c"])
    """
    given = _table(attr)
    check_count(max_display, "max_display")
    labels = check_names(names, given.shape[1], "names", "feature")
    sums = finite(given).sum(1)
    rows, labels = _and_others(given[np.argsort(sums)] if sort else given, labels, max_display)
    shown = heat(rows.T, sign=sign, clip=clip, scale=scale, palette=palette, unit=unit)
    height = 0.30 * max(len(labels), 2) + 2.1
    figure, (axes,) = charts(ax, 1, 7.4, height, title, above=_SUMS)
    paint_table(axes, shown)
    axes.spines[:].set(color="#c4c4c4", linewidth=0.6)
    name_ticks(axes.yaxis, np.arange(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=SMALL)
    order = "by their sum" if sort else "as given"
    name_axes(axes, x=f"{len(given)} examples, {order}")
    _sums_above(axes, np.sort(sums) if sort else sums)
    _sizes_beside(axes, shown.values)
    if not axes.get_title():
        axes.set_title(" ", pad=_SUMS, fontsize=1)  # so that a layout leaves room for the sums
    if colorbar:
        colour_scale(axes, shown, below=0.46)
    return figure


def _table(attr: Any) -> Array:
    values = numbers(attr, "attr")
    if values.ndim != 2:
        raise AttribValueError(
            f"attr: must be a table, got shape {shape(values)}; pass (examples, features)",
            code="attr.shape",
        )
    return values


def _largest(values: Array) -> NDArray[np.intp]:
    """Features, those of largest mean size first."""
    sizes = np.abs(finite(values)).sum(0)
    return np.argsort(-sizes, kind="stable")


def _and_others(values: Array, labels: list[str], most: int) -> tuple[Array, list[str]]:
    order = _largest(values)
    kept = order if len(order) <= most else order[: most - 1]
    left = np.setdiff1d(order, kept)
    columns, names = values[:, kept], [labels[place] for place in kept]
    if left.size:
        columns = np.column_stack([columns, total(values[:, left], 1)])
        names.append(f"{left.size} others")
    return columns, names


def _levels(values: Array) -> Array:
    """Every column as colours, from its 5th percentile to its 95th; grey where not finite."""
    from matplotlib import colormaps

    known = np.isfinite(values)
    if not known.any():
        return np.broadcast_to(unpaint(MISSING), (*values.shape, 3))
    # A column without numbers is grey, whatever stands in for them.
    told = np.where(known, values, np.where(known.any(0), np.nan, 0.0))
    least, low, high, most = np.nanpercentile(told, [0, 5, 95, 100], axis=0)
    low, high = np.where(low == high, [least, most], [low, high])
    part = np.where(known, (told - low) / np.where(low == high, 1.0, high - low), 0.5)
    levels = colormaps[_LEVELS](_TOP * part.clip(0, 1))[..., :3]
    return np.where(known[..., None], levels, unpaint(MISSING))


def _apart(column: Array, limit: float) -> Array:
    """How far points are moved from their line, so that those in one place make a hill."""
    if not column.size:
        return column
    bins = np.floor(column / limit * 55).astype(np.int64)
    _, where, counts = np.unique(bins, return_inverse=True, return_counts=True)
    # The place of each point among those of its bin: 0, 1, 2, ... in the order of the examples.
    order = np.argsort(where, kind="stable")
    starts = np.concatenate([[0], counts.cumsum()[:-1]])
    rank = np.empty(len(column), np.int64)
    rank[order] = np.arange(len(column)) - np.repeat(starts, counts)
    sides = np.where(rank % 2 == 0, 1.0, -1.0) * ((rank + 1) // 2)
    return np.asarray(0.38 * sides / max(float(counts.max()) / 2, 6.0), np.float64)


def _points(axes: Any, x: Array, y: Array, tint: Any) -> None:
    size = 13 if len(x) < 500 else 7
    options: Any = {"edgecolors": "none", "alpha": 0.85, "rasterized": len(x) > 2000}
    axes.scatter(x, y, s=size, c=tint if len(x) else None, **options)


def _sums_above(axes: Any, sums: Array) -> None:
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    # As wide as the heat map, and so many inches high above it.
    up = axes.figure.dpi_scale_trans + ScaledTranslation(0, 1, axes.transAxes)
    place = blended_transform_factory(axes.transAxes, up)
    above = axes.inset_axes((0.0, 4 / 72, 1.0, (_SUMS - 8) / 72), transform=place)
    above.fill_between(np.arange(len(sums)), sums, color="#d9d9d9", linewidth=0)
    above.plot(sums, color="#333333", linewidth=0.9)
    above.axhline(0.0, color="#8c8c8c", linewidth=0.6)
    above.set_xlim(-0.5, max(len(sums), 1) - 0.5)
    above.set_xticks([])
    above.tick_params(labelsize=SMALL - 1)
    above.margins(y=0.15)
    above.locator_params(axis="y", nbins=2)
    above.spines[["top", "right", "bottom"]].set_visible(False)
    above.set_ylabel("sum", fontsize=SMALL)


def _sizes_beside(axes: Any, values: Array) -> None:
    beside = axes.inset_axes((1.015, 0.0, 0.12, 1.0))
    known = finite(values)
    sizes = np.abs(known).mean(1) if known.size else np.zeros(len(known))
    beside.barh(np.arange(len(sizes)), sizes, height=0.7, color="#8a6fc0")
    beside.set_ylim(axes.get_ylim())
    beside.set_yticks([])
    beside.tick_params(labelsize=SMALL - 1)
    beside.locator_params(axis="x", nbins=2)
    beside.spines[["top", "right"]].set_visible(False)
    beside.set_xlabel("mean size", fontsize=SMALL)


def _level_scale(axes: Any, name: str = "value") -> None:
    from matplotlib import colormaps

    ramp = colormaps[_LEVELS](np.linspace(0, _TOP, 256))[None, :, :3]
    strip_below(axes, ramp, (0.0, 1.0), [(0.0, "low"), (1.0, "high")], name, below=0.5)
