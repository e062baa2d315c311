"""Reading what sites yield as feature maps ``(*batch, channels, *spatial)``."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from attrib._carriers import Overridden
from attrib._checks import check_callable, describe
from attrib._inside import Sites
from attrib._marking import wrapped
from attrib._sites import SiteLike
from attrib._taps import tap
from attrib._transforms import concrete, numbers
from attrib._tree import differentiable, tree_map
from attrib._watching import check_floating
from attrib.errors import AttribTypeError, AttribValueError, add_note
from attrib.gradient import score_of
from attrib.layers import activation_and_gradient
from attrib.types import Score, Tree

__all__ = [
    "Combine",
    "Reshape",
    "channel_of",
    "check_reshape",
    "combined",
    "feature_maps",
    "of_each",
    "over_places",
    "weighted",
    "with_gradients",
    "with_score",
]

Reshape: TypeAlias = Callable[[Tensor], Tensor] | None
"""From what a site yields to feature maps; ``None`` if it yields them."""

Combine = Callable[[Tensor, Tensor], Tensor]
"""From feature maps and gradients ``(*batch, channels, places)`` to a map ``(*batch, places)``."""

_NUMBERS = itertools.count()


def with_score(f: Score, site: SiteLike) -> tuple[Score, SiteLike]:
    """The same score with a tap that tells of every example whether its score is finite, and the
    tree of the sites and this tap: read together, they tell the dimensions of the batch, which a
    layer alone does not."""
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    if isinstance(f, Overridden) or not pytree.tree_leaves(site):
        Sites(f, site)  # which refuses both
    # A score may itself be made of class activation maps, of another name.
    name = f"attrib.cam {next(_NUMBERS)}"

    def telling(f: Score) -> Score:
        checked = score_of(f)

        def score(x: Tree, *args: Any) -> Tensor:
            result = checked(x, *args)
            tap(name, result.isfinite())
            return result

        return score

    return wrapped(f, telling), (site, name)


def with_gradients(f: Score, site: SiteLike) -> Callable[..., tuple[Tree, Tree]]:
    """What sites yield, and the derivative of the score by it: for `combined`."""
    return activation_and_gradient(*with_score(f, site))


def combined(
    both: Callable[..., tuple[Tree, Tree]], reshape: Reshape, combine: Combine
) -> Callable[..., tuple[Tree, torch.Size]]:
    """``call(x, *args)``: a map of every site, and the dimensions of the batch."""

    def call(x: Tree, *args: Any) -> tuple[Tree, torch.Size]:
        (activation, finite), (gradient, _) = both(x, *args)
        batch = finite.shape

        def one(h: Tensor, g: Tensor) -> Tensor:
            maps, slopes = (feature_maps(part, batch, reshape) for part in (h, g))
            return over_places(combine, len(batch), maps, slopes)

        return of_each(one, activation, gradient), batch

    return call


def check_reshape(reshape: Any) -> None:
    """A function or nothing."""
    if reshape is not None:
        check_callable(reshape, "reshape", "pass a function from tokens to (batch, channels, ...)")


def of_each(one: Callable[..., Tensor], activation: Tree, *more: Tree) -> Tree:
    """A map of every floating-point tensor that sites yield, and ``None`` in other places."""
    check_floating(activation)

    def unless_integer(h: Any, *parts: Any) -> Tensor | None:
        return one(h, *parts) if differentiable(h) else None

    return tree_map(unless_integer, activation, *more)


def feature_maps(h: Tensor, batch: torch.Size, reshape: Reshape) -> Tensor:
    """One tensor that a site yields, as ``(*batch, channels, *spatial)``."""
    maps = h if reshape is None else _reshaped(reshape, h)
    if maps.ndim >= len(batch) + 2 and maps.shape[: len(batch)] == batch:
        return maps
    expected = f"expected (*batch, channels, *spatial) with batch {tuple(batch)}"
    if reshape is not None:
        raise AttribValueError(
            f"reshape: does not return feature maps, got {tuple(maps.shape)} from "
            f"{tuple(h.shape)}; {expected}",
            code="reshape.shape",
        )
    if h.ndim >= len(batch) + 2:
        raise AttribValueError(
            f"site: the examples are not in front, got {tuple(h.shape)}; {expected}: say where "
            "they are with Site(..., batch_dim=), or pass reshape=",
            code="site.batch",
        )
    raise AttribValueError(
        f"site: yields no spatial dimensions, got {tuple(h.shape)}; {expected}: choose an earlier "
        "layer, or for a layer of tokens pass reshape=",
        code="site.spatial",
    )


def channel_of(h: Tensor, maps: Tensor, dims: int, reshape: Reshape) -> Tensor:
    """Which channel of its feature maps every entry of ``h`` belongs to, broadcastable to it, and
    -1 for entries off the maps.

    Args:
        h: What a site yields.
        maps: Its feature maps.
        dims: The number of batch dimensions.
        reshape: What makes the one from the other.
    """
    channels = torch.arange(maps.shape[dims], device=h.device)
    channels = channels.reshape(-1, *(1 for _ in maps.shape[dims + 1 :]))
    if reshape is None:
        return channels
    # Numbers in the place of values tell where each goes; a zero does not come from ``h``.
    places = torch.arange(1, h.numel() + 1, device=h.device).reshape(h.shape)
    moved = _reshaped(reshape, places).long()
    _check_moved(h, maps, moved)
    nowhere = torch.full((h.numel() + 1,), -1, device=h.device)
    found = nowhere.scatter(0, moved.flatten(), channels.expand(maps.shape).flatten())
    return found[1:].reshape(h.shape)


def over_places(combine: Callable[..., Tensor], dims: int, *maps: Tensor) -> Tensor:
    """``combine(*maps)`` with all spatial dimensions in one, behind so many of the batch."""
    found = combine(*(part.flatten(dims + 1) for part in maps))
    return found.reshape(*found.shape[:-1], *maps[0].shape[dims + 1 :])


def weighted(maps: Tensor, weights: Tensor) -> Tensor:
    """The sum over channels, ``(*batch, channels, places)`` and ``(*batch, channels)``."""
    return (weights.unsqueeze(-2) @ maps).squeeze(-2)


def _reshaped(reshape: Callable[[Tensor], Tensor], h: Tensor) -> Tensor:
    try:
        maps: Any = reshape(h)
    except Exception as error:
        add_note(error, f"attrib was calling reshape on what the site yields, {tuple(h.shape)}")
        raise
    if not isinstance(maps, Tensor):
        raise AttribTypeError(
            f"reshape: must return a tensor, got {describe(maps)}; expected feature maps (*batch, "
            "channels, *spatial)",
            code="reshape.type",
        )
    return maps


def _check_moved(h: Tensor, maps: Tensor, moved: Tensor) -> None:
    seen = numbers(moved)
    inside = seen is None or bool(((seen >= 0) & (seen <= h.numel())).all())
    if moved.shape == maps.shape and inside:
        if not (concrete(h) and concrete(maps)):
            return
        expected = torch.cat([h.new_zeros(1), h.flatten()])[moved]
        if bool(((expected == maps) | (expected != expected)).all()):
            return
    raise AttribValueError(
        f"reshape: must only move and choose entries, got other values from {tuple(h.shape)}; "
        "leave arithmetic to the model, and tap its result",
        code="reshape.values",
    )
