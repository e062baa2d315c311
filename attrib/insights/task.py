"""What is to be explained and how; and which baselines there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrib.insights.heads import Head, Pair
from attrib.insights.registry import Method
from attrib.insights.study import Sample, Study

__all__ = ["Extra", "Task", "baseline_choices", "filled"]


class Extra(NamedTuple):
    """What a method says of something else than an input."""

    name: str
    values: Tensor
    names: tuple[Sequence[str], Sequence[str]] | None = None  # of rows and columns, for a matrix


class Task(NamedTuple):
    """What is to be explained, and how."""

    study: Study
    model: Any
    head: Head
    sample: Sample
    pair: Pair
    method: Method
    args: Mapping[str, Any]
    baseline: Mapping[str, str]
    references: Sequence[Sample]


def baseline_choices(study: Study, name: str) -> dict[str, Any]:
    """The baselines of a feature by name, the first of which is the default."""
    given: Any = study.baselines.get(name)
    own: dict[str, Any] = {}
    if isinstance(given, Mapping):
        own = {str(key): value for key, value in given.items()}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    elif given is not None:
        own = {"given": given}
    return {**own, **study.features[name].choices()}


def filled(value: Any, leaf: Tensor) -> Tensor:
    """A baseline, a number, a tensor or a function of the input, as large as the input."""
    found: Any = value(leaf) if callable(value) else value
    return torch.as_tensor(found, device=leaf.device).to(leaf.dtype).expand_as(leaf)
