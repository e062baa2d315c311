"""Scales of colours, with their numbers and what else must be told."""

# The stubs of NumPy and matplotlib leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any

import numpy as np

from attrib.plot._canvas import SMALL, caption, inches_of
from attrib.plot._heat import Heat, ends, scale_labels
from attrib.plot._lettering import lettered, wrapped
from attrib.plot.colors import Array, paint

__all__ = ["colour_scale", "scale_room", "shared_scale", "strip_below"]

_ROOM = 0.66  # inches for a scale with one line of its unit and its note
_LINE = 1.2 * SMALL  # points from one line of a unit to the next
_STRIP = 0.76  # of the width of a picture, for its scale


def scale_room(unit: str, width: float) -> float:
    """Inches that a scale takes below something of this width."""
    return _ROOM + _LINE / 72 * _lines(unit, width).count("\n")


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

    part, thick = _size(axes)
    lower = axes.transAxes + ScaledTranslation(0, -below, axes.figure.dpi_scale_trans)
    strip = axes.inset_axes(((1 - part) / 2, -thick, part, thick), transform=lower)
    _fill(strip, ramp, limits, labels, _lines(unit, inches_of(axes)[0]))
    return strip


def shared_scale(axes: Any, heat: Heat) -> None:
    """The same in axes of their own, below several pictures."""
    part, thick = _size(axes)
    strip = axes.inset_axes(((1 - part) / 2, 1 - thick, part, thick))
    unit = _lines(heat.unit, inches_of(axes)[0])
    _fill(strip, _ramp(heat), ends(heat), scale_labels(heat), unit)
    _note_below(strip, heat)


def _lines(unit: str, width: float) -> str:
    """A unit in lines that fit, unless it has lines of its own."""
    return unit if "\n" in unit else wrapped(unit, width, SMALL)


def _size(axes: Any) -> tuple[float, float]:
    """Width and height of a strip, as parts of those of the axes."""
    width, height = inches_of(axes)
    return min(_STRIP, 3.2 / width), 0.11 / height


def _note_below(strip: Any, heat: Heat) -> None:
    lines = strip.get_xlabel().count("\n")
    caption(strip, heat.note, depth=25.0 + _LINE * lines)


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
    shown, how = lettered(unit, strip.figure)
    strip.set_xlabel(shown, fontsize=SMALL, labelpad=1, **how)
