"""Norms, correlations and least squares, of whole rows and of pairs that come in chunks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from attrib._checks import check_number
from attrib._tree import features

__all__ = [
    "Norm",
    "check_norm",
    "correlation_of",
    "norm_of",
    "pearson",
    "ratio",
    "residual_of",
    "spearman",
    "wide",
]

Norm: TypeAlias = float | Callable[[Tensor], Tensor]
"""The p of a p-norm, at least one, or a function ``(..., features) -> (...)``."""


def pearson(a: Tensor, b: Tensor) -> Tensor:
    r"""Correlation coefficient along the last dimension; NaN for rows without spread.

    Args:
        a: ``(*batch, features)``.
        b: Likewise; both broadcast.

    Returns:
        ``(*batch,)``, from -1 to 1.

    Example:
        >>> import torch
        >>> pearson(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 5.0, 7.0]))
        tensor(1.)
    """
    first, second = (_centred(wide(v), -1)[0] for v in (a, b))
    squares = first.square().sum(-1), (first * second).sum(-1), second.square().sum(-1)
    return _coefficient(*squares).to(a.dtype)


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Correlation coefficient of the ranks along the last dimension, ties sharing theirs.

    Args:
        a: ``(*batch, features)``.
        b: Likewise; both broadcast.

    Returns:
        ``(*batch,)``, from -1 to 1; NaN for rows of equal numbers. It has no derivative.

    References:
        Spearman (1904), https://doi.org/10.2307/1412159

    Example:
        >>> import torch
        >>> spearman(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 10.0, 100.0]))
        tensor(1.)
    """
    return pearson(_ranks(a), _ranks(b)).to(a.dtype)


def check_norm(norm: Any) -> Norm:
    """A function, or a number of at least one, infinity included."""
    if callable(norm) or norm == math.inf:
        return norm  # pyright: ignore[reportReturnType]
    return check_number(norm, "norm", least=1.0)


def norm_of(parts: list[Tensor], batch_dims: int, norm: Norm) -> Tensor:
    """The norm of all features of several leaves together, ``(*batch,)``."""
    rows = [wide(features(part, batch_dims)) for part in parts]
    if callable(norm):
        return norm(torch.cat(rows, -1))
    linalg: Any = torch.linalg
    each: list[Tensor] = [linalg.vector_norm(row, norm, -1) for row in rows]
    return each[0] if len(each) == 1 else linalg.vector_norm(torch.stack(each), norm, 0)


def ratio(amount: Tensor, unit: Tensor, otherwise: float = 1.0) -> Tensor:
    """``amount / unit``, with another unit where that is zero."""
    return amount / torch.where(unit == 0, otherwise, unit)


def correlation_of(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Pearson's coefficient of two numbers whose samples come in chunks, in constant memory.

    Args:
        pairs: ``(a, b)``, each ``(samples, *batch)``.

    Returns:
        ``(*batch,)``; NaN where one of them is constant.
    """
    found = reduce(_merged, map(_moments, pairs))
    return _coefficient(found.aa, found.ab, found.bb)


def residual_of(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    r"""The mean squared residual of :math:`b \approx \beta a`, in constant memory.

    Chunks are merged like variances (Chan, Golub & LeVeque 1983): the residuals of two chunks add
    up, plus what their slopes differ by. No large numbers are subtracted from each other.
    """

    def fitted(pair: tuple[Tensor, Tensor]) -> tuple[int, Tensor, Tensor, Tensor]:
        a, b = pair
        weight = a.square().sum(0)
        slope = ratio((a * b).sum(0), weight)
        return len(a), weight, slope, (b - slope * a).square().sum(0)

    def merged(first: Any, second: Any) -> tuple[int, Tensor, Tensor, Tensor]:
        (n, s, p, r), (m, t, q, u) = first, second
        both = s + t
        share = ratio(t, both)
        return n + m, both, p + share * (q - p), r + u + (q - p).square() * s * share

    samples, _, _, squares = reduce(merged, map(fitted, pairs))
    return squares / samples


def wide(tensor: Tensor) -> Tensor:
    """In a precision that sums survive."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class _Moments(NamedTuple):
    samples: int
    a: Tensor
    b: Tensor
    aa: Tensor
    ab: Tensor
    bb: Tensor


def _moments(pair: tuple[Tensor, Tensor]) -> _Moments:
    (a, mean_a), (b, mean_b) = (_centred(v, 0) for v in pair)
    squares = a.square().sum(0), (a * b).sum(0), b.square().sum(0)
    return _Moments(len(a), mean_a.squeeze(0), mean_b.squeeze(0), *squares)


def _merged(first: _Moments, second: _Moments) -> _Moments:
    n, m = first.samples, second.samples
    a, b, share = second.a - first.a, second.b - first.b, n * m / (n + m)
    return _Moments(
        n + m,
        first.a + a * (m / (n + m)),
        first.b + b * (m / (n + m)),
        first.aa + second.aa + a.square() * share,
        first.ab + second.ab + a * b * share,
        first.bb + second.bb + b.square() * share,
    )


def _centred(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Differences from the mean, and the mean."""
    # Seen from the first of them, equal numbers are zeros, and so is their spread.
    origin = values.narrow(dim, 0, 1)
    values = values - origin
    mean = values.mean(dim, keepdim=True)
    return values - mean, origin + mean


def _coefficient(aa: Tensor, ab: Tensor, bb: Tensor) -> Tensor:
    # Rounding may lead beyond the ends.
    return (ab / (aa.sqrt() * bb.sqrt())).clamp(-1, 1)


def _ranks(values: Tensor) -> Tensor:
    values = wide(values).contiguous()
    ordered = values.sort(-1).values
    below = torch.searchsorted(ordered, values)
    upto = torch.searchsorted(ordered, values, right=True)
    return (below + upto).to(values.dtype) / 2
