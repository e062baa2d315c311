"""Attention weights of a model as it is: reading them, rolling them out, weighing by gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from attrib._attending import ATTENTION, Attending
from attrib._batched import Batched, inherit
from attrib._checks import check_callable, check_choice, check_number
from attrib._inside import Sites
from attrib._marking import marked, wrapped
from attrib._outputs import in_some_layout
from attrib._sites import Site, SiteLike
from attrib.errors import AttribValueError
from attrib.scores import outputs_of
from attrib.types import Attribute, Tree

__all__ = ["attention_maps", "attention_rollout", "gradient_rollout", "with_attention"]

HeadFusion: TypeAlias = Literal["mean", "max", "min"] | Callable[[Tensor], Tensor] | None
"""How the heads of ``(*batch, heads, queries, keys)`` become one; ``None`` where there are none."""


def attention_maps(
    model: Callable[..., Any], *, site: SiteLike | None = None
) -> Callable[..., tuple[Tensor, ...]]:
    r"""The attention weights of a model, :math:`A = \mathrm{softmax}(Q K^\top / \sqrt d + M)`.

    Nothing in the model is changed, and it need not return them. Seen are
    `torch.nn.functional.scaled_dot_product_attention`, `torch.nn.MultiheadAttention`, and attention
    that is written out: a softmax over the last dimension that is multiplied from the right with
    values, both of at least three dimensions, by ``@``, `torch.bmm` or `torch.einsum`. In between
    there may be casts, reshapes, masks, and dropout in evaluation. What is not seen can be named in
    the model: ``weights = attrib.tap("attention weights", weights)``.

    Args:
        model: Module or function; a score will do.
        site: Take only what is computed inside of some modules: a module, its dotted name, or a
            list of them.

    Returns:
        ``maps(x, *args)``, the weights of every attention in the order in which they multiply the
        values: a tuple of tensors ``(batch, heads, queries, keys)``. Attention that is written out
        without a dimension of heads, or with one merged into that of the batch, has none here.

    Raises:
        AttribValueError: If no attention is seen, or one draws dropout.
        AttribTypeError: If the model was compiled by itself.

    Example:
        >>> import torch
        >>> layer = torch.nn.TransformerEncoderLayer(8, 2, batch_first=True).eval()
        >>> (weights,) = attention_maps(layer)(torch.randn(3, 5, 8))
        >>> weights.shape, torch.allclose(weights.sum(-1), torch.ones(3, 2, 5))
        (torch.Size([3, 2, 5, 5]), True)
    """
    check_callable(model, "model", "pass a module or a function")
    run = model if isinstance(model, Batched) else outputs_of(model, False)
    return Sites(with_attention(run, site=site), Site(ATTENTION, call="all")).reading()


def attention_rollout(
    model: Callable[..., Any],
    *,
    residual: float = 0.5,
    head_fusion: HeadFusion = "mean",
    site: SiteLike | None = None,
) -> Attribute:
    r"""Attention rollout: what the tokens of the last layer are made of, if attention were all,

    .. math:: R = \tilde A_L \cdots \tilde A_1, \qquad
              \tilde A_l \propto (1 - r)\, \bar A_l + r\, I,

    where :math:`\bar A` are the weights with their heads fused, every row of :math:`\tilde A` sums
    to one, and :math:`r` stands for the connection around the attention.

    Args:
        model: Module or function; a score will do.
        residual: The share :math:`r` of the connection around, from 0 to 1.
        head_fusion: ``"mean"`` (the paper's), ``"max"`` or ``"min"`` over the heads, or a function
            from ``(*batch, heads, queries, keys)`` to ``(*batch, queries, keys)``, which may also
            discard what is small. ``None`` for attention without a dimension of heads.
        site: As for `attention_maps`; one stack of layers, such as the encoder of two.

    Returns:
        ``attribute(x, *args)``, ``(*batch, tokens, tokens)``: row ``i`` holds the shares of the
        input's tokens in token ``i`` of the last layer. It knows of no score.

    Raises:
        AttribValueError: If the layers are not all about the same tokens, or it cannot be told what
            the heads are.
        AttribError: As for `attention_maps`.

    References:
        Abnar & Zuidema (2020), https://arxiv.org/abs/2005.00928

    Example:
        >>> import torch
        >>> layer = torch.nn.TransformerEncoderLayer(8, 2, batch_first=True).eval()
        >>> model = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
        >>> rollout = attention_rollout(model)(torch.randn(4, 5, 8))
        >>> rollout.shape, torch.allclose(rollout.sum(-1), torch.ones(4, 5))
        (torch.Size([4, 5, 5]), True)
    """
    _check_fusion(head_fusion)
    check_number(residual, "residual", most=1.0)

    def mixed(weights: Tensor) -> Tensor:
        both = (1 - residual) * weights + residual * _identity(weights)
        # A query that may look at nothing has a row of zeros.
        return both / both.sum(-1, keepdim=True).clamp_min(torch.finfo(both.dtype).tiny)

    def method(maps: Callable[..., tuple[Tensor, ...]]) -> Attribute:
        def attribute(x: Tree, *args: Any) -> Tensor:
            layers = _fused(maps(x, *args), head_fusion)
            rolled = mixed(layers[0])
            for weights in layers[1:]:
                rolled = mixed(weights) @ rolled
            return rolled

        return attribute

    return inherit(attention_maps(model, site=site), method)


def gradient_rollout(
    f: Callable[..., Any],
    *,
    head_fusion: HeadFusion = "mean",
    site: SiteLike | None = None,
) -> Attribute:
    r"""Gradient-weighted rollout: how relevant the tokens of the input are for a score,

    .. math:: R_0 = I, \qquad R_l = R_{l-1} + \bar A_l R_{l-1}, \qquad
              \bar A_l = \mathbb{E}_h (\nabla A_l \odot A_l)^+,

    where :math:`\nabla A_l` is the derivative of the score by the attention weights. One backward
    pass serves all layers.

    Args:
        f: Score.
        head_fusion: As for `attention_rollout`.
        site: As for `attention_maps`.

    Returns:
        ``attribute(x, *args)``, ``(*batch, tokens, tokens)``. The row of the token that the score
        is read from, such as the class token, is the relevance of the input's tokens; the paper
        takes the identity off it, which is to leave out that token itself.

    Raises:
        AttribValueError: As for `attention_rollout`; if the score does not depend on the weights.
        AttribError: As for `attention_maps` and `attrib.grad_and_score`.

    References:
        Chefer, Gur & Wolf (2021), equations 5 and 6, https://arxiv.org/abs/2103.15679

    Example:
        >>> import torch, attrib
        >>> layer = torch.nn.TransformerEncoderLayer(8, 2, batch_first=True).eval()
        >>> f = attrib.target(layer, lambda h: h[:, 0].square().sum(-1))
        >>> gradient_rollout(f)(torch.randn(4, 5, 8))[:, 0].shape
        torch.Size([4, 5])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    _check_fusion(head_fusion)
    sites = Sites(with_attention(f, site=site), Site(ATTENTION, call="all"))

    def method(f: Callable[..., Any]) -> Attribute:
        both = sites.gradients(f)

        def attribute(x: Tree, *args: Any) -> Tensor:
            weights, gradients = both(x, *args)
            relevant = [(g * w).clamp_min(0) for g, w in zip(gradients, weights, strict=True)]
            layers = _fused(relevant, head_fusion)
            rolled = _identity(layers[0]).expand_as(layers[0])
            for weight in layers:
                rolled = rolled + weight @ rolled
            return rolled

        return attribute

    return inherit(sites.f, method)


def with_attention(f: Callable[..., Any], *, site: SiteLike | None = None) -> Callable[..., Any]:
    """The same score, in which attention weights pass a tap: a site for every method.

    The name of the tap is ``"attention weights"``; its calls are counted in the order in which the
    weights multiply the values. Integrated gradients of a layer's weights, for example, are
    ``attrib.layer(attrib.integrated_gradients, with_attention(f), Site("attention weights",
    call=2))``.

    Args:
        f: Score, model, or any function of one.
        site: As for `attention_maps`.

    Returns:
        ``f(x, *args)``; attention is computed by its formula, not by a fused kernel.

    Raises:
        AttribError: As for `attention_maps`.

    Example:
        >>> import torch, attrib
        >>> layer = torch.nn.TransformerEncoderLayer(8, 2, batch_first=True).eval()
        >>> f = attrib.target(layer, lambda h: h[:, 0].square().sum(-1))
        >>> attrib.gradient_x_activation(with_attention(f), "attention weights")(
        ...     torch.randn(3, 5, 8)
        ... ).shape
        torch.Size([3, 2, 5, 5])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    if isinstance(f, nn.Module):
        f = outputs_of(f, False)
    return _watching(f, [] if site is None else _doors(site))


def _doors(site: SiteLike) -> list[Site]:
    """Where some modules are entered and left."""
    parts, _ = pytree.tree_flatten(site, is_leaf=lambda part: isinstance(part, nn.Module))
    where = [part.where if isinstance(part, Site) else part for part in parts]
    return [door for w in where for door in (Site(w, of="input"), Site(w))]


def _watching(f: Callable[..., Any], doors: Sequence[Site]) -> Callable[..., Any]:
    with_doors, spots = marked(f, list(doors)) if doors else (f, [])
    opening = {spot.key: spot.site.of == "input" for spot in spots}

    def method(f: Callable[..., Any]) -> Callable[..., Any]:
        def watching(x: Tree, *args: Any) -> Any:
            def run() -> Any:
                attending = Attending(opening)
                with attending.passing, attending:
                    result = f(x, *args)
                attending.check(doors)
                return result

            return in_some_layout(run)

        return watching

    return wrapped(with_doors, method)


def _check_fusion(head_fusion: Any) -> None:
    if not (head_fusion is None or callable(head_fusion)):
        check_choice(head_fusion, "head_fusion", tuple(_FUSIONS))


def _fused(layers: Sequence[Tensor], head_fusion: HeadFusion) -> list[Tensor]:
    """Every layer's weights without heads, all about the same tokens."""
    if isinstance(head_fusion, str):
        flat = next((weights for weights in layers if weights.ndim < 4), None)
        if flat is not None:
            raise AttribValueError(
                f"head_fusion: heads cannot be told from examples, got attention weights of shape "
                f"{tuple(flat.shape)}; pass head_fusion=None if there are no heads, or a function, "
                "such as lambda weights: weights.mean(-3) for one example",
                code="attention.heads",
            )
        head_fusion = _FUSIONS[head_fusion]
    fused = [weights if head_fusion is None else head_fusion(weights) for weights in layers]
    shapes = [tuple(weights.shape) for weights in fused]
    if len(set(shapes)) > 1 or shapes[0][-1] != shapes[0][-2]:
        raise AttribValueError(
            "model: the attentions are not all among the same tokens, got fused weights of shape "
            f"{' and '.join(map(str, dict.fromkeys(shapes)))}; choose one stack of layers with "
            'site=, e.g. site="encoder"',
            code="attention.shape",
        )
    return fused


def _identity(weights: Tensor) -> Tensor:
    return torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)


_FUSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda weights: weights.mean(-3),
    "max": lambda weights: weights.amax(-3),
    "min": lambda weights: weights.amin(-3),
}
