"""Calls of operations while nothing is hidden."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor

from attrib._tree import put
from attrib.games._reach.patches import Known
from attrib.games._reach.regions import Spans
from attrib.rules._operations import Operation

__all__ = ["Call", "Layout", "Value", "in_a_row"]


@dataclass(eq=False)
class Value:
    """A tensor that hiding changes.

    Attributes:
        tensor: The tensor while nothing is hidden.
        slot: Its number in the tape: a patch, or all of it if there are no spans.
        spans: What a few of the windows change of it, along each dimension of space; ``None`` if it
            is all of it.
        whole: The number of all of it, if that has one.
        shared: Whether others share its memory.
        unrolled: The value whose entries these are, one behind another in each row.
        product: The linear map of rows that made it.
    """

    tensor: Tensor
    slot: int
    spans: tuple[Spans, ...] | None = None
    whole: int | None = None
    shared: bool = False
    unrolled: Value | None = None
    product: Call | None = None

    @cached_property
    def known(self) -> Known:
        """The tensor, to cut patches from."""
        return Known(self.tensor)


class Layout(NamedTuple):
    """How arguments that stand in a row are passed.

    Attributes:
        sizes: For each argument how many parts it has if it is a list of tensors, else -1.
        kinds: For each argument its type.
        names: The names of the last of them.
    """

    sizes: tuple[int, ...]
    kinds: tuple[Any, ...]
    names: tuple[str, ...]

    def passed(self, parts: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments by position and by name."""
        found: list[Any] = []
        start = 0
        for size, kind in zip(self.sizes, self.kinds, strict=True):
            found.append(parts[start] if size < 0 else kind(parts[start : start + size]))
            start += abs(size)
        by_position = len(found) - len(self.names)
        return tuple(found[:by_position]), dict(zip(self.names, found[by_position:], strict=True))


def in_a_row(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], Layout]:
    """The arguments of a call one after another; lists of tensors are taken apart."""
    parts: list[Any] = []
    sizes: list[int] = []
    kinds: list[Any] = []
    for value in (*args, *kwargs.values()):
        kinds.append(type(value))
        if kinds[-1] in (tuple, list) and any(isinstance(part, Tensor) for part in value):
            parts += value
            sizes.append(len(value))
        else:
            parts.append(value)
            sizes.append(-1)
    return parts, Layout(tuple(sizes), tuple(kinds), tuple(kwargs))


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an operation.

    Attributes:
        operation: What is known of it.
        function: What was called.
        parts: Its arguments in a row, values in the places of tensors that hiding changes.
        layout: How they are passed.
        results: The tensors that it made.
        written: Whether it wrote to its first argument.
    """

    operation: Operation
    function: Callable[..., Any]
    parts: list[Any]
    layout: Layout
    results: list[Tensor]
    written: bool

    @cached_property
    def places(self) -> list[int]:
        """Where its parts are tensors that hiding changes."""
        return [place for place, part in enumerate(self.parts) if isinstance(part, Value)]

    @cached_property
    def values(self) -> list[Value]:
        """These tensors."""
        return [self.parts[place] for place in self.places]

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments by position and by name."""
        return self.layout.passed(self.parts)

    def bound(self, *names: str) -> dict[str, Any]:
        """All arguments by name."""
        args, kwargs = self.arguments
        return {**dict(zip(names, args, strict=False)), **kwargs}

    def again(self, places: Sequence[int], tensors: Sequence[Tensor]) -> Any:
        """Call it with other tensors in some places; none of them is written to."""
        parts = put(self.parts, places, tensors)
        if self.written:
            parts[0] = parts[0].clone()
        args, kwargs = self.layout.passed(parts)
        result = self.function(*args, **kwargs)
        return parts[0] if self.written else result
