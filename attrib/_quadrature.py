"""Nodes and weights on [0, 1]; the weights of every rule sum to one."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from attrib._checks import check_choice, check_count
from attrib._transforms import compiling, constant

__all__ = [
    "RULES",
    "Quadrature",
    "Rule",
    "check_rule",
    "clenshaw_curtis_levels",
    "logarithmic",
    "nodes",
    "rule_tensors",
]

Quadrature: TypeAlias = Literal["gauss-legendre", "midpoint", "left", "right", "trapezoid"]
RULES: tuple[Quadrature, ...] = ("gauss-legendre", "midpoint", "left", "right", "trapezoid")

Rule: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]


def rule_tensors(rule: Rule, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights on the device of `like`, in its dtype but at least float32."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    if compiling():
        return _tensor(rule[0], dtype, like.device), _tensor(rule[1], dtype, like.device)
    return _cached_tensor(rule[0], dtype, like.device), _cached_tensor(rule[1], dtype, like.device)


def check_rule(quadrature: Any, steps: Any) -> Rule:
    """Nodes and weights of a rule that there is, with so many nodes."""
    check_choice(quadrature, "quadrature", RULES)
    return nodes(
        quadrature, check_count(steps, "steps", least=2 if quadrature == "trapezoid" else 1)
    )


@constant
@cache
def nodes(quadrature: str, steps: int) -> Rule:
    """Nodes and weights of a named rule, in float64; the weights sum to one.

    The trapezoid needs both ends, hence two steps; with one it is the midpoint.
    """
    if quadrature == "gauss-legendre":
        points, weights = np.polynomial.legendre.leggauss(steps)
        return _rule((1 + points) / 2, weights)
    even = np.arange(steps) / steps
    if quadrature == "trapezoid" and steps > 1:
        inner = np.ones(steps)
        inner[[0, -1]] = 0.5
        return _rule(np.arange(steps) / (steps - 1), inner)
    shift = {"left": 0.0, "right": 1.0}.get(quadrature, 0.5) / steps
    return _rule(even + shift, np.ones(steps))


@constant
@cache
def clenshaw_curtis_levels(steps: int) -> tuple[Rule, ...]:
    """Nested Clenshaw-Curtis rules of at most `steps` (9 or more) nodes, each with all of the last.

    The intervals double from level to level: with 50 steps there are 4, 7, 13, 25 and 49 nodes.
    """
    # At least three levels, to see how fast they converge.
    doubled = [(first, doublings) for first in (2, 3, 5, 7) for doublings in range(2, 24)]
    first, doublings = max(
        (d for d in doubled if d[0] * 2 ** d[1] < steps), key=lambda d: d[0] * 2 ** d[1]
    )
    return tuple(_clenshaw_curtis(first * 2**doubling) for doubling in range(doublings + 1))


@constant
@cache
def logarithmic(steps: int) -> Rule:
    """Gauss rule for the weight -log(u) on [0, 1], whose integral is one; at most 200 nodes.

    Modified Chebyshev algorithm on shifted Legendre polynomials (Gautschi 2004, Orthogonal
    Polynomials, section 2.1.7 and example 2.27), then the eigenvalues of the Jacobi matrix (Golub &
    Welsch 1969).
    """
    order = np.arange(1, 2 * steps)
    moments = np.concatenate([[1.0], np.cumprod(-order / (4 * order - 2)) / (order * (order + 1))])
    legendre = np.concatenate([[1.0], 1 / (4 * (4 - 1.0 / order**2))])
    before, row = np.zeros(2 * steps), moments
    diagonal, off = [0.5 + moments[1]], [1.0]
    for k in range(1, steps):
        span = np.arange(k, 2 * steps - k)
        following = np.zeros(2 * steps)
        following[span] = row[span + 1] - (diagonal[-1] - 0.5) * row[span]
        following[span] += legendre[span] * row[span - 1] - off[-1] * before[span]
        diagonal.append(0.5 + following[k + 1] / following[k] - row[k] / row[k - 1])
        off.append(following[k] / row[k - 1])
        before, row = row, following
    side = np.sqrt(off[1:])
    jacobi: np.ndarray = np.diagflat(diagonal) + np.diagflat(side, 1) + np.diagflat(side, -1)
    points, vectors = np.linalg.eigh(jacobi)
    return _rule(points, vectors[0] ** 2)


def _clenshaw_curtis(intervals: int) -> Rule:
    """Weights that integrate the interpolating cosine series exactly (Waldvogel 2006, eq. 2.4,
    https://doi.org/10.1007/s10543-006-0045-4)."""
    angle = np.pi * np.arange(intervals + 1) / intervals
    order = np.arange(1, intervals // 2 + 1)
    factor = np.where(2 * order == intervals, 1.0, 2.0) / (4 * order**2 - 1)
    weights = (1 - np.cos(2 * np.outer(angle, order)) @ factor) / intervals
    weights[[0, -1]] /= 2
    return _rule((1 - np.cos(angle)) / 2, weights)


def _rule(points: np.ndarray, weights: np.ndarray) -> Rule:
    return tuple(map(float, points)), tuple(map(float, weights / weights.sum()))


def _tensor(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


@cache
def _cached_tensor(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # A tensor made under inference mode could never be used where gradients are recorded.
    with torch.inference_mode(False):
        return _tensor(values, dtype, device)
