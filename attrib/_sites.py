"""Places inside a model, and shallow copies of models that mark what passes there."""

from __future__ import annotations

import difflib
import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from types import MethodType
from typing import Any, Literal, NoReturn, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from attrib._taps import mark
from attrib._transforms import compiling
from attrib.errors import AttribTypeError, AttribValueError

__all__ = [
    "Marked",
    "Site",
    "SiteLike",
    "Spot",
    "refuse_calls",
    "refuse_missing",
    "refuse_unused",
    "spots_in",
    "watched",
]

Key: TypeAlias = int | str


@dataclass(frozen=True)
class Site:
    """A place inside a model.

    Wherever a site is asked for, a module or a name alone stands for ``Site(module)``, and a list,
    tuple or dict of sites for all of them.

    Attributes:
        where: A module of the model, its dotted name, or a name given with `attrib.tap`.
        of: The ``"output"`` of the module, or its ``"input"``.
        call: Which call, from 0, of a module that is used more than once; ``"all"`` for the values
            of all calls, in a tuple. Without it a second call is refused.
        leaf: Where in a module's structured output, or in its arguments, the tensor is: a position,
            a key or attribute, or a tuple of them such as ``(1, 0)``. Without it the value is the
            only tensor, or the whole structure.
        batch_dim: The dimension of the examples in the value, such as 1 for a recurrent network
            that takes time first; it is moved to the front.

    Raises:
        AttribTypeError: If one of them is of another type.
        AttribValueError: If `of` is unknown or `call` negative.

    Example:
        >>> import torch, attrib
        >>> lstm = torch.nn.LSTM(3, 4, batch_first=True)
        >>> cell_state = attrib.Site(lstm, leaf=(1, 1), batch_dim=1)
        >>> attrib.activation(lstm, cell_state)(torch.zeros(2, 5, 3)).shape
        torch.Size([2, 1, 4])
    """

    where: nn.Module | str
    of: Literal["output", "input"] = "output"
    call: int | Literal["all"] | None = None
    leaf: Key | tuple[Key, ...] | None = None
    batch_dim: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.where, (nn.Module, str)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AttribTypeError(
                f"site: must be a module or a name, got {type(self.where).__name__}; pass "
                "model.layer3, 'layer3', or a name given with attrib.tap",
                code="site.type",
            )
        if self.of not in ("output", "input"):
            raise AttribValueError(
                f"site: of must be 'output' or 'input', got {self.of!r}", code="site.of"
            )
        whole = isinstance(self.call, int) and not isinstance(self.call, bool)
        if not (self.call is None or self.call == "all" or (whole and self.call >= 0)):  # pyright: ignore[reportOperatorIssue]
            raise AttribValueError(
                f"site: call must be a number from 0, 'all' or None, got {self.call!r}",
                code="site.call",
            )

    def __str__(self) -> str:
        where = repr(self.where) if isinstance(self.where, str) else type(self.where).__name__
        return where + " (input)" * (self.of == "input")


SiteLike: TypeAlias = Any
"""A `Site`, a module or a name, or a tree of them."""


@dataclass(frozen=True)
class Spot:
    """A site that was found.

    Attributes:
        site: The site.
        key: The label of what passes there.
        module: The module; ``None`` for a name given with `attrib.tap`.
    """

    site: Site
    key: str
    module: nn.Module | None

    def wants(self, call: int) -> bool:
        """Whether a call is asked for."""
        return self.site.call in (None, "all", call)

    def batch_first(self, tensor: Tensor) -> Tensor:
        """What is shown of a tensor that passes."""
        return tensor.movedim(self.site.batch_dim, 0) if self.site.batch_dim else tensor

    def as_passed(self, tensor: Tensor) -> Tensor:
        """What passes where this is shown."""
        return tensor.movedim(0, self.site.batch_dim) if self.site.batch_dim else tensor


_NUMBERS, _OF_MODULE = itertools.count(), "module "


def spots_in(models: tuple[nn.Module, ...], sites: SiteLike) -> tuple[list[Spot], pytree.TreeSpec]:
    """The sites of a tree, found in the models of a score."""
    parts, spec = pytree.tree_flatten(sites)
    if not parts:
        raise AttribTypeError("site: must be at least one, got none", code="site.type")
    return [_spot(models, p if isinstance(p, Site) else Site(p)) for p in parts], spec


def _spot(models: tuple[nn.Module, ...], site: Site) -> Spot:
    module: nn.Module | None
    if isinstance(site.where, str):
        named = [_named(model, site.where) for model in models]
        found = {id(part): part for part in named if part is not None}
        if len(found) > 1:
            raise AttribValueError(
                f"site: the score has {len(found)} models with such a module, got {site}; pass the "
                "module itself",
                code="site.unknown",
            )
        module = next(iter(found.values()), None)
    else:
        module = _inner(site.where)
    if module is None:
        spot = Spot(site, str(site.where), None)
        if site.of == "input" or site.leaf is not None:
            refuse_missing(spot, models, [], ", and a tap has no input and no leaves")
        return spot
    return Spot(site, f"{_OF_MODULE}{next(_NUMBERS)}", module)


def refuse_missing(
    spot: Spot, models: tuple[nn.Module, ...], taps: list[str], more: str = ""
) -> NoReturn:
    """Refuse a site that is not there, or was not reached."""
    wanted, listing = _near(spot, models, taps)
    if spot.module is not None:
        named = f"{wanted!r}, a {type(spot.module).__name__}" if wanted else str(spot.site)
        raise AttribValueError(
            f"site: never reached, got {named}; the model does not call this module when the score "
            f"is evaluated, or uses its parameters without calling it{listing}",
            code="site.unreached",
        )
    if not models:
        more += "; of a score that does not tell its model, pass the module itself"
    raise AttribValueError(
        f"site: neither a module of the model nor a tap it passes, got {wanted!r}{more}{listing}",
        code="site.unknown",
    )


def refuse_unused(spots: list[Spot], models: tuple[nn.Module, ...]) -> NoReturn:
    """Refuse sites that are reached in vain."""
    wanted, listing = _near(spots[0], models, [])
    raise AttribValueError(
        f"site: the score does not depend on it, got {wanted or str(spots[0].site)!r}; the model "
        "does not use what passes there, or cuts it off by detach(), torch.no_grad() or .item()"
        + listing,
        code="site.unused",
    )


def _near(spot: Spot, models: tuple[nn.Module, ...], taps: list[str]) -> tuple[str, str]:
    """The name of a site, and a list of those near it."""
    modules = {name: part for model in models for name, part in _all_named(model).items()}
    names = list(filter(None, modules))
    wanted = str(spot.site.where)
    if spot.module is not None:
        wanted = next((name for name, part in modules.items() if part is spot.module), "")
    taps = [name for name in taps if not name.startswith(_OF_MODULE)]
    near = difflib.get_close_matches(wanted, names + taps, 5, 0.4) or (taps + names)[:5]
    listing = ", ".join(repr(name) for name in near if name != wanted)
    return wanted, f"; near names: {listing}" if listing else ""


def refuse_calls(spot: Spot, calls: int) -> NoReturn:
    """Refuse a site that was reached another number of times."""
    if spot.site.call is None:
        raise AttribValueError(
            f"site: reached {calls} times, got {spot.site}; choose one with Site(..., call=0), up "
            f'to {calls - 1}, or all of them with call="all"',
            code="site.calls",
        )
    raise AttribValueError(
        f"site: call {spot.site.call} of {spot.site} never happened, got {calls} "
        f"call{'s' * (calls != 1)}; calls count from 0",
        code="site.calls",
    )


def _named(model: nn.Module, name: str) -> nn.Module | None:
    return _all_named(model).get(name)


def _all_named(model: nn.Module) -> dict[str, nn.Module]:
    named: Any = _inner(model).named_modules
    return dict(named(remove_duplicate=False))


def _children(module: nn.Module) -> dict[str, Any]:
    return vars(module)["_modules"]


def _inner(model: nn.Module) -> nn.Module:
    """The module that `torch.compile` has wrapped."""
    return getattr(model, "_orig_mod", model)


# --- copies of models ---------------------------------------------------------------------------


class Marked:
    """A model that marks what passes some of its modules: copies of all module objects, made anew
    for every evaluation, which share parameters, buffers and everything else with the user's.

    Whatever a module keeps for itself on the way, it keeps on a copy that nobody sees again.

    Args:
        model: The model.
        spots: The places; those in other models are left alone.
    """

    def __init__(self, model: nn.Module, spots: Sequence[Spot]) -> None:
        self._original = _inner(model)
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
        done: dict[int, nn.Module] = {}

        def copied(module: nn.Module) -> nn.Module:
            found = done.get(id(module))
            if found is None:
                if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod"):
                    return module
                found = done[id(module)] = object.__new__(type(module))
                _fill(found, module, copied)
                for spot in here.get(id(module), []):
                    _hook(found, spot)
            return found

        return copied(self._original)


_CONTAINERS = (list, dict, set, deque, OrderedDict)


def _fill(twin: nn.Module, module: nn.Module, copied: Callable[[nn.Module], nn.Module]) -> None:
    """Give a new module object all that another one has, but containers of its own."""

    def own(value: Any) -> Any:
        if isinstance(value, nn.Module):
            return copied(value)
        parts: Any = value
        if type(value) not in _CONTAINERS:
            return value
        if isinstance(value, dict):
            return type(parts)((key, own(part)) for key, part in parts.items())
        return type(parts)(own(part) for part in parts)

    attributes = vars(twin)
    for name, value in vars(module).items():
        if isinstance(value, MethodType) and value.__self__ is module:
            value = MethodType(value.__func__, twin)
        attributes[name] = own(value)
    attributes["_compiled_call_impl"] = None


def _at(model: nn.Module, name: str) -> nn.Module | None:
    found: Any = model
    for part in name.split(".") if name else ():
        found = None if found is None else _children(found).get(part)
    return found


def _hook(module: nn.Module, spot: Spot, thread: int | None = None) -> Any:
    """Mark what comes out of a module, or goes into it; in one thread alone, if told which."""
    leaf = spot.site.leaf
    path = () if leaf is None else leaf if isinstance(leaf, tuple) else (leaf,)

    def elsewhere() -> bool:
        return thread is not None and thread != threading.get_ident()

    def after(module: nn.Module, args: Any, result: Any) -> Any:
        return None if elsewhere() else _marked_at(result, path, spot)

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: Any = None) -> Any:
        if elsewhere():
            return None
        if not kwargs:
            return _marked_at(args, path, spot), {}
        new = _marked_at({**dict(enumerate(args)), **kwargs}, path, spot)
        return tuple(new[i] for i in range(len(args))), {name: new[name] for name in kwargs}

    if spot.site.of == "output":
        return module.register_forward_hook(after)
    return module.register_forward_pre_hook(before, with_kwargs=True)


def _marked_at(value: Any, path: tuple[Key, ...], spot: Spot) -> Any:
    """The same structure, marked at one place."""
    if not path:
        return mark(spot.key, value)
    key = path[0]
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
    return _with(value, key, _marked_at(part, path[1:], spot))


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


# --- the user's own modules ---------------------------------------------------------------------


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
