"""What a call might leave behind: models, tensors, modes and random states."""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attrib._tree import leaf_names, leaves
from attrib.errors import Cancelled

__all__ = [
    "State",
    "advance",
    "attempt",
    "changes",
    "left_behind",
    "random_state",
    "reachable",
    "snapshot",
]

State = dict[str, Any]
# What a module keeps beside the attributes that its class or its user has given it.
_OWN = vars(nn.Module()).keys()
_HOOKS = [name for name in _OWN if name.endswith("_hooks")]
# The globals of these packages are not the user's.
_LIBRARIES = ("torch", "attrib", "numpy", "functools")


def reachable(*functions: Any) -> tuple[list[nn.Module], list[Tensor]]:
    """The modules and tensors that functions close over, or find in their globals."""
    modules: dict[int, nn.Module] = {}
    tensors: dict[int, Tensor] = {}
    seen: dict[int, Any] = {}
    waiting: list[Any] = list(functions)
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, Tensor):
            tensors[id(value)] = value
        if isinstance(value, nn.Module):
            modules[id(value)] = value
        else:
            waiting.extend(_held(value))
    return list(modules.values()), list(tensors.values())


def left_behind(
    function: Callable[..., Any], args: tuple[Any, ...], modules: list[nn.Module], tensors: Any
) -> tuple[Any, list[str]]:
    """What a function returns or raises, and the names of what its call changed.

    Args:
        function: Function.
        args: What it is called with.
        modules: Modules that may not change.
        tensors: Names and tensors that may not change; those among `args` are added.
    """
    named = [*tensors]
    for place, arg in enumerate(args):
        names = leaf_names(arg, f"args[{place - 1}]" if place else "x")
        named += [(n, a) for n, a in zip(names, leaves(arg), strict=True) if isinstance(a, Tensor)]
    before = snapshot(modules, named)
    result = attempt(function, *args)
    return result, changes(before, snapshot(modules, named))


def attempt(function: Callable[..., Any], *args: Any) -> Any:
    """What a function returns or raises. Somebody who stops the computation is obeyed."""
    try:
        return function(*args)
    except Cancelled:
        raise
    except Exception as error:
        return error


def snapshot(modules: Iterable[nn.Module], tensors: Iterable[tuple[str, Tensor]]) -> State:
    """Everything that must be the same, bit by bit, before and after a call, by name."""
    state = _global_state()
    for name, tensor in tensors:
        state |= _tensor_state(name, tensor)
    for module in modules:
        for path, part in _parts(module):
            name = f"{type(module).__name__}.{path}".rstrip(".")
            own = {key: id(v) for key, v in vars(part).items() if key not in _OWN}
            state[f"training mode of {name}"] = part.training
            state[f"attributes of {name}"] = own
            state[f"hooks of {name}"] = {key: list(vars(part).get(key) or ()) for key in _HOOKS}
        for path, tensor in [*module.named_parameters(), *module.named_buffers()]:
            state |= _tensor_state(f"{type(module).__name__}.{path}", tensor)
    return state


def changes(before: State, after: State) -> list[str]:
    """The names of what differs, what is gone and what is new."""
    names = dict.fromkeys([*before, *after])
    return [name for name in names if not _same(before.get(name), after.get(name))]


def random_state(devices: Iterable[torch.device]) -> Callable[[], None]:
    """A function that puts all global random states back to what they are now."""
    of_numpy, of_python, of_cpu = np.random.get_state(), random.getstate(), torch.get_rng_state()
    of_devices = [
        (torch.get_device_module(device), torch.get_device_module(device).get_rng_state(device))
        for device in devices
        if device.type not in ("cpu", "meta")
    ]

    def restore() -> None:
        np.random.set_state(of_numpy)
        random.setstate(of_python)
        torch.set_rng_state(of_cpu)
        for module, state in of_devices:
            module.set_rng_state(state)

    return restore


def advance(devices: Iterable[torch.device]) -> None:
    """Go on to other random numbers, in all global random states."""
    np.random.random()
    random.random()
    for device in {torch.device("cpu"), *devices}:
        torch.rand((), device=device)


def _parts(module: Any) -> list[tuple[str, nn.Module]]:
    return [*module.named_modules()]


def _held(value: Any) -> list[Any]:
    """What a function or a container holds."""
    if isinstance(value, MethodType):
        owner: Any = value.__self__
        return [owner, value.__func__, *getattr(owner, "__dict__", {}).values()]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, FunctionType):
        try:
            bound = inspect.getclosurevars(value)
        except ValueError:  # a cell without contents
            return []
        # What was run from a text has no module.
        library = str(value.__module__).startswith(_LIBRARIES)
        outside = () if library else bound.globals.values()
        return [*bound.nonlocals.values(), *outside, *(value.__defaults__ or ())]
    held: Any = value
    if isinstance(held, (tuple, list, set, frozenset)):
        return [*held]
    if isinstance(held, dict):
        return [*held.values()]
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in fields(value)]
    if callable(value) and not isinstance(value, type) and hasattr(value, "__dict__"):
        return list(vars(value).values())
    return []


def _global_state() -> State:
    kind, keys, *position = np.random.get_state(legacy=True)
    return {
        "the random state of torch": torch.get_rng_state(),
        "the random state of numpy": (kind, np.asarray(keys).tobytes(), position),
        "the random state of Python": random.getstate(),
        "the grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "the default dtype": torch.get_default_dtype(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "the number of threads": torch.get_num_threads(),
    }


def _tensor_state(name: str, tensor: Tensor) -> State:
    grad = tensor.grad if tensor.is_leaf else None
    return {
        f"the value of {name}": tensor.detach().clone(),
        f"the storage of {name}": (id(tensor), tensor.data_ptr(), tensor.stride()),
        f"requires_grad of {name}": tensor.requires_grad,
        f"the gradient of {name}": None if grad is None else grad.detach().clone(),
    }


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        return bool(((a == b) | ((a != a) & (b != b))).all())
    return type(a) is type(b) and bool(a == b)
