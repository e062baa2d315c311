"""Copies of models that mark what passes some places, and marks on modules of the user."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass, replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from attrib._sites import Key, Spot, children, inner
from attrib._taps import mark
from attrib._transforms import compiling
from attrib.errors import AttribValueError

__all__ = ["Marked", "watched"]


class Marked:
    """A model that marks what passes some of its modules: copies of all module objects, made anew
    for every evaluation, which share parameters, buffers and everything else with the user's.

    Whatever a module keeps for itself on the way, it keeps on a copy that nobody sees again.

    Args:
        model: The model.
        spots: The places; those in other models are left alone.
    """

    def __init__(self, model: nn.Module, spots: Sequence[Spot]) -> None:
        self._original = inner(model)
        self._spots = spots
        self._traced = self._copy()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # A compiler cannot follow the copying, and keeps nothing on modules.
        model = self._traced if compiling() else self._copy()
        return model(*args, **kwargs)

    def _copy(self) -> Any:
        here: dict[int, list[Spot]] = {}
        for spot in self._spots:
            module = spot.module
            if isinstance(spot.site.where, str) and module is not None:
                module = _at(self._original, spot.site.where)  # perhaps another one by now
            here.setdefault(id(module), []).append(spot)
        return _Copies(here).of(self._original)


_CONTAINERS = frozenset({list, dict, set, deque, OrderedDict})
_SHARED = frozenset({bool, int, float, str, type(None), Tensor, nn.Parameter})


class _Copies:
    """New module objects with all that others have, but containers of their own.

    No functions within functions: they would refer to each other in a circle, and keep what a model
    has computed until the next collection of garbage.

    Args:
        spots: What to mark, by the identity of the module.
    """

    def __init__(self, spots: dict[int, list[Spot]]) -> None:
        self._spots = spots
        self._done: dict[int, nn.Module] = {}

    def of(self, module: nn.Module) -> nn.Module:
        """The one copy of a module."""
        found = self._done.get(id(module))
        if found is None:
            if isinstance(module, torch.jit.ScriptModule):
                return module
            found = self._done[id(module)] = object.__new__(type(module))
            attributes = vars(found)
            attributes.update(vars(module))
            if "_orig_mod" not in children(module):
                self._fill(attributes, module, found)
            elif id(module) in self._spots:
                # What is compiled is called as it is, the marks go around it.
                for name, value in attributes.items():
                    attributes[name] = value.copy() if type(value) in _CONTAINERS else value
            attributes["_compiled_call_impl"] = None
            if self._spots and isinstance(module, nn.TransformerEncoder):
                # Padding would be cut off: rows of different lengths, which nobody can replace.
                attributes["use_nested_tensor"] = False
            for spot in self._spots.get(id(module), []):
                _hook(found, spot)
        return found

    def _fill(self, parts: dict[Any, Any], module: nn.Module, twin: nn.Module) -> None:
        for key, part in parts.items():
            if type(part) in _CONTAINERS and not part:  # most of them are empty
                parts[key] = part.copy()
            elif type(part) not in _SHARED:
                parts[key] = self._own(part, module, twin)

    def _own(self, value: Any, module: nn.Module, twin: nn.Module) -> Any:
        if type(value) in _CONTAINERS:
            parts: Any = value
            copy: Any = parts.copy()
            if isinstance(value, dict):
                self._fill(copy, module, twin)
            elif not all(type(part) in _SHARED for part in parts):
                copy.clear()
                own = [self._own(part, module, twin) for part in parts]
                (copy.update if isinstance(value, set) else copy.extend)(own)
            return copy
        if isinstance(value, nn.Module):
            return self.of(value)
        if isinstance(value, MethodType) and value.__self__ is module:
            return MethodType(value.__func__, twin)
        return value


def _at(model: nn.Module, name: str) -> nn.Module | None:
    found: Any = model
    for part in name.split(".") if name else ():
        found = None if found is None else children(found).get(part)
    return found


def _hook(module: nn.Module, spot: Spot, thread: int | None = None) -> Any:
    """Mark what comes out of a module, or goes into it; in one thread alone, if told which."""
    way = spot.site.way

    def elsewhere() -> bool:
        return thread is not None and thread != threading.get_ident()

    def after(module: nn.Module, args: Any, result: Any) -> Any:
        return None if elsewhere() else _marked_at(result, way, spot)

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: Any = None) -> Any:
        if elsewhere():
            return None
        if not kwargs:
            return _marked_at(args, way, spot), {}
        new = _marked_at({**dict(enumerate(args)), **kwargs}, way, spot)
        return tuple(new[i] for i in range(len(args))), {name: new[name] for name in kwargs}

    if spot.site.of == "output":
        return module.register_forward_hook(after)
    return module.register_forward_pre_hook(before, with_kwargs=True)


def _marked_at(value: Any, way: tuple[Key, ...], spot: Spot) -> Any:
    """The same structure, marked at one place."""
    if not way:
        return mark(spot.key, value)
    key = way[0]
    whole: Any = value
    part: Any = None
    with suppress(KeyError, IndexError, AttributeError, TypeError):
        if isinstance(value, Tensor):
            raise TypeError
        part = whole[key] if isinstance(key, int) or type(value) is dict else getattr(whole, key)
    if part is None:
        raise AttribValueError(
            f"site: nothing at leaf {key!r} of {spot.site}, got {_listing(value)}",
            code="site.leaf",
        )
    return _with(value, key, _marked_at(part, way[1:], spot))


def _with(value: Any, key: Key, part: Any) -> Any:
    """A structure with another part."""
    whole: Any = value
    if type(value) is dict:
        return {**whole, key: part}
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        return replace(value, **{names[key] if isinstance(key, int) else key: part})
    if isinstance(key, str):
        return whole._replace(**{key: part})
    parts: list[Any] = list(whole)
    parts[key] = part
    return type(whole)(*parts) if hasattr(whole, "_fields") else type(whole)(parts)


def _listing(value: Any) -> str:
    whole: Any = value
    kind = str(type(whole).__name__)
    if isinstance(value, Mapping) or is_dataclass(value):
        return f"{kind} with {', '.join(map(str, vars(whole) if is_dataclass(whole) else whole))}"
    return f"{kind} of {len(whole)}" if isinstance(value, (tuple, list)) else kind


@contextmanager
def watched(spots: list[Spot]) -> Generator[None]:
    """Marks on modules of the user, for scores that do not tell which model they call.

    Hooks, which do nothing in other threads and are gone afterwards.
    """
    if spots and compiling():
        raise AttribValueError(
            "site: cannot be watched by a compiler, got a score that does not tell its model; "
            "build it with attrib.target(model, index), or mark the place with attrib.tap",
            code="site.compiled",
        )
    handles: list[Any] = []
    try:
        for spot in spots:
            if spot.module is not None:
                handles.append(_hook(spot.module, spot, thread=threading.get_ident()))
        yield
    finally:
        for handle in handles:
            handle.remove()
