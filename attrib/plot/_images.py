"""Attributions of a batch of images, by one method or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrib._checks import check_choice
from attrib.errors import AttribValueError
from attrib.plot._arrays import check_names, shape, value_of
from attrib.plot._canvas import (
    SMALL,
    Room,
    entitle,
    inches_of,
    name_axes,
    pictures,
)
from attrib.plot._heat import Heat, heat, heats
from attrib.plot._image import panel_size
from attrib.plot._lettering import within
from attrib.plot._modes import MODES, Mode, draw, explain
from attrib.plot._pixels import Denorm, Layout, check_over, photo, plane
from attrib.plot._strips import scale_room, shared_scale
from attrib.plot.colors import Array, Palette, Sign

# The stubs of NumPy leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["images", "methods_of"]


def images(
    attrs: Any,
    images: Any = None,
    *,
    mode: Mode = "overlay",
    columns: Sequence[object] | None = None,
    rows: Sequence[object] | None = None,
    share_scale: bool = True,
    sign: Sign = "all",
    clip: float = 99.0,
    scale: float | None = None,
    palette: Palette = "attrib",
    layout: Layout | None = None,
    denorm: Denorm = None,
    top: float = 5.0,
    unit: str = "attribution",
    title: str | None = None,
    colorbar: bool = True,
    ax: Any = None,
) -> Figure:
    """A batch of attributions: a row for each image, a column for each method.

    Args:
        attrs: Attributions of a batch, ``(batch, channel, height, width)`` or as for
            `attrib.plot.image` behind the batch, or a list of them; or a mapping from the names
            of methods to such.
        images: The batch of images, which are drawn in front.
        mode: As for `attrib.plot.image`, one for all.
        columns: The names of the methods, if they are not the keys of a mapping.
        rows: The names of the images.
        share_scale: Whether equal colours are equal numbers everywhere.
        sign, clip, scale, palette, layout, denorm, top, unit, title, colorbar, ax: As for
            `attrib.plot.image`.

    Returns:
        The figure.

    Raises:
        AttribError: If attributions and images are not as many, or not of one size.

    Warns:
        PlotWarning: If the picture shows less than it seems to.

    Example:
        >>> import torch
        >>> maps = {"one": torch.randn(2, 1, 6, 6), "another": torch.randn(2, 1, 6, 6)}
        >>> len(images(maps, torch.rand(2, 1, 6, 6)).axes)  # 2 x 3, and a scale
        7
    """
    check_choice(mode, "mode", MODES)
    methods = methods_of(attrs)
    names = check_names(columns or [name for name, _ in methods], len(methods), "columns", "")
    grid = [_each(batch, "attrs", lambda one: plane(one, layout, "attrs")) for _, batch in methods]
    photos = None
    if images is not None:
        photos = _each(images, "images", lambda one: photo(one, layout, denorm, "images"))
        names = ["image", *names]
    labels = check_names(rows, _check_counts(grid, photos), "rows", "image")
    options: Any = {"sign": sign, "clip": clip, "scale": scale, "palette": palette, "unit": unit}
    cells = _cells(grid, share_scale, options)
    each = colorbar and not share_scale
    size = panel_size(grid[0][0], height=2.2)
    room = Room(
        head=0.26 * any(names),
        foot=scale_room(unit, size[0]) * each,
        strip=scale_room(unit, size[0] * len(names)) * (colorbar and share_scale),
        side=0.28 * (rows is not None),
    )
    figure, panels, strip = pictures(ax, len(labels), len(names), size, room, title)
    for row in range(len(labels)):
        pixels = None if photos is None else photos[row]
        shown = [None] * (photos is not None) + [column[row] for column in cells]
        for axes, one in zip(panels[row * len(names) :], shown, strict=False):
            if one is not None and pixels is not None:
                check_over(one.values, pixels, "attrs", "images")
            draw(axes, "original" if one is None else mode, one, pixels, top)
            if one is not None and each:
                explain(axes, mode, one, top, scale=True)
    _name(panels, names, labels if rows is not None else [])
    if strip is not None:
        shared_scale(strip, cells[0][0])
    return figure


def methods_of(attrs: Any) -> list[tuple[str, Any]]:
    """Names and attributions of a mapping; one without a name otherwise."""
    named = attrs.items() if isinstance(attrs, Mapping) else [("", attrs)]
    found = [(str(name), value_of(attr)) for name, attr in named]
    if not found:
        raise AttribValueError(
            "attrs: there are none, got an empty mapping; pass at least one", code="attrs.empty"
        )
    return found


def _each(batch: Any, name: str, convert: Callable[[Any], Array]) -> list[Array]:
    """Every example of a batch, or of a list of them, converted."""
    if not isinstance(batch, (list, tuple)) and getattr(batch, "ndim", 0) < 3:
        got = shape(batch) if hasattr(batch, "shape") else type(batch).__name__
        raise AttribValueError(
            f"{name}: must be a batch of images, got {got}; draw one image with attrib.plot.image",
            code=f"{name}.shape",
        )
    return [convert(one) for one in batch]


def _check_counts(grid: list[list[Array]], photos: list[Array] | None) -> int:
    count = len(grid[0])
    counts = [len(column) for column in grid] + ([] if photos is None else [len(photos)])
    if set(counts) != {count} or not count:
        raise AttribValueError(
            f"attrs: as many as there are images, got {' and '.join(map(str, counts))}; pass "
            "one attribution of every method for each image",
            code="attrs.length",
        )
    return count


def _name(panels: list[Any], columns: list[str], rows: list[str]) -> None:
    for axes, name in zip(panels, columns, strict=False):
        entitle(axes, name)
    for axes, name in zip(panels[:: len(columns)], rows, strict=False):
        name_axes(axes, y=within(name, 0.8 * inches_of(axes)[1], SMALL + 0.5))


def _cells(grid: list[list[Array]], shared: bool, options: Any) -> list[list[Heat]]:
    if not shared:
        return [[heat(one, name="attrs", **options) for one in column] for column in grid]
    flat = iter(heats([one for column in grid for one in column], name="attrs", **options))
    return [[next(flat) for _ in column] for column in grid]
