"""Folding stacked samples into one tree, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from attrib._tree import length, tree_map
from attrib.errors import AttribValueError
from attrib.types import Estimate, Tree

__all__ = ["estimate", "maximum", "mean", "minimum", "second_moment", "total", "variance"]


def total(chunks: Iterable[Tree]) -> Tree:
    r"""Sum over samples, :math:`\sum_s a_s`.

    Args:
        chunks: Trees whose leaves are stacked on a leading sample axis. Half precision is
            accumulated in float32 and returned in its own dtype, here and in every reducer.

    Raises:
        AttribValueError: If there is no chunk.

    Example:
        >>> import torch
        >>> total([torch.ones(2, 3), torch.ones(1, 3)])
        tensor([3., 3., 3.])
    """
    return _fold(chunks, lambda a: a.sum(0), torch.add)


def maximum(chunks: Iterable[Tree]) -> Tree:
    """Largest sample, entry by entry.

    Example:
        >>> import torch
        >>> maximum([torch.tensor([[1.0], [5.0]]), torch.tensor([[3.0]])])
        tensor([5.])
    """
    return _fold(chunks, lambda a: a.amax(0), torch.maximum)


def minimum(chunks: Iterable[Tree]) -> Tree:
    """Smallest sample, entry by entry.

    Example:
        >>> import torch
        >>> minimum([torch.tensor([[1.0], [5.0]]), torch.tensor([[3.0]])])
        tensor([1.])
    """
    return _fold(chunks, lambda a: a.amin(0), torch.minimum)


def mean(chunks: Iterable[Tree]) -> Tree:
    r"""Mean over samples, :math:`\bar a = \frac1n \sum_s a_s`.

    Example:
        >>> import torch
        >>> mean([torch.tensor([[1.0], [5.0]]), torch.tensor([[3.0]])])
        tensor([3.])
    """
    return _mean(chunks, lambda a: a)


def second_moment(chunks: Iterable[Tree]) -> Tree:
    r"""Mean of squares over samples, :math:`\frac1n \sum_s a_s^2`.

    Example:
        >>> import torch
        >>> second_moment([torch.tensor([[1.0], [2.0]])])
        tensor([2.5000])
    """
    return _mean(chunks, torch.square)


def variance(chunks: Iterable[Tree]) -> Tree:
    r"""Population variance over samples, :math:`\frac1n \sum_s (a_s - \bar a)^2`.

    Chunks are merged by the formula of Chan, Golub & LeVeque (1983,
    https://doi.org/10.1080/00031305.1983.10483115), which subtracts no large numbers from each
    other.

    Example:
        >>> import torch
        >>> variance([torch.tensor([[1.0], [5.0]]), torch.tensor([[3.0]])])
        tensor([2.6667])
    """
    samples, dtypes, _, squares = _moments(chunks)
    return tree_map(lambda m, d: (m / samples).to(d), squares, dtypes)


def estimate(chunks: Iterable[Tree]) -> Estimate:
    r"""Mean over independent samples with its standard error,
    :math:`\sqrt{\frac{1}{n(n-1)} \sum_s (a_s - \bar a)^2}`; NaN for a single sample.

    Example:
        >>> import torch
        >>> estimate([torch.tensor([[1.0], [5.0]]), torch.tensor([[3.0]])])
        Estimate(value=tensor([3.]), stderr=tensor([1.1547]), samples=3)
    """
    samples, dtypes, centre, squares = _moments(chunks)
    scale = float("nan") if samples == 1 else 1 / (samples * (samples - 1))
    return Estimate(
        tree_map(lambda c, d: c.to(d), centre, dtypes),
        tree_map(lambda m, d: (m * scale).sqrt().to(d), squares, dtypes),
        samples,
    )


_Moments = tuple[int, Tree, Tree]


def _moments(chunks: Iterable[Tree]) -> tuple[int, Tree, Tree, Tree]:
    """Number of samples, dtypes, mean, and sum of squared differences from the mean."""
    dtypes: list[Tree] = []
    origin: list[Tree] = []

    def summary(chunk: Tree) -> _Moments:
        wide = tree_map(_widen, chunk)
        if not origin:
            dtypes.append(_dtypes(chunk))
            # Seen from the first sample, large numbers that differ little are small numbers.
            origin.append(tree_map(lambda a: a[0].detach(), wide))
        wide = tree_map(torch.sub, wide, origin[0])
        centre = tree_map(lambda a: a.mean(0), wide)
        return length(chunk), centre, tree_map(lambda a, c: (a - c).square().sum(0), wide, centre)

    samples, centre, squares = _reduce(_merge, map(summary, chunks))
    return samples, dtypes[0], tree_map(torch.add, centre, origin[0]), squares


def _merge(a: _Moments, b: _Moments) -> _Moments:
    (n, centre_a, squares_a), (m, centre_b, squares_b) = a, b
    gap = tree_map(torch.sub, centre_b, centre_a)
    centre = tree_map(lambda c, g: c + g * (m / (n + m)), centre_a, gap)
    squares = tree_map(
        lambda p, q, g: p + q + g.square() * (n * m / (n + m)), squares_a, squares_b, gap
    )
    return n + m, centre, squares


def _mean(chunks: Iterable[Tree], of: Callable[[Tensor], Tensor]) -> Tree:
    def summary(chunk: Tree) -> tuple[int, Tree, Tree]:
        return length(chunk), _dtypes(chunk), tree_map(lambda a: of(_widen(a)).sum(0), chunk)

    def merge(a: tuple[int, Tree, Tree], b: tuple[int, Tree, Tree]) -> tuple[int, Tree, Tree]:
        return a[0] + b[0], a[1], tree_map(torch.add, a[2], b[2])

    samples, dtypes, sums = _reduce(merge, map(summary, chunks))
    return tree_map(lambda s, d: (s / samples).to(d), sums, dtypes)


def _fold(
    chunks: Iterable[Tree],
    within: Callable[[Tensor], Tensor],
    between: Callable[[Tensor, Tensor], Tensor],
) -> Tree:
    def summary(chunk: Tree) -> tuple[Tree, Tree]:
        return _dtypes(chunk), tree_map(lambda a: within(_widen(a)), chunk)

    def merge(a: tuple[Tree, Tree], b: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        return a[0], tree_map(between, a[1], b[1])

    dtypes, folded = _reduce(merge, map(summary, chunks))
    return tree_map(lambda a, d: a.to(d), folded, dtypes)


def _reduce(merge: Callable[[Any, Any], Any], summaries: Iterable[Any]) -> Any:
    iterator = iter(summaries)
    first = next(iterator, None)
    if first is None:
        raise AttribValueError(
            "chunks: empty, got no samples; a reducer needs at least one", code="chunks.empty"
        )
    return reduce(merge, iterator, first)


def _dtypes(chunk: Tree) -> Tree:
    return tree_map(lambda a: a.dtype, chunk)


def _widen(leaf: Tensor) -> Tensor:
    return leaf.float() if leaf.dtype in (torch.float16, torch.bfloat16) else leaf
