"""Class activation maps weighted by evaluations of the score, one or more for every channel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from attrib._batched import inherit, of_the_same_rows, stacked
from attrib._checks import check_baseline, check_callable, check_input, check_values
from attrib._inside import Sites
from attrib._map import ChunkSize, check_chunk_size, map_chunks, slices
from attrib._passed import only_tensor
from attrib._sites import SiteLike
from attrib._tree import differentiable, tree_map
from attrib._watching import check_floating
from attrib.cam._maps import (
    Reshape,
    channel_of,
    check_reshape,
    feature_maps,
    of_each,
    over_places,
    weighted,
    with_score,
)
from attrib.cam.sizes import Mode, check_leaves, check_mode, fitted
from attrib.gradient import score_of
from attrib.types import Attribute, Score, Tree

__all__ = ["ablation_cam", "score_cam"]

# What is behind a layer takes less time per entry than a whole model, beside a constant for what is
# left out: 16 to 64 photos at once were the flat optimum, at every depth of an EfficientNet.
_LIGHTER = 16


def score_cam(
    f: Score,
    site: SiteLike,
    *,
    reshape: Reshape = None,
    softmax: bool = True,
    mode: Mode = "linear",
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Score-CAM: feature maps :math:`A^k`, weighted by the score of an input that shows what the
    map is active at,

    .. math:: L_p = \sum_k w_k A^k_p, \qquad w = \operatorname{softmax}(c), \qquad
              c_k = f\bigl(x' + m_k \odot (x - x')\bigr) - f(x'), \qquad
              m_k = \frac{U A^k - \min U A^k}{\max U A^k - \min U A^k},

    :math:`U` upsampling to the resolution of the input. A map that is the same everywhere shows
    nothing, :math:`m_k = 0`. No gradient is taken.

    Args:
        f: Score. The paper's is a probability, see `attrib.prob`.
        site: As for `attrib.grad_cam`.
        reshape: As for `attrib.grad_cam`.
        softmax: Weights that are positive and sum to one, as in algorithm 1 of the paper; without
            it the weights are the increases :math:`c_k`, as in its definition of the method.
        mode: Of `attrib.upsample`.
        chunk_size: Channels evaluated at once.

    Returns:
        ``attribute(x, baseline=0, *args)``: as for `attrib.grad_cam`; the paper rectifies. The
        baseline is a number, a tensor that broadcasts to every leaf, or a tree like ``x``.

    Raises:
        AttribValueError: If a floating leaf of ``x`` is not ``(*batch, ..., *spatial)`` with as
            many spatial dimensions as the layer, or `mode` is not there in so many.
        AttribTypeError: For options of another type.
        AttribError: As for `attrib.grad_cam`.

    Warns:
        NonFiniteWarning: If a score is NaN or infinite.

    References:
        Wang, Wang, Du, Yang, Zhang, Ding, Mardziel & Hu (2020), https://arxiv.org/abs/1910.01279

    Example:
        >>> import torch, attrib
        >>> f = attrib.batched(lambda x: attrib.tap("maps", x).sum((-1, -2)))
        >>> x = torch.tensor([[[0.0, 2.0], [1.0, 0.0]]])
        >>> score_cam(f, "maps", softmax=False)(x)
        tensor([[1., 4.]])
    """
    check_reshape(reshape)
    check_mode(mode)
    chunk_size = check_chunk_size(chunk_size)
    sites = Sites(*with_score(f, site))

    def method(f: Score) -> Attribute:
        read, score = sites.reading(f), score_of(f)

        def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
            check_input(x)
            hidden = check_baseline(baseline, x)
            activation, finite = read(x, *args)
            over, dims = stacked(score, *args), finite.ndim

            def one(h: Tensor) -> Tensor:
                maps = feature_maps(h, finite.shape, reshape)
                spatial = maps.ndim - dims - 1
                check_mode(mode, spatial)
                check_leaves(x, dims, spatial)

                def kernel(part: Tensor) -> Tensor:
                    return over(_shown(x, hidden, part, dims, spatial, mode))

                scores = _of_channels(kernel, maps.movedim(dims, 0), chunk_size, like=x)
                weights, _ = check_values(scores)
                if softmax:
                    return _weighted(maps, weights.softmax(-1))
                nothing = tree_map(lambda a, b: b.expand_as(a), x, hidden)
                return _weighted(maps, weights - score(nothing, *args).unsqueeze(-1))

            return of_each(one, activation)

        return attribute

    return inherit(sites.f, method)


def ablation_cam(
    f: Score, site: SiteLike, *, reshape: Reshape = None, chunk_size: ChunkSize = "auto"
) -> Attribute:
    r"""Ablation-CAM: feature maps, weighted by what the score loses without them,

    .. math:: L_p = \sum_k w_k A^k_p, \qquad w_k = f - f|_{A^k = 0}.

    The paper divides the weights by :math:`f`, one number per example, which reverses the map where
    the score is negative: left to the caller. Only what is behind the layer is evaluated again, as
    far as `attrib.split` can tell. No gradient is taken.

    Args:
        f: Score.
        site: As for `attrib.grad_cam`. Of a tree of sites each is ablated for itself.
        reshape: As for `attrib.grad_cam`. Entries that it leaves out, such as a class token, are
            not ablated.
        chunk_size: Channels ablated at once.

    Returns:
        As for `attrib.grad_cam`, in units of the score times those of the activations; the paper
        rectifies.

    Raises:
        AttribValueError: If `reshape` changes the entries that it moves.
        AttribError: As for `attrib.grad_cam`.

    Warns:
        NonFiniteWarning: If a score is NaN or infinite.

    References:
        Desai & Ramaswamy (2020), https://doi.org/10.1109/WACV45572.2020.9093360

    Example:
        >>> import torch, attrib
        >>> f = attrib.batched(lambda x: attrib.tap("maps", x).square().sum((-1, -2)))
        >>> ablation_cam(f, "maps")(torch.tensor([[[1.0, 2.0], [3.0, 0.0]]]))
        tensor([[32., 10.]])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_reshape(reshape)
    chunk_size = check_chunk_size(chunk_size)
    parts, spec = pytree.tree_flatten(site, is_leaf=lambda part: isinstance(part, nn.Module))
    several = [Sites(f, part) for part in parts or [site]]  # an empty tree is refused there

    def method(f: Score) -> Attribute:
        def attribute(x: Tree, *args: Any) -> Tree:
            return spec.unflatten(
                [_ablated(sites, f, reshape, chunk_size, x, args) for sites in several]
            )

        return attribute

    return inherit(f, method)


def _ablated(
    sites: Sites,
    f: Score,
    reshape: Reshape,
    chunk_size: ChunkSize,
    x: Tree,
    args: tuple[Any, ...],
) -> Tensor:
    score = score_of(of_the_same_rows(sites.f, f))
    found = sites.reading(score)(x, *args)
    check_floating(found)
    h = only_tensor(found)
    tail = inherit(score, sites.tail)
    whole: Tensor = tail(h, x, *args)
    maps = feature_maps(h, whole.shape, reshape)
    channel = channel_of(h, maps, whole.ndim, reshape)
    over = stacked(tail, x, *args)

    def kernel(numbers: Tensor) -> Tensor:
        chosen = channel == numbers.reshape(-1, *(1 for _ in h.shape))
        return over(torch.where(chosen, 0, h))

    channels = torch.arange(maps.shape[whole.ndim], device=h.device)
    like = h.flatten(whole.ndim)[..., ::_LIGHTER]
    without = _of_channels(kernel, channels, chunk_size, like=like)
    values, _ = check_values(torch.cat([whole.unsqueeze(-1), without], -1))
    return _weighted(maps, values[..., :1] - values[..., 1:])


def _of_channels(
    kernel: Callable[[Tensor], Tensor], channels: Tensor, chunk_size: ChunkSize, *, like: Tree
) -> Tensor:
    """A score for every channel, ``(*batch, channels)``."""
    chunks = map_chunks(kernel, slices(channels), chunk_size=chunk_size, like=like)
    return torch.cat(list(chunks)).movedim(0, -1)


def _shown(x: Tree, hidden: Tree, maps: Tensor, dims: int, spatial: int, mode: Mode) -> Tree:
    """The input where maps ``(n, *batch, *spatial)`` are large, stacked."""

    def of_leaf(leaf: Tensor, baseline: Tensor) -> Tensor:
        if not differentiable(leaf):
            return leaf.expand(len(maps), *leaf.shape)
        mask = fitted(maps, leaf, dims, spatial, mode)
        places = tuple(range(-spatial, 0))
        low, high = mask.amin(places, keepdim=True), mask.amax(places, keepdim=True)
        span = torch.where(high > low, high - low, 1)
        return baseline + (mask - low) / span * (leaf - baseline)

    return tree_map(of_leaf, x, hidden)


def _weighted(maps: Tensor, weights: Tensor) -> Tensor:
    return over_places(partial(weighted, weights=weights), weights.ndim - 1, maps)
