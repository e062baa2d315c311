"""Slopes between neighbouring points of a path: DeepLift, with the points' evaluations shared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attrib._batched import Batched, stacked
from attrib._carriers import Carrier, Overridden
from attrib._map import ChunkSize, Points, map_chunks
from attrib._transforms import concrete, transforming
from attrib._tree import differentiable, leaves, length, tree_map
from attrib.gradient import grad_and_score, score_of
from attrib.reducers import total
from attrib.rules._flow import Call, Flow, Rule
from attrib.rules._rows import check_rows, if_rows_are_told
from attrib.rules._secants import SCALE, crossing, small
from attrib.rules._sums import check_sum
from attrib.rules.deep_lift import RESCALE, deep_lift
from attrib.types import Score, Tree

__all__ = ["secant_slopes", "sum_of_segments"]


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


def sum_of_segments(
    f: Score,
    at: Callable[[Tensor], tuple[Tree, Any]],
    steps: int,
    x: Tree,
    args: tuple[Any, ...],
    chunk_size: ChunkSize,
) -> Tree:
    """The changes of all variables along a path, times the slopes of the score by them.

    Args:
        f: Score.
        at: From stacked alphas to stacked points and something else.
        steps: Segments.
        x: A tree like one point.
        args: What `f` takes beside a point.
        chunk_size: Segments evaluated at once.
    """
    slopes = secant_slopes(f, args)
    first = next(leaf for leaf in leaves(x) if differentiable(leaf))
    wide = torch.promote_types(first.dtype, torch.float32)

    def take(start: int, stop: int) -> Tensor:
        return torch.arange(start, stop, device=first.device)

    def kernel(segments: Tensor) -> Tree:
        ends = torch.cat([segments, segments[-1:] + 1])
        points, _ = at(ends.to(wide) / steps)
        return tree_map(
            lambda s, p: (s * (p[1:] - p[:-1])).to(wide).sum(0, keepdim=True),
            slopes(points),
            points,
        )

    sums = total(map_chunks(kernel, Points(steps, take), chunk_size=chunk_size, like=x))
    attribution = tree_map(lambda s, a: s.to(a.dtype), sums, x)
    if all(map(concrete, (leaf for leaf in leaves(attribution) if leaf is not None))):
        ends, _ = at(torch.arange(2, device=first.device).to(wide))
        before, reached = stacked(score_of(f), *args)(ends)
        check_sum(attribution, reached, before)
    return attribution


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
