"""Equality up to a stated tolerance, relative to the largest entry."""

from __future__ import annotations

from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

ROUNDING = 1e-13
"""Float64, the same operations in another order; relative to the largest entry."""

FLOAT32_WEIGHTS = 6e-8
"""Captum rounds the quadrature weights, and the nodes of its Riemann sums, to float32."""


def assert_close(ours: Any, theirs: Any, *, tolerance: float = ROUNDING) -> None:
    """The same structure, shapes and dtypes, and entries that differ by little."""
    left, right = pytree.tree_leaves(ours), pytree.tree_leaves(theirs)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert relative(a, b) <= tolerance


def relative(a: Tensor, b: Tensor) -> float:
    """The largest difference, in units of the largest entry."""
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / b.abs().max().clamp_min(torch.finfo(b.dtype).tiny))
