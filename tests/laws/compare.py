"""What it means that two attributions agree."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor

from attrib.types import Tree

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


def assert_close(actual: Tree, expected: Tree, tolerance: float, scale: Any = None) -> None:
    """Same structure, shapes and dtypes; differences up to a share of the largest value expected.

    Args:
        actual: Tree of tensors or ``None``.
        expected: Another.
        tolerance: Share of `scale` by which values may differ; 0 means bitwise equality of numbers.
        scale: Number or tensor; the largest magnitude expected in the tree, unless it is given.
    """
    (got, own), (wanted, other) = pytree.tree_flatten(actual), pytree.tree_flatten(expected)
    assert own == other
    assert [leaf is None for leaf in got] == [leaf is None for leaf in wanted]
    pairs = [(a, b) for a, b in zip(got, wanted, strict=True) if b is not None]
    for a, b in pairs:
        assert a.dtype == b.dtype, f"dtype {a.dtype} instead of {b.dtype}"
        assert a.shape == b.shape, f"shape {tuple(a.shape)} instead of {tuple(b.shape)}"
    limit = tolerance * _largest(pairs if scale is None else [(scale, scale)])
    for a, b in pairs:
        if a.numel() == 0:
            continue
        worst = float((a.detach().double() - b.detach().double()).abs().max())
        assert worst <= limit, f"off by {worst:.3g}, at most {limit:.3g} is allowed"


def _largest(pairs: list[tuple[Any, Any]]) -> float:
    sizes = [float(torch.as_tensor(b).detach().abs().max()) for _, b in pairs if _count(b)]
    return max(sizes, default=0.0)


def _count(value: Any) -> int:
    return value.numel() if isinstance(value, Tensor) else 1
