"""Places inside a model."""

from __future__ import annotations

import difflib
import itertools
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from attrib.errors import AttribTypeError, AttribValueError

__all__ = [
    "Key",
    "Site",
    "SiteLike",
    "Spot",
    "children",
    "inner",
    "refuse_calls",
    "refuse_missing",
    "refuse_unused",
    "spots_in",
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
        AttribTypeError: If `where`, `leaf` or `batch_dim` is of another type.
        AttribValueError: If `of` is unknown, or `call` is no number from 0.

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
        if not all(isinstance(key, (int, str)) for key in self.way):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AttribTypeError(
                f"site: leaf must be a position, a key or a tuple of them, got {self.leaf!r}",
                code="site.type",
            )
        if type(self.batch_dim) is not int:
            raise AttribTypeError(
                f"site: batch_dim must be an integer, got {self.batch_dim!r}", code="site.type"
            )
        whole = isinstance(self.call, int) and not isinstance(self.call, bool)
        if not (self.call is None or self.call == "all" or (whole and self.call >= 0)):  # pyright: ignore[reportOperatorIssue]
            raise AttribValueError(
                f"site: call must be a number from 0, 'all' or None, got {self.call!r}",
                code="site.call",
            )

    @property
    def way(self) -> tuple[Key, ...]:
        """The way to the leaf."""
        if self.leaf is None:
            return ()
        return self.leaf if isinstance(self.leaf, tuple) else (self.leaf,)

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
        place = self.site.batch_dim
        if not place:
            return tensor
        if not -tensor.ndim <= place < tensor.ndim:
            raise AttribValueError(
                f"site: no dimension {place} for the examples, got {self.site} with shape "
                f"{tuple(tensor.shape)}; choose another with Site(..., batch_dim=)",
                code="site.batch",
            )
        return tensor.movedim(place, 0)

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
        parts = (part for model in models for part in inner(model).modules())
        own = any(part is site.where for part in parts)
        module = site.where if own else inner(site.where)
    if isinstance(module, torch.jit.ScriptModule):
        raise AttribValueError(
            f"site: scripted code cannot be watched, got {site}; take the model before "
            "torch.jit.script, or explain it without sites",
            code="site.scripted",
        )
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
        whole = ", or is inside of what torch.compile calls as a whole"
        raise AttribValueError(
            f"site: never reached, got {named}; the model does not call this module when the score "
            "is evaluated, or uses its parameters without calling it"
            f"{whole if '_orig_mod' in wanted else ''}{listing}",
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
    wanted = str(spot.site.where)
    if spot.module is not None:
        wanted = next((name for name, part in modules.items() if part is spot.module), "")
    taps = [name for name in taps if not name.startswith(_OF_MODULE)]
    names = [name for name in (*taps, *modules) if name not in ("", wanted)]
    near = difflib.get_close_matches(wanted, names, 5, 0.4) or names[:5]
    listing = ", ".join(map(repr, near))
    return wanted, f"; near names: {listing}" if listing else ""


def refuse_calls(spot: Spot, calls: int, models: tuple[nn.Module, ...]) -> NoReturn:
    """Refuse a site that was reached another number of times."""
    if spot.site.call is None:
        # Such as a contrast of two scores of one model.
        again = len({id(model) for model in models}) < len(models)
        raise AttribValueError(
            f"site: reached {calls} times, got {spot.site}; choose one with Site(..., call=0), up "
            f'to {calls - 1}, or all of them with call="all"'
            + "; or call the model once: attrib.target(model, lambda out: out[:, 2] - out[:, 0])"
            * again,
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
    named: Any = inner(model).named_modules
    return dict(named(remove_duplicate=False))


def children(module: nn.Module) -> dict[str, Any]:
    return vars(module)["_modules"]


def inner(model: nn.Module) -> nn.Module:
    """The module that `torch.compile` has wrapped."""
    return getattr(model, "_orig_mod", model)
