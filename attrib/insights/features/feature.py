"""What a kind of feature has to know, and what several kinds share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from attrib.games import patches
from attrib.insights.plain import is_list, is_number, is_object
from attrib.insights.protocol import Failure

__all__ = ["Feature", "Grouping", "each", "entries_of", "parts", "tiled", "whole"]


@dataclass(frozen=True)
class Grouping:
    """Which entries count as one.

    Attributes:
        ids: From a leaf without batch dimension to ids that broadcast to it.
        code: The same in Python, from a leaf and what it is called.
    """

    ids: Callable[[Tensor], Tensor]
    code: Callable[[Tensor, str], str]

    def __call__(self, x: Tensor) -> Tensor:
        return self.ids(x)


class Feature(Protocol):
    """One input of a model: how it is shown, hidden and edited. Leaves have no batch dimension.

    Attributes:
        kind: The word by which the front end knows how to draw it.
        embed: What makes numbers of token ids, if anything does.
        baselines: Named baselines, the first of which is the default.
    """

    @property
    def kind(self) -> str: ...

    @property
    def embed(self) -> Any: ...

    @property
    def baselines(self) -> Mapping[str, Any]: ...

    def config(self) -> dict[str, Any]:
        """What the front end has to know, whatever the sample."""
        ...

    def check(self, x: Tensor, name: str) -> None:
        """Refuse what cannot be shown."""
        ...

    def view(self, x: Tensor) -> dict[str, Any]:
        """The input."""
        ...

    def show(self, attribution: Tensor, x: Tensor, grouped: bool) -> dict[str, Any]:
        """An attribution; `grouped` if all entries of a group hold the number of the group."""
        ...

    def displayed(self, attribution: Tensor, grouped: bool) -> Tensor:
        """The numbers that are shown: without channels, or without the numbers of an embedding."""
        ...

    def texts(self, x: Tensor) -> list[str]:
        """Words to search in."""
        ...

    def names(self, x: Tensor) -> list[Sequence[str]] | None:
        """What the entries along each dimension of `displayed` are called, if they have names."""
        ...

    def groupings(self) -> dict[str, Grouping]:
        """What may count as one feature, by name, the default first."""
        ...

    def choices(self) -> dict[str, Any]:
        """Baselines that always exist, by name: numbers, or functions of a leaf."""
        ...

    def window(self, x: Tensor) -> list[int]:
        """A box to hide, in the last dimensions."""
        ...

    def edited(
        self, x: Tensor, edit: Mapping[str, Any], fill: Tensor
    ) -> tuple[Tensor, list[int] | None]:
        """The input after an edit; and where its positions were before, if some came or went."""
        ...


each = Grouping(
    lambda x: torch.arange(x.numel()).reshape(x.shape),
    lambda x, name: f"torch.arange({x.numel()}).reshape({tuple(x.shape)})",
)
"""Every entry is a feature."""

whole = Grouping(
    lambda x: torch.zeros((1,) * x.ndim, dtype=torch.long),
    lambda x, name: f"torch.zeros({(1,) * x.ndim}, dtype=torch.long)",
)
"""All entries are one feature."""


def parts(*counts: int) -> dict[str, Grouping]:
    """About so many parts, each of entries that follow one another, by name."""

    def cut(count: int) -> Grouping:
        def length(x: Tensor) -> int:
            return max(1, -(-x.numel() // count))

        return Grouping(
            lambda x: each(x) // length(x), lambda x, name: f"({each.code(x, name)} // {length(x)})"
        )

    return {f"parts-{count}": cut(count) for count in counts}


def tiled(count: int, dims: int) -> Grouping:
    """Boxes that tile the last dimensions, about so many in each."""

    def box(x: Tensor) -> list[int]:
        return [-(-length // count) for length in x.shape[x.ndim - dims :]]

    return Grouping(
        lambda x: patches(x, box(x)), lambda x, name: f"attrib.games.patches({name}, {box(x)})"
    )


def entries_of(
    edit: Mapping[str, Any], key: str, numbers: Sequence[str], optional: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """A list of objects in an edit, each with these numbers, of which some may be absent."""
    entries: Any = edit.get(key, [])
    found: list[Any] = entries if is_list(entries) else [None]
    for entry in found:
        given = entry if is_object(entry) else {}
        bad = [
            name
            for name in numbers
            if not is_number(given.get(name)) and not (name in optional and given.get(name) is None)
        ]
        if bad or not is_object(entry) or set(given) - set(numbers):
            raise Failure(
                "field", f"{key}: takes a list of objects with {', '.join(numbers)}", field=key
            )
    return found
