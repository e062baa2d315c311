"""Comparing the attributions of perturbed inputs with that of the input, for robustness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from attrib._batched import called_like
from attrib._checks import check_callable, check_count, check_input, describe
from attrib._map import ChunkSize, Points, check_chunk_size, map_chunks
from attrib._tree import differentiable, leaves, tree_map
from attrib.errors import AttribTypeError
from attrib.metrics._calling import at_points, check_batch_dims, check_tensors
from attrib.perturb import drawn
from attrib.types import Attribute, Measure, Perturb, Reducer, Tree

__all__ = ["Compare", "Look", "Seen", "compared", "differences", "floating"]


class Seen(NamedTuple):
    """What there is at a point, or at points that are stacked.

    Attributes:
        found: The leaves of the attribution.
        beside: What else a measure looks at.
    """

    found: list[Tensor]
    beside: Tree


Look: TypeAlias = Callable[[tuple[Any, ...]], Callable[[Tree], Tree]]
"""From the further arguments of a measure to what it looks at beside, as a function of points."""

Compare: TypeAlias = Callable[[Seen, Seen, int], Tensor]
"""``compare(at x, at points, batch_dims)``, one number per point, ``(samples, *batch)``."""


def compared(
    attribute: Attribute,
    perturb: Perturb,
    look: Look,
    compare: Compare,
    samples: int,
    batch_dims: int,
    chunk_size: ChunkSize,
    reduce: Reducer,
) -> Measure:
    """Compare the attributions of perturbed inputs with that of the input, the first of the points:
    together they take less time than one after another."""
    check_callable(attribute, "attribute", "pass an attribution, e.g. attrib.saliency(f)")
    check_callable(perturb, "perturb", "pass a function x -> x', e.g. attrib.perturb.uniform(0.1)")
    check_count(samples, "samples")
    check_count(batch_dims, "batch_dims", least=0)
    chunk_size = check_chunk_size(chunk_size)

    def measure(x: Tree, *args: Any) -> Tensor:
        check_input(x, gradients=False)
        points = _after(x, drawn(perturb, x, samples))
        over, beside = at_points(attribute, batch_dims, *args), look(args)
        origin: list[Seen] = []

        def kernel(points: Tree) -> Any:
            around = beside(points)  # which refuses points before the attribution is made
            return Seen(_present(over(points)), around)

        def comparisons() -> Iterator[Tensor]:
            chunk: Any
            for chunk in map_chunks(kernel, points, chunk_size=chunk_size, like=x):
                seen = chunk
                if not origin:
                    origin.append(_some(chunk, 0))
                    check_batch_dims(origin[0].found, batch_dims)
                    seen = _some(chunk, slice(1, None))
                if len(seen.found[0]) > 0:
                    yield compare(origin[0], seen, batch_dims + 1)

        return reduce(comparisons()).to(origin[0].found[0].dtype)

    return called_like(attribute, measure)


def floating(tree: Tree, name: str) -> list[Tensor]:
    """The floating-point leaves of a tree.

    Raises:
        AttribTypeError: If there are none.
    """
    parts = [leaf for leaf in leaves(tree) if differentiable(leaf)]
    if not parts:
        raise AttribTypeError(
            f"{name}: no floating-point numbers, got {describe(tree)}; integers such as token ids "
            "do not change by an amount",
            code=f"{name}.dtype",
        )
    return parts


def differences(after: list[Tensor], before: list[Tensor]) -> list[Tensor]:
    """Leaf by leaf."""
    return [a - b for a, b in zip(after, before, strict=True)]


def _present(attribution: Tree) -> list[Tensor]:
    return [part for part in check_tensors(attribution) if part is not None]


def _after(x: Tree, points: Points) -> Points:
    """The points, with ``x`` in front of them."""

    def take(start: int, stop: int) -> Tree:
        if start > 0:
            return points.take(start - 1, stop - 1)
        if stop == 1:
            return tree_map(lambda leaf: leaf[None], x)
        return tree_map(lambda a, b: torch.cat([a[None], b]), x, points.take(0, stop - 1))

    return Points(points.total + 1, take)


def _some(seen: Seen, which: Any) -> Seen:
    found = [part[which] for part in seen.found]
    beside = None if seen.beside is None else tree_map(lambda leaf: leaf[which], seen.beside)
    return Seen(found, beside)
