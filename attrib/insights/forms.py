"""Forms from signatures: what can be asked for each option of a method, and what is refused."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from attrib.insights.field import Field, Range, Setting, integer, number, offered
from attrib.insights.plain import is_list
from attrib.insights.protocol import Failure
from attrib.insights.registry import Method, options_of
from attrib.insights.special import SPECIAL

__all__ = ["NOT_IN_FORMS", "arguments", "fields"]

NOT_IN_FORMS = {
    "rules": "functions for single operations; bind them: methods={'mine': partial(..)}"
}
"""Options that no form can hold, and what to do instead."""

# Options whose annotation is `str`, and the words that they know.
_WORDS = {"rule": ("rescale", "reveal-cancel"), "unknown": ("refuse", "gradient")}

_ADVANCED = {"chunk_size", "seed", "unknown", "tol", "reduce", "path", "reshape", "along", "dims"}

_HINTS = {
    "chunk_size": "how many points are evaluated at once; lower it when memory runs out",
    "seed": "the same number gives the same draws",
    "std": "standard deviation of the noise, in units of the input",
    "amount": "standard deviation or radius of the noise, in units of the input",
    "tol": "stop when the estimated error is below",
    "references": "how many other samples serve as baselines",
    "interventional": "average over other samples instead of one baseline",
}


def fields(method: Method, setting: Setting) -> list[Field]:
    """The form of a method.

    Raises:
        Failure: If an option that must be given has no form.
    """
    parameters = options_of(method)
    hints = _hints(method.make)
    found: list[Field] = []
    for name, parameter in parameters.items():
        if name in NOT_IN_FORMS:
            continue
        if name in SPECIAL:
            found += SPECIAL[name](name, setting, method, parameter.default)
            continue
        field = _plain(name, hints.get(name, Any), parameter.default)
        if field is not None:
            found.append(field)
        elif parameter.default is inspect.Parameter.empty:
            raise Failure("field", f"{method.name}: no form for its option {name!r}", field=name)
    if {"interventional"} & set(parameters) or method.name in ("expected", "expected_gradients"):
        found.append(integer("references", 16))
    return [_finished(field) for field in found]


def arguments(
    form: Sequence[Field], given: Mapping[str, Any], model: str, sites: Sequence[str] = ()
) -> dict[str, Any]:
    """Every option of a form: what was given, else the default; `sites` are those of the model.

    Raises:
        Failure: Of the kind ``field``, naming the one that is not what it should be.
    """
    known = {field.name: field for field in form}
    for name in given:
        if name not in known:
            raise Failure("field", f"{name[:60]}: there is no such option", field=name)
    found: dict[str, Any] = {}
    for name, field in known.items():
        default = (field.by_model or {}).get(model, field.default)
        allowed = offered(sites) if field.sites else field.choices
        found[name] = _checked(field, given[name], allowed or ()) if name in given else default
    return found


def _hints(make: Callable[..., Any]) -> dict[str, Any]:
    """What the annotations mean, as far as they can be read."""
    function: Any = make
    while isinstance(function, partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType]
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(make).parameters.items():
        one = types.SimpleNamespace(__annotations__={name: parameter.annotation})
        names = getattr(function, "__globals__", {})
        # An alias may name what only its own module knows: its default tells enough.
        with suppress(NameError, TypeError, SyntaxError):
            found |= typing.get_type_hints(one, names, include_extras=True)  # pyright: ignore[reportArgumentType]
    return found


def _plain(name: str, hint: Any, default: Any) -> Field | None:
    """A field for an option of a common type."""
    bounds, parts = _parts(hint)
    empty = default is inspect.Parameter.empty
    literals = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
    literals = literals or list(_WORDS.get(name, ()))
    optional = type(None) in parts or default is None
    value = None if empty else default
    if literals:
        words = offered([*literals, *([None] if optional else [])])
        return Field(name, "choice", literals[0] if empty else default, choices=words)
    if bool in parts or isinstance(value, bool):
        return Field(name, "boolean", bool(value))
    if name == "std":
        return number(name, 0.1 if empty or default == 0.0 else default, bounds)
    if any(_is_integers(part) for part in parts) or _all_integers(value) or name == "index":
        return Field(name, "integers", [0] if empty else list(value or []), optional=not value)
    if int in parts or (isinstance(value, int) and not parts):
        return integer(name, 1 if empty else default, bounds, optional)
    if float in parts or isinstance(value, (int, float)):
        return number(name, 1.0 if empty else default, bounds, optional)
    if str in parts or isinstance(value, str):
        return Field(name, "text", value or "", optional=optional)
    return None


def _parts(hint: Any) -> tuple[Range | None, list[Any]]:
    """The types that a hint allows, and its bounds."""
    bounds: Range | None = None
    if get_origin(hint) is Annotated:
        hint, *extra = get_args(hint)
        bounds = next((item for item in extra if isinstance(item, Range)), None)
    if get_origin(hint) in (Union, types.UnionType):
        parts = [part for one in get_args(hint) for part in _parts(one)[1]]
        return bounds, parts
    return bounds, [] if hint is Any else [hint]


def _is_integers(part: Any) -> bool:
    return get_origin(part) in (tuple, list, Sequence) and set(get_args(part)) <= {int, ...}


def _all_integers(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(part, int) for part in value)  # pyright: ignore[reportUnknownVariableType]


def _finished(field: Field) -> Field:
    base, _, feature = field.name.partition(".")
    title = base.replace("_", " ") + (f" of {feature}" if feature else "")
    return field._replace(
        title=field.title or title,
        hint=field.hint or _HINTS.get(base),
        advanced=field.advanced or base in _ADVANCED,
        empty=field.empty or ("automatic" if field.optional else None),
    )


def _checked(field: Field, value: Any, allowed: Sequence[Mapping[str, Any]]) -> Any:
    """A value that the field allows."""
    if value is None and field.optional:
        return None
    if field.type == "choice":
        if not any(type(one["value"]) is type(value) and one["value"] == value for one in allowed):
            words = ", ".join(str(one["value"]) for one in allowed[:12])
            raise _refused(field, f"must be one of {words}")
        return value
    if field.type == "boolean":
        if not isinstance(value, bool):
            raise _refused(field, "must be true or false")
        return value
    if field.type == "text":
        if not isinstance(value, str) or len(value) > 1000:
            raise _refused(field, "must be a short text")
        return value
    if field.type == "integers":
        return [_in_bounds(field, part, whole=True) for part in _listed(field, value)]
    return _in_bounds(field, value, whole=field.type == "integer")


def _listed(field: Field, value: Any) -> list[Any]:
    if not is_list(value) or not 0 < len(value) <= 16:
        raise _refused(field, "must be whole numbers, such as 3 8 8")
    return value


def _in_bounds(field: Field, value: Any, whole: bool) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and whole and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not number or (whole and not isinstance(value, int)) or not math.isfinite(value):
        raise _refused(field, f"must be a {'whole ' * whole}number")
    low = -math.inf if field.min is None else field.min
    high = math.inf if field.max is None else field.max
    if not low <= value <= high:
        raise _refused(field, f"must be from {low:g} to {high:g}, got {value:g}")
    return value


def _refused(field: Field, message: str) -> Failure:
    return Failure("field", f"{field.title}: {message}", field=field.name)
