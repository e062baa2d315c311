"""Bringing maps to another resolution, and onto the leaves of an input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional as F

from attrib._checks import check_choice, check_count, describe
from attrib._tree import differentiable, leaf_names, leaves, tree_map
from attrib.errors import AttribTypeError, AttribValueError
from attrib.types import Tree

__all__ = ["Mode", "check_leaves", "check_mode", "fitted", "upsample"]

Mode = Literal["linear", "nearest", "cubic", "area"]

# What torch calls them, in one, two and three dimensions.
_MODES: dict[str, tuple[str, ...]] = {
    "linear": ("linear", "bilinear", "trilinear"),
    "nearest": ("nearest", "nearest", "nearest"),
    "cubic": ("", "bicubic", ""),
    "area": ("area", "area", "area"),
}


def upsample(attribution: Tree, size: Sequence[int], mode: Mode = "linear") -> Tree:
    """Maps at another resolution, as `torch.nn.functional.interpolate` makes them.

    Args:
        attribution: A map ``(*batch, *spatial)``, or a tree of maps.
        size: The new size of the spatial dimensions, one to three integers: their number says how
            many of the last dimensions are spatial.
        mode: ``"linear"`` in every dimension (bilinear, trilinear), ``"nearest"``, ``"cubic"`` in
            two dimensions, or ``"area"`` for means, where the map gets smaller. The corners are not
            aligned: a map covers the same area before and after.

    Returns:
        The maps, ``(*batch, *size)``.

    Raises:
        AttribValueError: If `size` is not one to three positive integers, a map has fewer
            dimensions, or there is no such `mode` in so many dimensions.
        AttribTypeError: If `size` is not a tuple, or a map is not a floating-point tensor.

    Example:
        >>> import torch
        >>> upsample(torch.tensor([[0.0, 4.0]]), (4,))
        tensor([[0., 1., 3., 4.]])
    """
    whole = _check_size(size)
    check_mode(mode, len(whole))
    return tree_map(lambda leaf: _resized(leaf, whole, mode), attribution)


def check_mode(mode: str, dims: int | None = None) -> None:
    """An interpolation that there is, in so many dimensions if they are known."""
    check_choice(mode, "mode", list(_MODES))
    if dims is None:
        return
    known = [name for name, torchs in _MODES.items() if 1 <= dims <= 3 and torchs[dims - 1]]
    if mode not in known:
        raise AttribValueError(
            f"mode: there is no such interpolation, got {mode!r} in {dims} spatial dimensions; "
            + (
                f"must be one of {', '.join(map(repr, known))}"
                if known
                else "expected one to three of them"
            ),
            code="mode.unknown",
        )


def check_leaves(x: Tree, batch_dims: int, spatial: int) -> None:
    """Refuse leaves onto which a map with so many spatial dimensions cannot be laid."""
    for leaf, name in zip(leaves(x), leaf_names(x, "x"), strict=True):
        if differentiable(leaf) and leaf.ndim < batch_dims + spatial:
            raise AttribValueError(
                f"{name}: has no place for a map with {spatial} spatial dimensions, got "
                f"{tuple(leaf.shape)}; expected (*batch, ..., *spatial): pass what is not spatial "
                "as a further argument of the score",
                code="x.spatial",
            )


def fitted(maps: Tensor, leaf: Tensor, batch_dims: int, spatial: int, mode: Mode) -> Tensor:
    """Maps ``(..., *batch, *spatial)`` at the resolution of a leaf ``(*batch, ..., *spatial)``, to
    multiply it with."""
    size = tuple(leaf.shape[leaf.ndim - spatial :])
    resized = upsample(maps, size, mode)
    between = leaf.ndim - batch_dims - spatial
    return resized.reshape(*maps.shape[: maps.ndim - spatial], *(1,) * between, *size)


def _check_size(size: Any) -> tuple[int, ...]:
    given: Any = size
    if not isinstance(size, (tuple, list)):
        raise AttribTypeError(
            f"size: must be a tuple of integers, got {type(size).__name__}; pass one for each "
            "spatial dimension, such as x.shape[-2:]",
            code="size.type",
        )
    whole = tuple(check_count(length, "size") for length in given)
    if not 1 <= len(whole) <= 3:
        raise AttribValueError(
            f"size: must be one to three integers, got {len(whole)}; pass one for each spatial "
            "dimension, such as x.shape[-2:]",
            code="size.range",
        )
    return whole


def _resized(attribution: Any, size: tuple[int, ...], mode: str) -> Tensor:
    if not differentiable(attribution):
        found = str(attribution.dtype) if isinstance(attribution, Tensor) else describe(attribution)
        raise AttribTypeError(
            f"attribution: must be a floating-point tensor, got {found}; pass a map (*batch, "
            "*spatial)",
            code="attribution.type",
        )
    lead = attribution.ndim - len(size)
    if lead < 0:
        raise AttribValueError(
            f"attribution: has too few dimensions, got {tuple(attribution.shape)} for a size of "
            f"{len(size)}; expected (*batch, *spatial)",
            code="attribution.shape",
        )
    images = attribution.reshape(-1, 1, *attribution.shape[lead:])
    resized = F.interpolate(images, size=size, mode=_MODES[mode][len(size) - 1])
    return resized.reshape(*attribution.shape[:lead], *size)
