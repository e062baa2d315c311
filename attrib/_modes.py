"""Seeing the operations of a model as it runs, and calling something else in their place."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = [
    "Rewrite",
    "attention",
    "descended",
    "instance_norm",
    "layer_norm",
    "smooth_operations",
]


class Rewrite(TorchFunctionMode):
    """While it is active, in this thread alone, some functions of torch are others.

    Args:
        table: From functions of torch to others, which may return `NotImplemented`.
    """

    def __init__(self, table: Mapping[Any, Callable[..., Any]]) -> None:
        super().__init__()
        self.table = table

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.table:
            with self:
                result = self.table[func](*args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)


def layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Layer normalisation by its formula, `torch.nn.functional.layer_norm` otherwise."""
    return _normalised(input, tuple(range(-len(normalized_shape), 0)), weight, bias, eps)


def instance_norm(*args: Any, **kwargs: Any) -> Tensor:
    """Instance normalisation by its formula where it is not a fixed affine map.

    Takes the arguments of `torch.nn.functional.instance_norm`, or the nine of
    `torch.instance_norm`, which puts the weights first.
    """
    if len(args) == 9:
        args = (args[0], *args[3:5], *args[1:3], *args[5:8])
    return _instance_norm(*args, **kwargs)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention by its formula, `torch.nn.functional.scaled_dot_product_attention` otherwise."""
    if dropout_p > 0:
        return NotImplemented
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    factor: float = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    logits = torch.matmul(query, key.transpose(-2, -1)) * factor
    if is_causal:
        later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(later, -torch.inf)
    if attn_mask is not None:
        boolean = attn_mask.dtype == torch.bool
        logits = logits.masked_fill(~attn_mask, -torch.inf) if boolean else logits + attn_mask
        if boolean or not attn_mask.requires_grad:
            # A query that may look at nothing gets zeros, as from the kernels.
            hidden = ~attn_mask if boolean else attn_mask == -torch.inf
            nothing = hidden.all(-1, keepdim=True)
            weights = torch.softmax(logits.masked_fill(nothing, 0), -1).masked_fill(nothing, 0)
            return torch.matmul(weights, value)
    return torch.matmul(torch.softmax(logits, -1), value)


def descended(function: Any) -> Callable[..., Any]:
    """A function written in Python, whose calls of torch are seen one by one.

    Its own check for overrides would hand it over whole.
    """

    def no(*_: Any) -> bool:
        return False

    inside = dict(function.__globals__)
    inside.update(
        has_torch_function=no,
        has_torch_function_unary=no,
        has_torch_function_variadic=no,
        _check_key_padding_mask=no,  # its check takes a function, which compilers refuse
    )
    copy = types.FunctionType(
        function.__code__, inside, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def smooth_operations() -> Rewrite:
    """A mode in which normalisations and attention have right derivatives of every order.

    The fused normalisations of torch 2.13 take mean and deviation for constants from the third
    derivative on, and in the second by forward mode twice, without a word:
    https://github.com/pytorch/pytorch/issues/175754 and 196700. Its fused attention has one
    derivative, and says so.
    """
    return Rewrite(_SMOOTH)


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    shape = (-1, *(1,) * (input.ndim - 2))
    weight, bias = (None if part is None else part.reshape(shape) for part in (weight, bias))
    return _normalised(input, tuple(range(2, input.ndim)), weight, bias, eps)


def _normalised(
    input: Tensor, dims: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    # As in the kernels, half precision is rounded once, at the end.
    wide = input.to(torch.promote_types(input.dtype, torch.float32))
    centred = wide - wide.mean(dims, keepdim=True)
    normal = centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + eps)
    normal = normal if weight is None else normal * weight
    return (normal if bias is None else normal + bias).to(input.dtype)


_SMOOTH: dict[Any, Callable[..., Any]] = {
    F.layer_norm: layer_norm,
    torch.layer_norm: layer_norm,
    F.instance_norm: instance_norm,
    torch.instance_norm: instance_norm,
    F.scaled_dot_product_attention: attention,
    F.multi_head_attention_forward: descended(F.multi_head_attention_forward),
}
