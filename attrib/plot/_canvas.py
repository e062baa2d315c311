"""Figures without pyplot, and what pictures share: panels, titles, names, captions."""

# The stubs of NumPy and matplotlib leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from attrib.errors import AttribTypeError
from attrib.plot._lettering import lettered, need_matplotlib, printable, within, wrapped
from attrib.plot.labels import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "GREY",
    "SMALL",
    "Room",
    "caption",
    "charts",
    "entitle",
    "inches_of",
    "name_axes",
    "name_lines",
    "name_ticks",
    "open_frame",
    "pictures",
    "write",
]

GREY = "#5c5c5c"  # 6.7 to 1 on white
SMALL = 8  # points
_GAP = 0.14  # inches between pictures
_TITLE = 12  # points
_LONGEST = 300  # characters of a title


class Room(NamedTuple):
    """Inches around pictures."""

    head: float = 0.0
    """Above the first row."""
    foot: float = 0.0
    """Below every row."""
    strip: float = 0.0
    """Below them all."""
    side: float = 0.0
    """To the left of them all."""


def charts(
    ax: Any,
    rows: int,
    width: float,
    height: float,
    title: str | None = None,
    *,
    above: float = 7.0,
) -> tuple[Figure, list[Any]]:
    """Panels with ticks and labels, below one another.

    Args:
        ax: Axes to draw into, or ``None`` for a new figure, which finds room for the labels.
        rows: How many panels, all over one horizontal axis.
        width: Of a new figure in inches.
        height: The same, without the title.
        title: Above all panels.
        above: How many points it stands above given axes.

    Returns:
        The figure and its panels.
    """
    figure_class = _figure_class()
    if ax is None:
        lines, more = _title_lines(title, width)
        figure = figure_class(figsize=(width, height + more), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06, hspace=0.02)
        _title_figure(figure, lines)
        return figure, list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    figure = _figure_of(ax)
    _title_axes(ax, title, above)
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
    ax: Any,
    rows: int,
    columns: int,
    panel: tuple[float, float],
    room: Room,
    title: str | None = None,
) -> tuple[Figure, list[Any], Any]:
    """Panels for images, row by row, of a known size in a figure that fits around them.

    Args:
        ax: Axes to draw into, or ``None`` for a new figure.
        rows: Panels from top to bottom.
        columns: Panels from left to right.
        panel: Width and height of one in inches; what there is room for, in given axes.
        room: What else needs room.
        title: Above all panels.

    Returns:
        The figure, the panels, and axes for what they share below, if there is room for it.
    """
    figure_class = _figure_class()
    width = room.side + (columns + 1) * _GAP
    height = room.head + rows * (room.foot + _GAP) + room.strip + _GAP
    if ax is None:
        wide, top = width + columns * panel[0], height + rows * panel[1]
        lines, more = _title_lines(title, wide)
        high = top + more
        figure = figure_class(figsize=(wide, high))
        _title_figure(figure, lines, y=1 - 0.1 / high)
        place = figure.add_axes
    else:
        figure = _figure_of(ax)
        _title_axes(ax, title)
        if rows * columns == 1 and not room.strip:
            return figure, [ax], None
        wide, high = inches_of(ax)
        top = high
        panel = max((wide - width) / columns, 0.1), max((high - height) / rows, 0.1)
        place = ax.inset_axes
        ax.set_axis_off()
    boxes = [
        (
            room.side + _GAP + column * (panel[0] + _GAP),
            top - room.head - (row + 1) * (_GAP + panel[1]) - row * room.foot,
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


def entitle(axes: Any, text: object) -> None:
    """A foreign name above one of several panels, as far as it fits."""
    shown, how = lettered(within(text, inches_of(axes)[0], 10), axes.figure)
    axes.set_title(shown, fontsize=10, **how)


def write(axes: Any, x: float, y: float, text: object, **options: Any) -> Any:
    """Foreign text as it is: no formulas, no control characters."""
    options.setdefault("fontsize", SMALL)
    shown, how = lettered(text, axes.figure)
    return axes.text(x, y, shown, **how, **options)


def caption(axes: Any, text: str, *, depth: float = 4.0) -> None:
    """Small grey text below everything that the axes have there, so many points lower."""
    if text:
        width = max(inches_of(axes)[0], 1.2)
        shown, how = lettered(wrapped(text, width, SMALL - 0.5), axes.figure)
        axes.annotate(
            shown,
            *((0.5, 0.0), (0, -depth)),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=SMALL - 0.5,
            color=GREY,
            annotation_clip=False,
            **how,
        )


def name_axes(axes: Any, *, x: object = None, y: object = None) -> None:
    """Foreign names of what the axes measure."""
    size = SMALL + 0.5
    width, height = inches_of(axes)
    # A layout is going to take some of the height for what is above and below.
    for name, room, call in ((x, width, axes.set_xlabel), (y, 0.8 * height, axes.set_ylabel)):
        if name is not None:
            shown, how = lettered(wrapped(name, max(room, 0.8), size), axes.figure)
            call(shown, fontsize=size, **how)


def name_ticks(
    axis: Any, places: Any, names: Sequence[object], *, length: int = 32, **options: Any
) -> None:
    """Foreign names along an axis, shortened to so many characters."""
    labels = [shortened(printable(str(name).replace("\n", " ")), length) for name in names]
    shown, how = lettered("\n".join(labels), axis.figure)
    options.setdefault("fontsize", SMALL + 0.5)
    axis.set_ticks(places, shown.split("\n") if labels else [], **how, **options)


def name_lines(axes: Any, lines: Sequence[Any], names: Sequence[object], **options: Any) -> None:
    """Foreign names of lines, in a legend."""
    # A legend leaves out what starts with an underscore.
    labels = [f" {shortened(printable(name).strip(), 60)}" for name in names]
    texts = axes.legend(lines, labels, frameon=False, fontsize=8.5, **options).get_texts()
    for text, label in zip(texts, labels, strict=True):
        shown, how = lettered(label, axes.figure)
        text.set(text=shown, **how)


def open_frame(axes: Any, *, grid: str | None = None) -> None:
    """Axes without a frame at the top and to the right, and with a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL + 0.5)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color="#8c8c8c", alpha=0.25, linewidth=0.6)


def inches_of(axes: Any) -> tuple[float, float]:
    """Width and height of axes, before a layout has moved them."""
    box = axes.get_window_extent()
    return max(box.width, 1.0) / axes.figure.dpi, max(box.height, 1.0) / axes.figure.dpi


def _figure_class() -> Any:
    need_matplotlib()
    from attrib.plot._figure import Picture

    return Picture


def _figure_of(ax: Any) -> Any:
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise AttribTypeError(
            f"ax: must be axes of matplotlib, got {type(ax).__name__}; pass e.g. "
            "figure.subplots(), or leave it out for a new figure",
            code="ax.type",
        )
    return ax.figure.figure  # of a part of a figure, too


def _title_lines(title: str | None, width: float) -> tuple[str, float]:
    """A title in lines for a figure of this width, and the inches that they need."""
    if not title:
        return "", 0.0
    lines = wrapped(shortened(title, _LONGEST), width - 0.3, _TITLE)
    return lines, 0.14 + _TITLE / 60 * (1 + lines.count("\n"))


def _title_figure(figure: Any, lines: str, **options: Any) -> None:
    if lines:
        shown, how = lettered(lines, figure)
        figure.suptitle(shown, fontsize=_TITLE, **options).set(**how)


def _title_axes(ax: Any, title: str | None, above: float = 7.0) -> None:
    if title:
        lines = wrapped(shortened(title, _LONGEST), inches_of(ax)[0], _TITLE - 1)
        shown, how = lettered(lines, ax.figure)
        ax.set_title(shown, fontsize=_TITLE - 1, pad=above, **how)
