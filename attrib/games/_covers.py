"""Which players stand for which entries of a tensor: one look-up for hiding and for spreading."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attrib._tree import flatten, leaves, unflatten
from attrib.types import Tree

__all__ = ["Cover", "Entries", "Grid", "Members", "hidden", "kept_by", "spread"]


@dataclass(frozen=True, eq=False)
class Entries:
    """Every entry is a player of its own.

    Attributes:
        start: The first player.
        shape: The features of one example.
    """

    start: int
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Members:
    """Every entry belongs to one player or to none.

    Attributes:
        ids: The player of each entry, as many dimensions as the leaf, of its size or one; the
            number of players stands for none.
    """

    ids: Tensor


@dataclass(frozen=True, eq=False)
class Grid:
    """Players are boxes on a grid, which may overlap or leave gaps.

    Attributes:
        start: The first player.
        counts: Boxes along each feature dimension.
        covering: For each feature dimension, which boxes cover its positions, ``(most, size)``; the
            count stands for none. Absent where one box covers all.
    """

    start: int
    counts: tuple[int, ...]
    covering: tuple[Tensor | None, ...]


Cover: TypeAlias = Entries | Members | Grid
"""How the players cover one leaf of ``x``."""


def hidden(
    x: Tree, baseline: Tree, covers: list[Cover | None], coalitions: Tensor, batch_dims: int
) -> Tree:
    """``x`` with the entries of absent players replaced.

    Args:
        x: Tree with leaves ``(*batch, *feature)``.
        baseline: Tree like ``x`` whose leaves broadcast to ``(samples, *batch, *feature)``.
        covers: The players of each leaf.
        coalitions: Who is present, ``(samples, *batch, players)``, a batch of ones if the examples
            share it.
        batch_dims: Batch dimensions of ``x``.

    Returns:
        New tensors ``(samples, *batch, *feature)``, which a model may write to.
    """
    parts, spec = flatten(x)

    def leaf(a: Any, b: Any, cover: Cover | None) -> Any:
        if a is None or cover is None:
            return None if a is None else a.expand(len(coalitions), *a.shape).clone()
        return torch.where(kept_by(cover, coalitions, batch_dims), a, b)

    found = [leaf(*each) for each in zip(parts, leaves(baseline), covers, strict=True)]
    return unflatten(spec, found)


def spread(cover: Cover, values: Tensor, batch_dims: int) -> Tensor:
    """The mean value of the players that cover each entry, zero for an entry that none covers.

    Args:
        cover: The players of a leaf.
        values: One number per player, ``(*batch, players)``.
        batch_dims: Batch dimensions of the leaf.

    Returns:
        Broadcastable to the leaf.
    """

    def mean(found: Tensor, dim: int, covers: Tensor) -> Tensor:
        count = covers.sum(0).clamp_min(1).to(found.dtype)
        return found.sum(dim) / count.reshape(-1, *(1 for _ in found.shape[dim + 2 :]))

    return _look_up(cover, values, batch_dims, 0, mean)


def kept_by(cover: Cover, coalitions: Tensor, batch_dims: int) -> Tensor:
    """Which entries are not hidden: those that no absent player covers.

    Args:
        cover: The players of a leaf.
        coalitions: Who is present, ``(samples, *batch, players)``, a batch of ones if the examples
            share it.
        batch_dims: Batch dimensions of the leaf.

    Returns:
        Broadcastable to ``(samples, *leaf)``.
    """
    if isinstance(cover, Grid):
        return _absent_on_grid(cover, coalitions) == 0
    return _look_up(cover, coalitions, batch_dims, True, lambda found, dim, _: found.all(dim))


def _absent_on_grid(cover: Grid, coalitions: Tensor) -> Tensor:
    """How many absent players cover each entry: along each dimension a matrix product, which is
    quicker than looking up all that cover an entry."""
    absent = (~_block(cover, coalitions)).to(torch.float32)
    for dim, covering in enumerate(cover.covering, coalitions.ndim - 1):
        if covering is None:
            continue
        boxes = torch.arange(absent.shape[dim], device=covering.device)
        over = (covering == boxes[:, None, None]).any(1).to(absent.dtype)
        absent = torch.matmul(absent.movedim(dim, -1), over).movedim(-1, dim)
    return absent


def _look_up(
    cover: Cover,
    table: Tensor,
    batch_dims: int,
    nobody: float,
    merge: Callable[[Tensor, int, Tensor], Tensor],
) -> Tensor:
    lead = table.shape[:-1]
    if isinstance(cover, Entries):
        return _own(cover.start, cover.shape, table)
    if isinstance(cover, Grid):
        return _on_grid(cover, table, nobody, merge)
    batch, features = cover.ids.shape[:batch_dims], cover.ids.shape[batch_dims:]
    table = _padded(table, -1, nobody)
    if math.prod(batch) == 1:
        return table.index_select(-1, cover.ids.flatten()).reshape((*lead, *features))
    ids = cover.ids.reshape(*(1 for _ in lead[batch_dims:]), *batch, math.prod(features))
    found = torch.take_along_dim(table, ids, -1)
    return found.reshape((*found.shape[:-1], *features))


def _on_grid(
    cover: Grid, table: Tensor, nobody: float, merge: Callable[[Tensor, int, Tensor], Tensor]
) -> Tensor:
    block = _block(cover, table)
    for dim, covering in enumerate(cover.covering, table.ndim - 1):
        if covering is None:
            continue
        covers = covering < block.shape[dim]
        found = _padded(block, dim, nobody).index_select(dim, covering.flatten())
        each = (*block.shape[:dim], *covering.shape, *block.shape[dim + 1 :])
        block = merge(found.reshape(each), dim, covers)
    return block


def _block(cover: Grid, table: Tensor) -> Tensor:
    """The players of a grid in their places."""
    return _own(cover.start, cover.counts, table)


def _own(start: int, shape: tuple[int, ...], table: Tensor) -> Tensor:
    """What a table has for players from `start` on, in the shape in which they stand."""
    size = math.prod(shape)
    own = table if size == table.shape[-1] else table.narrow(-1, start, size)
    return own.reshape((*table.shape[:-1], *shape))


def _padded(table: Tensor, dim: int, value: float) -> Tensor:
    """With one more player, who stands for none."""
    edge = list(table.shape)
    edge[dim] = 1
    return torch.cat([table, table.new_full(edge, value)], dim)
