"""From a message to a result: what the jobs of a session share. Used by its workers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from attrib.insights import payload
from attrib.insights.cache import Cache
from attrib.insights.catalogue import Catalogue
from attrib.insights.explain import Explained, difference, explain
from attrib.insights.field import Field
from attrib.insights.forms import arguments
from attrib.insights.heads import Head, Pair
from attrib.insights.plain import is_object, spoken
from attrib.insights.predictions import Predicted, Predictions
from attrib.insights.protocol import Failure
from attrib.insights.registry import Method
from attrib.insights.sites import sites_of
from attrib.insights.study import Sample, Study, sample_of
from attrib.insights.task import Task, baseline_choices, filled, follows

__all__ = ["Limits", "Outcome", "Workbench"]


@dataclass(frozen=True)
class Limits:
    """How much work anybody may ask for.

    Args:
        passes: Evaluations of a model for one attribution.
        seconds: For one computation.
        memory_bytes: By how much the memory of the process may grow during one, looked at between
            two chunks (on Linux; mapped files and devices aside).
        workers: Computations at once, in threads. A page has one at a time, and a brief one beside
            it: with two, a long computation of one page does not hold up another.
        waiting: Computations of one page that may wait for their turn.
        cache_bytes: For results that are kept.
        auto_passes: What a method may cost to be run without being asked for.
    """

    passes: float = 200_000
    seconds: float = 600
    memory_bytes: float = 4 * 2**30
    workers: int = 2
    waiting: int = 8
    cache_bytes: int = 256 * 2**20
    auto_passes: float = 5000


class Outcome(NamedTuple):
    """A result, with the task that it is one of."""

    task: Task
    found: Explained
    cached: bool
    request: Mapping[str, Any]


class Workbench:
    """A study with its predictions and results.

    Args:
        study: The study.
        limits: How much work may be asked for.
    """

    def __init__(self, study: Study, limits: Limits) -> None:
        self.study, self.limits = study, limits
        self.catalogue = Catalogue(study)
        self.predictions = Predictions(study)
        self.cache: Cache[Explained] = Cache(limits.cache_bytes)
        self.mass: dict[tuple[str, int], float] = {}
        """The sum of absolute values of the last result, by model and sample."""

    def model(self, name: str | None) -> str:
        """The name of a model, of the first one if none is given."""
        if name is None:
            return next(iter(self.study.models))
        if name not in self.study.models:
            raise Failure("field", f"{name[:60]}: there is no such model", field="model")
        return name

    def outcome(self, request: Mapping[str, Any]) -> Outcome:
        """The attribution that a message asks for, computed unless it is known.

        Raises:
            Failure: If the request makes no sense, or is too much.
            Exception: Whatever the model or the method raises.
        """
        model, method, form = self._which(request)
        args = self._arguments(form, request, model)
        baseline = self.catalogue.baseline(request["baseline"])
        head = self.predictions.head(model)
        index, edits = request["sample"], request["edits"]
        sample = self.edited(self.sample(index), edits)
        pair = self._pair(request["target"], model, None if edits else index, head, sample)
        key = self._key(request, model, args, baseline, pair)
        task = Task(
            study=self.study,
            model=self.study.models[model],
            head=head,
            sample=sample,
            pair=pair,
            method=method,
            args=args,
            baseline=baseline,
            references=self._references(method, args, index),
        )
        known = self.cache.get(key)
        found = known or explain(task, self.limits.passes)
        if known is None:
            self.cache.put(key, found)
        return Outcome(task, found, known is not None, request)

    def changed(self, outcome: Outcome) -> Outcome:
        """What edits did to an attribution, that of the same class."""
        first, second = outcome.task.pair
        rule = (
            "pred" if first is None else first if second is None else {"contrast": [first, second]}
        )
        before = self.outcome({**outcome.request, "target": rule, "edits": {}})
        return outcome._replace(found=difference(outcome.found, before.found))

    def cached(self, request: Mapping[str, Any]) -> bool:
        """Whether a result can be told without any computation."""
        if request["edits"]:
            return False
        model, _, form = self._which(request)
        args = self._arguments(form, request, model)
        baseline = self.catalogue.baseline(request["baseline"])
        head = self.predictions.known_head(model)
        asked = [self.predictions.known(name, request["sample"]) for name in self.study.models]
        if head is None or None in asked:
            return False  # only the worker predicts
        sample = self.sample(request["sample"])
        pair = self._pair(request["target"], model, request["sample"], head, sample)
        return self.cache.get(self._key(request, model, args, baseline, pair)) is not None

    def sample(self, index: int) -> Sample:
        """One example.

        Raises:
            Failure: If there is none.
        """
        if index >= len(self.study.data):
            raise Failure("absent", f"there is no sample {index}", field="sample")
        return sample_of(self.study, index)

    def edited(self, sample: Sample, edits: Mapping[str, Any]) -> Sample:
        """A sample after what a person did to it.

        Raises:
            Failure: If an edit makes no sense.
        """
        leaves, args = list(sample.leaves), sample.args
        for name, edit in edits.items():
            if name not in self.study.features:
                raise Failure("field", f"{name[:60]}: there is no such input", field="edits")
            place = list(self.study.features).index(name)
            choices = baseline_choices(self.study, name)
            fill = edit.get("fill", next(iter(choices)))
            if fill not in choices:
                raise Failure("field", f"fill: must be one of {', '.join(choices)}", field="fill")
            leaf = leaves[place]
            given = filled(choices[fill], leaf)
            leaves[place], origin = self.study.features[name].edited(leaf, edit, given)
            if origin is not None:
                args = tuple(_follow(value, leaf.shape[0], origin) for value in args)
        return sample._replace(leaves=tuple(leaves), args=args)

    def row(self, index: int) -> list[Predicted]:
        """What every model says of a sample."""
        return self.predictions.row(index)

    def shown(self, index: int, model: str | None = None) -> dict[str, Any]:
        """A sample with what the models predict for it, as the front end takes it."""
        study, model = self.study, self.model(model)
        found = self.row(index)
        row = {
            "sample": index,
            "name": str(index) if study.names is None else str(study.names[index]),
            "mass": self.mass.get((model, index)),
            "error": None,
        }
        try:
            sample = self.sample(index)
            inputs = payload.view(study, sample)
        except Exception as error:  # one that cannot be read: the others are shown
            sample, inputs, row = Sample((), (), None), {}, {**row, "error": spoken(error)}
        predictions = [
            payload.prediction(study, name, one, sample.label)
            for name, one in zip(study.models, found, strict=True)
        ]
        label = payload.label_of(study, sample, self.predictions.known_head(model))
        return {**row, "label": label, "predictions": predictions, "features": inputs}

    def _which(self, request: Mapping[str, Any]) -> tuple[str, Method, list[Field]]:
        model = self.model(request["model"])
        method, form = self.catalogue.method(request["method"], model)
        return model, method, form

    def _arguments(
        self, form: list[Field], request: Mapping[str, Any], model: str
    ) -> dict[str, Any]:
        return arguments(form, request["args"], model, sites_of(self.study.models[model]))

    def _key(self, request: Mapping[str, Any], *parts: Any) -> str:
        return json.dumps([request["sample"], request["method"], request["edits"], *parts])

    def _references(self, method: Method, args: Mapping[str, Any], index: int) -> dict[int, Sample]:
        if method.call != "several" and "references" not in args:
            return {}
        wanted = int(args.get("references", 16))
        others = range(min(len(self.study.data), 4 * wanted + 1))
        return {other: sample_of(self.study, other) for other in others if other != index}

    def _pair(self, rule: Any, model: str, index: int | None, head: Head, sample: Sample) -> Pair:
        """Which class is meant, and which it is compared with; without an index, of a sample that
        is not among the data.

        Raises:
            Failure: If there is no such class.
        """
        if head.task == "value":
            if is_object(rule) or (isinstance(rule, int) and rule != 0):
                raise Failure("field", "target: the model has one output", field="target")
            return None, None
        if is_object(rule):
            first, second = (
                self._class(part, model, index, head, sample) for part in rule["contrast"]
            )
            if first == second:
                raise Failure("field", "target: a class compared with itself", field="target")
            return first, second
        return self._class(rule, model, index, head, sample), None

    def _class(self, rule: Any, model: str, index: int | None, head: Head, sample: Sample) -> int:
        if rule == "label":
            if not isinstance(sample.label, int):
                raise Failure("field", "target: the sample has no label", field="target")
            return sample.label
        if isinstance(rule, int):
            if rule >= head.outputs:
                raise Failure("field", f"target: there is no class {rule}", field="target")
            return rule
        known = self.predictions
        row = known.of_sample(sample) if index is None else known.row(index)
        found = row[list(self.study.models).index(model)]
        place = 1 if rule == "second" else 0
        if len(found.top) <= place:
            raise Failure("model", found.error or "the model predicts no such class")
        return found.top[place][0]


def _follow(value: Any, length: int, origin: list[int]) -> Any:
    """A further argument with an entry per token, after tokens came or went."""
    if follows(value, length):
        return value[..., torch.tensor(origin, device=value.device)]
    return value
