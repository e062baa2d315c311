"""What surrounds a call: a compiler, a `torch.func` transform, a recording of gradients.

The only file of attrib that asks torch for something it does not document.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["compiling", "concrete", "constant", "depends", "differentiated_outside", "jvp", "vjp"]

_C: Any = torch._C  # pyright: ignore[reportPrivateUsage]
_forward_ad: Any = torch.autograd.forward_ad

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def compiling() -> bool:
    """Whether `torch.compile` or `torch.export` is tracing this code."""
    return torch.compiler.is_compiling()


def concrete(tensor: Tensor) -> bool:
    """Whether the numbers in a tensor may decide what Python does next.

    Not while a compiler traces, inside a `torch.func` transform, or for a tensor without data.
    """
    return not (
        compiling()
        or _transforming()
        or _C._len_torch_dispatch_stack() > 0
        or tensor.is_meta
        or type(tensor) not in (Tensor, torch.nn.Parameter)
    )


def differentiated_outside() -> bool:
    """Whether somebody outside may ask for derivatives of what is computed here.

    If not, a plain `torch.autograd.grad` gives the gradient with less overhead than `torch.func`.
    """
    return (
        compiling()
        or torch.is_grad_enabled()
        or _transforming()
        or torch.is_inference_mode_enabled()
        or _forward_ad._current_level >= 0
    )


def constant(fn: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A function of constants, which a compiler calls instead of tracing.

    `torch.compiler.assume_constant_result` does the same after importing the whole compiler.
    """

    @functools.wraps(fn)
    def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return fn(*args, **kwargs)

    vars(call)["_dynamo_marked_constant"] = True
    return call


def jvp(
    f: Callable[..., Any], primals: tuple[Tensor, ...], tangents: tuple[Tensor, ...]
) -> tuple[Any, Any]:
    """`torch.func.jvp` without the deprecation warning that torch gives itself at first."""
    if not compiling():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            _forward_ad._maybe_load_decompositions()
    transform: Any = torch.func.jvp
    return transform(f, primals, tangents)


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """`torch.func.vjp`, which has two kinds of result, as the one without auxiliary data."""
    transform: Any = torch.func.vjp
    return transform(f, *primals)


def depends(result: Tensor) -> bool:
    """Inside of `vjp`: whether a path leads from its primals to this result. It knows no more of
    closed-over parameters, which a plain ``requires_grad`` would count."""
    return compiling() or (result.requires_grad and _C._functorch.is_gradtrackingtensor(result))


def _transforming() -> bool:
    return _C._are_functorch_transforms_active()
