"""What is to be explained and how; and which baselines there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrib.insights.heads import Head, Pair, is_site
from attrib.insights.registry import Method
from attrib.insights.study import Sample, Study

__all__ = ["Extra", "Task", "alike", "baseline_choices", "entered_places", "filled", "follows"]


class Extra(NamedTuple):
    """What a method says of something else than an input."""

    name: str
    values: Tensor
    names: tuple[Sequence[str], Sequence[str]] | None = None  # of rows and columns, for a matrix


class Task(NamedTuple):
    """What is to be explained, and how; `references` are other samples, by their number."""

    study: Study
    model: Any
    head: Head
    sample: Sample
    pair: Pair
    method: Method
    args: Mapping[str, Any]
    baseline: Mapping[str, str]
    references: Mapping[int, Sample]


def alike(task: Task) -> dict[int, Sample]:
    """The other samples of the same shapes, with the further arguments of the one explained."""
    shapes = [leaf.shape for leaf in task.sample.leaves]
    return {
        index: other._replace(args=task.sample.args)
        for index, other in task.references.items()
        if [leaf.shape for leaf in other.leaves] == shapes
    }


def entered_places(task: Task) -> list[int]:
    """Which inputs the method cannot differentiate by, so that it is applied behind them."""
    if not task.method.gradients or task.method.gives in ("map", "rollout"):
        return []
    return [
        place
        for place, (kind, leaf) in enumerate(
            zip(task.study.features.values(), task.sample.leaves, strict=True)
        )
        if kind.embed is not None
        and is_site(kind.embed, task.model)
        and not leaf.is_floating_point()
    ]


def follows(value: Any, length: int) -> bool:
    """Whether a further argument has an entry for each of so many tokens, such as a mask."""
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape[-1] == length


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
