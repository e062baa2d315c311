"""Changes of a linear map, of low rank where few of its inputs change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attrib.games._reach.calls import Call, Value
from attrib.games._reach.patches import Chunk, Known, Patch, cut, numbered
from attrib.games._reach.regions import Positions

__all__ = ["update"]

_ALIKE, _SPARE = 16, 1e3
"""By how many roundings of the others the largest input may be wrong, in its own precision and
where there is none higher."""


def update(call: Call, origin: Value) -> Callable[[Chunk, list[Any]], list[Tensor]] | None:
    """A linear map of the entries of a value in a row, as a function of its patch.

    What leaves the sum is subtracted from it, in so high a precision that it leaves no error;
    ``None`` if there is none.
    """
    named = call.bound("input", "weight", "bias")
    weight, bias = named["weight"], named.get("bias")
    x: Tensor = named["input"].tensor
    wide = _precision(x, weight, call.results[0])
    if wide is None:
        return None
    columns = weight.mT.to(wide).contiguous()
    base = x.to(wide) @ columns
    base = base if bias is None else base + bias
    held: list[Tensor] = []

    def room(windows: int) -> Tensor | None:
        """The same memory for every chunk: to be given new pages takes longer than to fill them."""
        if torch.is_grad_enabled():
            return None
        if not held or len(held[0]) < windows:
            held[:] = [base.new_empty(windows, *base.shape)]
        return held[0][:windows]

    def run(chunk: Chunk, inputs: list[Any]) -> list[Tensor]:
        patch: Patch = inputs[0]
        before = cut(origin.known, patch.boxes, origin.known.examples(chunk))
        change = (patch.tensor.to(wide) - before).reshape(*chunk, -1)
        places = _in_a_row(patch, origin.known)
        moved = columns.index_select(0, numbered(places)).unflatten(0, places.shape)
        if places.shape[1] == 1:
            found = torch.addcmul(base, change, moved, out=room(len(change)))
        else:
            bases = base.expand(len(change), *base.shape)
            found = torch.baddbmm(bases, change, moved, out=room(len(change)))
        return [found.to(call.results[0].dtype)]

    return run


def _in_a_row(patch: Patch, known: Known) -> Positions:
    """Where the entries of a patch stand in a row of all entries, ``(windows, entries)``."""
    places: Any = np.zeros((len(patch.boxes[0].start), 1), np.int64)
    channels = known.tensor.shape[1 : -len(patch.boxes)]
    along = [np.arange(size)[None] for size in channels]
    along += [box.start[:, None] + np.arange(box.size) for box in patch.boxes]
    for own, size in zip(along, known.tensor.shape[1:], strict=True):
        places = (places[:, :, None] * size + own[:, None]).reshape(len(places), -1)
    return places


def _precision(x: Tensor, weight: Tensor, result: Tensor) -> torch.dtype | None:
    """The lowest precision in which any input can be taken away from the sum."""
    if x.dtype not in (torch.float32, torch.float64) or not torch.isfinite(result).all():
        return None
    terms = x.abs() * weight.abs().amax(0)
    largest = terms.amax(1)
    others = (terms.sum(1) - largest) / max(1, terms.shape[1] - 1)
    for wide, most in ((x.dtype, _ALIKE), (torch.float64, _SPARE)):
        lost = torch.finfo(wide).eps / torch.finfo(x.dtype).eps * largest
        if (lost <= most * others).all():
            return wide
    return None
