"""Guided Grad-CAM: a class activation map in the detail of the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from attrib._batched import inherit, of_the_same_rows
from attrib._checks import check_input
from attrib._sites import SiteLike
from attrib._tree import tree_map
from attrib.cam._maps import Reshape, check_reshape, combined, with_gradients
from attrib.cam.gradients import mean_weighted
from attrib.cam.sizes import Mode, check_leaves, check_mode, fitted
from attrib.rules import guided_backprop
from attrib.types import Attribute, Score, Tree

__all__ = ["guided_grad_cam"]


def guided_grad_cam(
    f: Score, site: SiteLike, *, reshape: Reshape = None, mode: Mode = "linear"
) -> Attribute:
    r"""Guided Grad-CAM: guided backpropagation :math:`\tilde g`, where the map :math:`L` of
    Grad-CAM is positive,

    .. math:: \phi_i = \tilde g_i \, \bigl(U \max(L, 0)\bigr)_{p(i)},

    :math:`U` upsampling to the resolution of the input and :math:`p(i)` the place of the entry.
    Here the ReLU is a part of the method.

    Args:
        f: Score.
        site: As for `attrib.grad_cam`; for a tree of sites the result is a tree of attributions.
        reshape: As for `attrib.grad_cam`.
        mode: Of `attrib.upsample`: the paper's is linear, Captum's default is ``"nearest"``.

    Returns:
        ``attribute(x, *args)``, a tree like ``x``, signed, in units of the squared score per unit
        of ``x``. Every floating leaf is ``(*batch, ..., *spatial)``, with as many spatial
        dimensions as the layer.

    Raises:
        AttribValueError: If a leaf of ``x`` has fewer dimensions, or `mode` is not there in so many
            spatial dimensions.
        AttribError: As for `attrib.grad_cam` and `attrib.guided_backprop`.

    References:
        Selvaraju, Cogswell, Das, Vedantam, Parikh & Batra (2017), section 3.3,
        https://arxiv.org/abs/1610.02391

    Example:
        >>> import torch, attrib
        >>> f = lambda x: attrib.tap("maps", x.relu()).sum((-1, -2))
        >>> guided_grad_cam(f, "maps")(torch.tensor([[[2.0, -1.0]]]))
        tensor([[[2., 0.]]])
    """
    check_reshape(reshape)
    check_mode(mode)
    both, guided = with_gradients(f, site), guided_backprop(f)

    def method(given: Callable[..., tuple[Tree, Tree]]) -> Attribute:
        cams, backprop = combined(given, reshape, mean_weighted), guided
        if given is not both:
            backprop = of_the_same_rows(guided, given)

        def attribute(x: Tree, *args: Any) -> Tree:
            check_input(x)
            maps, batch = cams(x, *args)
            gradient = backprop(x, *args)

            def one(cam: Tensor) -> Tree:
                spatial = cam.ndim - len(batch)
                check_mode(mode, spatial)
                check_leaves(x, len(batch), spatial)
                share = cam.relu()
                return tree_map(lambda g: g * fitted(share, g, len(batch), spatial, mode), gradient)

            return tree_map(one, maps)

        return attribute

    return inherit(both, method)
