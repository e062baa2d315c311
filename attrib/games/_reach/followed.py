"""Operations on patches: what they compute, of which inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from attrib.games._reach.patches import Chunk, Known, Patch, cut
from attrib.games._reach.regions import Boxes, Slide, Spans, boxed, needed, reached, same, united

__all__ = ["Followed", "NotAsBeforeError", "Reach"]


class NotAsBeforeError(Exception):
    """An operation returned something else on patches."""


class Reach(NamedTuple):
    """What is reached, and what that takes, along each dimension of space.

    Attributes:
        spans: What windows change of the result.
        boxes: The same in boxes.
        wanted: The boxes that are needed of the inputs.
    """

    spans: tuple[Spans, ...]
    boxes: tuple[Boxes, ...]
    wanted: tuple[Boxes, ...]


@dataclass(frozen=True, eq=False)
class Followed:
    """An operation that slides along the dimensions of space.

    Attributes:
        local: ``local(pieces)``, the result on pieces of its sources.
        slides: How its outputs depend on its inputs, along each dimension of space.
        sources: What patches are cut from.
        changed: Which of them hiding changes.
        shape: The shape of the result on all of the sources.
        fill: What is outside of the sources.
    """

    local: Callable[[list[Tensor]], Tensor]
    slides: Sequence[Slide]
    sources: list[Known]
    changed: list[bool]
    shape: tuple[int, ...]
    fill: float = 0.0

    def reach(self, inputs: Sequence[tuple[Spans, ...]]) -> Reach:
        """What is reached from spans of the sources that hiding changes."""
        joint = [united(along) for along in zip(*inputs, strict=True)]
        spans = [reached(each, slide) for each, slide in zip(joint, self.slides, strict=True)]
        boxes = boxed(spans, [slide.outputs for slide in self.slides])
        wanted = [needed(box, slide) for box, slide in zip(boxes, self.slides, strict=True)]
        return Reach(tuple(spans), boxes, tuple(wanted))

    def __call__(self, chunk: Chunk, inputs: list[Patch]) -> list[Patch]:
        """The patch of the result."""
        reach = self.reach([patch.spans for patch in inputs])
        patches = iter(inputs)
        pieces = [
            self._piece(chunk, reach, source, next(patches) if changed else None)
            for source, changed in zip(self.sources, self.changed, strict=True)
        ]
        found = self.local(pieces)
        rows, sizes = chunk.windows * chunk.examples, [box.size for box in reach.boxes]
        if found.shape != (rows, *self.shape[1 : len(self.shape) - len(sizes)], *sizes):
            raise NotAsBeforeError
        return [Patch(found, reach.spans, reach.boxes)]

    def _piece(self, chunk: Chunk, reach: Reach, source: Known, patch: Patch | None) -> Tensor:
        if patch is not None and same(patch.boxes, reach.wanted):
            return patch.tensor
        own = source.examples(chunk)
        return cut(source, reach.wanted, own, patch=patch, fill=self.fill)
