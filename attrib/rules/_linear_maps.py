"""Convolutions, matrix products and their like as functions of an input, a weight and a bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrib.rules._flow import Call

__all__ = ["LinearMap", "family", "linear_map", "mergeable", "normalised"]

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_PRODUCTS = (
    "matmul", "mm", "bmm", "mv", "dot", "inner", "vdot", "tensordot", "einsum", "linalg_vecdot",
    "__rmatmul__",
)  # fmt: skip
_SUMMED = ("addmm", "addmv", "baddbmm")


class LinearMap(NamedTuple):
    """A call :math:`y = L(x, W) + b`, linear in each of its two tensors.

    Attributes:
        x: What depends on the variables.
        weight: What does not.
        bias: What is added, if anything.
        apply: ``apply(x, weight, bias)``, the same on other tensors.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    apply: Callable[[Tensor, Tensor, Tensor | None], Tensor]


def family(call: Call) -> str | None:
    """``"conv"`` or ``"linear"``, for a call that a linear map could be made of."""
    name = call.operation.name
    if name in _CONVOLUTIONS or name in _TRANSPOSED:
        return "conv"
    return "linear" if name == "linear" or name in _PRODUCTS or name in _SUMMED else None


def linear_map(call: Call) -> LinearMap | None:
    """The call as a linear map; ``None`` if it is a product, or has several weights."""
    kind, name = family(call), call.operation.name
    if kind is None:
        return None
    if kind == "conv" or name == "linear":
        found = _layer(call)
    else:
        found = _sum(call) if name in _SUMMED else _product(call)
    if found is None or not _among(found.x, call.inputs) or _among(found.weight, call.inputs):
        return None
    return found


def normalised(
    call: Call, result: Tensor, arguments: Sequence[Any], named: dict[str, Any]
) -> tuple[Any, ...] | None:
    """The arguments of a convolution or a linear layer that computes it together with the batch
    norm that follows; ``None`` where the two do not fit.

    Args:
        call: The layer.
        result: What it returned.
        arguments, named: What the batch norm is called with, after its input.
    """
    name, layer = call.operation.name, _layer(call)
    if layer is None or not mergeable(call, result, arguments, named):
        return None
    given = _of_norm(arguments, named)
    mean: Tensor = given["running_mean"]
    variance: Tensor = given["running_var"]
    scale = torch.rsqrt(variance + given.get("eps", 1e-5))
    scale: Tensor = scale if given.get("weight") is None else scale * given["weight"]
    bias: Tensor = -mean if layer.bias is None else layer.bias - mean
    bias = bias * scale if given.get("bias") is None else bias * scale + given["bias"]
    weight = layer.weight
    if name in _TRANSPOSED:
        # Of shape (in, out / groups, ...), the groups side by side in the first.
        groups = scale.shape[0] // weight.shape[1]
        wide = weight.reshape(groups, -1, *weight.shape[1:])
        by_group = scale.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))
        weight = (wide * by_group).reshape(weight.shape)
    else:
        weight = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return (layer.x, weight, bias, *call.args[3:])


def mergeable(call: Call, result: Tensor, arguments: Sequence[Any], named: dict[str, Any]) -> bool:
    """Whether a layer and the batch norm that follows, as for `normalised`, fit together."""
    given = _of_norm(arguments, named)
    if given.get("running_mean") is None or given.get("running_var") is None:
        return False
    # Of a dense layer with more dimensions, batch norm does not normalise the last.
    fits = result.ndim == 2 if call.operation.name == "linear" else result.ndim > 1
    return fits and _layer(call) is not None


def _of_norm(arguments: Sequence[Any], named: dict[str, Any]) -> dict[str, Any]:
    keys = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    return {**dict(zip(keys, arguments, strict=False)), **named}


def _layer(call: Call) -> LinearMap | None:
    """Called with an input, a weight, a bias and the rest, in this order or by name."""
    named = dict(call.kwargs)
    parts = list(call.args[:3])
    parts += [named.pop(key, None) for key in ("input", "weight", "bias")[len(parts) :]]
    x, weight, bias = parts
    function, rest = call.operation.function, call.args[3:]
    if not isinstance(x, Tensor) or not isinstance(weight, Tensor):
        return None

    def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return function(x, weight, bias, *rest, **named)

    return LinearMap(x, weight, bias, apply)


def _product(call: Call) -> LinearMap | None:
    """Two tensors, in any places."""
    args = call.args
    if call.operation.name == "einsum" and len(args) == 2 and not isinstance(args[1], Tensor):
        args = (args[0], *args[1])
    places = [place for place, part in enumerate(args) if isinstance(part, Tensor)]
    named = [name for name, part in call.kwargs.items() if isinstance(part, Tensor)]
    if len(places) + len(named) != 2:
        return None
    keys: list[Any] = [*places, *named]
    values = [*(args[place] for place in places), *(call.kwargs[name] for name in named)]
    swap = _among(values[1], call.inputs)
    if swap:
        keys, values = keys[::-1], values[::-1]

    def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        own, more = list(args), dict(call.kwargs)
        for key, value in ((keys[0], x), (keys[1], weight)):
            if isinstance(key, int):
                own[key] = value
            else:
                more[key] = value
        result = call.operation.function(*own, **more)
        return result if bias is None else result + bias

    return LinearMap(values[0], values[1], None, apply)


def _sum(call: Call) -> LinearMap | None:
    """A matrix product to which a constant is added."""
    if call.kwargs or len(call.args) != 3 or _among(call.args[0], call.inputs):
        return None
    bias, first, second = call.args
    left = _among(first, call.inputs)

    def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        pair = (x, weight) if left else (weight, x)
        result = torch.matmul(*pair)
        return result if bias is None else result + bias

    x, weight = (first, second) if left else (second, first)
    return LinearMap(x, weight, bias, apply)


def _among(tensor: Any, tensors: Sequence[Tensor]) -> bool:
    return any(tensor is other for other in tensors)
