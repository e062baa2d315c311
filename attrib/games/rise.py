"""RISE: the score under random masks that fade from cell to cell of a coarse grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from attrib._batched import stacked
from attrib._checks import (
    check_baseline,
    check_callable,
    check_count,
    check_input,
    check_number,
    check_several,
    check_values,
    describe,
)
from attrib._map import ChunkSize, Points, check_chunk_size, map_chunks
from attrib._tree import differentiable, leaves, tree_map
from attrib.errors import AttribTypeError, AttribValueError
from attrib.games._coalitions import random_rows
from attrib.games._folding import check_stopping, folded, shifted, wide
from attrib.gradient import score_of
from attrib.perturb import Stream, fork
from attrib.reducers import mean
from attrib.types import Attribute, Reducer, Score, Tree

__all__ = ["rise"]

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def rise(
    f: Score,
    *,
    samples: int = 1000,
    cells: Sequence[int] = (7, 7),
    probability: float = 0.5,
    reduce: Reducer = mean,
    tol: float | None = None,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""RISE: the mean score over random masks that leave a place visible,

    .. math:: \phi_\lambda = \frac{1}{p} \, \mathbb{E}_m \big[ f(x' + m \odot (x - x'))\,
              m_\lambda \big].

    Every cell of a coarse grid is visible with probability :math:`p`; the grid is interpolated to
    one cell more than the input, of which a random part as large as the input is the mask.

    Args:
        f: Score. The scores of RISE's paper are probabilities, such as `attrib.prob`.
        samples: Masks; with `tol`, at most.
        cells: Cells along each of the last dimensions of ``x``: two numbers for images ``(*batch,
            channels, height, width)``, one for sequences, three for volumes. Whatever comes before
            these dimensions is masked alike.
        probability: :math:`p`, above 0 and at most 1.
        reduce: How the masks are folded: `attrib.estimate` adds standard errors.
        tol: As for `attrib.shapley_sampling`.
        generator: Source of randomness. Without one, the draws come from a copy of the global
            generator: the same at every call until something else advances it.
        chunk_size: Masks evaluated at once. Does not change the draws.

    Returns:
        ``attribute(x, baseline=0, *args)``, what `reduce` makes of trees like ``x``, in units of
        the score; alike for all channels. The examples share the masks. It is a mean score, not a
        difference: a score that is the same everywhere gives a map of that score. Integers, which
        cannot fade, are left as they are and get ``None``.

    Raises:
        AttribTypeError: If ``x`` holds nothing but integers.
        AttribError: For options out of range, fewer dimensions than in `cells`, and as for
            `attrib.games.game`.

    References:
        Petsiuk, Das & Saenko (2018), https://arxiv.org/abs/1806.07421

    Example:
        >>> import torch
        >>> f = lambda x: x[..., 0, :8, :8].mean((-2, -1))
        >>> found = rise(f, cells=(4, 4))(torch.ones(1, 3, 32, 32))
        >>> bool(found[0, 0, :4, :4].mean() > found[0, 0, -4:, -4:].mean() + 0.05)
        True
    """
    check_callable(f, "f", "pass a score, e.g. attrib.prob(model, 3)")
    check_stopping(samples, reduce, tol)
    check_number(probability, "probability", most=1.0, exclusive=True)
    grid = tuple(check_count(cell, "cells") for cell in check_several(cells, "cells"))
    if len(grid) not in _MODES:
        raise AttribValueError(
            f"cells: must hold one to three numbers, got {len(grid)}; one for each of the last "
            "dimensions of x",
            code="cells.length",
        )
    chunk_size = check_chunk_size(chunk_size)
    Stream(generator)

    def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
        size = _size(x, len(grid))
        start = check_baseline(baseline, x)
        first = next(leaf for leaf in leaves(x) if differentiable(leaf))
        masks = _masks(size, grid, probability, Stream(fork(generator)), wide(first))
        over = stacked(score_of(f), *args)

        broken = False

        def evaluated(masks: Tensor) -> tuple[Tensor, Tensor]:
            return masks, over(_faded(masks, x, start))

        def draws(start: int, stop: int) -> Iterator[Tensor]:
            nonlocal broken
            points = Points(stop - start, shifted(masks, start))
            for mask, found in map_chunks(evaluated, points, chunk_size=chunk_size, like=x):
                values, broken = check_values(found, known=broken)
                _check_places(x, len(size), values.ndim - 1)
                seen = mask.flatten(1).reshape(len(mask), *(1 for _ in values.shape[1:]), -1)
                share = (wide(values) / probability).unsqueeze(-1)
                yield share * seen.to(share.dtype)

        def spread(found: Any) -> Any:
            if not isinstance(found, Tensor):
                return found
            return tree_map(lambda a: _spread(found, size, a) if differentiable(a) else None, x)

        return tree_map(spread, folded(first, draws, samples, reduce, tol))

    return attribute


def _size(x: Tree, dims: int) -> tuple[int, ...]:
    """The last dimensions, which all leaves that can fade share."""
    check_input(x, gradients=False)
    parts = [leaf for leaf in leaves(x) if differentiable(leaf)]
    if not parts:
        raise AttribTypeError(
            f"x: must be floating-point, got {describe(x)}; masks fade what they hide. Hide whole "
            "features, e.g. with attrib.feature_ablation, or go by embeddings",
            code="x.dtype",
        )
    sizes = {tuple(part.shape[-dims:]) for part in parts}
    if len(sizes) != 1 or any(part.ndim < dims or 0 in part.shape[-dims:] for part in parts):
        raise AttribValueError(
            f"cells: one number for each of the last dimensions that all leaves of x share, got "
            f"{dims} for x of shape {' and '.join(str(tuple(p.shape)) for p in parts)}",
            code="cells.length",
        )
    return sizes.pop()


def _check_places(x: Tree, dims: int, batch_dims: int) -> None:
    if any(leaf.ndim < batch_dims + dims for leaf in leaves(x) if differentiable(leaf)):
        raise AttribValueError(
            f"cells: one number for each of the last dimensions of features, got {dims} for x "
            f"({describe(x)}) of which the first {batch_dims} count the examples",
            code="cells.length",
        )


def _masks(
    size: tuple[int, ...],
    grid: tuple[int, ...],
    probability: float,
    stream: Stream,
    like: Tensor,
) -> Callable[[int, int], Tensor]:
    """``take(start, stop)``: masks ``(n, *size)``."""
    dims, device = len(size), like.device
    cell = [-(-length // count) for length, count in zip(size, grid, strict=True)]
    cells = torch.Size(grid).numel()
    uniform = random_rows(cells + dims, stream, device)
    full = [(count + 1) * step for count, step in zip(grid, cell, strict=True)]

    def take(start: int, stop: int) -> Tensor:
        numbers = uniform(start, stop)
        coarse = (numbers[:, :cells] < probability).to(like.dtype).reshape(-1, 1, *grid)
        fine = torch.nn.functional.interpolate(
            coarse, size=full, mode=_MODES[dims], align_corners=False
        )[:, 0]
        for dim, (length, step) in enumerate(zip(size, cell, strict=True), start=1):
            offset = (numbers[:, cells + dim - 1] * step).long()
            places = offset[:, None] + torch.arange(length, device=device)
            places = places.reshape(
                len(places), *(length if d == dim else 1 for d in range(1, dims + 1))
            )
            fine = fine.gather(
                dim, places.expand(*fine.shape[:dim], length, *fine.shape[dim + 1 :])
            )
        return fine

    return take


def _faded(mask: Tensor, x: Tree, start: Tree) -> Tree:
    """Points between the baseline and ``x``."""

    def leaf(a: Tensor, b: Tensor) -> Tensor:
        if not differentiable(a):
            return a.expand(len(mask), *a.shape).clone()
        return b + _against(mask, a).to(a.dtype) * (a - b)

    return tree_map(leaf, x, start)


def _against(mask: Tensor, leaf: Tensor) -> Tensor:
    """The masks ``(n, *size)`` with the dimensions of a stack of leaves."""
    between = leaf.ndim - (mask.ndim - 1)
    return mask.reshape(len(mask), *(1 for _ in range(between)), *mask.shape[1:])


def _spread(found: Tensor, size: tuple[int, ...], leaf: Tensor) -> Tensor:
    """Numbers of places, ``(*batch, places)``, as a leaf."""
    batch = found.shape[:-1]
    between = (1,) * (leaf.ndim - len(batch) - len(size))
    return found.reshape(*batch, *between, *size).to(leaf.dtype).expand(leaf.shape).contiguous()
