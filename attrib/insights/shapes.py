"""The messages of a client, key by key: what each value may be, and its default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrib.insights.plain import is_list, is_object

__all__ = ["COMMON", "SHAPES"]

NAME = 200  # characters of a name, such as that of a method
ITEMS = 1000  # entries of a list

Check = Callable[[Any], bool]


def _text(limit: int) -> Check:
    return lambda value: isinstance(value, str) and len(value) <= limit


def _integer(least: int, most: int = 2**53) -> Check:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and least <= v <= most


def _number(least: float, most: float) -> Check:
    return lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and least <= v <= most


def _one_of(*words: str) -> Check:
    return lambda value: isinstance(value, str) and value in words


def _maybe(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list(check: Check, limit: int = ITEMS) -> Check:
    return lambda value: is_list(value) and len(value) <= limit and all(map(check, value))


def _mapping(check: Check) -> Check:
    return lambda value: is_object(value) and all(map(check, value.values()))


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _anything(value: Any) -> bool:
    return True


def _target(value: Any) -> bool:
    if is_object(value):
        pair: Any = value.get("contrast")
        if set(value) != {"contrast"} or not is_list(pair) or len(pair) != 2:
            return False
        return all(part == "second" or _single_target(part) for part in pair)
    return _single_target(value)


def _single_target(value: Any) -> bool:
    return _one_of("pred", "label")(value) or _integer(0)(value)


def _targets(value: Any) -> bool:
    words = ("pred", "label", *(f"top{count}" for count in range(1, 6)))
    return _one_of(*words)(value) or (
        is_list(value) and 0 < len(value) <= 10 and all(map(_integer(0), value))
    )


def _region(value: Any) -> bool:
    bounds = _list(_integer(0), 2)
    return _list(lambda pair: bounds(pair) and len(pair) == 2 and pair[0] <= pair[1], 16)(value)


def _table(value: Any) -> bool:
    shape: dict[str, Check] = {
        "sort": _one_of("value", "-value", "-abs", "index"),
        "offset": _integer(0),
        "limit": _integer(1, 500),
    }
    return is_object(value) and all(
        key in shape and shape[key](entry) for key, entry in value.items()
    )


def _edits(value: Any) -> bool:
    known = {"erase", "paint", "fill", "replace", "drop", "values"}
    return _mapping(lambda edit: is_object(edit) and set(edit) <= known)(value)


def _method(value: Any) -> bool:
    shape: dict[str, Check] = {"method": _text(NAME), **_OPTIONS}
    return (
        is_object(value)
        and "method" in value
        and all(key in shape and shape[key](entry) for key, entry in value.items())
    )


_OPTIONS: dict[str, Check] = {"args": _mapping(_anything), "baseline": _mapping(_text(NAME))}
_QUEUED: dict[str, tuple[Any, ...]] = {
    "slot": (_maybe(_text(NAME)), None),
    "priority": (_one_of("click", "visible", "idle"), "visible"),
}
_WHICH: dict[str, tuple[Any, ...]] = {
    "sample": (_integer(0),),
    "model": (_maybe(_text(NAME)), None),
    "target": (_target, "pred"),
    "method": (_text(NAME),),
    "args": (_OPTIONS["args"], {}),
    "baseline": (_OPTIONS["baseline"], {}),
    "edits": (_edits, {}),
}

COMMON: dict[str, tuple[Any, ...]] = {
    "id": (_text(64),),
    "client": (_text(64), ""),
}
"""What every message has: a check, and a default unless it must be given."""

SHAPES: dict[str, dict[str, tuple[Any, ...]]] = {
    "init": {},
    "query": {
        "model": (_maybe(_text(NAME)), None),
        "classes": (_list(_integer(0)), []),
        "label": (_list(_integer(0)), []),
        "prediction": (_one_of("all", "correct", "incorrect", "disagree"), "all"),
        "min_conf": (_number(0, 1), 0),
        "max_conf": (_number(0, 1), 1),
        "text": (_text(NAME), ""),
        "sort": (
            _one_of("index", "confidence", "-confidence", "loss", "-loss", "mass", "-mass"),
            "index",
        ),
        "offset": (_integer(0), 0),
        "limit": (_integer(1, 48), 6),
        "samples": (_maybe(_list(_integer(0), 48)), None),
    },
    "attribute": {**_WHICH, "change": (_flag, False), **_QUEUED},
    "predict": {"sample": _WHICH["sample"], "edits": _WHICH["edits"]},
    "overview": {
        **{key: _WHICH[key] for key in ("model", "args", "baseline", "target")},
        "method": (_maybe(_text(NAME)), None),
        "limit": (_integer(1, 100_000), 64),
        **_QUEUED,
    },
    "values": {
        **_WHICH,
        "feature": (_text(NAME),),
        "region": (_maybe(_region), None),
        "table": (_maybe(_table), None),
    },
    "cost": {key: _WHICH[key] for key in ("model", "method", "args")},
    "convergence": {**_WHICH, **_QUEUED},
    "curves": {**_WHICH, "steps": (_integer(1, 100), 20), **_QUEUED},
    "cancel": {"job": (_maybe(_text(64)), None)},
    "export": {
        "format": (_one_of("html", "json", "npz"),),
        "samples": (_list(_integer(0), 48),),
        "model": _WHICH["model"],
        "methods": (_list(_method, 20),),
        "targets": (_targets, "pred"),
        "estimate": (_flag, False),
        **_QUEUED,
    },
}
"""The messages of a client, key by key."""
