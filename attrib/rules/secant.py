"""Slopes between neighbouring points of a path: DeepLift, with the points' evaluations shared."""

from __future__ import annotations

from collections.abc import Callable
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
from attrib.rules._rows import check_rows, if_rows_are_told
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
            found = if_rows_are_told(partial(_shared, f, points, args))
            together[0] = found is not None  # if not, it is not worth another try
        if found is None:
            ends = tree_map(lambda p: p[1:], points), tree_map(lambda p: p[:-1], points)
            found = apart(*ends)
        return found

    return slopes


_RULES: dict[Any, Rule] = {"pool": crossing}


class _Neighbours(Flow):
    """All points at once, one after the other along the first dimension of everything: each is the
    reference of the next, the first its own."""

    def __init__(self, points: int, rows: int, carrier: Carrier, variables: list[Tensor]) -> None:
        rules = {**RESCALE, **_RULES}
        if carrier.light:
            rules["relu"] = self._rectified
        super().__init__(carrier, variables, rules)
        self.rows, self.batch = rows, rows // points
        for leaf in variables:
            check_rows(leaf, rows)

    def ruled(self, rule: Rule, call: Call) -> Any:
        """See `Flow`."""
        for tensor in call.inputs:
            check_rows(tensor, self.rows)
        if rule != self._rectified:
            call.references = [self._before(tensor) for tensor in call.inputs]
        return rule(call, self.carrier)

    def _rectified(self, call: Call, carrier: Carrier) -> Tensor:
        """As `rectified` does, on parts of what is there already."""
        x, batch = call.inputs[0], self.batch
        at = carrier.frozen(x)
        value = call(at)
        slope = torch.empty_like(value)
        slope[:batch] = 0
        step = torch.sub(at[batch:], at[:-batch]).add_(small(x.dtype))
        torch.sub(value[batch:], value[:-batch], out=slope[batch:]).div_(step)
        return carrier.carried(value, x, slope, by=SCALE)

    def _before(self, tensor: Tensor) -> Tensor:
        at = self.carrier.frozen(tensor)
        return torch.cat([at[: self.batch], at[: -self.batch]])


def _shared(f: Batched, points: Tree, args: tuple[Any, ...]) -> Tree | None:
    """The multipliers from one evaluation of every point, if the points have rows."""
    count = length(points)
    first = next(leaf for leaf in leaves(points) if leaf is not None)
    if first.ndim < 2:
        return None
    flow = partial(_Neighbours, count, count * first.shape[1])
    slopes, _ = stacked(grad_and_score(Overridden(f, flow)), *args)(points)
    return tree_map(lambda g: g[1:], slopes)
