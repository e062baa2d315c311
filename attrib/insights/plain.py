"""What a value of JSON is, and tensors as plain numbers, in words that a type checker knows."""

from __future__ import annotations

import math
import re
from typing import Any, TypeGuard, cast

from torch import Tensor

__all__ = [
    "distinct",
    "figure",
    "is_list",
    "is_number",
    "is_object",
    "listed",
    "pathless",
    "spoken",
]

_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[/\\][\w.@~+-]+){2,}[/\\]?")


def pathless(text: str) -> str:
    """A text for a page, which has no business with paths of this machine."""
    return _PATH.sub("…", text)


def spoken(error: BaseException) -> str:
    """An exception in a few words for a page."""
    return pathless(f"{type(error).__name__}: {error}")[:300]


def figure(value: float) -> str:
    """A number to read, with a real minus sign."""
    return f"{value:.5g}".replace("-", "−")


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """An object of JSON."""
    return isinstance(value, dict)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """A list of JSON."""
    return isinstance(value, list)


def is_number(value: Any) -> bool:
    """A finite number of JSON."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def listed(tensor: Tensor) -> list[Any]:
    """The entries of a tensor, in lists."""
    return cast("list[Any]", tensor.tolist())  # pyright: ignore[reportUnknownMemberType]


def distinct(ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Different ids in order, the place of each entry among them, and how often they occur."""
    unique = cast("Any", ids.unique)  # pyright: ignore[reportUnknownMemberType]
    return unique(return_inverse=True, return_counts=True)
