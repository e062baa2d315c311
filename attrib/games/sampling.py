"""Shapley values from random orders of the players."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from attrib._checks import check_choice
from attrib._map import ChunkSize, Points
from attrib.games._attribution import averaged
from attrib.games._coalitions import random_rows
from attrib.games._folding import (
    Draws,
    Take,
    between_ends,
    regrouped,
    shifted,
    wide,
)
from attrib.games._kept import kept, may_be_kept
from attrib.games.game import Game
from attrib.games.groups import Groups
from attrib.perturb import Stream
from attrib.reducers import mean
from attrib.types import Attribute, Reducer, Score

__all__ = ["Design", "Ranks", "contributions", "shapley_sampling", "walks"]

Design = Literal["antithetic", "independent", "stratified"]

Ranks: TypeAlias = Callable[[int, int], Tensor]
"""``ranks(start, stop)``: the places of the players in random orders, ``(orders, players)``."""


def shapley_sampling(
    f: Score,
    *,
    samples: int = 25,
    design: Design = "antithetic",
    groups: Groups = None,
    interventional: bool = False,
    reduce: Reducer = mean,
    tol: float | None = None,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Shapley values from random orders of the features, which join one after another,

    .. math:: \phi_i = \mathbb{E}_\pi \big[ v(\mathrm{before}_\pi(i) \cup i)
              - v(\mathrm{before}_\pi(i)) \big].

    An order of :math:`M` features takes :math:`M - 1` evaluations: neighbouring terms share one,
    and all orders share those of no and of all features.

    Args:
        f: Score.
        samples: Independent draws; with `tol`, at most. What a draw is depends on the design.
        design: ``"antithetic"``: an order and its reverse, in which pairs of features that interact
            meet in both ways. ``"independent"``: one order. ``"stratified"``: an order and all its
            rotations, so that every feature takes every place once, M orders.
        groups: Which entries of ``x`` are one feature, as for `attrib.games.game`.
        interventional: The baseline is a set to average over, as for `attrib.games.game`.
        reduce: How the draws are folded: `attrib.estimate` adds standard errors.
        tol: Stop as soon as, for every example, all standard errors are below ``tol`` times its
            largest value. Needs at least 16 samples, and numbers that Python can see: not inside
            `torch.vmap` or `torch.compile`.
        generator: Source of randomness. Without one, the draws come from a copy of the global
            generator: the same at every call until something else advances it.
        chunk_size: Coalitions evaluated at once. Does not change the draws.

    Returns:
        ``attribute(x, baseline=0, *args)``, what `reduce` makes of trees like ``x``, in units of
        the score. The examples share the orders. The values of an example sum to ``f(x) -
        f(baseline)`` in every draw.

    Raises:
        AttribError: For options out of range, and as for `attrib.games.game`.

    References:
        Castro, Gomez & Tejada (2009), https://doi.org/10.1016/j.cor.2008.04.004; for the reverse,
        Mitchell, Cooper, Frank & Holmes (2022), https://arxiv.org/abs/2104.12199; for strata by
        place, Castro, Gomez, Molina & Tejada (2017), https://doi.org/10.1016/j.cor.2017.01.019

    Example:
        >>> import torch
        >>> f = lambda x: x[..., 0] * x[..., 1] + x[..., 2]
        >>> shapley_sampling(f, samples=1)(torch.tensor([[2.0, 3.0, 5.0]]))
        tensor([[3., 3., 5.]])
    """
    check_choice(design, "design", ("antithetic", "independent", "stratified"))

    def draws(v: Game, stream: Stream) -> Draws:
        total = samples * _coalitions_per_draw(v.players, design)
        if total and may_be_kept(total * v.players, generator, v.full):
            every: Tensor = kept(_every_walk, stream, v.full, v.players, samples, design)
            return contributions(v, lambda start, stop: every[start:stop], design)
        return contributions(v, _random_walks(stream, v.full, v.players, design), design)

    return averaged(
        f,
        draws,
        samples=samples,
        reduce=reduce,
        tol=tol,
        generator=generator,
        groups=groups,
        interventional=interventional,
        chunk_size=chunk_size,
    )


def _random_walks(stream: Stream, like: Tensor, players: int, design: Design) -> Take:
    """The coalitions of random orders, see `walks`, on the device of a tensor."""
    uniform = random_rows(players, stream, like.device)

    def ranks(start: int, stop: int) -> Tensor:
        return uniform(start, stop).argsort(-1)

    return walks(ranks, players, design, like.device)


def _every_walk(stream: Stream, like: Tensor, players: int, samples: int, design: Design) -> Tensor:
    """The same of so many draws at once."""
    take = _random_walks(stream, like, players, design)
    return take(0, samples * _coalitions_per_draw(players, design))


def walks(ranks: Ranks, players: int, design: str, device: torch.device) -> Take:
    """The coalitions that grow when players join in random orders, but those of nobody and of
    everybody, one draw after another.

    Args:
        ranks: Random orders, taken one after another.
        players: How many.
        design: See `shapley_sampling`.
        device: Where the coalitions are.
    """
    inside, orders, size = (
        players - 1,
        _orders_per_draw(players, design),
        _coalitions_per_draw(players, design),
    )
    joined = torch.arange(1, players, device=device)[:, None]

    def take(begin: int, end: int) -> Tensor:
        first, base = begin // inside, begin // size
        drawn = _orders(ranks(base, (end - 1) // size + 1), design)
        places = drawn[first - base * orders : (end - 1) // inside + 1 - base * orders]
        found = (places[:, None] < joined).flatten(0, 1)
        return found[begin - first * inside : end - first * inside]

    return take


def contributions(v: Game, take: Take, design: str) -> Draws:
    """What each player adds when they join in random orders.

    Args:
        v: The game.
        take: The coalitions of its players, see `walks`.
        design: See `shapley_sampling`.

    Returns:
        ``draws(start, stop)``, chunks ``(n, *batch, players)`` of independent draws.
    """
    orders, size = _orders_per_draw(v.players, design), _coalitions_per_draw(v.players, design)
    ends: list[Tensor] = []

    def draws(start: int, stop: int) -> Iterator[Tensor]:
        points = Points((stop - start) * size, shifted(take, start * size))
        if not ends:
            empty, full, chunks = between_ends(v, points)
            ends[:] = empty, full
        else:
            chunks = v.over(points)
        if size == 0:
            yield (ends[1] - ends[0]).expand(stop - start, *v.batch)[..., None]
            return
        for coalitions, values in regrouped(chunks, size):
            yield _added(v, coalitions, values, ends, orders)

    return draws


def _orders_per_draw(players: int, design: str) -> int:
    """How many orders one draw has."""
    return {"antithetic": 2, "independent": 1, "stratified": players}[design]


def _coalitions_per_draw(players: int, design: str) -> int:
    """How many coalitions one draw has."""
    return _orders_per_draw(players, design) * (players - 1)


def _orders(ranks: Tensor, design: str) -> Tensor:
    """The places of the players in all orders that belong to the draws."""
    players = ranks.shape[-1]
    if design == "antithetic":
        return torch.stack([ranks, players - 1 - ranks], 1).flatten(0, 1)
    if design == "stratified":
        turns = torch.arange(players, device=ranks.device)[:, None]
        return ((ranks[:, None] + turns) % players).flatten(0, 1)
    return ranks


def _added(
    v: Game, coalitions: Tensor, values: Tensor, ends: Sequence[Tensor], orders: int
) -> Tensor:
    """Contributions ``(n, *batch, players)`` from coalitions ``(n, orders * inside, players)``."""
    draws, size, players = coalitions.shape
    empty, full = ends
    walks = wide(values).reshape(draws, orders, size // orders, *v.batch)
    edge = (draws, orders, 1, *v.batch)
    rising = torch.cat([empty.expand(edge), walks, full.expand(edge)], 2).diff(dim=2)
    # A player joins after as many coalitions as it is not in.
    places = (~coalitions).reshape(draws, orders, -1, *(1 for _ in v.batch), players).sum(2)
    return rising.movedim(2, -1).gather(-1, places.expand(draws, orders, *v.batch, players)).mean(1)
