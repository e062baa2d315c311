"""Rows of a baseline that repeat each other, which need to be evaluated once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrib._batched import Batched, Rows
from attrib._carriers import Overridden
from attrib._transforms import transforming
from attrib._tree import leaves, tree_map
from attrib.rules._rows import UntoldRowsError, check_rows
from attrib.rules._sums import telling
from attrib.types import Score, Tree

__all__ = ["Repeats", "repeats"]


class Repeats(NamedTuple):
    """Rows in runs of equal ones.

    Attributes:
        first: Where each run begins, ``(runs,)``.
        run: The run of every row, ``(rows,)``.
    """

    first: Tensor
    run: Tensor

    def shortened(self, tree: Tree) -> Tree:
        """One row of each run, of every tensor that has rows."""
        rows = len(self.run)

        def leaf(part: Any) -> Any:
            has_rows = isinstance(part, Tensor) and part.ndim > 0 and part.shape[0] == rows
            return part[self.first] if has_rows else part

        return tree_map(leaf, tree)

    def score(self, f: Score) -> Score:
        """The score of one row of each run."""
        own = f.score if isinstance(f, Overridden) else f
        if not isinstance(own, Batched):
            return f
        return replace(own, rows=Rows(self.shortened(own.rows.tensors)))

    def lengthened(self, short: Tensor, like: Tensor) -> Tensor:
        """What stands in a model for one row of each run, for all rows."""
        runs, rows = len(self.first), len(self.run)
        check_rows(short, runs)
        check_rows(like, rows)
        if short.shape[1:] != like.shape[1:]:
            raise UntoldRowsError
        return short.expand_as(like) if runs == 1 else short[self.run]


def repeats(f: Score, start: Tree, args: tuple[Any, ...]) -> Repeats | None:
    """The runs of equal rows in a baseline, and in all arguments that have rows; ``None`` if there
    is nothing to gain, or somebody may differentiate by one of them."""
    if not isinstance(f, Batched) or transforming() or torch.is_grad_enabled():
        return None
    parts = [leaf for leaf in leaves(start) if isinstance(leaf, Tensor)]
    if any(leaf.ndim == 0 for leaf in parts) or len({len(leaf) for leaf in parts}) != 1:
        return None
    if any(leaf.is_floating_point() and not telling(leaf.dtype) for leaf in parts):
        return None
    rows = len(parts[0])
    parts += [
        leaf
        for leaf in leaves(args)
        if isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == rows
    ]
    # Targets may differ: a choice at the end is no part of what is shared.
    parts += [leaf for leaf in f.rows.tensors if leaf.is_floating_point() or leaf.ndim > 1]
    if rows < 2 or any(not torch.equal(leaf[0], leaf[1]) for leaf in parts):
        return None
    changes = torch.zeros(rows - 1, dtype=torch.bool, device=parts[0].device)
    for leaf in parts:
        if leaf.stride(0) != 0:
            changes |= (leaf[1:] != leaf[:-1]).reshape(rows - 1, -1).any(1)
    run = torch.cat([changes.new_zeros(1), changes]).cumsum(0)
    first = torch.cat([changes.new_ones(1), changes]).nonzero().squeeze(1)
    return Repeats(first, run) if 2 * len(first) <= rows else None
