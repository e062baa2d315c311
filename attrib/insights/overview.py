"""All samples at once: confusion, accuracy, confidence, and mean attributions."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from attrib._progress import monitored, report
from attrib.insights.explain import Explained
from attrib.insights.features.measures import as_numbers, shrunk
from attrib.insights.payload import class_name
from attrib.insights.predictions import Predicted
from attrib.insights.protocol import Failure, quantised
from attrib.insights.task import Task
from attrib.insights.workbench import Workbench

__all__ = ["overview"]

SHOWN = 40  # classes of a confusion matrix
TOKENS = 50
STEP = 64  # samples predicted at once
TOLD = 0.3  # seconds, at least, from one partial overview to the next


def overview(
    bench: Workbench, request: Mapping[str, Any], tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """What is true of the samples in general; parts of it are told on the way."""
    model = bench.model(request["model"])
    total = len(bench.study.data)
    head = bench.predictions.head(model)
    told: dict[str, Any] = {"model": model, "total": total, "task": head.task, "notices": []}
    attributed: dict[str, Any] = {"attributed": 0, "shares": [], "features": {}}
    wanted = min(total, request["limit"]) if request["method"] is not None else 0
    steps, last = total + wanted, 0.0
    for first in range(0, total, STEP):
        part = range(first, min(first + STEP, total))
        report(first, steps)
        with monitored(first, steps):
            bench.predictions.of(part)
        if time.monotonic() - last > TOLD or part.stop == total:
            last = time.monotonic()
            told = {**told, **_predictions(bench, model, part.stop)}
            tell({**told, **attributed, "type": "partial", "done": False})
    results: list[tuple[Task, Explained]] = []
    failures: Counter[str] = Counter()
    for index in range(wanted):
        report(total + index, steps)
        asked: dict[str, Any] = {**request, "model": model, "sample": index, "edits": {}}
        try:
            with monitored(total + index, steps):
                outcome = bench.outcome(asked)
        except Failure as failure:
            if failure.kind in ("field", "limit"):
                raise
            failures[str(failure)[:200]] += 1
            continue
        results.append((outcome.task, outcome.found))
        if index % 16 == 15:
            attributed = _attributions(results)
            tell({**told, **attributed, "type": "partial", "done": False})
    notices = [
        {
            "kind": "info",
            "message": f"{count} sample{'s' * (count > 1)}: {message}",
            "feature": None,
        }
        for message, count in failures.items()
    ]
    done = {**told, **_attributions(results), "notices": notices}
    return {**done, "type": "overview", "done": True}


def _predictions(bench: Workbench, model: str, tried: int) -> dict[str, Any]:
    found = [bench.predictions.known(model, index) for index in range(tried)]
    known = [one for one in found if one is not None and one.error is None]
    judged = [one for one in known if one.correct is not None]
    correct = sum(bool(one.correct) for one in judged)
    return {
        "computed": len(known),
        "accuracy": correct / len(judged) if judged else None,
        "confusion": _confusion(bench, judged) if judged else None,
        "per_class": _per_class(bench, judged),
        "confidence": _confidence([one for one in known if one.top]),
        "values": _histogram([one.value for one in known]),
        "errors": _histogram([_distance(one) for one in known]),
    }


def _confusion(bench: Workbench, judged: Sequence[Predicted]) -> dict[str, Any]:
    counts = Counter((one.label, one.best) for one in judged)
    often: Counter[Any] = Counter()
    for (label, best), count in counts.items():
        often[label] += count
        often[best] += count
    classes = sorted(index for index, _ in often.most_common(SHOWN))
    matrix = [[counts[row, column] for column in classes] for row in classes]
    return {
        "classes": classes,
        "names": [class_name(bench.study, index) for index in classes],
        "matrix": matrix,
        "left_out": len(judged) - sum(map(sum, matrix)),
    }


def _per_class(bench: Workbench, judged: Sequence[Predicted]) -> list[dict[str, Any]]:
    counts: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
    for one in judged:
        counts[one.label][0] += 1
        counts[one.label][1] += bool(one.correct)
    return [
        {"class": index, "name": class_name(bench.study, index), "count": n, "correct": right}
        for index, (n, right) in sorted(counts.items())
    ]


def _confidence(found: Sequence[Predicted]) -> dict[str, Any] | None:
    if not found:
        return None
    edges = np.linspace(0, 1, 11)
    chances = np.array([one.top[0][1] for one in found])
    right = np.array([one.correct is True for one in found])
    counts, correct = (np.histogram(part, edges)[0].tolist() for part in (chances, chances[right]))
    return {"edges": edges.tolist(), "counts": counts, "correct": correct}


def _distance(one: Predicted) -> float | None:
    """How far a predicted number is from the label."""
    return None if one.value is None or one.loss is None else one.loss**0.5


def _histogram(found: Sequence[float | None]) -> dict[str, Any] | None:
    known = [number for number in found if number is not None and np.isfinite(number)]
    if not known:
        return None
    counts, edges = np.histogram(known, 10)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _attributions(results: Sequence[tuple[Task, Explained]]) -> dict[str, Any]:
    if not results:
        return {"attributed": 0, "shares": [], "features": {}}
    study = results[0][0].study
    features: dict[str, Any] = {}
    for place, (name, feature) in enumerate(study.features.items()):
        read = _GLOBAL.get(feature.kind)
        triples = [
            (task, task.sample.leaves[place], feature.displayed(leaf, found.grouped))
            for task, found in results
            if (leaf := found.leaves[place]) is not None
        ]
        if read is not None and triples:
            features[name] = read(feature, triples)
    return {"attributed": len(results), "shares": _shares(results), "features": features}


def _shares(results: Sequence[tuple[Task, Explained]]) -> list[dict[str, Any]]:
    names = list(results[0][0].study.features)
    rows: list[list[float]] = []
    for _, found in results:
        nets = [0.0 if net is None else net for net in found.totals]
        whole = sum(map(abs, nets))
        if whole and np.isfinite(whole):
            rows.append([net / whole for net in nets])
    if not rows:
        return []
    table = np.array(rows)
    return [
        {
            "feature": name,
            "mean": float(table[:, i].mean()),
            "absolute": float(np.abs(table[:, i]).mean()),
        }
        for i, name in enumerate(names)
    ]


Triples = Sequence[tuple[Task, Tensor, Tensor]]


def _table(feature: Any, triples: Triples) -> dict[str, Any]:
    attributions = np.stack([as_numbers(shown) for *_, shown in triples])
    inputs = np.stack([np.asarray(feature.view(leaf)["values"]) for _, leaf, _ in triples])
    return {
        "kind": "tabular",
        "mean_absolute": np.abs(attributions).mean(0).tolist(),
        "mean": attributions.mean(0).tolist(),
        "swarm": {
            "values": inputs.astype(np.float32),
            "attributions": attributions.astype(np.float32),
        },
    }


def _series(feature: Any, triples: Triples) -> dict[str, Any]:
    """The mean at every position, over the series of the most common length."""
    shape = Counter(tuple(shown.shape) for *_, shown in triples).most_common(1)[0][0]
    same = [as_numbers(shown) for *_, shown in triples if tuple(shown.shape) == shape]
    return {"kind": "timeseries", "mean_absolute": np.abs(same).mean(0).astype(np.float32)}


def _image(feature: Any, triples: Triples) -> dict[str, Any]:
    shape = Counter(tuple(shown.shape) for *_, shown in triples).most_common(1)[0][0]
    same = [shown.abs().double() for *_, shown in triples if tuple(shown.shape) == shape]
    mean = sum(same[1:], same[0]) / len(same)
    return {"kind": "image", "mean_absolute": quantised(as_numbers(shrunk(mean[None])[0]))}


def _text(feature: Any, triples: Triples) -> dict[str, Any]:
    sums: dict[str, list[float]] = defaultdict(list)
    for _, leaf, shown in triples:
        view = feature.view(leaf)
        for token, value in zip(view["tokens"], as_numbers(shown).tolist(), strict=True):
            sums[token].append(value)
    largest = sorted(sums.items(), key=lambda pair: -abs(sum(pair[1])))[:TOKENS]
    tokens = [
        {"token": token, "count": len(v), "mean": sum(v) / len(v), "total": sum(v)}
        for token, v in largest
    ]
    return {"kind": "text", "tokens": tokens}


_GLOBAL: dict[str, Callable[[Any, Triples], dict[str, Any]]] = {
    "tabular": _table,
    "timeseries": _series,
    "image": _image,
    "text": _text,
}
