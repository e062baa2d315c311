"""Shapley values from coalitions of every size, each of which counts for all players."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from attrib._map import ChunkSize, Points
from attrib.games._attribution import averaged
from attrib.games._coalitions import random_rows
from attrib.games._folding import (
    Draws,
    product,
    regrouped,
    shifted,
    wide,
)
from attrib.games.game import Game
from attrib.games.groups import Groups
from attrib.perturb import Stream
from attrib.reducers import mean
from attrib.types import Attribute, Reducer, Score

__all__ = ["svarm"]


def svarm(
    f: Score,
    *,
    samples: int = 10,
    groups: Groups = None,
    interventional: bool = False,
    reduce: Reducer = mean,
    tol: float | None = None,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Shapley values as differences of two means, in each of which every coalition counts for all
    features, stratified by size: Stratified SVARM,

    .. math:: \phi_i = \frac1M \sum_{s=0}^{M-1} \Big( \mathbb{E}_{|S| = s,\, i \notin S}\,
              v(S \cup i) - \mathbb{E}_{|S| = s,\, i \notin S}\, v(S) \Big).

    The coalitions of at most one, and of all but one feature are evaluated once. A draw cuts a
    random order of the features into blocks of 2, 3, ..., M / 2 of them; the blocks and their
    complements meet every term of the sum for every feature at least once. What the values of a
    draw lack of their known sum is divided among the features.

    Args:
        f: Score.
        samples: Independent draws; with `tol`, at most. A draw takes about :math:`2 M \ln(M / 2)`
            evaluations.
        groups: Which entries of ``x`` are one feature, as for `attrib.games.game`.
        interventional: The baseline is a set to average over, as for `attrib.games.game`.
        reduce: How the draws are folded: `attrib.estimate` adds standard errors.
        tol: As for `attrib.shapley_sampling`.
        generator: As for `attrib.shapley_sampling`.
        chunk_size: Coalitions evaluated at once. Does not change the draws.

    Returns:
        ``attribute(x, baseline=0, *args)``, what `reduce` makes of trees like ``x``, in units of
        the score. Every draw is unbiased, and its values sum to ``f(x) - f(baseline)``. A feature
        without effect gets nothing on average only. With at most three features the values are
        exact.

    Raises:
        AttribError: For options out of range, and as for `attrib.games.game`.

    References:
        Kolpaczki, Bengs, Muschalik & Huellermeier (2024), https://arxiv.org/abs/2302.00736, who
        draw the sizes at random and cut up orders only to begin with, and whose values need not
        sum to anything; for the sum, Ruiz, Valenciano & Zarzuelo (1998),
        https://doi.org/10.1006/game.1997.0622

    Example:
        >>> import torch
        >>> f = lambda x: x[..., 0] * x[..., 1] + x[..., 2]
        >>> svarm(f)(torch.tensor([[2.0, 3.0, 5.0]]))
        tensor([[3., 3., 5.]])
    """
    return averaged(
        f,
        _draws,
        samples=samples,
        reduce=reduce,
        tol=tol,
        generator=generator,
        groups=groups,
        interventional=interventional,
        chunk_size=chunk_size,
    )


def _draws(v: Game, stream: Stream) -> Draws:
    uniform = random_rows(v.players, stream, v.device)
    blocks = _blocks(v.players, v.device)
    size = len(blocks)
    known: list[tuple[Tensor, Tensor]] = []
    waiting: list[Tensor] = []  # the places of players in orders whose values are yet to come
    drawn = 0

    def take(begin: int, end: int) -> Tensor:
        nonlocal drawn
        first, last = begin // size, (end - 1) // size + 1
        places = uniform(first, last).argsort(-1)
        waiting.append(places[drawn - first :])
        drawn = last
        coalitions = blocks[:, places].movedim(0, 1).flatten(0, 1)
        return coalitions[begin - first * size : end - first * size]

    def draws(start: int, stop: int) -> Iterator[Tensor]:
        if not known:
            known.append(_from_edges(v))
        rise, edges = known[0]
        if size == 0:
            yield _summing_to(rise, edges).expand(stop - start, *edges.shape)
            return
        weights = _weights(blocks).to(edges.dtype)
        points = Points((stop - start) * size, shifted(take, start * size))
        for _, values in regrouped(v.over(points), size):
            places = torch.cat(waiting)
            waiting[:] = [places[len(values) :]]
            # Only differences matter: every column of the weights sums to zero.
            by_place = product((wide(values) - wide(v.full)).movedim(1, -1), weights)
            yield _summing_to(rise, edges + _of_players(by_place, places[: len(values)]))

    return draws


def _of_players(by_place: Tensor, places: Tensor) -> Tensor:
    """From numbers of places ``(n, *batch, players)`` to those of the players who have them."""
    shape = (len(places), *(1 for _ in by_place.shape[1:-1]), places.shape[-1])
    return by_place.gather(-1, places.reshape(shape).expand(by_place.shape))


def _from_edges(v: Game) -> tuple[Tensor, Tensor]:
    """The rise ``(*batch,)``, and what sizes of none, one, all but one, and all contribute."""
    players = v.players
    one = torch.eye(players, dtype=torch.bool, device=v.device)
    ends = torch.tensor([[False], [True]], device=v.device).expand(2, players)
    values = wide(v(torch.cat([ends, one, ~one])))
    empty, full = values[0], values[1]
    alone = (values[2 : 2 + players] - full).movedim(0, -1)
    without = (values[2 + players :] - full).movedim(0, -1)
    rise = full - empty
    found = rise[..., None] + alone - without
    # With two players, one and all but one are the same coalitions.
    if players > 2:
        found = found + _mean_of_others(without) - _mean_of_others(alone)
    return rise, found / players


def _mean_of_others(values: Tensor) -> Tensor:
    return (values.sum(-1, keepdim=True) - values) / (values.shape[-1] - 1)


def _blocks(players: int, device: torch.device) -> Tensor:
    """Which places are in each block of an order, or in its complement, ``(blocks, players)``.

    The last block of a size goes on at the start of the order.
    """
    cuts = [
        (size, begin) for size in range(2, players // 2 + 1) for begin in range(0, players, size)
    ]
    size, begin = torch.tensor(cuts, dtype=torch.long, device=device).reshape(-1, 2, 1).unbind(1)
    inside = (torch.arange(players, device=device) - begin) % players < size
    return torch.cat([inside, ~inside])


def _weights(blocks: Tensor) -> Tensor:
    """Of each coalition in the value of the player at each place, ``(blocks, players)``.

    Those of a size that contain the player share 1 / players, the others share the negative.
    """
    sizes = blocks.sum(-1)
    alike = (sizes[:, None] == sizes).to(torch.float64)
    present, absent = blocks.to(torch.float64), (~blocks).to(torch.float64)
    players = blocks.shape[-1]
    return (present / (alike @ present) - absent / (alike @ absent)).nan_to_num() / players


def _summing_to(rise: Tensor, values: Tensor) -> Tensor:
    return values + ((rise - values.sum(-1)) / values.shape[-1])[..., None]
