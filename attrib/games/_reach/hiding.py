"""Where features are hidden, and what stands there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attrib.games._reach.patches import Chunk, Known, Patch, cut, space_of
from attrib.games._reach.regions import Boxes, Positions, Spans, boxed

__all__ = ["hidden_patch", "spans_of"]


def spans_of(kept: Tensor, leaf: Tensor) -> tuple[Spans, ...]:
    """The smallest spans around what is hidden in any example, along each dimension of space.

    Args:
        kept: Which entries are not hidden, broadcastable to ``(windows, *leaf)``.
        leaf: What they are entries of.
    """
    hidden: Any = ~kept.numpy()
    lengths = space_of(leaf)
    space = range(hidden.ndim - len(lengths), hidden.ndim)
    # One dimension of space after another: what is left is small soon.
    joint = hidden.any(tuple(range(1, space[0])))
    spans: list[Spans] = []
    for dim, length in enumerate(lengths, 1):
        others = tuple(d for d in range(1, len(lengths) + 1) if d != dim)
        along = np.broadcast_to(joint.any(others), (len(joint), length))
        some = along.any(1)
        last = length - along[:, ::-1].argmax(1)
        spans.append(Spans(along.argmax(1), np.where(some, last, 0)))
    return tuple(spans)


def hidden_patch(
    known: Known, kept: Tensor, baseline: Tensor, chunk: Chunk
) -> tuple[Patch, Tensor]:
    """What stands where something is hidden, and which rows that changes.

    Args:
        known: A leaf.
        kept: Which of its entries are not hidden, broadcastable to ``(windows, *leaf)``.
        baseline: What stands in their place; it broadcasts to the same.
        chunk: How many windows and examples there are.
    """
    spans = spans_of(kept, known.tensor)
    boxes = boxed(spans, known.space)
    present = cut(known, boxes, known.examples(chunk))
    dims = known.tensor.ndim
    mask, other = (_cropped(part, dims, boxes, chunk) for part in (kept, baseline))
    found = torch.where(mask, present, other)
    return Patch(found, spans, boxes), (found != present).flatten(1).any(1)


def _cropped(tensor: Tensor, dims: int, boxes: Sequence[Boxes], chunk: Chunk) -> Tensor:
    """The boxes of a tensor that broadcasts to ``(windows, *leaf)``."""
    if tensor.numel() == 1:
        return tensor.reshape(())
    tensor = tensor.reshape((1,) * (dims + 1 - tensor.ndim) + tensor.shape)
    windows, examples = tensor.shape[:2]
    of_window = np.arange(chunk.windows)[:, None] * (examples if windows > 1 else 0)
    of_example = np.arange(chunk.examples) * (examples > 1)
    known = Known(tensor.flatten(0, 1))
    nowhere: Positions = np.zeros(chunk.windows, np.int64)
    own = [
        box if length > 1 else Boxes(nowhere, 1)
        for box, length in zip(boxes, known.space, strict=True)
    ]
    return cut(known, own, of_window + of_example)
