"""Operations made of others: what a mode takes apart to see its pieces.

Every function has the signature of the torch function it stands for.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attrib._modes import instance_norm, layer_norm
from attrib.errors import AttribValueError

__all__ = ["DECOMPOSITIONS", "LINEAR_IF"]


def _divide(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        quotient = _divide(input, other)
        return torch.floor(quotient) if rounding_mode == "floor" else torch.trunc(quotient)
    if not isinstance(other, Tensor):
        return torch.mul(input, 1 / other)
    return torch.mul(torch.reciprocal(other), input)


def _divide_reversed(input: Tensor, other: Any) -> Tensor:
    return _divide(other, input)


def _maximum(input: Tensor, other: Tensor) -> Tensor:
    return other + torch.relu(input - other)


def _minimum(input: Tensor, other: Tensor) -> Tensor:
    return other - torch.relu(other - input)


def _max(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    return _extreme(torch.max, torch.amax, _maximum, input, *args, **kwargs)


def _min(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    return _extreme(torch.min, torch.amin, _minimum, input, *args, **kwargs)


def _extreme(
    whole: Callable[..., Any],
    reduced: Callable[..., Tensor],
    paired: Callable[..., Tensor],
    input: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Any:
    other = kwargs.get("other", args[0] if args else None)
    if isinstance(other, Tensor):
        return paired(input, other)
    if not args and not kwargs:
        return reduced(input)
    found = whole(input.detach(), *args, **kwargs)
    return type(found)((reduced(input, *args, **kwargs), found.indices))


def _addmm(
    input: Tensor, first: Tensor, second: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    return beta * input + alpha * torch.matmul(first, second)


def _addcmul(input: Tensor, first: Tensor, second: Tensor, *, value: float = 1) -> Tensor:
    return input + value * torch.mul(first, second)


def _addcdiv(input: Tensor, first: Tensor, second: Tensor, *, value: float = 1) -> Tensor:
    return input + value * _divide(first, second)


def _lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    return input + torch.mul(end - input, weight)


def _variance(
    input: Tensor, dim: Any = None, *, correction: float = 1, keepdim: bool = False, **old: Any
) -> Tensor:
    if isinstance(dim, bool):
        dim, old = None, {"unbiased": dim}
    if "unbiased" in old:
        correction = float(old["unbiased"])
    dims = tuple(range(input.ndim)) if dim is None else dim
    centred = input - input.mean(dims, keepdim=True)
    total = torch.square(centred).sum(dims, keepdim=keepdim)
    return total * (1 / max(0.0, input.numel() / max(1, total.numel()) - correction))


def _deviation(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return torch.sqrt(_variance(input, *args, **kwargs))


def _glu(input: Tensor, dim: int = -1) -> Tensor:
    first, second = input.chunk(2, dim)
    return torch.mul(first, torch.sigmoid(second))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if dropout_p > 0:
        raise NotImplementedError("attention with dropout")
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    factor: float = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    logits = torch.matmul(query, key.transpose(-2, -1)) * factor
    if is_causal:
        later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(later, -torch.inf)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            logits = logits.masked_fill(~attn_mask, -torch.inf)
        else:
            logits = logits + attn_mask
    return torch.matmul(torch.softmax(logits, -1), value)


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    rows = input.reshape(input.shape[0], num_groups, -1)
    normal = layer_norm(rows, rows.shape[-1:], None, None, eps).reshape(input.shape)
    shape = (-1, *(1,) * (input.ndim - 2))
    normal = normal if weight is None else normal * weight.reshape(shape)
    return normal if bias is None else normal + bias.reshape(shape)


def _rms_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    wide = input.to(torch.promote_types(input.dtype, torch.float32))
    normal = wide * torch.rsqrt(wide.square().mean(dims, keepdim=True) + eps)
    return (normal if weight is None else normal * weight).to(input.dtype)


def _batch_norm(*args: Any, **kwargs: Any) -> Tensor:
    raise AttribValueError(
        "batch_norm: mixes the examples of a batch in training mode, got training=True; call "
        "model.eval()",
        code="rules.training",
    )


def _evaluating(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    *_: Any,
    **__: Any,
) -> bool:
    return not training


def _descended(function: Any) -> Callable[..., Any]:
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


# By canonical name.
DECOMPOSITIONS: dict[str, Callable[..., Any]] = {
    "div": _divide,
    "__rtruediv__": _divide_reversed,
    "maximum": _maximum,
    "fmax": _maximum,
    "minimum": _minimum,
    "fmin": _minimum,
    "max": _max,
    "min": _min,
    "addmm": _addmm,
    "addmv": _addmm,
    "baddbmm": _addmm,
    "addcmul": _addcmul,
    "addcdiv": _addcdiv,
    "lerp": _lerp,
    "var": _variance,
    "std": _deviation,
    "glu": _glu,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _descended(F.multi_head_attention_forward),
    "normalize": _descended(F.normalize),
    "layer_norm": layer_norm,
    "instance_norm": instance_norm,
    "group_norm": _group_norm,
    "rms_norm": _rms_norm,
    "batch_norm": _batch_norm,
}

# Operations that are linear when they are called so.
LINEAR_IF: dict[str, Callable[..., bool]] = {"batch_norm": _evaluating}
