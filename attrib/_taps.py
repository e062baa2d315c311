"""Names for values inside a model, and reading or changing what passes there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, overrides
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from attrib._transforms import compiling, function_modes
from attrib.errors import AttribTypeError

__all__ = ["TAP", "Place", "Tapping", "mark", "shown", "tap", "tapping", "tensors_in"]

# An operation of torch, because that is what function modes see inside of a compiler too.
_LIBRARY: Any = torch.library.Library("attrib", "FRAGMENT")
_LIBRARY.define("tap(Tensor(a) x, str label) -> Tensor(a)")
for _key in ("CompositeImplicitAutograd", "FuncTorchBatchedDecomposition"):
    _LIBRARY.impl("tap", lambda x, label: x.view_as(x), _key)  # pyright: ignore
TAP: Any = torch.ops.attrib.tap
"""``TAP(tensor, label)``, the tensor."""

_overrides: Any = overrides
_BETWEEN, _NEXT = "\x1f", "\x1e"
_TENSOR, _NOTHING = "tensor", "nothing"


def tap(name: str, h: Tensor) -> Tensor:
    """Give a value in functional code a name, by which it is a site.

    It is the identity, and costs a tenth of a microsecond where nobody asks for the site.

    Args:
        name: The name. The same name may be passed several times, see `attrib.Site`.
        h: The value.

    Returns:
        ``h``.

    Raises:
        AttribTypeError: If `name` is not a string or ``h`` not a tensor.

    Example:
        >>> import torch, attrib
        >>> def model(x):
        ...     h = attrib.tap("hidden", x.square())
        ...     return h.sum(-1)
        >>> attrib.activation(model, "hidden")(torch.tensor([[1.0, 2.0]]))
        tensor([[1., 4.]])
    """
    if not isinstance(name, str) or not isinstance(h, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise AttribTypeError(
            f"tap: takes a name and a tensor, got {type(name).__name__} and {type(h).__name__}; "
            "write tap('name', h)",
            code="tap.type",
        )
    if compiling() or _overrides.has_torch_function_unary(h):
        return TAP(h, _BETWEEN.join((name, "0", _TENSOR)))
    return h


def mark(key: str, value: Any) -> Any:
    """The same tree, each of whose tensors is known by this key."""
    if isinstance(value, Tensor):
        return TAP(value, _BETWEEN.join((key, "0", _TENSOR)))
    parts, spec = pytree.tree_flatten(value)
    code = _code(spec.unflatten([isinstance(part, Tensor) for part in parts]))
    marked: list[Any] = []
    count = 0
    for part in parts:
        if isinstance(part, Tensor):
            part = TAP(part, _BETWEEN.join((key, str(count), code)))
            count += 1
        marked.append(part)
    return spec.unflatten(marked)


class Place(NamedTuple):
    """One tensor that passes a tap.

    Attributes:
        name: The name of the tap.
        call: Which of its calls in one evaluation.
        leaf: Which of the tensors that pass at this call.
    """

    name: str
    call: int
    leaf: int


class Tapping(TorchFunctionMode):
    """While it is active, in this thread alone, what passes some taps is handed to a function.

    Args:
        names: The taps.
        change: ``change(place, tensor)``, what goes on in the place of the tensor.
        codes: Where to note the structure of what passed each tap, call by call.

    Attributes:
        others: Other names that were passed.
    """

    def __init__(
        self,
        names: list[str],
        change: Callable[[Place, Tensor], Tensor],
        codes: dict[str, list[str]] | None = None,
    ) -> None:
        super().__init__()
        self.names = names
        self.change = change
        self.codes: dict[str, list[str]] = {} if codes is None else codes
        self.codes.update({name: [] for name in names})
        self.others: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not TAP:
            return func(*args, **(kwargs or {}))
        tensor, label = args
        name, leaf, code = label.split(_BETWEEN)
        if function_modes():  # whoever surrounds us comes first
            tensor = func(tensor, label)
        if name not in self.names:
            if name not in self.others:
                self.others.append(name)
            return tensor
        calls = self.codes[name]
        if leaf == "0":
            calls.append(code)
        return self.change(Place(name, len(calls) - 1, int(leaf)), tensor)


def tapping() -> bool:
    """Whether somebody is told of what passes taps."""
    return any(isinstance(mode, Tapping) for mode in function_modes())


def shown(code: str, tensors: list[Any]) -> Any:
    """The tree that a structure stands for, with ``None`` for what is no tensor."""
    return _built(iter(code.split(_NEXT)), iter(tensors))


def tensors_in(code: str) -> int:
    """How many tensors a structure has."""
    return code.split(_NEXT).count(_TENSOR)


def _code(tree: Any) -> str:
    """The structure of a tree of truth values as words, all that a label can hold: for a container
    its kind and size, then for every part its key, if it has one, and its own words."""
    if isinstance(tree, bool) or tree is None:
        return _TENSOR if tree else _NOTHING
    parts: Any = tree
    words: list[str] = []
    if isinstance(tree, dict):
        words.append(f"{{{len(parts)}")
        for key, part in parts.items():
            words += [("i" if isinstance(key, int) else "s") + str(key), _code(part)]
        return _NEXT.join(words)
    if not isinstance(tree, (tuple, list)):
        parts = pytree.tree_leaves(tree, is_leaf=lambda part: part is not tree)
    words.append(f"{'[' if isinstance(tree, list) else '('}{len(parts)}")
    words += [_code(part) for part in parts]
    return _NEXT.join(words)


def _built(words: Iterator[str], tensors: Iterator[Any]) -> Any:
    word = next(words)
    if word in (_TENSOR, _NOTHING):
        return next(tensors) if word == _TENSOR else None
    size = int(word[1:])
    if word[0] == "{":
        named: dict[Any, Any] = {}
        for _ in range(size):
            key = next(words)
            named[int(key[1:]) if key[0] == "i" else key[1:]] = _built(words, tensors)
        return named
    parts = [_built(words, tensors) for _ in range(size)]
    return parts if word[0] == "[" else tuple(parts)
