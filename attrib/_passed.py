"""Tensors that passed sites, and the trees that a user is shown of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from attrib._checks import describe
from attrib._sites import Spot
from attrib._taps import Place, shown, tensors_in
from attrib._tree import leaves
from attrib.errors import AttribTypeError
from attrib.types import Tree

__all__ = ["Passed", "only_tensor"]

Codes = dict[str, list[str]]
"""The structure of what passed each site, call by call; see `Tapping`."""


class Passed:
    """Tensors that passed sites, call by call."""

    def __init__(self, spots: list[Spot]) -> None:
        self._spots = spots
        self._calls: dict[str, list[list[Tensor]]] = {spot.key: [] for spot in spots}

    def add(self, spot: Spot, place: Place, tensor: Tensor) -> None:
        """One more."""
        calls = self._calls[spot.key]
        if place.leaf == 0:
            calls.append([])
        calls[-1].append(tensor)

    def all_there(self, codes: Codes) -> bool:
        """Whether every site has been passed by all that is asked for."""
        return all(map(partial(self._there, codes), self._spots))

    def _there(self, codes: Codes, spot: Spot) -> bool:
        calls, asked = self._calls[spot.key], spot.site.call
        last = asked if isinstance(asked, int) else 0
        return len(calls) > last and len(calls[last]) == tensors_in(codes[spot.key][last])

    def trees(
        self, codes: Codes, change: Callable[[Tensor], Tensor | None] = lambda tensor: tensor
    ) -> list[Tree]:
        """What each site yields: a tensor, a tree of tensors, or a tuple of those of all calls."""
        return [self._tree(spot, codes[spot.key], change) for spot in self._spots]

    def _tree(
        self, spot: Spot, codes: list[str], change: Callable[[Tensor], Tensor | None]
    ) -> Tree:
        def of(call: int) -> Tree:
            changed = [change(tensor) for tensor in self._calls[spot.key][call]]
            moved = [None if t is None else spot.batch_first(t) for t in changed]
            return moved[0] if len(moved) == 1 else shown(codes[call], moved)

        if spot.site.call == "all":
            return tuple(map(of, range(len(codes))))
        return of(spot.site.call or 0)


def only_tensor(h: Tree) -> Tensor:
    """The one tensor that a site yields."""
    tensors = [leaf for leaf in leaves(h) if leaf is not None]
    if len(tensors) != 1:
        raise AttribTypeError(
            f"site: must yield one tensor here, got {describe(h)}; choose one of several with "
            "Site(..., leaf=0), and of several calls with call=0",
            code="site.several",
        )
    return tensors[0]
