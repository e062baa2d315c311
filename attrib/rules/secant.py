"""Slopes between neighbouring points of a path: DeepLift, with the points' evaluations shared."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attrib._batched import Batched, stacked
from attrib._carriers import Carrier, Overridden
from attrib._transforms import transforming
from attrib._tree import leaves, length, tree_map
from attrib.gradient import grad_and_score
from attrib.rules._flow import Call, Flow, Rule
from attrib.rules._secants import SCALE, crossing, small
from attrib.rules.deep_lift import RESCALE, deep_lift
from attrib.types import Score, Tree

__all__ = ["secant_slopes"]


def secant_slopes(f: Score, args: tuple[Any, ...]) -> Callable[[Tree], Tree]:
    """The multipliers of DeepLift between neighbours.

    Args:
        f: Score.
        args: What it takes beside the points.

    Returns:
        ``slopes(points)``: from a stack of ``count + 1`` points the ``count`` multipliers of every
        point with respect to the one before it.
    """
    apart = stacked(deep_lift(f, multiply=False, rules=_RULES), *args)
    together = [isinstance(f, Batched) and not transforming()]

    def slopes(points: Tree) -> Tree:
        found = None
        if together[0] and isinstance(f, Batched):
            # Whatever a model refuses that has no rows, or counts them, it takes one by one.
            with suppress(_NotRowsError, IndexError, RuntimeError, ValueError, TypeError):
                found = _shared(f, points, args)
            together[0] = found is not None  # if not, it is not worth another try
        if found is None:
            ends = tree_map(lambda p: p[1:], points), tree_map(lambda p: p[:-1], points)
            found = apart(*ends)
        return found

    return slopes


_RULES: dict[Any, Rule] = {"pool": crossing}


class _NotRowsError(Exception):
    """Somewhere in the model, the points do not follow each other along the first dimension."""


class _Neighbours(Flow):
    """All points at once, one after the other along the first dimension of everything: each is the
    reference of the next, the first its own."""

    def __init__(self, points: int, rows: int, carrier: Carrier, variables: list[Tensor]) -> None:
        rules = {**RESCALE, **_RULES}
        if carrier.light:
            rules["relu"] = self._rectified
        super().__init__(carrier, variables, rules)
        self.points, self.rows = points, rows
        if any(leaf.ndim == 0 or leaf.shape[0] != rows for leaf in variables):
            raise _NotRowsError

    def ruled(self, rule: Rule, call: Call) -> Any:
        """See `Flow`."""
        call.references = [self._before(tensor) for tensor in call.inputs]
        return rule(call, self.carrier)

    def _rectified(self, call: Call, carrier: Carrier) -> Tensor:
        """As `rectified` does, on parts of what is there already."""
        x = call.inputs[0]
        at = carrier.frozen(x)
        value, rows = call(at), self._rows(x)
        slope = torch.zeros_like(value)
        step = torch.sub(at[rows:], at[:-rows]).add_(small(x.dtype))
        torch.sub(value[rows:], value[:-rows], out=slope[rows:]).div_(step)
        return carrier.carried(value, x, slope, by=SCALE)

    def _before(self, tensor: Tensor) -> Tensor:
        rows, at = self._rows(tensor), self.carrier.frozen(tensor)
        return torch.cat([at[:rows], at[:-rows]])

    def _rows(self, tensor: Tensor) -> int:
        # Where time or heads share a dimension with the rows, nothing tells which comes first.
        if tensor.ndim == 0 or tensor.shape[0] != self.rows:
            raise _NotRowsError
        return self.rows // self.points


def _shared(f: Batched, points: Tree, args: tuple[Any, ...]) -> Tree | None:
    """The multipliers from one evaluation of every point, if the points have rows."""
    count = length(points)
    first = next(leaf for leaf in leaves(points) if leaf is not None)
    if first.ndim < 2:
        return None
    flow = partial(_Neighbours, count, count * first.shape[1])
    slopes, _ = stacked(grad_and_score(Overridden(f, flow)), *args)(points)
    return tree_map(lambda g: g[1:], slopes)
