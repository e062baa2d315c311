"""Eigen-CAM: the principal component of a layer's feature maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attrib._batched import inherit
from attrib._checks import check_finite
from attrib._inside import Sites
from attrib._sites import SiteLike
from attrib._transforms import differentiated_outside
from attrib.cam._maps import Reshape, check_reshape, feature_maps, of_each, over_places, with_score
from attrib.types import Attribute, Score, Tree

__all__ = ["eigen_cam"]

_linalg: Any = torch.linalg


def eigen_cam(f: Score, site: SiteLike, *, reshape: Reshape = None) -> Attribute:
    r"""Eigen-CAM: feature maps projected on their first principal direction,

    .. math:: L = A^\top v_1, \qquad A = \textstyle\sum_i \sigma_i\, v_i u_i^\top

    the singular value decomposition of the feature maps as a matrix of channels and places, not
    centred. It is the same for every class: of the score only the batch dimensions matter. A
    direction has no sign of its own, so the entry of the map that is largest in size is taken to be
    positive; where activations are not negative, the whole map is not.

    Args:
        f: Score.
        site: As for `attrib.grad_cam`; all maps come from one forward pass.
        reshape: As for `attrib.grad_cam`.

    Returns:
        As for `attrib.grad_cam`, in units of the activations. Derivatives are exact; where the two
        largest singular values are equal there is no derivative of :math:`v_1`, and it is taken as
        a constant.

    Raises:
        AttribError: As for `attrib.grad_cam`, but the score need not depend on the layer.

    References:
        Muhammad & Yeasin (2020), https://arxiv.org/abs/2008.00299

    Example:
        >>> import torch, attrib
        >>> f = attrib.batched(lambda x: attrib.tap("maps", x).sum((-1, -2)))
        >>> eigen_cam(f, "maps")(torch.tensor([[[3.0, 0.0], [4.0, 0.0]]]))
        tensor([[5., 0.]])
    """
    check_reshape(reshape)
    sites = Sites(*with_score(f, site))

    def method(f: Score) -> Attribute:
        read = sites.reading(f)

        def attribute(x: Tree, *args: Any) -> Tree:
            activation, finite = read(x, *args)

            def one(h: Tensor) -> Tensor:
                maps = feature_maps(h, finite.shape, reshape)
                found = over_places(_projection, finite.ndim, maps)
                return check_finite([found], torch.where(finite, 0.0, torch.nan))[0]

            return of_each(one, activation)

        return attribute

    return inherit(sites.f, method)


def _projection(maps: Tensor) -> Tensor:
    """From ``(*batch, channels, places)`` to ``(*batch, places)``."""
    wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
    finite = wide.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    known = torch.where(finite, wide, 0)
    channels, places = known.shape[-2:]
    # The smaller of the two matrices of products has the same largest singular value.
    if channels <= places:
        found = (_leading(known @ known.mT).unsqueeze(-2) @ known).squeeze(-2)
    else:
        products = known.mT @ known
        direction = _leading(products)
        stretched = (products @ direction.unsqueeze(-1)).squeeze(-1)
        found = direction * _root((direction * stretched).sum(-1, keepdim=True))
    peak = found.gather(-1, found.detach().abs().argmax(-1, keepdim=True))
    signed = torch.where(peak < 0, -found, found)
    return torch.where(finite.squeeze(-1), signed, torch.nan).to(maps.dtype)


def _leading(products: Tensor) -> Tensor:
    """The eigenvector of the largest eigenvalue, ``(*batch, n, n)`` to ``(*batch, n)``."""
    spectrum: tuple[Tensor, Tensor] = _linalg.eigh(products.detach())
    values, vectors = spectrum
    vector = vectors[..., -1]
    if not differentiated_outside():
        return vector
    # Torch's derivative of all eigenvectors does not exist where any two values agree, as those of
    # channels that are never active do. Newton's method has the derivatives of what it converges
    # to: starting there, up to the first order after one step and the third after two.
    moved, value = vector, values[..., -1]
    apart = _apart(values)
    for _ in range(2):
        moved, value = _newton(products, moved, value, apart)
    return vector + (moved - moved.detach())


def _newton(
    products: Tensor, vector: Tensor, value: Tensor, apart: Tensor
) -> tuple[Tensor, Tensor]:
    """One step towards ``products @ vector = value * vector`` with a vector of length one."""
    n = products.shape[-1]
    one = torch.eye(n + 1, dtype=products.dtype, device=products.device)
    column = vector.unsqueeze(-1)
    residual = (products @ column).squeeze(-1) - value.unsqueeze(-1) * vector
    excess = (1 - vector.square().sum(-1, keepdim=True)) / 2
    upper = torch.cat([products - value[..., None, None] * one[:n, :n], -column], -1)
    lower = torch.cat([-column.mT, torch.zeros_like(column[..., :1, :])], -1)
    slopes = torch.where(apart[..., None, None], torch.cat([upper, lower], -2), one)
    step: Tensor = _linalg.solve(slopes, torch.cat([residual, excess], -1))
    step = torch.where(apart.unsqueeze(-1), step, 0)
    return vector - step[..., :n], value - step[..., n]


def _apart(values: Tensor) -> Tensor:
    """Whether the largest of the eigenvalues, in ascending order, is a simple one."""
    n = values.shape[-1]
    if n == 1:
        return torch.ones_like(values[..., 0], dtype=torch.bool)
    rounding = n * torch.finfo(values.dtype).eps * values[..., -1]
    return values[..., -1] - values[..., -2] > rounding


def _root(square: Tensor) -> Tensor:
    """The square root, with a derivative of zero at zero."""
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1).sqrt(), 0)
