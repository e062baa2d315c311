"""Class activation maps weighted by gradients: one forward and one backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attrib._batched import inherit
from attrib._sites import SiteLike
from attrib.cam._maps import (
    Combine,
    Reshape,
    check_reshape,
    combined,
    weighted,
    with_gradients,
)
from attrib.types import Attribute, Score, Tree

__all__ = [
    "grad_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "layer_cam",
    "mean_weighted",
    "xgrad_cam",
]


def grad_cam(f: Score, site: SiteLike, *, reshape: Reshape = None) -> Attribute:
    r"""Grad-CAM: feature maps :math:`A^k`, weighted by their mean gradients,

    .. math:: L_{p} = \sum_k \alpha_k A^k_p, \qquad
              \alpha_k = \frac1Z \sum_q \frac{\partial f}{\partial A^k_q},

    where :math:`p, q` are the :math:`Z` places of the layer. The map of the paper is the positive
    part, ``relu()`` of this one.

    Args:
        f: Score.
        site: A `Site`, a module, its dotted name or the name of a `tap`: usually the last layer
            with spatial dimensions. Of a tree of them all maps come from one backward pass.
        reshape: From what the site yields to feature maps ``(*batch, channels, *spatial)``, for
            layers that yield something else, such as tokens: ``lambda h: h[:, 1:].transpose(1,
            2).unflatten(2, (14, 14))`` for a vision transformer with a class token. It moves and
            chooses entries, of activations and gradients alike. Without it, tokens ``(batch,
            tokens, channels)`` are taken for ``tokens`` channels in one dimension.

    Returns:
        ``attribute(x, *args)``: the signed map ``(*batch, *spatial)`` at the resolution of the
        layer, for any number of spatial dimensions, without a dimension for the channel; for a tree
        of sites a tree of maps. See `upsample`. Neither rectified nor normalised.

    Raises:
        AttribValueError: If a site yields no spatial dimensions, or `reshape` no feature maps.
        AttribTypeError: If `reshape` is not a function, or a site yields no floating-point tensor.
        AttribError: As for `attrib.activation_and_gradient`.

    References:
        Selvaraju, Cogswell, Das, Vedantam, Parikh & Batra (2017), https://arxiv.org/abs/1610.02391

    Example:
        >>> import torch, attrib
        >>> from torch import nn
        >>> model = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
        >>> f = attrib.target(model, lambda pooled: pooled @ torch.tensor([1.0, -2.0]))
        >>> grad_cam(f, "0")(torch.tensor([[[1.0, 2.0], [3.0, 0.0]]]))
        tensor([[-2.5000,  1.0000]])
    """
    return _from_gradients(f, site, reshape, mean_weighted)


def grad_cam_plus_plus(f: Score, site: SiteLike, *, reshape: Reshape = None) -> Attribute:
    r"""Grad-CAM++: feature maps, weighted by their positive gradients, of which those of maps that
    are active in many places count less,

    .. math:: L_p = \sum_k w_k A^k_p, \qquad w_k = \sum_q \alpha^k_q \max(g^k_q, 0), \qquad
              \alpha^k_q = \frac{(g^k_q)^2}{2 (g^k_q)^2 + (g^k_q)^3 \sum_r A^k_r}
                         = \frac{1}{2 + g^k_q \sum_r A^k_r},

    with :math:`g = \partial f / \partial A`. These are the weights of the paper for the class
    score :math:`\exp f` and an `f` that is linear in :math:`A` nearby. Their factor :math:`\exp f`,
    one positive number per example, is left out: it only scales the map, and overflows. Meant for
    feature maps that are not negative.

    Args:
        f: Score: a logit.
        site: As for `grad_cam`.
        reshape: As for `grad_cam`.

    Returns:
        As for `grad_cam`; the paper rectifies.

    Raises:
        AttribError: As for `grad_cam`.

    References:
        Chattopadhay, Sarkar, Howlader & Balasubramanian (2018), equations 7, 10 and 19,
        https://arxiv.org/abs/1710.11063

    Example:
        >>> import torch, attrib
        >>> f = attrib.batched(lambda x: attrib.tap("maps", x).sum((-1, -2)))
        >>> grad_cam_plus_plus(f, "maps")(torch.tensor([[[1.0, 3.0]]]))
        tensor([[0.3333, 1.0000]])
    """

    def combine(a: Tensor, g: Tensor) -> Tensor:
        # Where g is not positive, the weight is zero without a division by zero.
        positive = g.relu()
        return weighted(a, (positive / (2 + positive * a.sum(-1, keepdim=True))).sum(-1))

    return _from_gradients(f, site, reshape, combine)


def hires_cam(f: Score, site: SiteLike, *, reshape: Reshape = None) -> Attribute:
    r"""HiResCAM: activation times gradient, summed over channels,

    .. math:: L_p = \sum_k A^k_p\, \frac{\partial f}{\partial A^k_p}.

    Where the score is a linear function of the layer, the map adds up to the score less its
    constant, whatever the function is; that of Grad-CAM does so for means over places alone.

    Args:
        f: Score.
        site: As for `grad_cam`.
        reshape: As for `grad_cam`.

    Returns:
        As for `grad_cam`, in units of the score; the paper does not rectify.

    Raises:
        AttribError: As for `grad_cam`.

    References:
        Draelos & Carin (2020), https://arxiv.org/abs/2011.08891

    Example:
        >>> import torch, attrib
        >>> f = attrib.batched(lambda x: attrib.tap("maps", x).square().sum((-1, -2)))
        >>> hires_cam(f, "maps")(torch.tensor([[[1.0, 3.0]]]))
        tensor([[ 2., 18.]])
    """
    return _from_gradients(f, site, reshape, lambda a, g: (a * g).sum(-2))


def xgrad_cam(f: Score, site: SiteLike, *, reshape: Reshape = None) -> Attribute:
    r"""XGrad-CAM: feature maps, weighted by their gradients averaged with the activations,

    .. math:: L_p = \sum_k \alpha_k A^k_p, \qquad
              \alpha_k = \sum_q \frac{A^k_q}{\sum_r A^k_r}\, \frac{\partial f}{\partial A^k_q}.

    The map adds up to activation times gradient, as that of `hires_cam` does. A feature map that
    adds up to zero gets no weight. Meant for maps that are not negative: where activations of both
    signs nearly cancel, the weight grows without bounds.

    Args:
        f: Score.
        site: As for `grad_cam`.
        reshape: As for `grad_cam`.

    Returns:
        As for `grad_cam`, in units of the score; the paper rectifies.

    Raises:
        AttribError: As for `grad_cam`.

    References:
        Fu, Hu, Dong, Guo, Gao & Li (2020), https://arxiv.org/abs/2008.02312

    Example:
        >>> import torch, attrib
        >>> f = attrib.batched(lambda x: attrib.tap("maps", x).square().sum((-1, -2)))
        >>> xgrad_cam(f, "maps")(torch.tensor([[[1.0, 3.0]]]))
        tensor([[ 5., 15.]])
    """

    def combine(a: Tensor, g: Tensor) -> Tensor:
        size = a.sum(-1)
        empty = size == 0
        mean = (a * g).sum(-1) / torch.where(empty, 1, size)
        return weighted(a, torch.where(empty, 0, mean))

    return _from_gradients(f, site, reshape, combine)


def layer_cam(f: Score, site: SiteLike, *, reshape: Reshape = None) -> Attribute:
    r"""Layer-CAM: activation times positive gradient, summed over channels,

    .. math:: L_p = \sum_k A^k_p\, \max\Bigl(\frac{\partial f}{\partial A^k_p}, 0\Bigr).

    Made for maps of early layers too, where a weight per channel is too coarse.

    Args:
        f: Score.
        site: As for `grad_cam`.
        reshape: As for `grad_cam`.

    Returns:
        As for `grad_cam`, in units of the score; the paper rectifies, which changes nothing where
        activations are not negative.

    Raises:
        AttribError: As for `grad_cam`.

    References:
        Jiang, Zhang, Hou, Cheng & Wei (2021), https://doi.org/10.1109/TIP.2021.3089943

    Example:
        >>> import torch, attrib
        >>> f = attrib.batched(lambda x: attrib.tap("maps", x).square().sum((-1, -2)))
        >>> layer_cam(f, "maps")(torch.tensor([[[-1.0, 3.0]]]))
        tensor([[ 0., 18.]])
    """
    return _from_gradients(f, site, reshape, lambda a, g: (a * g.relu()).sum(-2))


def mean_weighted(maps: Tensor, gradients: Tensor) -> Tensor:
    """Feature maps weighted by their mean gradients."""
    return weighted(maps, gradients.mean(-1))


def _from_gradients(f: Score, site: SiteLike, reshape: Reshape, combine: Combine) -> Attribute:
    check_reshape(reshape)

    def method(both: Callable[..., tuple[Tree, Tree]]) -> Attribute:
        cams = combined(both, reshape, combine)
        return lambda x, *args: cams(x, *args)[0]

    return inherit(with_gradients(f, site), method)
