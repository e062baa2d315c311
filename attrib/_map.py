"""The engine: many points, a chunk at a time. Nothing else in attrib loops over samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from attrib._checks import check_count
from attrib._progress import monitored, report
from attrib._transforms import compiling
from attrib._tree import leaves, length, tree_map
from attrib.errors import ONE_BY_ONE, AttribTypeError, add_note
from attrib.types import Tree

__all__ = [
    "ChunkSize",
    "Points",
    "check_chunk_size",
    "chunk_length",
    "draws",
    "map_chunks",
    "out_of_memory",
    "scan",
    "slices",
]

ChunkSize: TypeAlias = int | Literal["auto"] | None
"""Points evaluated at once: a number, ``None`` for all, ``"auto"`` for what suits the device."""

# Entries of x evaluated at once, and the limits within which that counts in rows. Measured on CPUs:
# 32 rows of 32 x 32 pixels, 4096 rows of 13 columns and 4 photos are in the flat optimum of time
# and need little memory; a GPU needs many more rows to be busy.
_ROWS = {"cpu": (3 * 2**15, 4, 2**12)}
_ROWS_ON_ACCELERATOR = (2**24, 64, 2**17)

_State = TypeVar("_State")


class Points(NamedTuple):
    """A sequence of points that is made as it is needed.

    Attributes:
        total: How many there are.
        take: ``take(start, stop)`` stacks some of them; called once for each, in order.
    """

    total: int
    take: Callable[[int, int], Tree]


def slices(tree: Tree) -> Points:
    """The points along the leading axis of every leaf."""

    def take(start: int, stop: int) -> Tree:
        return tree_map(lambda leaf: leaf[start:stop], tree)

    return Points(length(tree), take)


def draws(
    draw: Callable[[], Tree], samples: int, first: Callable[[Sequence[Tree]], Tree] | None = None
) -> Points:
    """Random points: drawn one after another, so that the draws do not depend on the chunk size.

    Args:
        draw: Makes one.
        samples: How many are drawn.
        first: Makes one point more, in front of the others, seeing those that come with it.
    """

    def take(start: int, stop: int) -> Tree:
        leading = first is not None and start == 0
        points = [draw() for _ in range(start + leading, stop)]
        if first is not None and leading:
            points.insert(0, first(points))
        return tree_map(lambda *leaf: torch.stack(leaf), *points)

    return Points(samples + (first is not None), take)


def map_chunks(
    kernel: Callable[[Tree], Tree], points: Points, *, chunk_size: ChunkSize, like: Tree
) -> Iterator[Tree]:
    """Apply `kernel` to the points, a chunk at a time, for a reducer to fold.

    Memory depends on the size of a chunk, never on the number of points.

    Args:
        kernel: Function of stacked points; usually what `stacked` made.
        points: The points.
        chunk_size: How many are evaluated at once. ``"auto"`` goes by the size of `like` and, out
            of memory, halves its choice and goes on.
        like: A tree as large as one point.
    """
    size = chunk_length(chunk_size, points.total, like)
    report(0, points.total)
    done = 0
    while done < points.total:
        waiting = [points.take(done, min(done + size, points.total))]
        while waiting:
            chunk = waiting.pop()
            width = length(chunk)
            if width > size:
                parts = slices(chunk).take
                waiting += [parts(size, width), parts(0, size)]
                continue
            try:
                with monitored(done, points.total):
                    result = kernel(chunk)
            except Exception as error:
                if chunk_size != "auto" or width == 1 or not out_of_memory(error):
                    add_note(
                        error,
                        f"attrib was evaluating points {done} to {done + width - 1} of "
                        f"{points.total}; {ONE_BY_ONE}",
                    )
                    raise
                size = (width + 1) // 2
                waiting.append(chunk)
                continue
            yield result
            del chunk, result  # or they would live on while the next ones are made
            done += width
            report(done, points.total)


def scan(step: Callable[[int, _State], _State], state: _State, steps: int) -> _State:
    """Apply `step` again and again, where each point depends on the one before."""
    report(0, steps)
    for index in range(steps):
        try:
            with monitored(index, steps):
                state = step(index, state)
        except Exception as error:
            add_note(error, f"attrib was evaluating step {index} of {steps}")
            raise
        report(index + 1, steps)
    return state


def check_chunk_size(chunk_size: Any) -> ChunkSize:
    """A positive integer, ``"auto"`` or ``None``."""
    if chunk_size is None or (isinstance(chunk_size, str) and chunk_size == "auto"):
        return chunk_size
    if isinstance(chunk_size, str):
        raise AttribTypeError(
            f'chunk_size: unknown, got {chunk_size!r}; must be a positive integer, "auto" or None',
            code="chunk_size.type",
        )
    return check_count(chunk_size, "chunk_size")


def chunk_length(chunk_size: ChunkSize, count: int, like: Tree) -> int:
    """How many of so many points are evaluated at once; for the rest see `map_chunks`."""
    if chunk_size != "auto":
        return count if chunk_size is None else chunk_size
    tensors = [leaf for leaf in leaves(like) if isinstance(leaf, Tensor)]
    entries, fewest, most = _ROWS.get(tensors[0].device.type, _ROWS_ON_ACCELERATOR)
    rows = max([1, *[leaf.shape[0] for leaf in tensors if leaf.ndim > 1]])
    size = max(1, sum(leaf.numel() for leaf in tensors)) / rows
    wanted = min(max(entries / size, fewest), most)
    chunks = -(-count // max(1, int(wanted / rows)))
    return -(-count // max(1, chunks))  # as many in each: a small last chunk would cost as much


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device has no memory left."""
    # On a CPU the allocator raises a plain RuntimeError.
    return not compiling() and (
        isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
    )
