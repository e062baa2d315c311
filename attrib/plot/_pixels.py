"""Images and maps over them, from any layout, dtype and normalisation."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attrib._checks import check_choice
from attrib.errors import AttribValueError
from attrib.plot._arrays import notify, numbers, shape, total
from attrib.plot.colors import Array

# The stubs of NumPy leave some types open.
# pyright: reportUnknownMemberType=false

__all__ = ["Denorm", "Layout", "check_over", "pale", "photo", "plane"]

Layout: TypeAlias = Literal["CHW", "HWC", "HW"]
Denorm: TypeAlias = tuple[Any, Any] | None


def plane(attr: Any, layout: Layout | None, name: str = "attr") -> Array:
    """The sum over channels, ``(height, width)``."""
    return total(_channels_first(numbers(attr, name), layout, name), 0)


def photo(image: Any, layout: Layout | None, denorm: Denorm, name: str = "image") -> Array:
    """What is looked at, ``(height, width, 3)`` in [0, 1]."""
    pixels = _channels_first(numbers(image, name), layout, name)
    if denorm is not None:
        pixels = pixels * _per_channel(denorm[1], pixels) + _per_channel(denorm[0], pixels)
    elif _is_integer(image):
        pixels = pixels / 255.0 if pixels.max() > 1 else pixels
    pixels = _three(_in_range(pixels, name, known=denorm is not None), name)
    return np.moveaxis(pixels, 0, -1)


def pale(pixels: Array) -> Array:
    """A photo as a light grey ground for colours."""
    return np.repeat(0.6 + 0.4 * pixels.mean(-1, keepdims=True), 3, -1)


def check_over(
    heat: NDArray[Any], pixels: NDArray[Any], name: str = "attr", named: str = "image"
) -> None:
    """A map and the photo below it are of one height and width."""
    if heat.shape != pixels.shape[:2]:
        raise AttribValueError(
            f"{name}: height and width differ from those of {named}, got {shape(heat)} for "
            f"{shape(pixels)[:2]}; bring them to one size, e.g. by attrib.upsample, and say "
            'layout="CHW" or "HWC" if channels were mistaken for pixels',
            code=f"{name}.shape",
        )


def _channels_first(array: Array, layout: Layout | None, name: str) -> Array:
    if layout is not None:
        check_choice(layout, "layout", ("CHW", "HWC", "HW"))
    if array.ndim > 3:
        raise AttribValueError(
            f"{name}: one image at a time, got a batch of shape {shape(array)}; pass {name}[0], "
            "or draw the batch with attrib.plot.images",
            code=f"{name}.batch",
        )
    if array.ndim < 2 or not array.size or (layout == "HW" and array.ndim == 3):
        raise AttribValueError(
            f"{name}: not an image, got shape {shape(array)}; must be (height, width), (channel, "
            "height, width) or (height, width, channel), with layout= where that is ambiguous",
            code=f"{name}.shape",
        )
    if array.ndim == 2:
        return array[None]
    last = _looks_last(array, name) if layout is None else layout == "HWC"
    return np.moveaxis(array, -1, 0) if last else array


def _looks_last(array: Array, name: str) -> bool:
    """Whether only the last dimension can be channels, or only the first one is unlikely to be."""
    likely = {1: 2, 3: 2, 4: 1}  # grey, red-green-blue, the same with opacity
    first, last = (likely.get(array.shape[place], 0) for place in (0, -1))
    if first == last and first and array.shape != (1, 1, 1):
        notify(
            f"{name}: of shape {shape(array)}, the first dimension is taken for the channels; pass "
            'layout="HWC" if it is the last one, or "CHW" if it is not'
        )
    return last > first


def _per_channel(value: Any, pixels: Array) -> Array:
    numbers_of = numbers(value, "denorm").reshape(-1)
    if numbers_of.size not in (1, len(pixels)):
        raise AttribValueError(
            f"denorm: one number for each channel, got shape {shape(numbers_of)} for an image of "
            f"{len(pixels)} channels; pass (mean, std) as they were used to normalise",
            code="denorm.shape",
        )
    return numbers_of[:, None, None]


def _is_integer(image: Any) -> bool:
    if isinstance(image, Tensor):
        return not image.is_floating_point()
    return np.asarray(image).dtype.kind in "iub"


def _in_range(pixels: Array, name: str, *, known: bool) -> Array:
    finite = np.isfinite(pixels)
    if not finite.all():
        notify(f"{name}: {int((~finite).sum())} of {pixels.size} numbers are NaN or infinite")
        pixels = np.where(finite, pixels, np.median(pixels[finite]) if finite.any() else 0.5)
    low, high = float(pixels.min()), float(pixels.max())
    if not known and (low < -1e-3 or high > 1 + 1e-3):
        notify(
            f"{name}: numbers from {low:.3g} to {high:.3g} are stretched to [0, 1]; pass "
            "denorm=(mean, std), or numbers in [0, 1] or uint8"
        )
        pixels = (pixels - low) / ((high - low) or 1.0)
    return np.maximum(np.minimum(pixels, 1.0), 0.0)


def _three(pixels: Array, name: str) -> Array:
    if len(pixels) in (3, 4):
        return pixels[:3]
    if len(pixels) > 1:
        notify(f"{name}: {len(pixels)} channels are no colours; their mean is shown")
    return np.repeat(pixels.mean(0, keepdims=True), 3, 0)
