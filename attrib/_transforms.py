"""What surrounds a call: a compiler, a `torch.func` transform, a recording of gradients.

The only file of attrib that asks torch for something it does not document.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = [
    "compiling",
    "concrete",
    "constant",
    "depends",
    "differentiated_outside",
    "function_modes",
    "inside",
    "mapped",
    "numbers",
    "only_mapped",
    "seen_by_compilers",
    "transforming",
    "undisturbed",
    "value_and_slope",
    "vjp",
]

_C: Any = torch._C  # pyright: ignore[reportPrivateUsage]
_forward_ad: Any = torch.autograd.forward_ad
_overrides: Any = torch.overrides

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def function_modes() -> list[Any]:
    """The modes that see every function of torch in this thread."""
    return _overrides._get_current_function_mode_stack()


def compiling() -> bool:
    """Whether `torch.compile` or `torch.export` is tracing this code."""
    return torch.compiler.is_compiling()


def transforming() -> bool:
    """Whether a compiler, a `torch.func` transform or forward mode surrounds this code, or
    inference mode, in which nothing can be recorded."""
    return _transforming() or torch.is_inference_mode_enabled() or _forward_ad._current_level >= 0


def undisturbed(tensor: Tensor) -> bool:
    """Whether autograd is all that sees what is computed of this tensor here: no transform, no
    compiler, no mode."""
    return (
        type(tensor) is Tensor
        and not transforming()
        and _C._len_torch_function_stack() == 0
        and _C._len_torch_dispatch_stack() == 0
    )


def concrete(tensor: Tensor) -> bool:
    """Whether the numbers in a tensor may decide what Python does next.

    Not while a compiler traces, inside a `torch.func` transform, or for a tensor without data.
    """
    return not (
        _transforming()
        or _C._len_torch_dispatch_stack() > 0
        or tensor.is_meta
        or type(tensor) not in (Tensor, torch.nn.Parameter)
    )


def numbers(tensor: Tensor) -> Tensor | None:
    """The numbers in an integer or boolean tensor, of all points of a `torch.func` transform.

    ``None`` where there are none: while a compiler traces, or for a tensor without data.
    """
    if compiling() or _C._len_torch_dispatch_stack() > 0:
        return None
    while _C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _C._functorch.get_unwrapped(tensor)
    return None if tensor.is_meta or type(tensor) is not Tensor else tensor


def differentiated_outside() -> bool:
    """Whether somebody outside may ask for derivatives of what is computed here.

    If not, one pass without a graph of its own is enough.
    """
    return transforming() or torch.is_grad_enabled()


def mapped(tensor: Tensor) -> bool:
    """Whether a surrounding `torch.vmap` maps over this tensor."""
    return not compiling() and _C._functorch.is_batchedtensor(tensor)


def only_mapped(tensor: Tensor, others: Sequence[Any]) -> bool:
    """Whether the one transform around this call is a `torch.vmap` over `tensor` and nothing else,
    with nobody to ask for derivatives."""
    if compiling() or torch.is_grad_enabled() or not _transforming():
        return False
    return (
        len(_C._functorch.get_interpreter_stack()) == 1
        and mapped(tensor)
        and not any(isinstance(other, Tensor) and mapped(other) for other in others)
        and not torch.is_inference_mode_enabled()
        and _forward_ad._current_level < 0
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


def seen_by_compilers(functions: Iterable[Any]) -> None:
    """Let the compiler hand these functions to a `TorchFunctionMode`, as torch itself does.

    In torch 2.13 it misses some, such as ``torch.nn.functional.hardswish`` and ``torch.relu_``.
    """
    from torch._dynamo.variables import torch as variables

    overridable: Any = variables.get_overridable_functions()
    overridable.update(functions)


def value_and_slope(f: Callable[[Tensor], tuple[Tensor, ...]], at: Tensor) -> tuple[Any, Any]:
    """The values of a function of one number, and their derivatives.

    By reverse mode twice: the levels of torch's forward mode are global, and threads that use it at
    the same time disturb each other.
    """
    values, pullback = vjp(f, at)
    # The pullback is linear: wherever it is differentiated, the transpose is the derivative.
    _, transposed = vjp(lambda *cotangents: pullback(cotangents)[0], *map(torch.zeros_like, values))
    return values, transposed(torch.ones_like(at))


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """`torch.func.vjp`, which has two kinds of result, as the one without auxiliary data."""
    transform: Any = torch.func.vjp
    return transform(f, *primals)


def depends(result: Tensor) -> bool:
    """Inside of `vjp`: whether a path leads from its primals to this result. It knows no more of
    closed-over parameters, which a plain ``requires_grad`` would count."""
    return compiling() or (result.requires_grad and _C._functorch.is_gradtrackingtensor(result))


def inside(tensor: Tensor) -> list[Tensor]:
    """What `torch.func` transforms have wrapped into this tensor, from outside to inside."""
    found: list[Tensor] = []
    if not compiling() and _C._are_functorch_transforms_active():
        while _C._functorch.is_functorch_wrapped_tensor(tensor):
            tensor = _C._functorch.get_unwrapped(tensor)
            found.append(tensor)
    return found


def _transforming() -> bool:
    return compiling() or _C._are_functorch_transforms_active()
