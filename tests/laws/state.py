"""Everything that a call might leave behind."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack


def snapshot(model: nn.Module, tensors: Iterable[Tensor]) -> dict[str, Any]:
    """What must be the same, bit by bit, before and after a call."""
    state: dict[str, Any] = {f"tensor {i}": _tensor(t) for i, t in enumerate(tensors)}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        state[name] = _tensor(tensor)
    for name, module in model.named_modules():
        plain = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        state[f"attributes of {name!r}"] = (type(module), sorted(vars(module)), plain)
        hooks = [key for key in vars(module) if "hook" in key]
        state[f"hooks of {name!r}"] = {k: len(vars(module)[k] or ()) for k in hooks}
    state["modes"] = (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.is_autocast_enabled("cpu"),
        len(_get_current_function_mode_stack()),
        len(_get_current_dispatch_mode_stack()),
        torch._C._functorch.peek_interpreter_stack() is None,
        torch._C._autograd._saved_tensors_hooks_is_enabled(),
    )
    state["random"] = torch.get_rng_state()
    state["global hooks"] = [
        len(getattr(nn.modules.module, name))
        for name in dir(nn.modules.module)
        if name.startswith("_global_") and name.endswith("hooks")
    ]
    return state


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of what differs."""
    assert before.keys() == after.keys()
    return [name for name in before if not _same(before[name], after[name])]


def _tensor(tensor: Tensor) -> tuple[Any, ...]:
    return (
        id(tensor),
        type(tensor),
        tensor.data_ptr(),
        tensor._version,
        tensor.requires_grad,
        tensor.is_leaf,
        tensor.grad is None if tensor.is_leaf else None,
        sorted(vars(tensor)),
        len(tensor._backward_hooks or ()),
        tensor.detach().clone(),
    )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b


@contextmanager
def nothing_kept() -> Iterator[None]:
    """No tensor made inside is there at the end; what was there before is not looked at."""
    gc.freeze()
    try:
        yield
        gc.collect()
        kept = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
        assert kept == []
    finally:
        gc.unfreeze()
