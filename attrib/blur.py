"""Attribution from blurred to sharp: a path through scale instead of along a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attrib._batched import inherit
from attrib._checks import check_input, check_number, describe
from attrib._map import ChunkSize
from attrib._paths import Path
from attrib._quadrature import Quadrature
from attrib._tree import differentiable, leaves, tree_map
from attrib.errors import AttribTypeError, AttribValueError
from attrib.path import integrated_gradients
from attrib.types import Attribute, Score, Tree

__all__ = ["blur_ig", "blur_path"]


def blur_ig(
    f: Score,
    *,
    max_sigma: float = 50.0,
    dims: Sequence[int] = (-2, -1),
    steps: int = 50,
    quadrature: Quadrature = "gauss-legendre",
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Integrated gradients along the path :math:`\gamma(\alpha) = x * G_{(1-\alpha)\sigma}` from a
    blurred input to the input, where :math:`G_\sigma` is a Gaussian of standard deviation
    :math:`\sigma`,

    .. math:: \phi_i = \int_0^1 \partial_i f(\gamma(\alpha))\, \gamma_i'(\alpha)\, d\alpha.

    No baseline to choose: information is destroyed scale by scale, and no edge is made that is not
    there.

    Args:
        f: Score.
        max_sigma: Standard deviation of the blur at the start, in pixels (entries).
        dims: The dimensions to blur, counted from the end.
        steps: Gradient evaluations per example.
        quadrature: As for `attrib.integrated_gradients`.
        chunk_size: Points of the path evaluated at once.

    Returns:
        ``attribute(x, *args)``, a tree like ``x``, in units of the score. Summed over an example it
        is the score of ``x`` minus that of the most blurred ``x``, up to the quadrature error.

    Raises:
        AttribValueError: If a leaf lacks one of `dims`, or `max_sigma` is not positive.
        AttribError: As for `attrib.integrated_gradients`.

    References:
        Xu, Venugopalan & Sundararajan (2020), https://arxiv.org/abs/2004.03383

    Example:
        >>> import torch
        >>> f = lambda x: x[..., 2, 2]
        >>> blur_ig(f, max_sigma=5.0)(torch.ones(1, 5, 5)).abs().max() < 1e-6
        tensor(True)
    """
    path = blur_path(max_sigma, dims)

    def method(f: Score) -> Attribute:
        integrate = integrated_gradients(
            f, path=path, steps=steps, quadrature=quadrature, chunk_size=chunk_size
        )
        return lambda x, *args: integrate(x, 0, *args)

    return inherit(f, method)


def blur_path(max_sigma: float, dims: Sequence[int] = (-2, -1)) -> Path:
    r"""The path :math:`\gamma(\alpha) = x * G_{(1-\alpha)\sigma}`, for `integrated_gradients`.

    The blur is normalised at the borders, so that a constant stays what it is; the baseline is not
    used.

    Args:
        max_sigma: Standard deviation of the blur at ``alpha = 0``, in entries.
        dims: The dimensions to blur, counted from the end.

    Returns:
        ``path(x, baseline, alpha) -> point``.

    Raises:
        AttribError: If `max_sigma` is not a positive number or `dims` are not negative.

    Example:
        >>> import torch
        >>> blur_path(3.0)(torch.ones(1, 4, 4), None, torch.tensor(0.5)).sum()
        tensor(16.)
    """
    check_number(max_sigma, "max_sigma", exclusive=True)
    if not isinstance(dims, (list, tuple)) or any(
        isinstance(dim, bool) or not isinstance(dim, int)  # pyright: ignore[reportUnnecessaryIsInstance]
        for dim in dims
    ):
        raise AttribTypeError(
            f"dims: must be a tuple of integers, got {_types(dims)}; the last two are (-2, -1)",
            code="dims.type",
        )
    chosen = tuple(dims)
    if not chosen or any(dim >= 0 for dim in chosen) or len(set(chosen)) != len(chosen):
        raise AttribValueError(
            f"dims: must be different negative numbers, got {chosen}; count the dimensions from "
            "the end",
            code="dims.range",
        )

    def blurred(leaf: Tensor, alpha: Tensor) -> Tensor:
        sigma = (1 - alpha) * max_sigma
        for dim in chosen:
            blur = _gaussian_matrix(leaf.shape[dim], sigma, leaf)
            leaf = (leaf.movedim(dim, -1) @ blur.mT).movedim(-1, dim)
        return leaf

    def path(x: Tree, baseline: Tree, alpha: Tensor) -> Tree:
        del baseline
        check_input(x)
        if any(differentiable(leaf) and leaf.ndim < -min(chosen) for leaf in leaves(x)):
            raise AttribValueError(
                f"dims: x lacks some of them, got dims {chosen} for x of shape {describe(x)}",
                code="dims.range",
            )
        return tree_map(lambda leaf: blurred(leaf, alpha) if differentiable(leaf) else leaf, x)

    return path


def _types(dims: object) -> str:
    given: Any = dims
    each: Any = given if isinstance(dims, (list, tuple)) else (given,)
    return ", ".join(sorted({type(dim).__name__ for dim in each}))


def _gaussian_matrix(size: int, sigma: Tensor, like: Tensor) -> Tensor:
    """Rows are the normalised weights with which one entry sees all others."""
    place = torch.arange(size, dtype=sigma.dtype, device=like.device)
    distance = (place[:, None] - place[None, :]).square()
    # At the end of the path sigma is zero, and so is its weight on any other entry.
    spread = sigma.clamp_min(torch.finfo(sigma.dtype).eps ** 0.5).square()
    return (-distance / (2 * spread)).softmax(-1).to(like.dtype)
