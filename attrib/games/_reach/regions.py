"""What windows reach: intervals along a dimension, and how operations that slide widen them.

Dumoulin & Visin (2016), https://arxiv.org/abs/1603.07285, has the arithmetic of convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

__all__ = [
    "Boxes",
    "Positions",
    "Slide",
    "Spans",
    "boxed",
    "needed",
    "reached",
    "same",
    "united",
    "within",
]

Positions: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


class Spans(NamedTuple):
    """The positions along a dimension that each window may change.

    Attributes:
        start: The first of them, one for each window.
        stop: The first behind them; where it is the start, there are none.
    """

    start: Positions
    stop: Positions


class Boxes(NamedTuple):
    """Intervals of one size along a dimension, so that those of many windows are one tensor.

    Attributes:
        start: Their first positions, one for each window.
        size: How many positions each has.
    """

    start: Positions
    size: int


class Slide(NamedTuple):
    """How the outputs of an operation depend on its inputs along a dimension.

    Attributes:
        kernel: Inputs of one output.
        stride: From one output to the next.
        dilation: From one input of an output to the next.
        padding: Positions in front of the first input.
        outputs: How many there are.
    """

    kernel: int
    stride: int
    dilation: int
    padding: int
    outputs: int

    @property
    def extent(self) -> int:
        """From the first input of an output to the last."""
        return (self.kernel - 1) * self.dilation


def reached(spans: Spans, slide: Slide) -> Spans:
    """The outputs between the first and the last that depend on some position of a span."""
    first = -((slide.extent - slide.padding - spans.start) // slide.stride)
    last = (spans.stop - 1 + slide.padding) // slide.stride
    start, stop = within(first, slide.outputs), within(last + 1, slide.outputs)
    some = (spans.stop > spans.start) & (stop > start)
    return Spans(np.where(some, start, 0), np.where(some, stop, 0))


def boxed(spans: Sequence[Spans], lengths: Sequence[int]) -> tuple[Boxes, ...]:
    """Along each dimension, intervals of one size around the spans, inside of its length."""
    found: list[Boxes] = []
    for (start, stop), length in zip(spans, lengths, strict=True):
        size = max(1, int((stop - start).max()))
        found.append(Boxes(np.minimum(start, length - size), size))
    return tuple(found)


def same(boxes: Sequence[Boxes], others: Sequence[Boxes]) -> bool:
    """Whether boxes are the same along all dimensions."""
    pairs = zip(boxes, others, strict=True)
    return all(a.size == b.size and np.array_equal(a.start, b.start) for a, b in pairs)


def needed(boxes: Boxes, slide: Slide) -> Boxes:
    """The inputs of outputs; in the padding they lie outside of the dimension."""
    start = boxes.start * slide.stride - slide.padding
    return Boxes(start, (boxes.size - 1) * slide.stride + slide.extent + 1)


def within(positions: Positions, most: int) -> Positions:
    """The nearest positions from zero to the last."""
    return np.maximum(np.minimum(positions, most), 0)


def united(several: Sequence[Spans]) -> Spans:
    """The smallest spans around spans of the same windows."""
    if len(several) == 1:
        return several[0]
    starts, stops = (np.stack(ends) for ends in zip(*several, strict=True))
    some = stops > starts
    stop = np.where(some, stops, 0).max(0)
    start = np.where(some, starts, np.iinfo(np.int64).max).min(0)
    return Spans(np.where(stop > 0, start, 0), stop)
