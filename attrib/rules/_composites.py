"""Norms, distances, losses and sorted values, made of simpler operations.

Every function has the signature of the torch function it stands for, and gives `NotImplemented` for
calls that it cannot take apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["COMPOSITES"]


def _vector_norm(
    x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    x = x if dtype is None else x.to(dtype)
    dims = tuple(range(x.ndim)) if dim is None or dim == () else dim
    if ord in (math.inf, -math.inf, "inf", "-inf"):
        extreme = torch.amax if float(ord) > 0 else torch.amin
        return extreme(torch.abs(x), dims, keepdim)
    if ord == 1:
        return torch.abs(x).sum(dims, keepdim=keepdim)
    if ord == 2:
        return torch.sqrt(torch.square(x).sum(dims, keepdim=keepdim))
    if ord == 0:
        return (x != 0).sum(dims, keepdim=keepdim).to(x.dtype)
    return torch.pow(torch.pow(torch.abs(x), ord).sum(dims, keepdim=keepdim), 1 / ord)


def _norm(
    input: Tensor,
    p: Any = "fro",
    dim: Any = None,
    keepdim: bool = False,
    out: None = None,
    dtype: Any = None,
) -> Tensor:
    if p == "nuc":
        return NotImplemented
    return _vector_norm(
        input, 2 if p in ("fro", None) else p, dim, False if dim is None else keepdim, dtype=dtype
    )


def _frobenius_norm(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    return _norm(input, "fro", dim, keepdim)


def _linalg_norm(
    A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    pair = isinstance(dim, (tuple, list)) or (dim is None and A.ndim == 2)
    if ord == "nuc" or (pair and ord not in (None, "fro")):
        return NotImplemented
    return _vector_norm(A, 2 if ord in (None, "fro") else ord, dim, keepdim, dtype=dtype)


def _cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    first, second = (
        torch.mul(x, torch.reciprocal(torch.clamp(_vector_norm(x, 2, dim, True), min=eps)))
        for x in (x1, x2)
    )
    return torch.mul(first, second).sum(dim)


def _pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    return _vector_norm(x1 - x2 + eps, p, -1, keepdim)


def _cdist(x1: Tensor, x2: Tensor, p: float = 2, compute_mode: Any = None) -> Tensor:
    return _vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def _dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    return _vector_norm(input - other, p)


def _hypot(input: Tensor, other: Tensor) -> Tensor:
    return torch.sqrt(torch.square(input) + torch.square(other))


def _logaddexp(input: Tensor, other: Tensor) -> Tensor:
    shape: Any = (input + other).shape
    return torch.logsumexp(torch.stack((input.expand(shape), other.expand(shape))), 0)


def _logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    return _logaddexp(input * math.log(2), other * math.log(2)) * (1 / math.log(2))


def _xlogy(input: Any, other: Any) -> Tensor:
    if not isinstance(other, Tensor):
        return torch.mul(input, math.log(other))
    # 0 log 0 is 0.
    return torch.mul(torch.log(torch.where((input == 0) & (other == 0), 1, other)), input)


def _ldexp(input: Tensor, other: Tensor) -> Tensor:
    return torch.mul(input, torch.exp2(other))


def _reduced(loss: Tensor, size_average: Any, reduce: Any, reduction: str) -> Tensor:
    if size_average is not None or reduce is not None:
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
    return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.mean()


def _weighted(loss: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    if weight is None:
        return _reduced(loss, None, None, reduction)
    loss = loss * weight
    if reduction != "mean":
        return _reduced(loss, None, None, reduction)
    return loss.sum() * (1 / weight.expand_as(loss).sum())


def _mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    loss = torch.square(input - target)
    if weight is not None:
        return _weighted(loss, weight, reduction)
    return _reduced(loss, size_average, reduce, reduction)


def _l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    loss = torch.abs(input - target)
    if weight is not None:
        return _weighted(loss, weight, reduction)
    return _reduced(loss, size_average, reduce, reduction)


def _huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    distance = torch.abs(input - target)
    near = torch.clamp(distance, max=delta)
    return _weighted(torch.square(near) * 0.5 + (distance - near) * delta, weight, reduction)


def _smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    if beta == 0:
        return _l1_loss(input, target, size_average, reduce, reduction)
    return _reduced(
        _huber_loss(input, target, "none", beta) * (1 / beta), size_average, reduce, reduction
    )


def _cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    classes = 0 if input.ndim == 1 else 1
    logs = torch.log_softmax(input, classes)
    if not target.is_floating_point():
        if label_smoothing != 0:
            return NotImplemented
        return F.nll_loss(logs, target, weight, size_average, ignore_index, reduce, reduction)
    number = input.shape[classes]
    target = target * (1 - label_smoothing) + label_smoothing / number
    if weight is not None:
        target = target * weight.reshape(-1, *(1,) * (input.ndim - 1 - classes))
    return _reduced(-torch.mul(logs, target).sum(classes), size_average, reduce, reduction)


def _logistic_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    positive = target if pos_weight is None else torch.mul(target, pos_weight)
    # Of the negative ones too, by log sigmoid(-x) = log sigmoid(x) - x.
    loss = -torch.mul(F.logsigmoid(input), positive) - torch.mul(F.logsigmoid(-input), 1 - target)
    loss = loss if weight is None else loss * weight
    return _reduced(loss, size_average, reduce, reduction)


def _binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    hit, missed = (torch.clamp(torch.log(p), min=-100) for p in (input, 1 - input))
    loss = -torch.mul(hit, target) - torch.mul(missed, 1 - target)
    loss = loss if weight is None else loss * weight
    return _reduced(loss, size_average, reduce, reduction)


def _at_indices(function: Callable[..., Any], place: int = 0) -> Callable[..., Any]:
    """Sorted or selected values: the entries where they stand. `place` is that of ``dim``."""

    def selected(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        found = function(input.detach(), *args, **kwargs)
        if isinstance(found, Tensor):  # the median of everything, which need not be unique
            return NotImplemented
        dim = kwargs.get("dim", args[place] if len(args) > place else -1)
        keep = found.values.ndim == input.ndim
        index = found.indices if keep else found.indices.unsqueeze(dim)
        values = input.gather(dim, index) if input.ndim else input.clone()
        return type(found)((values if keep else values.squeeze(dim), found.indices))

    return selected


def _msort(input: Tensor) -> Tensor:
    return torch.sort(input, 0).values


def _aminmax(input: Tensor, *, dim: Any = None, keepdim: bool = False) -> Any:
    dims = () if dim is None else dim
    found = torch.amin(input, dims, keepdim), torch.amax(input, dims, keepdim)
    return torch.return_types.aminmax(found)


# By canonical name.
COMPOSITES: dict[str, Callable[..., Any]] = {
    "linalg_vector_norm": _vector_norm,
    "norm": _norm,
    "frobenius_norm": _frobenius_norm,
    "linalg_norm": _linalg_norm,
    "cosine_similarity": _cosine_similarity,
    "pairwise_distance": _pairwise_distance,
    "cdist": _cdist,
    "dist": _dist,
    "hypot": _hypot,
    "logaddexp": _logaddexp,
    "logaddexp2": _logaddexp2,
    "xlogy": _xlogy,
    "special_xlogy": _xlogy,
    "ldexp": _ldexp,
    "mse_loss": _mse_loss,
    "l1_loss": _l1_loss,
    "huber_loss": _huber_loss,
    "smooth_l1_loss": _smooth_l1_loss,
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": _binary_cross_entropy,
    "binary_cross_entropy_with_logits": _logistic_loss,
    "sort": _at_indices(torch.sort),
    "topk": _at_indices(torch.topk, 1),
    "kthvalue": _at_indices(torch.kthvalue, 1),
    "mode": _at_indices(torch.mode),
    "median": _at_indices(torch.median),
    "nanmedian": _at_indices(torch.nanmedian),
    "cummax": _at_indices(torch.cummax),
    "cummin": _at_indices(torch.cummin),
    "msort": _msort,
    "aminmax": _aminmax,
}
