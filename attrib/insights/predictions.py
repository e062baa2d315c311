"""What models predict for the samples: computed once, in batches, then filtered and sorted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from attrib._progress import report
from attrib.insights.heads import Head, outputs, probabilities
from attrib.insights.plain import listed, spoken
from attrib.insights.protocol import Failure
from attrib.insights.study import Sample, Study, sample_of

__all__ = ["Predicted", "Predictions", "choose"]

BATCH = 32
KEPT = 5  # classes are kept for every sample, at least


class Predicted(NamedTuple):
    """What a model says of a sample.

    Attributes:
        top: The most probable classes: which, how probable, and the output.
        value: The number, where a model predicts one.
        label_score: The probability of the label, with its rank and output.
        correct: Whether the most probable class is the label.
        loss: Minus the log-probability of the label; the squared error of a number.
        label: The class that it should be.
        error: Why there is no prediction.
    """

    top: Sequence[tuple[int, float, float]] = ()
    value: float | None = None
    label_score: tuple[float, int, float] | None = None
    correct: bool | None = None
    loss: float | None = None
    label: int | None = None
    error: str | None = None

    @property
    def best(self) -> int | None:
        """The most probable class."""
        return self.top[0][0] if self.top else None


class Predictions:
    """The predictions of all models of a study. Two threads may find out the same at once.

    Args:
        study: The study.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._found: dict[tuple[str, int], Predicted] = {}
        self._heads: dict[str, Head] = {}

    def head(self, model: str) -> Head:
        """What a model predicts.

        Raises:
            Exception: Whatever the model raises for the first sample.
        """
        if model not in self._heads:
            first = [sample_of(self._study, 0)]
            _, self._heads[model] = outputs(self._study.models[model], self._study, first)
        return self._heads[model]

    def known(self, model: str, sample: int) -> Predicted | None:
        """A prediction, if it was made already."""
        return self._found.get((model, sample))

    def known_head(self, model: str) -> Head | None:
        """What a model predicts, if it was asked already."""
        return self._heads.get(model)

    def of(self, samples: Sequence[int]) -> None:
        """Predict some samples with every model, and report the progress."""
        wanted = [
            (model, index)
            for model in self._study.models
            for index in samples
            if (model, index) not in self._found
        ]
        if not wanted:
            return
        report(0, len(wanted))
        done = 0
        for model, indices in _batches(wanted):
            self._predict(model, indices)
            done += len(indices)
            report(done, len(wanted))

    def row(self, sample: int) -> list[Predicted]:
        """The predictions of every model, made if need be."""
        self.of([sample])
        return [self._found[model, sample] for model in self._study.models]

    def of_sample(self, sample: Sample) -> list[Predicted]:
        """What every model says of a sample that is not among the data, or no longer."""
        found: list[Predicted] = []
        for model in self._study.models:
            try:
                found.append(self._of_batch(model, [sample])[0])
            except Exception as error:
                found.append(Predicted(error=spoken(error)))
        return found

    def _predict(self, model: str, indices: Sequence[int]) -> None:
        """All at once if they have the same shape, else one by one."""
        samples: list[Sample | None] = []
        for index in indices:
            try:
                samples.append(sample_of(self._study, index))
            except Exception as error:
                samples.append(None)
                self._found[model, index] = Predicted(error=spoken(error))
        known = [
            (index, sample)
            for index, sample in zip(indices, samples, strict=True)
            if sample is not None
        ]
        if len({_shapes(sample) for _, sample in known}) == 1:
            try:
                self._keep(model, known)
                return
            except Exception:
                # One sample may be to blame: the others are predicted without it.
                pass
        for pair in known:
            try:
                self._keep(model, [pair])
            except Exception as error:
                self._found[model, pair[0]] = Predicted(error=spoken(error))

    def _keep(self, model: str, known: Sequence[tuple[int, Sample]]) -> None:
        found = self._of_batch(model, [sample for _, sample in known])
        for (index, _), one in zip(known, found, strict=True):
            self._found[model, index] = one

    def _of_batch(self, model: str, samples: Sequence[Sample]) -> list[Predicted]:
        result, head = outputs(self._study.models[model], self._study, samples)
        self._heads.setdefault(model, head)
        chances = probabilities(result, head, self._study)
        kept = max(self._study.n_top, KEPT)
        return [
            _predicted(result[row], chances[row], head, sample.label, kept)
            for row, sample in enumerate(samples)
        ]


def choose(
    study: Study, predictions: Predictions, query: Mapping[str, Any], mass: Mapping[Any, float]
) -> tuple[list[int], dict[str, int]]:
    """The samples that a query asks for, in its order, and how many of each kind there are."""
    names = list(study.models)
    model = query["model"] or names[0]
    every = range(len(study.data)) if query["samples"] is None else query["samples"]
    every = [index for index in every if index < len(study.data)]
    needed = _needs_predictions(query)
    if needed:
        predictions.of(every)
    chosen = [index for index in every if not needed or _passes(study, predictions, query, index)]
    if query["sort"] != "index":
        word = query["sort"].removeprefix("-")

        def key(index: int) -> tuple[bool, float]:
            found = predictions.known(model, index)
            number = mass.get((model, index)) if word == "mass" else _number(found, word)
            if number is None or math.isnan(number):
                return (True, 0.0)  # what is not known comes last, in either order
            return (False, -number if query["sort"].startswith("-") else number)

        chosen.sort(key=key)
    return chosen, _counts(study, predictions, chosen, model)


def _needs_predictions(query: Mapping[str, Any]) -> bool:
    plain = (
        not query["classes"]
        and not query["label"]
        and query["prediction"] == "all"
        and query["min_conf"] <= 0
        and query["max_conf"] >= 1
        and not query["text"]
        and query["sort"] in ("index", "mass", "-mass")
    )
    return not plain


def _passes(study: Study, predictions: Predictions, query: Mapping[str, Any], index: int) -> bool:
    model = query["model"] or next(iter(study.models))
    row = predictions.row(index)
    found = predictions.known(model, index) or Predicted()
    if query["classes"] and found.best not in query["classes"]:
        return False
    kind = query["prediction"]
    if kind in ("correct", "incorrect") and found.correct is not (kind == "correct"):
        return False
    if kind == "disagree" and len({one.best for one in row}) < 2:
        return False
    if (query["min_conf"] > 0 or query["max_conf"] < 1) and not (
        found.top and query["min_conf"] <= found.top[0][1] <= query["max_conf"]
    ):
        return False
    if not (query["label"] or query["text"]):
        return True
    try:
        sample = sample_of(study, index)
    except Exception:
        return False
    if query["label"] and sample.label not in query["label"]:
        return False
    return not query["text"] or _typed(query["text"]) in _searched(study, sample, index)


def _searched(study: Study, sample: Sample, index: int) -> str:
    words = [study.names[index]] if study.names is not None else []
    for leaf, feature in zip(sample.leaves, study.features.values(), strict=True):
        words += feature.texts(leaf)
    return _typed("\n".join(words))


def _typed(text: str) -> str:
    """A text as one would type it: without capitals, with the minus sign of keyboards."""
    return text.casefold().replace("−", "-")


def _counts(
    study: Study, predictions: Predictions, chosen: Sequence[int], model: str
) -> dict[str, int]:
    counts = {"correct": 0, "incorrect": 0, "disagree": 0, "unlabelled": 0}
    for index in chosen:
        row = [predictions.known(name, index) for name in study.models]
        found = predictions.known(model, index)
        if found is None:
            continue
        if found.correct is not None:
            counts["correct" if found.correct else "incorrect"] += 1
        elif found.loss is None:
            counts["unlabelled"] += 1
        counts["disagree"] += len({one.best for one in row if one is not None}) > 1
    return counts


def _number(found: Predicted | None, word: str) -> float | None:
    if found is None:
        return None
    if word == "loss":
        return found.loss
    return found.top[0][1] if found.top else found.value


def _batches(wanted: Sequence[tuple[str, int]]) -> Iterator[tuple[str, list[int]]]:
    at = 0
    while at < len(wanted):
        model = wanted[at][0]
        part = [index for name, index in wanted[at : at + BATCH] if name == model]
        yield model, part
        at += len(part)


def _shapes(sample: Sample) -> tuple[Any, ...]:
    def shape(value: Any) -> Any:
        return value.shape if isinstance(value, torch.Tensor) else id(value)

    return tuple(map(shape, (*sample.leaves, *sample.args)))


def _predicted(
    result: torch.Tensor, chances: torch.Tensor, head: Head, label: Any, kept: int
) -> Predicted:
    if head.task == "value":
        value = float(result[0])
        loss = None if label is None else (value - label) ** 2
        return Predicted(value=value, loss=loss)
    logits = torch.stack([-result[0], result[0]]) if head.task == "binary" else result
    order: list[int] = listed(chances.argsort(descending=True, stable=True))
    top = [(index, float(chances[index]), float(logits[index])) for index in order[:kept]]
    if label is None:
        return Predicted(top)
    known = isinstance(label, int) and 0 <= label < len(chances)
    if not known:
        raise Failure("value", f"the label {label!r} is none of {len(chances)} classes")
    chance = float(chances[label])
    score = (chance, order.index(label) + 1, float(logits[label]))
    loss = -math.log(chance) if chance > 0 else math.inf
    return Predicted(top, None, score, order[0] == label, loss, label)
