"""Seeing the operations of a model as it runs, and calling something else in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["Rewrite", "instance_norm", "layer_norm", "smooth_norms"]


class Rewrite(TorchFunctionMode):
    """While it is active, in this thread alone, some functions of torch are others."""

    def __init__(self, table: Mapping[Any, Callable[..., Any]]) -> None:
        super().__init__()
        self.table = table

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in self.table:
            func = self.table[func]
        return func(*args, **(kwargs or {}))


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


def smooth_norms() -> Rewrite:
    """A mode in which normalisations have right derivatives of every order.

    The fused kernels of torch 2.13 take mean and deviation for constants from the third derivative
    on, and in the second by forward mode twice, without a word:
    https://github.com/pytorch/pytorch/issues/175754 and 196700.
    """
    return Rewrite(_NORMS)


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


_NORMS: dict[Any, Callable[..., Any]] = {
    F.layer_norm: layer_norm,
    torch.layer_norm: layer_norm,
    F.instance_norm: instance_norm,
    torch.instance_norm: instance_norm,
}
