"""Copies of a model with other parameters."""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Any, cast

from torch import Tensor, nn

__all__ = ["parameters_by_module", "with_parameters"]


def parameters_by_module(model: nn.Module) -> dict[str, list[Tensor]]:
    """The floating-point parameters of every module that has some of its own, in the order of
    registration; one that several share belongs to the first."""
    seen: set[int] = set()
    owned: dict[str, list[Tensor]] = {}
    modules: dict[str, nn.Module] = dict(cast(Any, model).named_modules())
    for name, module in modules.items():
        own: list[Tensor] = list(module.parameters(recurse=False))
        fresh = [p for p in own if p.is_floating_point() and id(p) not in seen]
        seen.update(map(id, fresh))
        if fresh:
            owned[name] = fresh
    return owned


def with_parameters(model: nn.Module, values: Mapping[Tensor, Tensor]) -> nn.Module:
    """A copy of a model that has other tensors in the place of some parameters.

    It shares everything else with the model. `torch.func.functional_call` would put the tensors
    into the user's own modules while they run, where other threads meet them, and the names of
    modules would not be those of the model.

    Args:
        model: The model, which is left alone.
        values: The tensor that each parameter is replaced by; inside of `torch.vmap`, one for each
            of many models.
    """
    done: dict[int, nn.Module] = {}

    def copied(module: nn.Module) -> nn.Module:
        if id(module) in done:
            return done[id(module)]
        twin: nn.Module = object.__new__(type(module))
        done[id(module)] = twin
        own = vars(twin)
        own.update(vars(module))
        own["_compiled_call_impl"] = None
        for name, value in vars(module).items():
            if isinstance(value, MethodType) and value.__self__ is module:
                own[name] = MethodType(value.__func__, twin)
        parameters: dict[str, Any] = own["_parameters"]
        own["_parameters"] = {n: _replaced(p, values) for n, p in parameters.items()}
        children: dict[str, Any] = own["_modules"]
        own["_modules"] = {n: m if m is None else copied(m) for n, m in children.items()}
        return twin

    return copied(model)


def _replaced(parameter: Any, values: Mapping[Tensor, Tensor]) -> Any:
    return values.get(parameter, parameter) if isinstance(parameter, Tensor) else parameter
