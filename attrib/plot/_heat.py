"""An attribution on its way to colours: its sign chosen, its scale known, its oddities told."""

# The stubs of NumPy and matplotlib leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from attrib._checks import check_choice, check_number
from attrib.plot._arrays import notify
from attrib.plot.colors import Array, Palette, Sign, keep_sign, limit, paint, parts_of
from attrib.plot.labels import plain, signed

__all__ = ["Heat", "axis_label", "colours", "ends", "heat", "heats", "scale_labels", "share"]


@dataclass(frozen=True)
class Heat:
    """Numbers and how their colours are read."""

    values: Array
    """Of the sign that is shown; NaN where not finite."""
    limit: float
    """The size that gets full colour."""
    sign: Sign
    palette: Palette
    unit: str
    """What the numbers are."""
    note: str
    """What the colours do not tell: how many were clipped or not finite, that all are zero."""


def heat(
    values: Array,
    *,
    sign: Sign,
    clip: float,
    scale: float | None,
    palette: Palette,
    unit: str,
    name: str = "attr",
) -> Heat:
    """Check the options that all pictures share, and warn of what would mislead."""
    check_choice(sign, "sign", ("all", "positive", "negative", "absolute"))
    check_number(clip, "clip", most=100.0, exclusive=True)
    paint(0.0, palette=palette)
    finite = np.isfinite(values)
    kept = keep_sign(np.where(finite, values, np.nan), sign)
    given = scale is not None
    scale = check_number(scale, "scale", exclusive=True) if given else limit(kept, clip)
    notes = [*_oddities(kept, values, sign, name), *_clipping(kept, scale, None if given else clip)]
    return Heat(kept, scale, sign, palette, unit, ", ".join(notes))


def heats(
    parts: Sequence[Array],
    *,
    sign: Sign,
    clip: float,
    scale: float | None,
    palette: Palette,
    unit: str,
    name: str = "attr",
) -> list[Heat]:
    """Several arrays on one scale."""
    flat = np.concatenate([part.reshape(-1) for part in parts]) if parts else np.zeros(0)
    whole = heat(flat, sign=sign, clip=clip, scale=scale, palette=palette, unit=unit, name=name)
    pieces = np.split(whole.values, np.cumsum([part.size for part in parts])[:-1]) if parts else []
    return [
        replace(whole, values=piece.reshape(part.shape))
        for piece, part in zip(pieces, parts, strict=True)
    ]


def share(heat: Heat) -> Array:
    """The numbers as a part of full colour, in [-1, 1]; zero where not finite."""
    return parts_of(heat.values, heat.limit)


def colours(heat: Heat) -> Array:
    """The colour of every number, ``(*shape, 3)``."""
    return paint(heat.values, heat.limit, sign=heat.sign, palette=heat.palette)


def ends(heat: Heat) -> tuple[float, float]:
    """The numbers at both ends of the scale."""
    low = 0.0 if heat.sign in ("positive", "absolute") else -heat.limit
    return low, 0.0 if heat.sign == "negative" else heat.limit


def axis_label(heat: Heat) -> str:
    """What the numbers along an axis are, and what else must be told."""
    return f"{heat.unit} ({heat.note})" if heat.note else heat.unit


def scale_labels(heat: Heat) -> list[tuple[float, str]]:
    """The numbers that a scale names, and how."""
    write = plain if heat.sign == "absolute" else signed
    places = sorted({*ends(heat), 0.0})
    return [(place, write(place)) for place in places]


def _oddities(kept: Array, values: Array, sign: Sign, name: str) -> list[str]:
    if not kept.size:
        notify(f"{name}: nothing to show, it is empty")
        return ["empty"]
    finite = np.isfinite(kept)
    broken = int(kept.size - finite.sum())
    if broken == kept.size:
        notify(f"{name}: none of the {kept.size} numbers is finite; all are marked as missing")
        return ["nothing finite"]
    notes: list[str] = []
    if broken:
        notify(f"{name}: {broken} of {kept.size} numbers are NaN or infinite; marked as missing")
        notes.append(f"{broken} NaN or infinite")
    if not kept[finite].any():
        notes.append(f"nothing {sign}" if values[finite].any() else "all are 0")
        notify(f"{name}: {notes[-1]}; every entry has the colour of zero")
    return notes


def _clipping(kept: Array, scale: float, clip: float | None) -> list[str]:
    finite = kept[np.isfinite(kept)]
    # As many digits as a sum in another order may change do not make an entry too large.
    clipped = float((np.abs(finite) > scale * (1 + 1e-12)).mean()) if finite.size else 0.0
    if not clipped:
        return []
    part = f"{100 * clipped:.1f} %" if clipped >= 0.0005 else "< 0.1 %"
    return [f"{part} clipped" + (f" (percentile {clip:g})" if clip is not None else "")]
