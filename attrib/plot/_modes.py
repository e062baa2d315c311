"""The ways to show a map over a photo: the pixels of each, and the lines on top."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from attrib.plot._canvas import caption
from attrib.plot._heat import Heat, colours, share
from attrib.plot._pixels import pale
from attrib.plot._shapes import edges, hatch
from attrib.plot._strips import colour_scale
from attrib.plot.colors import Array, paint
from attrib.plot.labels import plain

# The stubs of NumPy leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

__all__ = ["MODES", "PHOTO_ONLY", "Mode", "draw", "explain"]

Mode: TypeAlias = Literal[
    "overlay", "blend", "heatmap", "original", "mask", "alpha", "contour", "top"
]
MODES = ("overlay", "blend", "heatmap", "original", "mask", "alpha", "contour", "top")
PHOTO_ONLY = ("blend", "original", "mask", "alpha")
"""Modes that show nothing without a photo."""

_LEVELS = (0.25, 0.5, 0.75)  # of full colour


def draw(axes: Any, mode: Mode, heat: Heat | None, pixels: Array | None, top: float) -> None:
    """One panel, without its scale."""
    picture: Any = pixels if heat is None else _pixels(mode, heat, pixels, top)
    # Single pixels of a small image are to be seen as such.
    small = max(picture.shape[:2]) < 200
    axes.imshow(picture, interpolation="nearest" if small else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(color="#c4c4c4", linewidth=0.6)
    if heat is None or mode == "original":
        return
    if mode == "contour":
        _contours(axes, heat)
    if mode == "top":
        _outline(axes, _strongest(heat, top))
    hatch(axes, ~np.isfinite(heat.values))


def explain(axes: Any, mode: Mode, heat: Heat, top: float, *, scale: bool) -> None:
    """What the panel means: its scale of colours, or words where colours do not say it."""
    if mode == "original":
        return
    if mode in ("mask", "alpha", "top"):
        words = f"full at |{heat.unit}| ≥ {plain(heat.limit)}"
        if mode == "top":
            words = f"the {top:g} % of largest |{heat.unit}|"
        caption(axes, words + (f"\n{heat.note}" if heat.note else ""))
    elif scale:
        colour_scale(axes, heat)


def _pixels(mode: Mode, heat: Heat, pixels: Array | None, top: float) -> Array:
    strength = np.abs(share(heat))[..., None]
    colour = colours(heat)
    if mode == "heatmap":
        return colour
    if pixels is None:
        pixels = np.ones_like(colour)
    if mode == "original":
        return pixels
    if mode == "overlay":
        # Opacity grows with strength: where nothing is attributed, the photo shows through.
        opacity = strength**0.75
        return pale(pixels) * (1 - opacity) + colour * opacity
    if mode == "blend":
        return 0.5 * pale(pixels) + 0.5 * colour
    if mode == "mask":
        return _tinted(pixels, heat) * strength
    if mode == "alpha":
        return 1 - strength + _tinted(pixels, heat) * strength
    if mode == "top":
        return np.where(_strongest(heat, top)[..., None], pixels, pale(pixels))
    return pale(pixels)


def _tinted(pixels: Array, heat: Heat) -> Array:
    """The photo in the colour of the sign, where both signs are shown."""
    if heat.sign != "all":
        return pixels
    known = np.nan_to_num(np.sign(heat.values))
    return 0.65 * pixels + 0.35 * paint(0.75 * known, palette=heat.palette)


def _strongest(heat: Heat, top: float) -> NDArray[np.bool_]:
    sizes = np.abs(np.nan_to_num(heat.values))
    count = max(round(top / 100 * sizes.size), 1)
    least = np.partition(sizes.reshape(-1), -count)[-count]
    return (sizes >= least) & (sizes > 0)


def _outline(axes: Any, inside: NDArray[np.bool_]) -> None:
    from matplotlib.collections import LineCollection

    lines = LineCollection(list(edges(np.pad(inside, 1)) - 1), colors="#a34a00", linewidths=1.1)
    axes.add_collection(lines, autolim=False)


def _contours(axes: Any, heat: Heat) -> None:
    parts = share(heat)
    if min(parts.shape) < 2:
        return  # no area that a line could enclose
    signs = {"positive": (1,), "absolute": (1,), "negative": (-1,)}.get(heat.sign, (-1, 1))
    for side in signs:
        levels = [side * level for level in _LEVELS if (side * parts).max() > level]
        if levels:
            shades = [paint(v, sign=heat.sign, palette=heat.palette) for v in levels]
            order = np.argsort(levels)
            axes.contour(
                parts,
                levels=[levels[place] for place in order],
                colors=[tuple(shades[place]) for place in order],
                linestyles="solid" if side > 0 else "dashed",
                linewidths=1.3,
            )
