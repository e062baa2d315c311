"""Guided integrated gradients: a path that takes the features with the smallest gradients first."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrib._batched import inherit
from attrib._checks import (
    check_baseline,
    check_callable,
    check_count,
    check_finite,
    check_input,
    check_number,
)
from attrib._map import scan
from attrib._transforms import concrete
from attrib._tree import differentiable, features, flatten, put, unflatten
from attrib.errors import AttribValueError
from attrib.gradient import grad_and_score, score_of
from attrib.types import Attribute, Score, Tree

__all__ = ["guided_ig"]


def guided_ig(
    f: Score, *, steps: int = 50, fraction: float = 0.25, max_distance: float = 0.02
) -> Attribute:
    r"""Guided integrated gradients: at every step, of the features still on their way, move those
    with the smallest partial derivatives, until the L1 distance to the input has shrunk by one
    step,

    .. math:: \phi_i = \sum_k \partial_i f(z_k)\, (z_{k+1} - z_k)_i, \qquad z_0 = x',\ z_K = x.

    The path avoids regions of large gradients that have nothing to do with the input. It depends on
    the data, step by step, so steps are not evaluated together; derivatives of the result treat the
    choice of features as given.

    Args:
        f: Score.
        steps: Gradient evaluations per example, one after another.
        fraction: Share of the features that move together, in (0, 1].
        max_distance: How far, as a share of the way, a feature may be from the straight line; 1
            lets the path go where it will.

    Returns:
        ``attribute(x, baseline=0, *args)``, a tree like ``x``, in units of the score. Summed over
        an example it approaches ``f(x) - f(baseline)`` as `steps` grow.

    Raises:
        AttribError: As for `attrib.integrated_gradients`; also inside `torch.vmap` and
            `torch.compile`, where the path cannot be chosen.

    References:
        Kapishnikov, Venugopalan, Avci, Wedin, Terry & Bolukbasi (2021), algorithm 1,
        https://arxiv.org/abs/2106.09788

    Example:
        >>> import torch
        >>> guided_ig(lambda x: x @ torch.tensor([1.0, 2.0]))(torch.tensor([[1.0, 1.0]]))
        tensor([[1., 2.]])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_count(steps, "steps")
    check_number(fraction, "fraction", most=1.0, exclusive=True)
    check_number(max_distance, "max_distance", most=1.0)

    def method(f: Score) -> Attribute:
        def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
            check_input(x)
            parts, spec = flatten(x)
            places = [place for place, part in enumerate(parts) if differentiable(part)]
            if not concrete(parts[places[0]]):
                raise AttribValueError(
                    "guided_ig: chooses its path by the numbers, got an x inside of torch.vmap, "
                    "torch.func.grad or torch.compile; call it on the batch itself",
                    code="guided_ig.traced",
                )
            starts, _ = flatten(check_baseline(baseline, x))
            score = score_of(f)(x, *args)
            batch_dims = score.ndim
            shapes = [parts[place].shape for place in places]
            sizes = [shape[batch_dims:].numel() for shape in shapes]

            def joined(leaves: list[Tensor]) -> Tensor:
                """All features of an example in one row."""
                return torch.cat(
                    [
                        features(leaf.expand(s), batch_dims)
                        for leaf, s in zip(leaves, shapes, strict=True)
                    ],
                    -1,
                )

            def parted(rows: Tensor) -> list[Tensor]:
                return [
                    part.reshape(s)
                    for part, s in zip(torch.split(rows, sizes, -1), shapes, strict=True)
                ]

            def gradient(point: Tensor) -> Tensor:
                slopes, _ = grad_and_score(f)(
                    unflatten(spec, put(parts, places, parted(point))), *args
                )
                return joined([flatten(slopes)[0][place] for place in places])

            end, start = joined([parts[p] for p in places]), joined([starts[p] for p in places])
            way = _Way(start, end, max_distance, fraction)

            def step(index: int, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
                point, attribution = state
                slope = gradient(point)
                moved = _move(point, slope.detach().abs(), (index + 1) / steps, way)
                return moved, attribution + slope * (moved - point)

            _, attribution = scan(step, (start, torch.zeros_like(end)), steps)
            # Towards a NaN no feature ever arrives: the path would stand still, with zeros.
            distance = (end - start).abs().sum(-1)
            whole = torch.where(distance.isfinite(), score, torch.nan)
            nothing: list[Any] = [None] * len(parts)
            found = check_finite(parted(attribution), whole)
            return unflatten(spec, put(nothing, places, found))

        return attribute

    return inherit(f, method)


class _Way(NamedTuple):
    start: Tensor
    end: Tensor
    max_distance: float
    fraction: float

    def at(self, alpha: float) -> Tensor:
        return self.end if alpha >= 1 else self.start + max(alpha, 0.0) * (self.end - self.start)


def _move(point: Tensor, size: Tensor, alpha: float, way: _Way) -> Tensor:
    """On to an L1 distance from the end of ``1 - alpha`` of the whole, smallest gradients first.

    In rows of features: those that lag too far behind the line are pulled to it, then group after
    group of the features with the smallest gradients moves to the front of the corridor, the last
    group only as far as needed.
    """
    total = (way.end - way.start).abs().sum(-1, keepdim=True)
    wanted = (1 - alpha) * total
    behind, front = way.at(alpha - way.max_distance), way.at(alpha + way.max_distance)
    forward = (way.end - way.start).sign()
    point = torch.where((behind - point) * forward > 0, behind, point)
    # The quantile counts all features; those that have arrived stand last.
    rank = 1 + int(way.fraction * (point.shape[-1] - 1))
    waiting = (front - point) * forward > 0
    while True:
        left = (way.end - point).abs().sum(-1, keepdim=True) - wanted
        if not ((left > 0) & waiting).any():
            return point
        # Without a gradient to go by, last; a NaN compares with nothing, and would never move.
        sizes = size.nan_to_num(torch.inf).masked_fill(~waiting, torch.inf)
        group = waiting & (left > 0) & (sizes <= sizes.kthvalue(rank, -1, keepdim=True).values)
        gain = ((front - point).abs() * group).sum(-1, keepdim=True)
        share = (left / gain.clamp_min(torch.finfo(gain.dtype).tiny)).clamp(0, 1)
        # At a share of one lerp gives the front itself: a rest of rounding would wait, and be
        # ranked, once more.
        point = torch.where(group, torch.lerp(point, front, share), point)
        waiting = waiting & ~group
