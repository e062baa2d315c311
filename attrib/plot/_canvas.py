"""Figures without pyplot, and what pictures share: panels, titles, scales of colour, hatching."""

# The stubs of NumPy and matplotlib leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attrib.errors import AttribTypeError
from attrib.plot._heat import Heat, colours, ends, scale_labels
from attrib.plot.colors import Array, paint
from attrib.plot.labels import shortened, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "GREY",
    "SCALE_ROOM",
    "SMALL",
    "Room",
    "caption",
    "charts",
    "colour_scale",
    "edges",
    "hatch",
    "headline",
    "inches_of",
    "name_axes",
    "name_ticks",
    "open_frame",
    "paint_table",
    "pictures",
    "printable",
    "shared_scale",
    "strip_below",
    "write",
]

GREY = "#5c5c5c"  # 6.7 to 1 on white
SMALL = 8  # points
SCALE_ROOM = 0.66  # inches for a scale of colours with its note
_GAP = 0.14  # inches between pictures


class Room(NamedTuple):
    """Inches around pictures."""

    title: float = 0.0
    head: float = 0.0
    """Above the first row."""
    foot: float = 0.0
    """Below every row."""
    strip: float = 0.0
    """Below them all."""
    side: float = 0.0
    """To the left of them all."""


def charts(ax: Any, rows: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    """Panels with ticks and labels, below one another.

    Args:
        ax: Axes to draw into, or ``None`` for a new figure, which finds room for the labels.
        rows: How many panels, all over one horizontal axis.
        width: Of a new figure in inches.
        height: The same.

    Returns:
        The figure and its panels.
    """
    figure_class = _matplotlib()
    if ax is None:
        figure = figure_class(figsize=(width, height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06, hspace=0.02)
        return figure, list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    figure = _figure_of(ax)
    if rows == 1:
        return figure, [ax]
    ax.set_axis_off()
    part = 1.0 / rows
    boxes = [(0.0, 1 - (row + 1) * part, 1.0, 0.88 * part) for row in range(rows)]
    panels = [ax.inset_axes(box) for box in boxes]
    for panel in panels[1:]:
        panel.sharex(panels[0])
    for panel in panels[:-1]:
        panel.tick_params(labelbottom=False)
    return figure, panels


def pictures(
    ax: Any, rows: int, columns: int, panel: tuple[float, float], room: Room
) -> tuple[Figure, list[Any], Any]:
    """Panels for images, row by row, of a known size in a figure that fits around them.

    Args:
        ax: Axes to draw into, or ``None`` for a new figure.
        rows: Panels from top to bottom.
        columns: Panels from left to right.
        panel: Width and height of one in inches; what there is room for, in given axes.
        room: What else needs room.

    Returns:
        The figure, the panels, and axes for what they share below, if there is room for it.
    """
    figure_class = _matplotlib()
    width = room.side + (columns + 1) * _GAP
    height = room.title + room.head + rows * (room.foot + _GAP) + room.strip + _GAP
    if ax is None:
        wide, high = width + columns * panel[0], height + rows * panel[1]
        figure = figure_class(figsize=(wide, high))
        place = figure.add_axes
    else:
        figure = _figure_of(ax)
        if rows * columns == 1 and not room.strip:
            return figure, [ax], None
        wide, high = inches_of(ax)
        panel = max((wide - width) / columns, 0.1), max((high - height) / rows, 0.1)
        place = ax.inset_axes
        ax.set_axis_off()
    boxes = [
        (
            room.side + _GAP + column * (panel[0] + _GAP),
            high - room.title - room.head - (row + 1) * (_GAP + panel[1]) - row * room.foot,
            *panel,
        )
        for row in range(rows)
        for column in range(columns)
    ]
    panels = [place((x / wide, y / high, w / wide, h / high)) for x, y, w, h in boxes]
    if not room.strip:
        return figure, panels, None
    strip = place((0.0, 0.0, 1.0, room.strip / high))
    strip.set_axis_off()
    return figure, panels, strip


def headline(
    figure: Figure, panels: Sequence[Any], title: str | None, ax: Any = None, *, above: float = 7.0
) -> None:
    """The title of the picture, over its only panel, over all of them, or over the given axes."""
    if title is None:
        return
    if ax is None and len(panels) > 1:
        high = figure.get_size_inches()[1]
        # Unlike those of axes, the title of a figure cannot be told to leave formulas alone.
        text = printable(title).replace("$", r"\$")
        figure.suptitle(text, fontsize=12, y=1 - 0.1 / high)
    else:
        over = panels[0] if ax is None else ax
        over.set_title(printable(title), fontsize=11, parse_math=False, pad=above)


def write(axes: Any, x: float, y: float, text: object, **options: Any) -> Any:
    """Foreign text as it is: no formulas, no control characters."""
    options.setdefault("fontsize", SMALL)
    return axes.text(x, y, printable(text), parse_math=False, **options)


def caption(axes: Any, text: str, *, depth: float = 4.0) -> None:
    """Small grey text below everything that the axes have there, so many points lower."""
    if text:
        axes.annotate(
            printable(text),
            *((0.5, 0.0), (0, -depth)),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=SMALL - 0.5,
            color=GREY,
            annotation_clip=False,
            parse_math=False,
        )


def name_axes(axes: Any, *, x: object = None, y: object = None) -> None:
    """Foreign names of what the axes measure."""
    options: Any = {"fontsize": SMALL + 0.5, "parse_math": False}
    if x is not None:
        axes.set_xlabel(printable(x), **options)
    if y is not None:
        axes.set_ylabel(printable(y), **options)


def name_ticks(
    axis: Any, places: Any, names: Sequence[object], *, length: int = 32, **options: Any
) -> None:
    """Foreign names along an axis, shortened to so many characters."""
    labels = [shortened(printable(name), length) for name in names]
    options.setdefault("fontsize", SMALL + 0.5)
    axis.set_ticks(places, labels, parse_math=False, **options)


def printable(text: object) -> str:
    """Foreign text as a font can show it: fonts have no pictures of control characters."""
    lines = map(visible, str(text).split("\n"))
    return re.sub("[\u2400-\u2421]", "\N{REPLACEMENT CHARACTER}", "\n".join(lines))


def open_frame(axes: Any, *, grid: str | None = None) -> None:
    """Axes without a frame at the top and to the right, and with a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL + 0.5)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color="#8c8c8c", alpha=0.25, linewidth=0.6)


def colour_scale(axes: Any, heat: Heat, *, below: float = 0.1) -> None:
    """The colours with their numbers, their unit, and what else must be told, so far below."""
    strip = strip_below(axes, _ramp(heat), ends(heat), scale_labels(heat), heat.unit, below=below)
    _note_below(strip, heat)


def strip_below(
    axes: Any,
    ramp: Array,
    limits: tuple[float, float],
    labels: list[tuple[float, str]],
    unit: str,
    *,
    below: float,
) -> Any:
    """A strip of colours, ``(1, steps, 3)``, with words at places, so many inches below."""
    from matplotlib.transforms import ScaledTranslation

    width, height = inches_of(axes)
    part = min(0.76, 3.2 / width)
    thick = 0.11 / height
    lower = axes.transAxes + ScaledTranslation(0, -below, axes.figure.dpi_scale_trans)
    strip = axes.inset_axes(((1 - part) / 2, -thick, part, thick), transform=lower)
    _fill(strip, ramp, limits, labels, unit)
    return strip


def shared_scale(axes: Any, heat: Heat) -> None:
    """The same in axes of their own, below several pictures."""
    width, height = inches_of(axes)
    part = min(0.76, 3.2 / width)
    thick = 0.11 / height
    strip = axes.inset_axes(((1 - part) / 2, 1 - thick, part, thick))
    _fill(strip, _ramp(heat), ends(heat), scale_labels(heat), heat.unit)
    _note_below(strip, heat)


def hatch(axes: Any, broken: NDArray[np.bool_]) -> None:
    """Hatch the pixels, or cells, of a picture drawn by `imshow` that are not finite."""
    if not broken.any():
        return
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners: list[tuple[float, float]] = []
    for row, line in enumerate(broken):
        steps = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
        for left, right in steps.reshape(-1, 2).tolist():
            a, b, top, low = left - 0.5, right - 0.5, row - 0.5, row + 0.5
            corners += [(a, top), (b, top), (b, low), (a, low), (a, top)]
    codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY] * (len(corners) // 5)
    axes.add_patch(
        PathPatch(Path(corners, codes), fill=False, hatch="/////", edgecolor="#333333", linewidth=0)
    )


def paint_table(axes: Any, heat: Heat) -> None:
    """Every number as a cell of its colour, hatched where not finite."""
    if heat.values.size:
        axes.imshow(colours(heat), aspect="auto", interpolation="nearest")
        hatch(axes, ~np.isfinite(heat.values))


def edges(regions: NDArray[Any]) -> list[Array]:
    """The segments between neighbouring pixels of different regions, for a `LineCollection`."""
    down = np.argwhere(regions[1:] != regions[:-1])
    across = np.argwhere(regions[:, 1:] != regions[:, :-1])
    flat = [np.array([(c - 0.5, r + 0.5), (c + 0.5, r + 0.5)]) for r, c in down]
    upright = [np.array([(c + 0.5, r - 0.5), (c + 0.5, r + 0.5)]) for r, c in across]
    return flat + upright


def inches_of(axes: Any) -> tuple[float, float]:
    """Width and height of axes, before a layout has moved them."""
    box = axes.get_window_extent()
    return max(box.width, 1.0) / axes.figure.dpi, max(box.height, 1.0) / axes.figure.dpi


def _note_below(strip: Any, heat: Heat) -> None:
    lines = heat.unit.count("\n")
    caption(strip, heat.note, depth=25.0 + 1.2 * SMALL * lines)


def _matplotlib() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "attrib.plot draws with matplotlib, which is not installed: pip install 'attrib[plot]'"
        ) from error
    return Figure


def _figure_of(ax: Any) -> Any:
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise AttribTypeError(
            f"ax: must be axes of matplotlib, got {type(ax).__name__}; pass e.g. "
            "figure.subplots(), or leave it out for a new figure",
            code="ax.type",
        )
    return ax.figure.figure  # of a part of a figure, too


def _ramp(heat: Heat) -> Array:
    places = np.linspace(*ends(heat), 256)
    return paint(places, heat.limit, sign=heat.sign, palette=heat.palette)[None]


def _fill(
    strip: Any,
    ramp: Array,
    limits: tuple[float, float],
    labels: list[tuple[float, str]],
    unit: str,
) -> None:
    strip.imshow(ramp, aspect="auto", extent=(*limits, 0, 1))
    strip.set_yticks([])
    strip.set_xticks([place for place, _ in labels], [text for _, text in labels], fontsize=SMALL)
    strip.tick_params(length=2.5, pad=2)
    strip.spines[:].set_linewidth(0.5)
    strip.set_xlabel(printable(unit), fontsize=SMALL, labelpad=1, parse_math=False)
