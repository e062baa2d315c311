"""Comparing what is seen at perturbed inputs with what is seen at the input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from attrib._batched import called_like
from attrib._checks import check_callable, check_count, check_input, describe
from attrib._map import ChunkSize, Points, check_chunk_size, map_chunks
from attrib._tree import differentiable, leaves, tree_map
from attrib.errors import AttribTypeError
from attrib.metrics._calling import at_points, check_batch_dims, check_tensors
from attrib.perturb import drawn
from attrib.types import Attribute, Measure, Perturb, Reducer, Tree

__all__ = [
    "Compare",
    "Look",
    "Seen",
    "compared",
    "differences",
    "floating",
    "folded",
]


class Seen(NamedTuple):
    """What there is at a point, or at points that are stacked.

    Attributes:
        found: The leaves of the attribution, or the score.
        beside: What else a measure looks at.
    """

    found: list[Tensor]
    beside: Tree


Look: TypeAlias = Callable[[tuple[Any, ...]], Callable[[Tree], Tree]]
"""From the further arguments of a measure to what it looks at beside, as a function of points."""

Compare: TypeAlias = Callable[[Seen, int], Callable[[Seen], Tensor]]
"""``compare(at x, batch_dims)(at points)``, one number per point, ``(samples, *batch)``."""


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
    """Compare the attributions of perturbed inputs with that of the input."""
    check_callable(attribute, "attribute", "pass an attribution, e.g. attrib.saliency(f)")
    check_callable(perturb, "perturb", "pass a function x -> x', e.g. attrib.perturb.uniform(0.1)")
    check_count(samples, "samples")
    check_count(batch_dims, "batch_dims", least=0)
    chunk_size = check_chunk_size(chunk_size)

    def measure(x: Tree, *args: Any) -> Tensor:
        check_input(x, gradients=False)
        over, beside = at_points(attribute, batch_dims, *args), look(args)

        def kernel(points: Tree) -> Seen:
            around = beside(points)  # which refuses points before the attribution is made
            return Seen(_present(over(points)), around)

        def against(here: Seen) -> Callable[[Seen], Tensor]:
            check_batch_dims(here.found, batch_dims)
            return compare(here, batch_dims)

        return folded(
            kernel, against, x, drawn(perturb, x, samples, after_x=True), chunk_size, reduce
        )

    return called_like(attribute, measure)


def folded(
    kernel: Callable[[Tree], Seen],
    against: Callable[[Seen], Callable[[Seen], Tree]],
    x: Tree,
    points: Points,
    chunk_size: ChunkSize,
    reduce: Callable[[Iterable[Any]], Tree],
) -> Tensor:
    """What comes of points seen from the first of them, which is ``x``: together they take less
    time than one after another.

    Args:
        kernel: What is seen at stacked points.
        against: ``against(at x)(at points)``.
        x: The first point.
        points: All points.
        chunk_size: Points evaluated at once.
        reduce: What is made of all that comes, in the precision of what is found.
    """
    found: list[Seen] = []

    def comparisons() -> Iterator[Tree]:
        compare: Any = None
        seen: Any
        for seen in map_chunks(kernel, points, chunk_size=chunk_size, like=x):
            if compare is None:
                found.append(_some(seen, 0))
                compare = against(found[0])
                seen = _some(seen, slice(1, None))
            if len(seen.found[0]) > 0:
                yield compare(seen)

    result: Any = reduce(comparisons())
    return result.to(found[0].found[0].dtype)


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


def _some(seen: Seen, which: Any) -> Seen:
    found = [part[which] for part in seen.found]
    beside = None if seen.beside is None else tree_map(lambda leaf: leaf[which], seen.beside)
    return Seen(found, beside)
