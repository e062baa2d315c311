"""ROAD: deletion of pixels that leaves no trace of which were deleted."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from attrib._checks import (
    check_callable,
    check_choice,
    check_count,
    check_input,
    check_number,
    check_several,
)
from attrib._map import ChunkSize, Points, check_chunk_size
from attrib._transforms import concrete
from attrib._tree import tree_map
from attrib.errors import AttribTypeError, AttribValueError
from attrib.games.game import game
from attrib.games.groups import patches
from attrib.metrics._calling import given_or_made
from attrib.metrics._direction import named
from attrib.metrics._hiding import player_values, ranks_of, removed, scores_of
from attrib.perturb import Stream, drawn, fork, gaussian
from attrib.types import Attribute, Measure, Score, Tree

__all__ = ["linear_imputation", "road"]

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_BESIDE, _DIAGONAL = 1 / 6, 1 / 12


def road(
    f: Score,
    attribute: Attribute | None = None,
    *,
    shares: Sequence[float] = SHARES,
    order: Literal["most", "least"] = "most",
    noise: float = 0.01,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""ROAD, lower is better: the mean score without the most relevant pixels, which are imputed
    from what surrounds them (needs SciPy),

    .. math:: \frac{1}{|Q|} \sum_{q \in Q} f(\tilde x_{\setminus q}).

    With ``order="least"`` the least relevant pixels go, and higher is better; the difference of the
    two is what rankings of methods agree on.

    Args:
        f: Score, usually a probability or whether the prediction is right.
        attribute: Attribution function, or ``None`` to pass what one returned. Attributions are
            summed over channels.
        shares: The parts :math:`Q` of the pixels that are imputed.
        order: Which pixels go.
        noise: Standard deviation of the noise on imputed pixels, in units of ``x``.
        generator: Source of the noise; without one, a copy of the global generator.
        chunk_size: Shares evaluated at once. Does not change the noise.

    Returns:
        ``measure(x, baseline=0, *args) -> (*batch,)`` for images ``(*batch, channels, height,
        width)``, in units of the score; without an attribution function ``measure(attribution, x,
        baseline=0, *args)``. The baseline is for the attribution alone. Imputed pixels are
        constants for derivatives.

    Raises:
        AttribTypeError: If ``x`` is not one floating-point tensor, or has no numbers as inside of a
            transform or a compiler.
        AttribError: If an argument is not what it should be, and as for `attrib.games.game`.
        ImportError: If SciPy is not installed.

    References:
        Rong, Leemann, Borisov, Kasneci & Kasneci (2022), "remove and debias",
        https://arxiv.org/abs/2202.00449

    Example:
        >>> import torch
        >>> centre = lambda x: x[..., 0, 1, 1]
        >>> x, attribution = torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3)
        >>> x[..., 1, 1] = attribution[..., 1, 1] = 1.0
        >>> road(centre, shares=[0.0, 0.1], noise=0.0)(attribution, x)
        tensor([0.5000])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    parts = [check_number(share, "shares", most=1.0) for share in check_several(shares, "shares")]
    check_count(len(parts), "shares")
    check_choice(order, "order", ("most", "least"))
    scale, chunk_size = check_number(noise, "noise"), check_chunk_size(chunk_size)
    Stream(generator)

    def measure(attribution: Any, x: Tensor, baseline: Any = 0, *args: Any) -> Tensor:
        _check_images(x)
        v = game(f, x, 0, *args, groups=patches(x, (1, 1)), chunk_size=chunk_size)
        values = player_values(attribution, v)
        # A pixel at least is left to impute from.
        counts = [min(round(part * v.players), v.players - 1) for part in parts]
        kept = removed(ranks_of(values, largest_first=order == "most"), counts)
        grain = drawn(gaussian(scale, generator=fork(generator)), torch.zeros_like(x), kept.total)

        def take(start: int, stop: int) -> tuple[Tensor, Tree]:
            present = kept.take(start, stop)
            missing = ~present.unflatten(-1, x.shape[-2:])
            filled = linear_imputation(x.detach().expand(stop - start, *x.shape), missing)
            return present, tree_map(torch.add, filled, grain.take(start, stop))

        pairs = v.over_pairs(Points(kept.total, take))
        return scores_of(pairs, values).mean(0)

    return named("road", given_or_made(attribute, measure))


def linear_imputation(x: Tensor, missing: Tensor) -> Tensor:
    r"""Replace pixels by weighted means of their neighbours, imputed ones included (needs SciPy),

    .. math:: x_{ij} = \frac{\sum_n w_n x_n}{\sum_n w_n}

    over the up to eight neighbours :math:`n` of each missing pixel, with weights of 1/6 beside it
    and 1/12 at its corners: one sparse linear system.

    Args:
        x: Images ``(*batch, channels, height, width)``.
        missing: Boolean, ``(*batch, height, width)``; every image has a pixel that is not.

    Returns:
        Like ``x``.

    Raises:
        AttribValueError: If an image has no pixel left, or the shapes do not fit.
        AttribTypeError: If there are no numbers, as inside of a transform or a compiler.
        ImportError: If SciPy is not installed.

    References:
        Rong, Leemann, Borisov, Kasneci & Kasneci (2022), "noisy linear imputation",
        https://arxiv.org/abs/2202.00449

    Example:
        >>> import torch
        >>> x = torch.tensor([[[1.0, 2.0, 3.0]]])
        >>> linear_imputation(x, torch.tensor([[False, True, False]]))
        tensor([[[1., 2., 3.]]])
    """
    _check_images(x)
    if missing.dtype != torch.bool or missing.shape != (*x.shape[:-3], *x.shape[-2:]):
        raise AttribValueError(
            f"missing: must be boolean of shape {(*x.shape[:-3], *x.shape[-2:])}, got "
            f"{missing.dtype} of shape {tuple(missing.shape)}",
            code="missing.shape",
        )
    if missing.flatten(-2).all(-1).any():
        raise AttribValueError(
            "missing: all pixels of an image, got nothing to impute from", code="missing.range"
        )
    channels, height, width = x.shape[-3:]
    images = rearrange(
        x.detach().to("cpu", torch.float64).reshape(-1, channels, height, width),
        "image channel row column -> (image row column) channel",
    ).numpy()
    holes: Any = missing.to("cpu").reshape(-1, height, width).numpy()
    filled = torch.as_tensor(_solved(images, holes), device="cpu")
    filled = rearrange(
        filled,
        "(image row column) channel -> image channel row column",
        row=height,
        column=width,
    )
    return filled.reshape(x.shape).to(x)


def _solved(pixels: Any, holes: Any) -> Any:
    """Solve for the holes of all images together, ``(images * height * width, channels)``."""
    sparse: Any = import_module("scipy.sparse")
    linalg: Any = import_module("scipy.sparse.linalg")
    image, row, column = np.nonzero(holes)
    if len(image) == 0:
        return pixels
    height, width = holes.shape[1:]
    number = np.full(holes.size, -1)
    own = (image * height + row) * width + column
    number[own] = np.arange(len(own))
    rows: list[Any] = []
    columns: list[Any] = []
    weights: list[Any] = []
    known = np.zeros((len(own), pixels.shape[1]))
    total = np.zeros(len(own))
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            if not (down or right):
                continue
            weight = _DIAGONAL if down and right else _BESIDE
            there = (row + down >= 0) & (row + down < height)
            there &= (column + right >= 0) & (column + right < width)
            equation = np.nonzero(there)[0]
            neighbour = own[equation] + down * width + right
            total[equation] += weight
            hole = number[neighbour] >= 0
            known[equation[~hole]] += weight * pixels[neighbour[~hole]]
            rows.append(equation[hole])
            columns.append(number[neighbour[hole]])
            weights.append(np.full(int(hole.sum()), -weight))
    diagonal = np.arange(len(own))
    entries = np.concatenate([total, *weights])
    places = (np.concatenate([diagonal, *rows]), np.concatenate([diagonal, *columns]))
    system = sparse.csc_matrix((entries, places), shape=(len(own), len(own)))
    filled = pixels.copy()
    filled[own] = linalg.splu(system).solve(known)
    return filled


def _check_images(x: Any) -> None:
    check_input(x)
    if not isinstance(x, Tensor) or not concrete(x):
        found = type(x).__name__
        raise AttribTypeError(
            f"x: must be one tensor with numbers, got {found}; pixels are imputed by SciPy, "
            "outside of torch.func transforms and compilers",
            code="x.traced",
        )
    if x.ndim < 3:
        raise AttribValueError(
            f"x: must be images (*batch, channels, height, width), got shape {tuple(x.shape)}",
            code="x.shape",
        )
