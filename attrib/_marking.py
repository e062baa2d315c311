"""Scores that mark what passes some sites, and scores of the same model made from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from attrib._batched import Batched, inherit
from attrib._marked import watched
from attrib._sites import SiteLike, Spot, spots_in
from attrib.types import Tree

__all__ = ["marked", "wrapped"]


def marked(f: Callable[..., Any], sites: SiteLike) -> tuple[Callable[..., Any], list[Spot]]:
    """The same function, which marks what passes there, and the sites with their labels."""
    models = f.models if isinstance(f, Batched) else ()
    spots, _ = spots_in(models, sites)
    modules = {id(part) for model in models for part in model.modules()}
    inside = [spot for spot in spots if id(spot.module) in modules]
    outside = [spot for spot in spots if spot.module is not None and spot not in inside]
    if isinstance(f, Batched) and inside:
        f = _keeping(f, inside)

    def method(f: Callable[..., Any]) -> Callable[..., Any]:
        def watching(x: Tree, *args: Any) -> Any:
            with watched(outside):
                return f(x, *args)

        return watching

    return (wrapped(f, method) if outside else f), spots


def wrapped(
    f: Callable[..., Any], method: Callable[[Any], Callable[..., Any]]
) -> Callable[..., Any]:
    """``method(f)``, of independent rows if `f` is, in which the same places are sites."""
    found = inherit(f, method)
    if not (isinstance(found, Batched) and isinstance(f, Batched) and f.marked is not None):
        return found
    again = f.marked

    def marked(spots: Sequence[Any]) -> Any:
        return wrapped(again(spots), method)

    return replace(found, models=f.models, marked=marked)


def _keeping(f: Batched, spots: Sequence[Spot]) -> Batched:
    """A function whose marks stay when others are added."""
    if f.marked is None:
        return f

    def marked(more: Sequence[Any]) -> Batched:
        return _keeping(f, [*spots, *more])

    return replace(f.marked(spots), models=f.models, marked=marked)
