"""What operations cost, counted: whether patches are cheaper than whole tensors."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from attrib.games._reach.calls import Call
from attrib.games._reach.followed import Followed, Reach
from attrib.games._reach.patches import space_of
from attrib.games._reach.regions import boxed, same

__all__ = ["PRODUCT", "STEP", "pasting", "patch_work", "update_work", "work"]

# In nanoseconds of one core, measured; only their ratios matter. A product of a matrix product; an
# entry that is computed, one that is moved; a position that is looked up; a call.
PRODUCT, _ENTRY, _MOVED, _POSITION, STEP = 0.013, 0.4, 0.6, 10.0, 60_000.0


def work(call: Call) -> float:
    """The cost of an operation on whole tensors."""
    name, tensors = call.operation.name, [_tensor(part) for part in call.parts]
    sizes = [tensor.shape for tensor in tensors if tensor is not None]
    entries = sum(result.numel() for result in call.results)
    products = 0
    if len(sizes) > 1 and len(sizes[1]) > 0:
        if name.startswith("conv_transpose"):
            return _ENTRY * entries + PRODUCT * math.prod((*sizes[0], *sizes[1][1:]))
        if name.startswith("conv") or name == "linear":
            products = math.prod(sizes[1][1:])
        elif name in ("matmul", "mm", "bmm"):
            products = sizes[0][-1]
        elif name == "scaled_dot_product_attention":
            products = 2 * sizes[1][-2]
    return (_ENTRY + PRODUCT * products) * entries


def patch_work(call: Call, followed: Followed, reach: Reach, whole: float) -> float:
    """The cost of an operation on patches of one window, given that on whole tensors."""
    result = call.results[0]
    cost = whole * math.prod(box.size for box in reach.boxes) / math.prod(space_of(result))
    values = iter(call.values)
    for source, changed in zip(followed.sources, followed.changed, strict=True):
        if changed and same(boxed(next(values).spans or (), source.space), reach.wanted):
            continue  # already the patch that is needed
        positions = len(source.tensor) * math.prod(box.size for box in reach.wanted)
        channels = math.prod(source.tensor.shape[1 : -len(source.space)])
        cost += positions * (_POSITION + _MOVED * channels)
    return cost


def update_work(rank: int, entries: int) -> float:
    """The cost of a change of low rank of a linear map."""
    return entries * (4 * _ENTRY + rank * (PRODUCT + _MOVED))


def pasting(tensor: Tensor) -> float:
    """The cost of putting a patch into the whole."""
    return _MOVED * tensor.numel()


def _tensor(part: Any) -> Tensor | None:
    found = getattr(part, "tensor", part)
    return found if isinstance(found, Tensor) else None
