"""One sample, explained in several ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attrib._checks import check_choice
from attrib.errors import AttribValueError
from attrib.metrics import spearman
from attrib.plot._arrays import check_names, numbers, shape
from attrib.plot._canvas import (
    Room,
    charts,
    entitle,
    pictures,
)
from attrib.plot._heat import Heat, heat, heats
from attrib.plot._image import panel_size
from attrib.plot._images import methods_of
from attrib.plot._matrices import aligned_in, cells, table_size
from attrib.plot._modes import MODES, Mode, draw, explain
from attrib.plot._pixels import Denorm, Layout, check_over, photo, plane
from attrib.plot._strips import colour_scale, scale_room, shared_scale
from attrib.plot.colors import Array, Palette, Sign
from attrib.plot.labels import aligned

# The stubs of NumPy leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["compare"]


def compare(
    attrs: Mapping[str, Any],
    image: Any = None,
    *,
    names: Sequence[object] | None = None,
    mode: Mode = "overlay",
    share_scale: bool = True,
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
    """One sample, explained in several ways, and how far these agree with the first.

    Below each name stands its rank correlation (Spearman) with the first one: 1 where they put the
    entries, pixels after the sum over channels, in the same order.

    Args:
        attrs: From the name of a method, a target or a model to its attribution; all of one shape:
            an image as for `attrib.plot.image`, or the numbers of features, ``(features,)``.
        image: The image, if it is one.
        names: Of the features, if it is not.
        mode: As for `attrib.plot.image`.
        share_scale: Whether equal colours are equal numbers everywhere. Without it, every image
            has its own scale: a gradient and an attribution are not of one unit.
        sign, clip, scale, palette, layout, denorm, unit, title, colorbar, ax: As for
            `attrib.plot.image`.

    Returns:
        The figure.

    Raises:
        AttribError: If the attributions are not of one shape.

    Warns:
        PlotWarning: If the picture shows less than it seems to.

    Example:
        >>> import torch
        >>> figure = compare({"a": torch.randn(3, 8, 8), "b": torch.randn(3, 8, 8)})
        >>> figure = compare({"a": torch.randn(4), "b": torch.randn(4)}, names="s t u v".split())
    """
    check_choice(mode, "mode", MODES)
    methods = methods_of(attrs)
    values = _of_one_shape(methods, layout)
    options: Any = {"sign": sign, "clip": clip, "scale": scale, "palette": palette, "unit": unit}
    if share_scale or values[0].ndim == 1:
        shown = heats(values, name="attrs", **options)
    else:
        shown = [heat(one, name="attrs", **options) for one in values]
    labels = _with_agreement([name for name, _ in methods], values)
    if values[0].ndim == 1:
        return _table(shown, labels, names, title, colorbar, ax)
    pixels = None if image is None else photo(image, layout, denorm)
    if pixels is not None:
        check_over(values[0], pixels, "attrs")
    size = panel_size(values[0], height=2.4)
    room = Room(
        head=0.44,
        foot=scale_room(unit, size[0]) * (colorbar and not share_scale),
        strip=scale_room(unit, size[0] * len(shown)) * (colorbar and share_scale),
    )
    figure, panels, strip = pictures(ax, 1, len(shown), size, room, title)
    for axes, one, label in zip(panels, shown, labels, strict=True):
        draw(axes, mode, one, pixels, 5.0)
        entitle(axes, label)
        if colorbar and not share_scale:
            explain(axes, mode, one, 5.0, scale=True)
    if strip is not None:
        shared_scale(strip, shown[0])
    return figure


def _of_one_shape(methods: list[tuple[str, Any]], layout: Layout | None) -> list[Array]:
    arrays = [numbers(value, "attrs") for _, value in methods]
    for array in arrays:
        if array.shape != arrays[0].shape:
            raise AttribValueError(
                f"attrs: of different shapes, got {shape(arrays[0])} and {shape(array)}; pass "
                "attributions of the same x",
                code="attrs.shape",
            )
    return arrays if arrays[0].ndim == 1 else [plane(one, layout, "attrs") for one in arrays]


def _with_agreement(names: list[str], values: list[Array]) -> list[str]:
    rows = torch.stack([torch.as_tensor(one).reshape(-1) for one in values])
    known = torch.isfinite(rows).all(0)
    agreement = spearman(rows[:1, known], rows[:, known]) if known.any() else torch.zeros(len(rows))
    first, *others = names
    return [
        f"{first}\n" if others else first,
        *(
            f"{name}\nρ {aligned(float(number), 1.0)}"
            for name, number in zip(others, agreement[1:], strict=True)
        ),
    ]


def _table(
    shown: list[Heat],
    labels: list[str],
    names: Sequence[object] | None,
    title: str | None,
    colorbar: bool,
    ax: Any,
) -> Figure:
    features = check_names(names, shown[0].values.size, "names", "feature")
    columns = [label.strip().replace("\n", ", ") for label in labels]
    whole = replace(shown[0], values=np.stack([one.values for one in shown], -1))
    figure, panels = charts(ax, 1, *table_size(whole.values, features, columns), title)
    cells(panels[0], whole, features, columns, aligned_in(whole))
    if colorbar:
        colour_scale(panels[0], whole)
    return figure
