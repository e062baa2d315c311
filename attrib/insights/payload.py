"""What the front end is told: results, predictions and samples as headers with arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attrib.insights.explain import Explained
from attrib.insights.features import largest
from attrib.insights.features.image import Image
from attrib.insights.features.measures import as_numbers, statistics
from attrib.insights.heads import Head, Pair
from attrib.insights.plain import figure
from attrib.insights.predictions import Predicted
from attrib.insights.study import Sample, Study
from attrib.insights.task import Extra, Task

__all__ = [
    "class_name",
    "gap",
    "label_of",
    "notice",
    "prediction",
    "result",
    "shares",
    "target_name",
    "view",
]


def view(study: Study, sample: Sample) -> dict[str, Any]:
    """Every input, as it is shown."""
    pairs = zip(study.features.items(), sample.leaves, strict=True)
    return {name: feature.view(leaf) for (name, feature), leaf in pairs}


def class_name(study: Study, index: int) -> str:
    """The name of a class, or its number."""
    names = study.classes
    return names[index] if names is not None and index < len(names) else str(index)


def label_of(study: Study, sample: Sample, head: Head | None) -> dict[str, Any] | None:
    """The label, as the front end takes it."""
    label = sample.label
    if label is None:
        return None
    if (head is not None and head.task == "value") or isinstance(label, float):
        return {"class": None, "name": figure(label), "value": float(label)}
    return {"class": label, "name": class_name(study, label), "value": None}


def prediction(study: Study, model: str, found: Predicted, label: Any) -> dict[str, Any]:
    """What a model says of a sample; the label is always among the classes."""
    top = [
        {
            "class": index,
            "name": class_name(study, index),
            "score": chance,
            "output": output,
            "rank": rank + 1,
        }
        for rank, (index, chance, output) in enumerate(found.top[: study.n_top])
    ]
    if found.label_score is not None and label not in [entry["class"] for entry in top]:
        chance, rank, output = found.label_score
        entry = {"class": label, "name": class_name(study, label), "score": chance}
        top.append({**entry, "output": output, "rank": rank})
    return {
        "model": model,
        "top": top,
        "value": found.value,
        "label_score": found.label_score and found.label_score[0],
        "correct": found.correct,
        "loss": found.loss,
        "error": found.error,
    }


def target_name(study: Study, pair: Pair, head: Head) -> str:
    """What is explained, in words."""
    if head.task == "value":
        return "output"
    names = [class_name(study, index) for index in pair if index is not None]
    return " − ".join(names)


def result(
    task: Task, found: Explained, rule: Any, *, model: str, sample: int, edited: bool
) -> dict[str, Any]:
    """An attribution, as the front end takes it."""
    study, features = task.study, dict[str, Any]()
    for place, (name, feature) in enumerate(study.features.items()):
        leaf, errors = found.leaves[place], found.errors[place]
        if leaf is None:
            features[name] = None
            continue
        source = task.sample.leaves[place]
        shown = feature.show(leaf, source, found.grouped)
        total = found.totals[place]
        features[name] = {
            **shown,
            "total": shown["total"] if total is None else total,
            "signed": task.method.signed,
            "grouped": found.grouped,
            "errors": None if errors is None else _errors(feature, errors, source, found.grouped),
        }
        segments = found.segments[place]
        if isinstance(feature, Image) and segments is not None and segments.ndim >= 2:
            features[name]["segments"] = _segments(segments)
    first, second = task.pair
    return {
        "type": "result",
        "sample": sample,
        "model": model,
        "method": task.method.name,
        "args": dict(task.args),
        "baseline": dict(task.baseline),
        "target": {
            "rule": rule,
            "a": first,
            "b": second,
            "name": target_name(study, task.pair, task.head),
        },
        "score": found.score,
        "base": found.base,
        "sum": _whole(found),
        "gap": gap(task, found),
        "shares": shares(list(study.features), found),
        "features": features,
        "extra": [_extra(extra, task) for extra in found.extra],
        "notices": _notices(features, found),
        "unit": unit(task),
        "passes": None if math.isnan(found.passes) else round(found.passes),
        "edited": edited,
    }


def gap(task: Task, found: Explained) -> float | None:
    """By how much a complete method misses the difference of the scores."""
    whole = _whole(found)
    if not task.method.complete or found.base is None or whole is None:
        return None
    return whole - (found.score - found.base)


def _whole(found: Explained) -> float | None:
    totals = [total for total in found.totals if total is not None]
    return sum(totals) if totals else None


def unit(task: Task) -> str | None:
    """What the values of a method are measured in, if it is what the model's outputs are."""
    method = task.method
    if not (method.complete or method.grouped or method.gives in ("pairs", "hessian")):
        return None
    return "output" if task.head.task == "value" else "logit"


def shares(names: Sequence[str], found: Explained) -> list[dict[str, Any]]:
    """What each input adds, and its part of all that is added and taken."""
    known = [(name, net) for name, net in zip(names, found.totals, strict=True) if net is not None]
    absolute = sum(abs(net) for _, net in known)
    sizes = {
        name: statistics(as_numbers(leaf))["absolute"]
        for name, leaf in zip(names, found.leaves, strict=True)
        if leaf is not None
    }
    return [
        {
            "feature": name,
            "net": net,
            "absolute": sizes[name],
            "share": net / absolute if absolute and math.isfinite(absolute) else None,
        }
        for name, net in known
    ]


def _errors(feature: Any, errors: Any, source: Any, grouped: bool) -> Any:
    # Of sums over channels no error is known; of groups it is that of the group.
    return feature.show(errors, source, grouped).get("values") if grouped else None


def _segments(ids: Any) -> Any:
    flat = ids if ids.ndim == 2 else ids[0]
    _, numbers = flat.unique(return_inverse=True)
    height, width = flat.shape
    step = max(1, -(-max(height, width) // 512))
    return numbers[::step, ::step].numpy().astype(np.int32)


def _extra(extra: Extra, task: Task) -> dict[str, Any]:
    values = extra.values
    common = {"name": extra.name, "signed": task.method.signed}
    if extra.names is not None:
        rows, columns = extra.names
        numbers = as_numbers(values)
        matrix = {"rows": list(rows), "columns": list(columns), "values": numbers.astype("f4")}
        return {"kind": "matrix", **common, **statistics(numbers), **matrix}
    if values.ndim == 3 and min(values.shape[1:]) > 1:
        return {**Image().show(values, values, grouped=False), **common}
    return {**largest(values), **common}


def _notices(features: Mapping[str, Any], found: Explained) -> list[dict[str, Any]]:
    notices: list[dict[str, Any]] = []
    for name, shown in features.items():
        if shown is None:
            continue
        if shown["nan"]:
            notices.append(notice("nan", f"not numbers (NaN): {shown['nan']}", name))
        if shown["inf"]:
            notices.append(notice("inf", f"infinite values: {shown['inf']}", name))
        if shown["max"] == 0 and not (shown["nan"] or shown["inf"]):
            notices.append(notice("zero", "all attributions are 0", name))
    if not math.isfinite(found.score):
        notices.append(notice("nan", "the score itself is not finite", None))
    return notices


def notice(kind: str, message: str, feature: str | None) -> dict[str, Any]:
    """Something to say about a result, or about what it says of an input."""
    return {"kind": kind, "message": message, "feature": feature}
