"""Operations made of others: what a mode takes apart to see its pieces.

Every function has the signature of the torch function it stands for, and gives `NotImplemented` for
calls that it cannot take apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attrib._modes import attention, descended, instance_norm, layer_norm
from attrib.errors import AttribValueError
from attrib.rules._composites import COMPOSITES
from attrib.rules._recurrent import RECURRENT

__all__ = ["BIASED", "DECOMPOSITIONS", "LINEAR_IF"]


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
    product = alpha * torch.matmul(first, second)
    return beta * input + product if beta != 0 else product


def _addbmm(
    input: Tensor, first: Tensor, second: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    product = alpha * torch.bmm(first, second).sum(0)
    return beta * input + product if beta != 0 else product


def _addr(
    input: Tensor, first: Tensor, second: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    product = alpha * torch.outer(first, second)
    return beta * input + product if beta != 0 else product


def _divide_down(input: Any, other: Any) -> Tensor:
    return torch.floor(_divide(input, other))


def _divide_down_reversed(input: Tensor, other: Any) -> Tensor:
    return _divide_down(other, input)


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


def _variance_mean(input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    dim = kwargs.get("dim", args[0] if args and not isinstance(args[0], bool) else None)
    dims = tuple(range(input.ndim)) if dim is None else dim
    mean = input.mean(dims, keepdim=kwargs.get("keepdim", False))
    return _variance(input, *args, **kwargs), mean


def _deviation_mean(input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    variance, mean = _variance_mean(input, *args, **kwargs)
    return torch.sqrt(variance), mean


def _glu(input: Tensor, dim: int = -1) -> Tensor:
    first, second = input.chunk(2, dim)
    return torch.mul(first, torch.sigmoid(second))


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


def _random_relu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False
) -> Tensor:
    return NotImplemented if training else F.leaky_relu(input, (lower + upper) / 2)


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


def _not_drawing(input: Tensor, p: float = 0.5, training: Any = None, *_: Any, **more: Any) -> bool:
    training = more.get("train", True) if training is None else training
    return p == 0 or not training


def _adding(*args: Any, reduce: str | None = None, **_: Any) -> bool:
    named = [arg for arg in args if isinstance(arg, str)]
    return (named[0] if named else reduce) in (None, "add", "sum", "mean")


def _unbounded(*args: Any, max_norm: Any = None, **_: Any) -> bool:
    # torch.embedding has a flag in its place.
    return max_norm is None and (len(args) < 4 or args[3] is None or isinstance(args[3], bool))


def _apart(function: Callable[..., Any], spatial: int) -> Callable[..., Any]:
    """A linear map, and its bias added to it."""

    def apart(*args: Any, bias: Any = None, **kwargs: Any) -> Tensor:
        place = 3 if function is F.bilinear else 2
        if len(args) > place:
            bias, args = args[place], (*args[:place], None, *args[place + 1 :])
        return function(*args, **kwargs) + bias.reshape(-1, *(1,) * spatial)

    return apart


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
    "addbmm": _addbmm,
    "addr": _addr,
    "floor_divide": _divide_down,
    "__floordiv__": _divide_down,
    "__rfloordiv__": _divide_down_reversed,
    "addcmul": _addcmul,
    "addcdiv": _addcdiv,
    "lerp": _lerp,
    "var": _variance,
    "std": _deviation,
    "var_mean": _variance_mean,
    "std_mean": _deviation_mean,
    "rrelu": _random_relu,
    "glu": _glu,
    "scaled_dot_product_attention": attention,
    "multi_head_attention_forward": descended(F.multi_head_attention_forward),
    "normalize": descended(F.normalize),
    "local_response_norm": descended(F.local_response_norm),
    "lp_pool1d": descended(F.lp_pool1d),
    "lp_pool2d": descended(F.lp_pool2d),
    "lp_pool3d": descended(F.lp_pool3d),
    "layer_norm": layer_norm,
    "instance_norm": instance_norm,
    "group_norm": _group_norm,
    "rms_norm": _rms_norm,
    "batch_norm": _batch_norm,
    **COMPOSITES,
    **RECURRENT,
}

# Operations that are linear when they are called so.
LINEAR_IF: dict[str, Callable[..., bool]] = {
    "batch_norm": _evaluating,
    "dropout": _not_drawing,
    "dropout1d": _not_drawing,
    "dropout2d": _not_drawing,
    "dropout3d": _not_drawing,
    "feature_dropout": _not_drawing,
    "alpha_dropout": _not_drawing,
    "feature_alpha_dropout": _not_drawing,
    "scatter": _adding,
    "scatter_reduce": _adding,
    "index_reduce": _adding,
    "embedding": _unbounded,
}

# Where a bias is variable itself: the map without it, and the sum.
BIASED: dict[str, Callable[..., Tensor]] = {
    "linear": _apart(F.linear, 0),
    "bilinear": _apart(F.bilinear, 0),
    "conv1d": _apart(F.conv1d, 1),
    "conv2d": _apart(F.conv2d, 2),
    "conv3d": _apart(F.conv3d, 3),
    "conv_transpose1d": _apart(F.conv_transpose1d, 1),
    "conv_transpose2d": _apart(F.conv_transpose2d, 2),
    "conv_transpose3d": _apart(F.conv_transpose3d, 3),
}
