"""Comparing the attributions of perturbed inputs with that of the input, for robustness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

from attrib._batched import stacked
from attrib._checks import check_callable, check_count, check_input
from attrib._map import ChunkSize, check_chunk_size, map_chunks
from attrib._tree import differentiable, leaves
from attrib.metrics._calling import check_batch_dims, check_tensors, unfolded
from attrib.perturb import drawn
from attrib.types import Attribute, Measure, Perturb, Reducer, Tree

__all__ = ["Compare", "compared", "differences", "floating"]

Compare: TypeAlias = Callable[[Tree, list[Tensor], int], Tensor]
"""``compare(points, attributions, batch_dims)``, one number per point, ``(samples, *batch)``."""


def compared(
    attribute: Attribute,
    perturb: Perturb,
    comparison: Callable[[Tree, tuple[Any, ...], list[Tensor]], Compare],
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
        points = drawn(perturb, x, samples)
        base = _present(attribute(x, *args))
        check_batch_dims(base, batch_dims)
        compare = comparison(x, args, base)
        over = stacked(attribute if batch_dims else unfolded(attribute), *args)

        def kernel(points: Tree) -> Tensor:
            return compare(points, _present(over(points)), batch_dims + 1)

        chunks = map_chunks(kernel, points, chunk_size=chunk_size, like=x)
        return reduce(chunks).to(base[0].dtype)

    return measure


def floating(x: Tree) -> list[Tensor]:
    """The floating-point leaves of a tree."""
    return [leaf for leaf in leaves(x) if differentiable(leaf)]


def differences(after: list[Tensor], before: list[Tensor]) -> list[Tensor]:
    """Leaf by leaf."""
    return [a - b for a, b in zip(after, before, strict=True)]


def _present(attribution: Tree) -> list[Tensor]:
    return [part for part in check_tensors(attribution) if part is not None]
