"""From what is read off a game to an attribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attrib._batched import Batched, Rows, inherit
from attrib._carriers import Overridden
from attrib._checks import check_callable
from attrib._map import ChunkSize, check_chunk_size
from attrib._tree import flatten, leaves_for, put, tree_map, unflatten
from attrib.games._folding import Draws, check_stopping, folded
from attrib.games._players import Groups, Partition, partition
from attrib.games.game import Game, game
from attrib.perturb import Stream, fork
from attrib.types import Attribute, Reducer, Score, Tree

__all__ = ["attribution", "averaged"]


def attribution(
    f: Score,
    solution: Callable[[Game], Any],
    *,
    groups: Groups,
    interventional: bool,
    chunk_size: ChunkSize,
    random: bool = False,
) -> Attribute:
    """The attribution ``attribute(x, baseline=0, *args)`` that solves the game of a score; of a set
    of baselines, if it is interventional.

    Args:
        f: Score.
        solution: From a game to numbers of its players, ``(*batch, players)``, or a tree of them.
        groups: As for `attrib.games.game`.
        interventional: Likewise.
        chunk_size: Likewise.
        random: Whether the solution draws random numbers, which the rows of a batch share.
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    chunk_size = check_chunk_size(chunk_size)
    groups = partition(groups)

    def method(f: Score, groups: Groups) -> Attribute:
        def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
            v = game(
                f,
                x,
                baseline,
                *args,
                groups=groups,
                interventional=interventional,
                chunk_size=chunk_size,
            )
            return tree_map(lambda a: v.spread(a) if isinstance(a, Tensor) else a, solution(v))

        def over_rows(x: Tree, baselines: Any = 0, *args: Any) -> Tree:
            return attribute(x, baselines, *args)

        return over_rows if interventional else attribute

    if random or not isinstance(groups, Partition):
        return method(f, groups) if random else inherit(f, lambda f: method(f, groups))
    return _inherit(f, groups, method)


def averaged(
    f: Score,
    draws: Callable[[Game, Stream], Draws],
    *,
    samples: int,
    reduce: Reducer,
    tol: float | None,
    generator: torch.Generator | None,
    groups: Groups,
    interventional: bool,
    chunk_size: ChunkSize,
) -> Attribute:
    """The attribution that a reducer makes of independent draws.

    Args:
        f: Score.
        draws: From a game and random numbers to the draws.
        samples: How many; with `tol`, at most.
        reduce: How they are folded.
        tol: Stop when the standard errors are so small, see `until`.
        generator: Source of randomness, or ``None``.
        groups: As for `attribution`.
        interventional: Likewise.
        chunk_size: Likewise.
    """
    check_stopping(samples, reduce, tol)
    Stream(generator)

    def solution(v: Game) -> Any:
        return folded(v.full, draws(v, Stream(fork(generator))), samples, reduce, tol)

    return attribution(
        f,
        solution,
        groups=groups,
        interventional=interventional,
        chunk_size=chunk_size,
        random=True,
    )


def _inherit(
    f: Score, groups: Partition, method: Callable[[Score, Groups], Attribute]
) -> Attribute:
    """As `inherit`; the masks of examples are repeated with them."""
    plain = method(f, groups)
    score = f.score if isinstance(f, Overridden) else f
    if not isinstance(score, Batched):
        return plain
    masks, spec = flatten(groups.ids)
    places = [place for place, mask in enumerate(masks) if mask is not None]
    own = len(score.rows.tensors)
    carried = Rows((*score.rows.tensors, *(masks[place] for place in places)), score.rows.length)

    def function(rows: Rows, x: Tree, *args: Any, **named: Any) -> Any:
        repeated = unflatten(spec, put(masks, places, rows.tensors[own:]))
        ids = None if rows is carried else _of_examples(groups.ids, repeated, x)
        if ids is None:
            return plain(x, *args, **named)
        mine = score.on(Rows(rows.tensors[:own], rows.length))
        return method(mine, replace(groups, ids=ids))(x, *args, **named)

    return Batched(function, carried, like=plain)


def _of_examples(ids: Tree, repeated: Tree, x: Tree) -> Tree | None:
    """The masks as repeated where they have the dimensions of ``x``: other masks just happen to be
    as long as the batch."""
    parts, spec = flatten(x)
    given, longer = leaves_for(x, ids), leaves_for(x, repeated)
    if given is None or longer is None:
        return None

    def of_leaf(leaf: Any, mask: Any, rows: Any) -> Any:
        return rows if leaf is not None and mask is not None and mask.ndim == leaf.ndim else mask

    return unflatten(spec, [of_leaf(*each) for each in zip(parts, given, longer, strict=True)])
