"""Leaving out what leads to a site, as far as nothing behind the site asks for it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from attrib._taps import TAP, Tapping
from attrib._tree import tree_map
from attrib.types import Tree

__all__ = ["Deferring", "draws", "may_be_watched", "may_write"]


class _NotDeferrableError(Exception):
    """The numbers in a deferred tensor are needed, and can no longer be computed."""


class Deferring(Tapping):
    """While it is active, operations on deferred tensors are noted instead of computed.

    A deferred tensor has a shape and no numbers. As soon as a site is reached, an operation that
    takes other tensors than parameters beside it is computed after all, from the notes. So a model
    that is a chain behind the site costs what is behind the site, and one with a connection around
    the site what it always costs. Whatever needs numbers before that raises.

    Args:
        device: Where the deferred tensors pretend to be.
        known: What operations were found to return, by what they were called with; kept from one
            evaluation to the next, because torch takes long to tell.

    Attributes:
        reached: Whether a site was reached.
    """

    def __init__(self, device: torch.device, known: dict[Any, Any]) -> None:
        super().__init__([], lambda place, tensor: tensor)
        self.device = device
        self.known = known
        self.reached = False
        self.written = False
        self.made: list[Any] = []

    def watching(self, tapping: Tapping) -> Deferring:
        """The same mode, to which what passes the taps of another one is handed."""
        self.names, self.change = tapping.names, tapping.change
        self.codes, self.others = tapping.codes, tapping.others
        return self

    def leaked(self) -> bool:
        """Whether somebody holds a deferred tensor after the evaluation."""
        return any(made() is not None for made in self.made)

    def deferred(self, x: Tree) -> Tree:
        """The same tree without its numbers."""

        def without(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return self.note(_empty(*_form(leaf)), lambda: leaf)

        return tree_map(without, x)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is TAP:
            return super().__torch_function__(func, types, args, kwargs)
        kwargs = kwargs or {}
        tensors = _tensors((args, kwargs))
        if not any(map(_is_deferred, tensors)):
            return func(*args, **kwargs)
        if getattr(func, "__self__", None) is Tensor.device:
            return self.device

        def computed() -> Any:
            if self.written:
                raise _NotDeferrableError
            return func(*_mapped(args, _computed), **_mapped(kwargs, _computed))

        if self.reached and not all(_is_deferred(t) or type(t) is nn.Parameter for t in tensors):
            return computed()
        call = _keyed_call(func, args, kwargs)
        if call is not None and call in self.known:
            form, result = self.known[call]
            return result if form is None else self.note(_empty(*form), computed)
        if draws(func, args, kwargs):
            raise _NotDeferrableError
        if may_write(func, args, kwargs):
            if not _is_deferred(tensors[0]):
                raise _NotDeferrableError
            self.written, call = True, None
        result = self.emptied(func, args, kwargs)
        told = isinstance(result, (int, torch.Size))
        if call is not None and (told or (isinstance(result, Tensor) and result.is_meta)):
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            self.known[call] = (None, result) if told else (_form(result), None)
        self.note_all(result, computed)
        return result

    def note(self, tensor: Tensor, compute: Callable[[], Any]) -> Tensor:
        """Note how a tensor is computed."""
        own: Any = tensor
        own._attrib_deferred = compute
        self.made.append(weakref.ref(tensor))
        return tensor

    def note_all(self, result: Any, compute: Callable[[], Any]) -> None:
        """The same for all that an operation returned."""
        if isinstance(result, Tensor):
            if result.is_meta and not _is_deferred(result):
                self.note(result, compute)
            return
        parts: Any = result
        for place, part in enumerate(parts if isinstance(result, (tuple, list)) else ()):
            self.note_all(part, lambda place=place: compute()[place])

    def emptied(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an operation returns for tensors without numbers."""

        def without(part: Any) -> Any:
            if isinstance(part, Tensor):
                return part if part.is_meta else _empty(*_form(part))
            return torch.device("meta") if part == self.device else part

        return func(*_mapped(args, without), **_mapped(kwargs, without))


_MOST_KNOWN = 4096


def may_be_watched(modules: Iterable[nn.Module]) -> bool:
    """Whether hooks of the user see what passes modules."""
    watching: Any = torch.nn.modules.module
    return bool(
        watching._global_forward_hooks
        or watching._global_forward_pre_hooks
        or any(vars(m)["_forward_hooks"] or vars(m)["_forward_pre_hooks"] for m in modules)
    )


def _is_deferred(value: Any) -> bool:
    return isinstance(value, Tensor) and hasattr(value, "_attrib_deferred")


def _computed(part: Any) -> Any:
    """The numbers of a deferred tensor, computed once."""
    if not _is_deferred(part):
        return part
    own: Any = part
    value = own._attrib_deferred()
    own._attrib_deferred = lambda: value
    return value


def draws(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call takes numbers from a generator."""
    name = getattr(func, "__name__", "")
    if "dropout" in name:
        return bool(kwargs.get("training", args[2] if len(args) > 2 else True))
    return name in _RANDOM


_RANDOM = (
    *("rand", "randn", "randint", "randperm"),
    *("rand_like", "randn_like", "randint_like", "bernoulli", "bernoulli_", "multinomial"),
    *("poisson", "binomial", "normal", "normal_", "uniform_", "random_", "exponential_"),
    *("geometric_", "log_normal_", "cauchy_", "rrelu", "rrelu_"),
)


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype


def _empty(shape: Any, stride: Any, dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")


def _keyed_call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call as a key; ``None`` if something in it may change, such as a list."""
    call = func, _keyed(args), tuple(kwargs), _keyed(kwargs.values())
    try:
        hash(call)
    except TypeError:
        return None
    return call


def _keyed(parts: Iterable[Any]) -> tuple[Any, ...]:
    """Arguments as a key: of a tensor, what tells the form of a result."""
    keys: list[Any] = []
    for part in parts:
        if isinstance(part, Tensor):
            keys += (Tensor, part.shape, part.stride(), part.dtype)
        elif isinstance(part, tuple):
            keys += (tuple, _keyed(part))  # pyright: ignore[reportUnknownArgumentType]
        else:
            keys += (type(part), part)
    return tuple(keys)


def _tensors(arguments: Any) -> list[Tensor]:
    """The tensors in a container of arguments."""
    found: list[Tensor] = []
    parts: Any = arguments
    for part in parts.values() if isinstance(arguments, dict) else parts:
        if isinstance(part, Tensor):
            found.append(part)
        elif isinstance(part, (tuple, list, dict)):
            found += _tensors(part)
    return found


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Nested arguments, with everything that is no container changed."""
    parts: Any = value
    if isinstance(value, dict):
        return {key: _mapped(part, change) for key, part in parts.items()}
    if type(value) in (tuple, list, torch.Size):
        return type(value)(_mapped(part, change) for part in parts)
    return change(value)


def may_write(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call may write to its first argument, told by its name and its flags."""
    name = getattr(func, "__name__", "")
    inplace = name.endswith("_") and not name.endswith("__")
    augmented = name.startswith("__i") or name == "__setitem__"
    flagged = any(value is True for value in (*args, *kwargs.values()))
    return inplace or augmented or flagged or kwargs.get("out") is not None
