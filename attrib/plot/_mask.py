"""The segments of an image, and what each contributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attrib.errors import AttribTypeError, AttribValueError
from attrib.plot._arrays import notify, numbers, shape
from attrib.plot._canvas import (
    SMALL,
    Room,
    inches_of,
    pictures,
    write,
)
from attrib.plot._heat import Heat, colours, heat, share
from attrib.plot._image import panel_size
from attrib.plot._pixels import Denorm, Layout, check_over, pale, photo, plane
from attrib.plot._shapes import edges
from attrib.plot._strips import colour_scale, scale_room
from attrib.plot.colors import Array, Palette, Sign, unpaint
from attrib.plot.labels import shortened, signed

# The stubs of NumPy leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["mask"]

# Okabe and Ito (2008), https://jfly.uni-koeln.de/color: told apart by everyone.
_HUES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
_MOST_LABELS = 200


def mask(
    image: Any,
    segments: Any,
    attr: Any = None,
    *,
    labels: bool | Sequence[object] | Mapping[int, object] = True,
    sign: Sign = "all",
    clip: float = 99.0,
    scale: float | None = None,
    palette: Palette = "attrib",
    layout: Layout | None = None,
    denorm: Denorm = None,
    unit: str = "attribution",
    title: str | None = None,
    colorbar: bool = True,
    ax: Any = None,
) -> Figure:
    """The segments that an image was cut into, in the colours of their attributions.

    Args:
        image: The image, as for `attrib.plot.image`.
        segments: The number of the segment that each pixel belongs to, ``(height, width)``, such as
            the ``groups`` of a method.
        attr: What each segment contributes: as many numbers as there are segments, in the order of
            their numbers; or an attribution of the image. Left out, segments get colours that mean
            nothing.
        labels: Whether to write the number of each segment into it where there is room, and its
            attribution; or their names, in that order or by number; empty ones are not written.
        sign, clip, scale, palette, layout, denorm, unit, title, colorbar, ax: As for
            `attrib.plot.image`.

    Returns:
        The figure.

    Raises:
        AttribError: If image, segments and attribution do not fit each other.

    Warns:
        PlotWarning: If the picture shows less than it seems to.

    Example:
        >>> import torch
        >>> segments = torch.arange(64).view(8, 8) // 16
        >>> figure = mask(torch.rand(3, 8, 8), segments, [0.5, -1.0, 0.0, 2.0])
    """
    pixels = photo(image, layout, denorm)
    regions = _regions(segments)
    check_over(regions, pixels, "segments")
    ids, place = np.unique(regions, return_inverse=True)
    place = place.reshape(regions.shape)
    names = _names(labels, ids)
    shown = None
    if attr is not None:
        values = _over_pixels(attr, place, len(ids), layout)
        shown = heat(values, sign=sign, clip=clip, scale=scale, palette=palette, unit=unit)
    size = panel_size(pixels, height=3.8)
    room = Room(foot=scale_room(unit, size[0]) * (shown is not None))
    figure, panels, _ = pictures(ax, 1, 1, size, room, title)
    _draw(panels[0], pixels, place, shown)
    if names:
        _label(panels[0], place, names, shown)
    if shown is not None and colorbar:
        colour_scale(panels[0], shown)
    return figure


def _regions(segments: Any) -> NDArray[np.int64]:
    found = numbers(segments, "segments")
    found = found[0] if found.ndim == 3 and len(found) == 1 else found
    if not (np.isfinite(found).all() and (found == np.round(found)).all()):
        raise AttribTypeError(
            "segments: must be integers, got numbers in between; pass the number of the segment "
            "of each pixel",
            code="segments.type",
        )
    if found.ndim != 2 or not found.size:
        raise AttribValueError(
            f"segments: one number for each pixel, got shape {shape(found)}; pass (height, width)",
            code="segments.shape",
        )
    return found.astype(np.int64)


def _names(labels: Any, ids: NDArray[np.int64]) -> list[str]:
    if isinstance(labels, Mapping):
        return [str(labels.get(int(number), int(number))) for number in ids]
    if isinstance(labels, bool):
        return [str(int(number)) for number in ids] if labels else []
    if isinstance(labels, str) or len(labels) != len(ids):
        raise AttribValueError(
            f"labels: must be as many as there are segments, got {len(labels)} for {len(ids)}; "
            "pass one for each, or a mapping from numbers to names",
            code="labels.length",
        )
    return [str(label) for label in labels]


def _over_pixels(attr: Any, place: NDArray[np.intp], count: int, layout: Layout | None) -> Array:
    values = numbers(attr, "attr")
    if values.ndim == 1:
        if len(values) != count:
            raise AttribValueError(
                f"attr: one number for each segment, got shape {shape(values)} for {count} "
                "segments; pass them in the order of their numbers, or a number for each pixel",
                code="attr.shape",
            )
        return values[place]
    over = plane(values, layout)
    check_over(over, place, "attr", "segments")
    return over


def _draw(axes: Any, pixels: Array, place: NDArray[np.intp], shown: Heat | None) -> None:
    from matplotlib.collections import LineCollection

    if shown is None:
        hues = np.stack([unpaint(hue) for hue in _HUES])[place % len(_HUES)]
        picture = 0.55 * pixels + 0.45 * hues
    else:
        opacity = 0.25 + 0.65 * np.abs(share(shown))[..., None]
        picture = pale(pixels) * (1 - opacity) + colours(shown) * opacity
    axes.imshow(picture, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(color="#c4c4c4", linewidth=0.6)
    # White below black is seen on every ground.
    for colour, width in (("white", 1.8), ("#222222", 0.7)):
        lines = LineCollection(list(edges(place)), colors=colour, linewidths=width)
        axes.add_collection(lines, autolim=False)


def _label(axes: Any, place: NDArray[np.intp], names: list[str], shown: Heat | None) -> None:
    if len(names) > _MOST_LABELS:
        notify(f"labels: {len(names)} segments are too many to be named in the picture")
        return
    per_inch = place.shape[0] / max(inches_of(axes)[1], 0.1)
    for number, name in enumerate(names):
        rows, columns = np.nonzero(place == number)
        text = shortened(name, 16)
        room = (np.ptp(columns) + 1) / per_inch
        if not text or len(text) * 0.075 > room or (np.ptp(rows) + 1) / per_inch < 0.16:
            continue
        # The pixel next to the centre: the centre itself can lie outside of the segment.
        nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        if shown is not None and room > 0.5 and (np.ptp(rows) + 1) / per_inch > 0.34:
            text = f"{text}\n{signed(float(shown.values[rows[0], columns[0]]))}"
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.8, "linewidth": 0}
        options: Any = {"ha": "center", "va": "center", "color": "black", "bbox": box}
        write(axes, columns[nearest], rows[nearest], text, fontsize=SMALL - 1, **options)
