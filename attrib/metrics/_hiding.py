"""What measures that hide features share: numbers of features, and their order of importance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from attrib._map import Points
from attrib._tree import features, leaves
from attrib.errors import AttribValueError
from attrib.games._covers import Entries, Members
from attrib.games._players import Windows, partition
from attrib.games.game import Game
from attrib.games.groups import Groups
from attrib.metrics._calling import as_large, check_attribution
from attrib.metrics._statistics import wide

__all__ = ["check_groups", "inserted", "player_values", "ranks_of", "removed", "scores_of"]


def check_groups(groups: Groups) -> Groups:
    """Groups of which each entry belongs to one at most, made ready for use."""
    if isinstance(groups, Windows):
        raise AttribValueError(
            f"groups: may overlap, got windows of {groups.window}; an entry would count several "
            "times. Pass ids, e.g. attrib.games.patches(x, size)",
            code="groups.overlap",
        )
    return partition(groups)


def player_values(attribution: Any, v: Game) -> Tensor:
    """The attribution of each player, ``(*batch, players)``: the sum over its entries.

    Args:
        attribution: A tree like ``x`` whose leaves broadcast to those of ``x``, or the numbers
            themselves.
        v: The game.
    """
    batch = v.batch
    wanted = torch.Size((*batch, v.players))
    if isinstance(attribution, Tensor) and attribution.shape == wanted:
        whole = leaves(v.x)
        if len(whole) != 1 or whole[0].shape != wanted:
            return wide(attribution)
    parts = check_attribution(attribution, v.x, batch)
    total: Any = torch.zeros(wanted, dtype=wide(v.full).dtype, device=v.device)
    for part, leaf, cover in zip(parts, leaves(v.x), v.covers, strict=True):
        if part is None or cover is None:
            continue
        own = features(as_large(part, leaf, f", and there are {v.players} features"), len(batch))
        if isinstance(cover, Entries):
            places = cover.start + torch.arange(math.prod(cover.shape), device=v.device)
        elif isinstance(cover, Members):
            places = features(cover.ids.expand(leaf.shape), len(batch))
        else:
            check_groups(Windows(cover.counts))
            continue
        rows = torch.cat([total, torch.zeros_like(total[..., :1])], -1)
        total = rows.scatter_add(-1, places.expand(own.shape), own.to(total.dtype))[..., :-1]
    return total


def ranks_of(values: Tensor, *, largest_first: bool = True) -> Tensor:
    """The place of each player in the order of importance, ``(*batch, players)`` from zero; equals
    stay in the order of the players."""
    order = values.detach().argsort(dim=-1, descending=largest_first, stable=True)
    return order.argsort(-1)


def removed(ranks: Tensor, counts: Sequence[int]) -> Points:
    """Coalitions of all but the first players of an order, as many as each count says."""
    along = torch.tensor(counts, device=ranks.device).reshape(-1, *(1 for _ in ranks.shape))

    def take(start: int, stop: int) -> Tensor:
        return ranks >= along[start:stop]

    return Points(len(counts), take)


def inserted(ranks: Tensor, counts: Sequence[int]) -> Points:
    """Coalitions of the first players of an order alone."""
    others = removed(ranks, counts)

    def take(start: int, stop: int) -> Tensor:
        return ~others.take(start, stop)

    return Points(others.total, take)


def scores_of(evaluated: Iterator[tuple[Tensor, Tensor]], values: Tensor) -> Tensor:
    """The scores of coalitions ``(samples, *batch)``, NaN for examples whose attribution is.

    Args:
        evaluated: Coalitions with their scores, in chunks.
        values: The attribution of each player.
    """
    found = torch.cat([scores for _, scores in evaluated])
    return found.masked_fill(values.isnan().any(-1), math.nan)
