"""All state that a call could leave behind, before and after."""

from __future__ import annotations

import contextvars
import random
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

# What a module holds beside its own attributes; compared in its own way, or bookkeeping of torch.
_STANDARD = frozenset(vars(nn.Module())) | {"_parameters", "_buffers", "_modules"}
_HOOKS = sorted(name for name in _STANDARD if name.endswith("_hooks"))

State = dict[str, Any]


def take(objects: Iterable[Any]) -> State:
    """The state of modules and of trees of tensors, and the global state."""
    state = _global_state()
    for place, thing in enumerate(objects):
        for module in _modules(thing):
            state |= _module_state(f"[{place}] {type(module).__name__}", module)
        for leaf in pytree.tree_leaves(thing):
            if isinstance(leaf, Tensor):
                state |= _tensor_state(f"[{place}] tensor {id(leaf)}", leaf)
            elif isinstance(leaf, torch.Generator):
                state[f"[{place}] generator"] = leaf.get_state()
    return state


def differences(before: State, after: State, *, ignore: frozenset[str] = frozenset()) -> list[str]:
    """What changed, in words."""
    changed = [
        name
        for name in before.keys() | after.keys()
        if not _same(before.get(name), after.get(name))
    ]
    return sorted(name for name in changed if not any(part in name for part in ignore))


def _modules(thing: Any) -> list[nn.Module]:
    return list(thing.modules()) if isinstance(thing, nn.Module) else []


def _module_state(name: str, module: nn.Module) -> State:
    state: State = {
        f"{name} class": type(module),
        f"{name} training": module.training,
        f"{name} attributes": {k: id(v) for k, v in vars(module).items() if k not in _STANDARD},
        f"{name} submodules": {k: id(v) for k, v in module._modules.items()},
    }
    for kind in _HOOKS:
        state[f"{name} {kind}"] = {key: id(hook) for key, hook in vars(module)[kind].items()}
    for key, parameter in module.named_parameters(recurse=False):
        state |= _tensor_state(f"{name} parameter {key}", parameter)
    for key, buffer in module.named_buffers(recurse=False):
        state |= _tensor_state(f"{name} buffer {key}", buffer)
    return state


def _tensor_state(name: str, tensor: Tensor) -> State:
    state: State = {
        f"{name} identity": (id(tensor), type(tensor)),
        f"{name} meta": (tensor.shape, tensor.dtype, tensor.device, tensor.layout),
        f"{name} requires_grad": (tensor.requires_grad, tensor.is_leaf, id(tensor.grad_fn)),
        f"{name} hooks": len(tensor._backward_hooks or ()),
        f"{name} attributes": sorted(vars(tensor)),
        f"{name} version": None if tensor.is_inference() else tensor._version,
    }
    if tensor.layout == torch.strided and not tensor.is_meta:
        state[f"{name} value"] = tensor.detach().clone()
        state[f"{name} storage"] = (tensor.data_ptr(), tensor.stride())
    grad = tensor.grad if tensor.is_leaf else None
    state[f"{name} grad"] = None if grad is None else grad.clone()
    state[f"{name} grad identity"] = id(grad)
    return state


def _global_state() -> State:
    torch_module = torch.nn.modules.module
    numpy_state = np.random.get_state(legacy=True)
    return {
        "torch rng": torch.get_rng_state(),
        "numpy rng": (numpy_state[0], numpy_state[1].tobytes(), *numpy_state[2:]),
        "python rng": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "anomaly mode": torch.is_anomaly_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "transforms": torch._C._are_functorch_transforms_active(),
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
        "function modes": torch._C._len_torch_function_stack(),
        "forward AD level": torch.autograd.forward_ad._current_level,
        "saved tensor hooks": torch._C._autograd._top_saved_tensors_default_hooks(True) is None,
        "global hooks": [
            len(getattr(torch_module, name))
            for name in vars(torch_module)
            if name.endswith("_hooks")
        ],
        "warning filters": list(warnings.filters),
        "context variables": {
            variable.name: id(value) for variable, value in contextvars.copy_context().items()
        },
    }


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        # Bit by bit, so that NaN equals itself and 0 differs from -0.
        a, b = a.contiguous(), b.contiguous()
        return a.shape == b.shape and a.dtype == b.dtype and _bits(a) == _bits(b)
    return type(a) is type(b) and bool(a == b)


def _bits(tensor: Tensor) -> bytes:
    return tensor.resolve_conj().flatten().view(torch.uint8).numpy().tobytes()
