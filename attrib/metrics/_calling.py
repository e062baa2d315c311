"""How measures are called: with an attribution, or with a function that makes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attrib._batched import baseline_of, stacked
from attrib._checks import check_callable, describe
from attrib._tree import features, leaves
from attrib.errors import AttribTypeError, AttribValueError
from attrib.types import Attribute, Measure, Tree

__all__ = [
    "as_large",
    "at_points",
    "check_attribution",
    "check_batch_dims",
    "check_tensors",
    "explaining",
    "featurewise",
    "given_or_made",
]


def given_or_made(attribute: Attribute | None, measure: Callable[..., Any]) -> Measure:
    """A measure of an attribution and of what produced it, as it is; or one that explains first.

    Args:
        attribute: ``attribute(x, *args)`` or ``attribute(x, baseline, *args)``, or ``None``.
        measure: ``measure(attribution, x, baseline, *args)``.

    Returns:
        `measure`; with an attribution function ``measure(x, baseline=0, *args)``.

    Raises:
        AttribTypeError: If the attribution function cannot be called.
        AttribValueError: If it takes a set of baselines.
    """
    if attribute is None:
        return measure
    check_callable(
        attribute,
        "attribute",
        "pass an attribution function, or None and later its "
        "result as the first argument of the measure",
    )
    role = baseline_of(attribute)
    if role == "baselines":
        raise AttribValueError(
            "attribute: takes a set of baselines, got a function of (x, baselines); a measure has "
            "one baseline. Bind the set: lambda x, *args: attribute(x, baselines, *args)",
            code="attribute.baselines",
        )

    def explained(x: Tree, baseline: Any = 0, *args: Any) -> Tensor:
        own = (baseline, *args) if role else args
        return measure(attribute(x, *own), x, baseline, *args)

    return explained


def explaining(
    attribute: Attribute | None, measure: Callable[..., Tensor], *, data: int = 0
) -> Measure:
    """A measure that looks at nothing but the attribution, and perhaps at some data beside it.

    Args:
        attribute: ``attribute(x, *args)``, or ``None``.
        measure: ``measure(attribution, *data)``.
        data: How many further arguments `measure` takes.

    Returns:
        `measure`; with an attribution function ``measure(x, *data, *args)``.
    """
    if attribute is None:
        return measure
    check_callable(
        attribute,
        "attribute",
        "pass an attribution function, or nothing and later its "
        "result as the first argument of the measure",
    )

    def explained(x: Tree, *args: Any) -> Tensor:
        return measure(attribute(x, *args[data:]), *args[:data])

    return explained


def check_attribution(attribution: Any, x: Tree, batch: torch.Size) -> list[Any]:
    """The leaves of an attribution, which must belong to those of ``x``; some may be ``None``."""
    parts = check_tensors(attribution)
    if len(parts) != len(leaves(x)) or any(
        part is not None and part.shape[: len(batch)] != batch for part in parts
    ):
        raise AttribValueError(
            f"attribution: must be a tree like x, got {describe(attribution)} for x "
            f"{describe(x)} with scores of shape {tuple(batch)}",
            code="attribution.shape",
        )
    return parts


def check_tensors(attribution: Any) -> list[Any]:
    """The leaves of an attribution: tensors, or ``None`` for what has no attribution."""
    parts = leaves(attribution)
    if not any(isinstance(part, Tensor) for part in parts) or any(
        part is not None and not isinstance(part, Tensor) for part in parts
    ):
        raise AttribTypeError(
            f"attribution: must be a tree of tensors, got {describe(attribution)}; pass what "
            "an attribution returned",
            code="attribution.type",
        )
    return parts


def as_large(part: Tensor, leaf: Tensor, beside: str = "") -> Tensor:
    """A leaf of an attribution, expanded to the shape of the leaf of ``x`` that it belongs to.

    Raises:
        AttribValueError: If it does not broadcast, dimension by dimension.
    """
    fits = part.ndim == leaf.ndim and all(
        own in (1, size) for own, size in zip(part.shape, leaf.shape, strict=True)
    )
    if not fits:
        hint = ". A map without channels needs a dimension for them, e.g. attribution[:, None]"
        raise AttribValueError(
            f"attribution: does not broadcast to x, got shape {tuple(part.shape)}; x has shape "
            f"{tuple(leaf.shape)}{beside}" + hint * (part.ndim < leaf.ndim),
            code="attribution.shape",
        )
    return part.expand(leaf.shape)


def featurewise(attribution: Any, batch_dims: int) -> Tensor:
    """All features of all leaves in one dimension, ``(*batch, features)``.

    Raises:
        AttribValueError: If a leaf has fewer dimensions than the batch.
    """
    parts = [part for part in check_tensors(attribution) if part is not None]
    check_batch_dims(parts, batch_dims)
    rows = [features(part, batch_dims) for part in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows, -1)


def check_batch_dims(parts: list[Tensor], batch_dims: int) -> None:
    """Refuse leaves that have no such batch dimensions."""
    if any(part.ndim < batch_dims for part in parts):
        raise AttribValueError(
            f"attribution: fewer dimensions than batch_dims, got {describe(parts)}; pass "
            f"batch_dims=0 for one example without a batch dimension, not {batch_dims}",
            code="attribution.shape",
        )


def at_points(
    function: Callable[..., Any], batch_dims: int, *shared: Any, same_draws: bool = False
) -> Callable[..., Any]:
    """`attrib._batched.stacked`, also of a function of one example.

    That has no batch dimension into which other points could be folded.
    """

    def alone(x: Tree, *args: Any) -> Any:
        return function(x, *args)

    return stacked(function if batch_dims else alone, *shared, same_draws=same_draws)
