"""Patches: what windows change of a tensor, cut out of what they do not change.

Tensors are ``(rows, channels, *space)``, or ``(rows, *space)`` with one dimension of space. A patch
has a row for each example of each window, ``windows * examples``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from attrib.games._reach.regions import Boxes, Positions, Spans, within

__all__ = ["Chunk", "Known", "Patch", "cut", "numbered", "pasted", "space_of"]


class Chunk(NamedTuple):
    """What is evaluated together.

    Attributes:
        windows: How many windows.
        examples: Of how many examples each.
    """

    windows: int
    examples: int


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor without a change, ``(examples, ...)``, or ``(1, ...)`` for all examples."""

    tensor: Tensor

    @property
    def space(self) -> tuple[int, ...]:
        """The sizes of the dimensions along which windows are places."""
        return space_of(self.tensor)

    @cached_property
    def rows(self) -> Tensor:
        """The channels of each position as a row."""
        return _as_rows(self.tensor)

    def examples(self, chunk: Chunk) -> Positions:
        """Which part of the first dimension each example has, ``(1, examples)``."""
        return (np.arange(chunk.examples) * (len(self.tensor) > 1))[None]

    def padded(self, margins: Sequence[tuple[int, int]], fill: float) -> Tensor:
        """The same rows, with those of filled positions around them, so many before and behind."""
        if not any(before or after for before, after in margins):
            return self.rows
        rows = _from_rows(self.rows, self.space, self.tensor.ndim)
        around = [side for margin in reversed(margins) for side in margin]
        return _as_rows(torch.nn.functional.pad(rows, around, value=fill))


@dataclass(frozen=True, eq=False)
class Patch:
    """What windows make of a known tensor.

    Attributes:
        tensor: What is inside of the boxes, ``(windows * examples, ..., *sizes)``.
        spans: What each window may change, along each dimension of space.
        boxes: The same in boxes of one size; what is in the boxes beside the spans is as it was.
    """

    tensor: Tensor
    spans: tuple[Spans, ...]
    boxes: tuple[Boxes, ...]


def space_of(tensor: Tensor) -> tuple[int, ...]:
    """The sizes of the dimensions along which windows are places."""
    return tuple(tensor.shape[min(2, tensor.ndim - 1) :])


def cut(
    known: Known,
    boxes: Sequence[Boxes],
    own: Positions,
    *,
    patch: Patch | None = None,
    fill: float = 0.0,
) -> Tensor:
    """The tensor inside of boxes, with the changes of a patch.

    Args:
        known: The tensor.
        boxes: Along each dimension of space.
        own: Which part of its first dimension each example has, ``(windows or 1, examples)``.
        patch: What is changed.
        fill: What is outside of the tensor.

    Returns:
        ``(windows * examples, ..., *sizes)``.
    """
    margins = [
        (max(0, -int(box.start.min())), max(0, int(box.start.max()) + box.size - length))
        for box, length in zip(boxes, known.space, strict=True)
    ]
    rows = known.padded(margins, fill).contiguous()
    space = [length + sum(margin) for length, margin in zip(known.space, margins, strict=True)]
    starts = [box.start + before for box, (before, _) in zip(boxes, margins, strict=True)]
    sizes = [box.size for box in boxes]
    # What is in a row of the last dimension lies together in memory.
    lines = [Boxes(*each) for each in zip(starts, [*sizes[:-1], 1], strict=True)]
    places = own[:, :, None] * math.prod(space) + _cells(lines, space)[0][:, None]
    channels, length = rows.shape[1], sizes[-1]
    runs = rows.as_strided((len(rows) - length + 1, length * channels), (channels, 1))
    found = runs.index_select(0, numbered(places)).reshape(-1, channels)
    if patch is not None:
        found = _put(found, patch, [box.start for box in boxes], sizes, own.shape[1])
    return _from_rows(found, sizes, known.tensor.ndim)


def pasted(known: Known, patch: Patch, chunk: Chunk) -> Tensor:
    """The whole tensor with the changes, ``(windows, examples, ...)``."""
    starts = [np.zeros(chunk.windows, np.int64)] * len(patch.boxes)
    every = known.rows.repeat(chunk.windows, 1)
    rows = _put(every, patch, starts, known.space, chunk.examples)
    found = _from_rows(rows, known.space, known.tensor.ndim)
    return found.reshape(*chunk, *known.tensor.shape[1:])


def numbered(numbers: Any) -> Tensor:
    """An array of numbers as a tensor without dimensions but one."""
    return torch.as_tensor(np.ascontiguousarray(numbers)).flatten()


def _put(
    found: Tensor,
    patch: Patch,
    starts: Sequence[Positions],
    sizes: Sequence[int],
    examples: int,
) -> Tensor:
    """Rows of positions with those of a patch in their places, as far as they are among them."""
    boxes = [
        Boxes(box.start - start, box.size) for box, start in zip(patch.boxes, starts, strict=True)
    ]
    cells, outside = _cells(boxes, sizes)
    first: Positions = np.reshape(np.arange(len(cells) * examples), (-1, examples, 1))
    places, rows = first * math.prod(sizes) + cells[:, None], _as_rows(patch.tensor)
    if outside.any():
        inside = np.broadcast_to(~outside[:, None], places.shape).ravel().nonzero()[0]
        places, rows = places.ravel()[inside], rows.index_select(0, numbered(inside))
    return found.index_copy_(0, numbered(places), rows)


def _cells(boxes: Sequence[Boxes], space: Sequence[int]) -> tuple[Positions, Any]:
    """The number of each position in boxes, ``(windows, positions)``, and whether it is outside;
    then it has the number of the nearest."""
    windows = len(boxes[0].start)
    cells: Any = np.zeros((windows, 1), np.int64)
    outside: Any = np.zeros((windows, 1), np.bool_)
    for box, length in zip(boxes, space, strict=True):
        places = box.start[:, None] + np.arange(box.size)
        nearest = within(places, length - 1)
        cells = (cells[:, :, None] * length + nearest[:, None]).reshape(windows, -1)
        outside = (outside[:, :, None] | (places != nearest)[:, None]).reshape(windows, -1)
    return cells, outside


def _as_rows(tensor: Tensor) -> Tensor:
    if tensor.ndim == 2:
        return tensor.reshape(-1, 1)
    return tensor.movedim(1, -1).reshape(-1, tensor.shape[1])


def _from_rows(rows: Tensor, sizes: Sequence[int], dims: int) -> Tensor:
    if dims == 2:
        return rows.reshape(-1, *sizes)
    return rows.reshape(-1, *sizes, rows.shape[1]).movedim(-1, 1)
