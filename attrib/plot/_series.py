"""Attributions of time series: under the lines, along them, or as strips below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from attrib._checks import check_choice, check_count
from attrib.errors import AttribValueError
from attrib.plot._arrays import check_names, check_same, notify, numbers, shape, total
from attrib.plot._canvas import charts, name_axes, name_lines, open_frame
from attrib.plot._heat import Heat, colours, heat, share
from attrib.plot._shapes import alone, line
from attrib.plot._strips import colour_scale
from attrib.plot.colors import Array, Palette, Sign, paint, unpaint

# The stubs of NumPy leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["timeseries"]

SeriesMode: TypeAlias = Literal["overlay", "combined", "line", "strip"]
SeriesLayout: TypeAlias = Literal["CT", "TC"]

_INK = "#333333"
_LINES = ("#333333", "#0072b2", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")  # Okabe and Ito (2008)
_NEUTRAL = "#8a8a8a"  # where the line owes nothing; white would not be seen on white


def timeseries(
    attr: Any,
    data: Any,
    x: Any = None,
    *,
    mode: SeriesMode = "overlay",
    channels: Sequence[object] | None = None,
    layout: SeriesLayout | None = None,
    max_display: int = 16,
    sign: Sign = "all",
    clip: float = 99.0,
    scale: float | None = None,
    palette: Palette = "attrib",
    unit: str = "attribution",
    title: str | None = None,
    colorbar: bool = True,
    ax: Any = None,
) -> Figure:
    """A series of measurements and what each contributes.

    Args:
        attr: The attribution, ``(channels, steps)`` or ``(steps,)``; for ``(steps, channels)``
            see ``layout``.
        data: The series, of the same shape. Where it is NaN or infinite, lines have gaps.
        x: The times, ``(steps,)``, rising but not necessarily evenly; numbers of steps if left out.
        mode: ``"overlay"`` puts colours behind the line of every channel, ``"combined"`` the sum
            over channels behind all lines, ``"line"`` colours the lines themselves, and
            ``"strip"`` draws the colours below each line.
        channels: Their names.
        layout: ``"CT"`` or ``"TC"``: what comes first, channels or steps. Left out, channels do,
            unless ``x`` fits the first dimension alone. Where nothing but the default tells
            channels from at most as many steps, there is a notice.
        max_display: How many channels are drawn at most: those of largest attribution.
        sign, clip, scale, palette, unit, title, colorbar, ax: As for `attrib.plot.image`.

    Returns:
        The figure.

    Raises:
        AttribError: If attribution, series and times do not fit each other.

    Warns:
        PlotWarning: If the picture shows less than it seems to.

    Example:
        >>> import torch
        >>> figure = timeseries(torch.randn(2, 50), torch.randn(2, 50), mode="strip")
        >>> len(figure.axes)
        2
    """
    check_choice(mode, "mode", ("overlay", "combined", "line", "strip"))
    check_count(max_display, "max_display")
    values, series = numbers(attr, "attr"), numbers(data, "data")
    check_same(values, series, "attr", "data", "pass the attribution of this series")
    times = None if x is None else numbers(x, "x").reshape(-1)
    if _steps_first(series, layout, times):
        values, series = values.T, series.T
    values, series = np.atleast_2d(values), np.atleast_2d(series)
    times = _times(times, series)
    names = check_names(channels, len(series), "channels", "channel")
    together = total(values, 0)[None] if mode == "combined" else values
    shown = heat(together, sign=sign, clip=clip, scale=scale, palette=palette, unit=unit)
    kept = np.arange(len(series)) if mode == "combined" else _largest(shown, max_display)
    count = 1 if mode == "combined" else len(kept)
    figure, panels = charts(ax, count, 8.0, min(max(1.15 * count, 2.4), 18.0) + 0.9, title)
    for place, axes in enumerate(panels):
        if mode == "combined":
            _combined(axes, replace(shown, values=shown.values[0]), times, series, names)
        else:
            part = replace(shown, values=shown.values[kept[place]])
            _channel(axes, mode, part, times, series[kept[place]])
            name_axes(axes, y=names[kept[place]])
        open_frame(axes)
    name_axes(panels[-1], x="step" if x is None else "x")
    panels[-1].locator_params(axis="x", integer=x is None)
    if colorbar:
        colour_scale(panels[-1], shown, below=0.48)
    figure.align_ylabels(panels)
    return figure


def _steps_first(series: Array, layout: SeriesLayout | None, times: Array | None) -> bool:
    """Whether steps come before channels: as told, or as only the times fit, else they do not."""
    if layout is not None:
        check_choice(layout, "layout", ("CT", "TC"))
    if series.ndim not in (1, 2) or not series.size:
        raise AttribValueError(
            f"data: must be one series that holds something, got shape {shape(series)}; pass "
            "(channels, steps), such as data[0]",
            code="data.shape",
        )
    if series.ndim == 1 or layout is not None:
        return layout == "TC" and series.ndim == 2
    channels, steps = series.shape
    if times is not None and (channels == times.size) != (steps == times.size):
        return channels == times.size
    if channels > 1 and channels >= steps:
        notify(
            f"layout: shape {shape(series)} is drawn as {channels} channels of {steps} steps; pass "
            'layout="TC" if steps come first, or "CT" if they do not'
        )
    return False


def _times(times: Array | None, series: Array) -> Array:
    steps = series.shape[1]
    if times is None:
        return np.arange(steps, dtype=np.float64)
    if times.size != steps:
        raise AttribValueError(
            f"x: one time for each step, got shape {shape(times)} for series of shape "
            f"{shape(series)}; pass (steps,)",
            code="x.shape",
        )
    if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise AttribValueError(
            "x: times must be finite and rise, got others; sort the series by time",
            code="x.range",
        )
    return times


def _largest(shown: Heat, most: int) -> Any:
    """The channels of largest attribution, in their order."""
    count = len(shown.values)
    if count <= most:
        return np.arange(count)
    notify(f"max_display: {count - most} of {count} channels, those of smallest size, are left out")
    sizes = np.abs(np.nan_to_num(shown.values)).sum(1)
    return np.sort(np.argsort(-sizes, kind="stable")[:most])


def _channel(axes: Any, mode: SeriesMode, shown: Heat, times: Array, series: Array) -> None:
    low, high = _limits(axes, times, series, below=0.45 if mode == "strip" else 0.08)
    if mode == "line":
        _coloured_line(axes, shown, times, series)
        _hatch_between(axes, shown, times, low, high)
        return
    top = high if mode == "overlay" else low + 0.2 * (high - low)
    _colours_between(axes, shown, times, low, top)
    line(axes, times, series, color=_INK, linewidth=1.0, path_effects=_halo())


def _combined(axes: Any, shown: Heat, times: Array, series: Array, names: list[str]) -> None:
    low, high = _limits(axes, times, series)
    _colours_between(axes, shown, times, low, high)
    lines = [
        line(
            axes,
            times,
            channel,
            color=_LINES[place % len(_LINES)],
            linewidth=1.0,
            path_effects=_halo(),
        )
        for place, channel in enumerate(series)
    ]
    if 1 < len(series) <= 12:
        name_lines(axes, lines, names, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _colours_between(axes: Any, shown: Heat, times: Array, low: float, high: float) -> None:
    """The colours of one channel: one artist, however many steps."""
    borders = _borders(times)
    image = colours(shown)[None]
    if np.allclose(np.diff(borders), borders[1] - borders[0], rtol=1e-6):
        extent = (borders[0], borders[-1], low, high)
        options: Any = {"aspect": "auto", "interpolation": "nearest", "origin": "lower"}
        axes.imshow(image, extent=extent, zorder=0, **options)
    else:
        axes.pcolormesh(borders, [low, high], image, zorder=0)
    _hatch_between(axes, shown, times, low, high)


def _halo() -> list[Any]:
    """White around a line, so that it is seen on every colour."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.6, foreground="white", alpha=0.75)]


def _hatch_between(axes: Any, shown: Heat, times: Array, low: float, high: float) -> None:
    """Hatching over the steps of which the attribution is not finite."""
    broken = ~np.isfinite(shown.values)
    if broken.any():
        sides, missing = np.repeat(_borders(times), 2)[1:-1], np.repeat(broken, 2)
        options: Any = {"facecolor": "none", "edgecolor": _INK, "hatch": "/////", "linewidth": 0}
        axes.fill_between(sides, low, high, where=missing, zorder=0.5, **options)


def _coloured_line(axes: Any, shown: Heat, times: Array, series: Array) -> None:
    from matplotlib.collections import LineCollection

    points = np.stack([times, series], -1)
    middles = (points[1:] + points[:-1]) / 2
    starts, stops = np.concatenate([points[:1], middles]), np.concatenate([middles, points[-1:]])
    strength = np.abs(share(shown))[:, None]
    strong = paint(np.sign(shown.values), sign=shown.sign, palette=shown.palette)
    tints = (1 - strength) * unpaint(_NEUTRAL) + strength * strong
    widths = 1.0 + 1.8 * strength[:, 0]
    axes.add_collection(
        LineCollection(
            list(np.stack([starts, points, stops], 1)),
            colors=tints,
            linewidths=widths,
            capstyle="round",
        ),
        autolim=False,
    )
    single = alone(series)
    if single.any():
        axes.scatter(times[single], series[single], s=8 * widths[single], c=tints[single])


def _limits(axes: Any, times: Array, series: Array, below: float = 0.08) -> tuple[float, float]:
    """All of the lines, with room below them as a part of their height."""
    borders = _borders(times)
    known = series[np.isfinite(series)]
    if known.size < series.size:
        notify(f"data: {series.size - known.size} of {series.size} numbers are NaN or infinite")
    least, most = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if most - least <= 1e-12 * max(abs(least), abs(most)):
        # A constant lies in the middle of an axis of its own size.
        half = abs(most) / 2 if abs(most) > 1e-300 else 0.5
        least, most = least - half, most + half
    span = most - least
    low, high = least - below * span, most + 0.08 * span
    axes.set(xlim=(borders[0], borders[-1]), ylim=(low, high), autoscale_on=False)
    # Below the line there are no measurements to be read.
    ticks = axes.yaxis.get_major_locator().tick_values(least, most)
    axes.set_yticks([tick for tick in ticks if least - 0.05 * span <= tick <= high])
    return low, high


def _borders(times: Array) -> Array:
    """Where the colours of one step end and those of the next begin."""
    if times.size == 1:
        return np.array([times[0] - 0.5, times[0] + 0.5])
    middles = (times[1:] + times[:-1]) / 2
    first, last = times[0] - (middles[0] - times[0]), times[-1] + (times[-1] - middles[-1])
    return np.concatenate([[first], middles, [last]])
