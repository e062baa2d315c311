"""What a model predicts: classes, one logit, or a number; and the score of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from attrib._outputs import read_output
from attrib._sites import Site
from attrib.errors import AttribValueError
from attrib.insights.features import Feature
from attrib.insights.study import Sample, Study, device_of
from attrib.scores import contrast, target
from attrib.types import Score

__all__ = [
    "Head",
    "Pair",
    "Task",
    "collate",
    "embedded",
    "is_site",
    "outputs",
    "probabilities",
    "score_of",
]

Task: TypeAlias = Literal["classes", "binary", "value"]

Pair: TypeAlias = tuple[int | None, int | None]
"""The class that is explained, and the one that it is compared with, if any."""


class Head(NamedTuple):
    """What a model predicts, and how many classes or numbers."""

    task: Task
    outputs: int


def _head(result: Tensor, study: Study) -> Head:
    """What outputs ``(batch, ...)`` are.

    Raises:
        AttribValueError: If they are not one row per example, or do not fit the names.
    """
    names = study.classes
    if result.ndim == 1 or (result.ndim == 2 and result.shape[1] == 1):
        if names is not None and len(names) == 2:
            return Head("binary", 2)
        return Head("value", 1)
    if result.ndim != 2:
        raise AttribValueError(
            f"models: must return (batch, classes) or (batch,), got shape {tuple(result.shape)}; "
            "wrap the model in a function that chooses",
            code="models.outputs",
        )
    if names is not None and len(names) != result.shape[1]:
        raise AttribValueError(
            f"classes: must name {result.shape[1]} outputs, got {len(names)} names",
            code="classes.length",
        )
    return Head("classes", result.shape[1])


def outputs(model: Any, study: Study, batch: Sequence[Sample]) -> tuple[Tensor, Head]:
    """What a model returns for samples of the same shape, ``(batch, outputs)`` on the CPU."""
    x, args = collate(batch, model)
    x = tuple(
        embedded(feature, leaf, model)
        for feature, leaf in zip(study.features.values(), x, strict=True)
    )
    found: Any = read_output(model(*x, *args), study.output)
    head = _head(found, study)
    return found.detach().to("cpu", torch.float64).reshape(len(batch), -1), head


def embedded(feature: Feature, leaf: Tensor, model: Any) -> Tensor:
    """What the model is given: ids, unless the feature makes embeddings of them itself."""
    embed: Any = feature.embed
    return leaf if embed is None or is_site(embed, model) else embed(leaf)


def is_site(embed: Any, model: Any) -> bool:
    """Whether an embedding is a place inside of the model."""
    if isinstance(embed, nn.Module):
        return isinstance(model, nn.Module) and any(part is embed for part in model.modules())
    return isinstance(embed, (str, Site))


def collate(batch: Sequence[Sample], model: Any) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    """Inputs and further arguments with a batch dimension, where the model is."""
    device = device_of(model)

    def joined(*parts: Any) -> Any:
        if not isinstance(parts[0], Tensor):
            return parts[0]
        return torch.stack(parts).to(device or parts[0].device)

    x = tuple(map(joined, *(sample.leaves for sample in batch)))
    return x, tuple(map(joined, *(sample.args for sample in batch)))


def probabilities(result: Tensor, head: Head, study: Study) -> Tensor:
    """Outputs as probabilities of classes ``(batch, classes)``; numbers stay as they are."""
    if head.task == "value":
        return result
    if study.score is not None:
        found = study.score(result)
    elif head.task == "binary":
        found = result.sigmoid()
    else:
        found = result.softmax(-1)
    if head.task == "binary":
        second = found.reshape(len(result))
        return torch.stack([1 - second, second], -1)
    return found.reshape(len(result), -1)


def score_of(model: Any, study: Study, head: Head, pair: Pair) -> Score:
    """The output of a class as a score, or by how much it exceeds that of another."""
    first, second = pair
    f = _one(model, study, head, first)
    return f if second is None else contrast(f, _one(model, study, head, second))


def _one(model: Any, study: Study, head: Head, index: int | None) -> Score:
    if head.task == "classes":
        return target(model, index, output=study.output)
    if head.task == "binary" and index == 0:
        # A single logit speaks for the second class; its opposite for the first.
        return target(model, _negative, output=study.output or _whole)
    return target(model, None, output=study.output)


def _whole(result: Any) -> Tensor:
    return read_output(result, None)


def _negative(result: Tensor) -> Tensor:
    return -result.reshape(result.shape[0])
