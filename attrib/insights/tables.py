"""Exact values of a result: regions, sorted tables, curves of deletion and insertion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import numpy as np
from torch import Tensor

from attrib import metrics
from attrib._progress import monitored, report
from attrib.errors import AttribError
from attrib.insights import payload
from attrib.insights.binding import joined
from attrib.insights.explain import Explained
from attrib.insights.features.measures import Numbers, as_numbers
from attrib.insights.heads import collate, embedded, score_of
from attrib.insights.plain import is_list, listed
from attrib.insights.protocol import Failure
from attrib.insights.task import baseline_choices, filled
from attrib.insights.workbench import Outcome, Workbench

__all__ = ["convergence", "curves", "values"]

MOST = 200_000  # entries of a region
HALVES = 6  # how often steps are halved to see how a result converges, and once more


def values(bench: Workbench, request: Mapping[str, Any]) -> dict[str, Any]:
    """Attributions of an input as they are, and of what."""
    outcome = bench.outcome(request)
    name = request["feature"]
    if name not in bench.study.features:
        raise Failure("field", f"{name[:60]}: there is no such input", field="feature")
    place = list(bench.study.features).index(name)
    feature, leaf = bench.study.features[name], outcome.task.sample.leaves[place]
    found = outcome.found.leaves[place]
    if found is None:
        raise Failure("absent", f"the method says nothing of {name}", field="feature")
    shown = feature.displayed(found, outcome.found.grouped)
    numbers, inputs = as_numbers(shown), _inputs(leaf, tuple(shown.shape))
    region = request["region"]
    cut = None
    if region is not None:
        if len(region) != numbers.ndim:
            raise Failure("field", f"region: takes {numbers.ndim} bounds", field="region")
        cut = tuple(slice(*bounds) for bounds in region)
        if numbers[cut].size > MOST:
            raise Failure("limit", f"region: has more than {MOST} entries", field="region")
    return {
        "type": "values",
        "feature": name,
        "shape": list(numbers.shape),
        "region": region,
        "values": None if cut is None else numbers[cut].astype(np.float32),
        "inputs": None if cut is None or inputs is None else inputs[cut].astype(np.float32),
        "rows": _rows(request, numbers, inputs, feature.names(leaf), feature.view(leaf)),
        "total": int(numbers.size),
    }


def curves(bench: Workbench, request: Mapping[str, Any]) -> dict[str, Any]:
    """How the score falls and rises as the most important features go and come."""
    outcome = bench.outcome({**request, "edits": {}})
    task, found = outcome.task, outcome.found
    if any(leaf is None for leaf in found.leaves):
        raise Failure("value", "curves need an attribution to every input", field="method")
    x, args = collate([task.sample], task.model)
    features = task.study.features
    starts = [
        filled(baseline_choices(task.study, name)[task.baseline[name]], leaf)
        for name, leaf in zip(features, task.sample.leaves, strict=True)
    ]
    base, _ = collate([task.sample._replace(leaves=tuple(starts))], task.model)
    kinds = list(features.values())
    x, base = (
        tuple(embedded(kind, leaf, task.model) for kind, leaf in zip(kinds, part, strict=True))
        for part in (x, base)
    )
    f = score_of(task.model, task.study, task.head, task.pair)
    ids = _tiles(outcome, x)
    spread = [
        _per_entry(leaf, part, kind, group, found.grouped).to(part.device)
        for leaf, part, kind, group in zip(found.leaves, x, kinds, ids, strict=True)
    ]
    told: dict[str, Any] = {"type": "curves"}
    for word, insert in (("deletion", False), ("insertion", True)):
        call = metrics.curve(f, insert=insert, steps=request["steps"], groups=joined(ids))
        curve = call(joined(spread), joined(x), joined(base), *args)
        told[word] = {
            "fraction": listed(curve.shares),
            "score": listed(curve.scores[:, 0]),
            "area": float(curve.area[0]),
        }
    return {**told, "target": payload.target_name(task.study, task.pair, task.head)}


def convergence(bench: Workbench, request: Mapping[str, Any]) -> dict[str, Any]:
    """How far an attribution is from what it is, with a half, a quarter .. of its steps."""
    request = {**request, "edits": {}}
    last = bench.outcome(request)
    args = last.task.args
    option = next((name for name in ("steps", "samples") if name in args), None)
    if option is None or any(leaf is None for leaf in last.found.leaves):
        raise Failure("absent", "this method has neither steps nor samples of which to take fewer")
    if args[option] is None:
        raise Failure("absent", f"choose a number of {option} to see what fewer of them give")
    halves = sorted({max(1, args[option] >> shift) for shift in range(1, HALVES)})
    counts: list[int] = []
    found: list[Explained] = []
    for done, count in enumerate(halves):
        report(done, len(halves))
        with monitored(done, len(halves)), suppress(AttribError):  # some need more than that
            found.append(bench.outcome({**request, "args": {**args, option: count}}).found)
            counts.append(count)
    results = [*found, last.found]
    gaps = [payload.gap(last.task, one) for one in results]
    return {
        "type": "convergence",
        "option": option,
        "counts": [*counts, args[option]],
        "distance": [_distance(one, last.found) for one in results],
        "gap": None if None in gaps else gaps,
        "target": payload.target_name(last.task.study, last.task.pair, last.task.head),
    }


def _distance(one: Explained, other: Explained) -> float:
    """The sum of what differs, as a part of the sum of sizes."""
    found, wanted = (
        np.concatenate([as_numbers(leaf.flatten()) for leaf in of.leaves if leaf is not None])
        for of in (one, other)
    )
    return float(np.abs(found - wanted).sum() / max(np.abs(wanted).sum(), 1e-30))


def _inputs(leaf: Tensor, shape: tuple[int, ...]) -> Any:
    """What the entries of an attribution belong to: of an image, the mean of its channels."""
    if leaf.ndim == len(shape) + 1:
        leaf = leaf.double().mean(0)
    return as_numbers(leaf.reshape(shape)) if leaf.numel() == math.prod(shape) else None


def _rows(
    request: Mapping[str, Any], numbers: Any, inputs: Any, names: Any, view: Mapping[str, Any]
) -> list[dict[str, Any]]:
    table = request["table"]
    if table is None:
        return []
    flat = numbers.reshape(-1)
    order = _order(flat, table.get("sort", "-abs"))
    first = table.get("offset", 0)
    texts = view.get("text")
    rows: list[dict[str, Any]] = []
    for place in order[first : first + table.get("limit", 50)].tolist():
        found = cast("Any", np.unravel_index(place, numbers.shape))
        index = [int(part) for part in found]
        words = index if names is None else [own[i] for own, i in zip(names, index, strict=True)]
        name = ", ".join(map(str, words))
        value = None if inputs is None else float(inputs.reshape(-1)[place])
        given = texts[place] if is_list(texts) else value
        rows.append({"index": index, "name": name, "input": given, "value": float(flat[place])})
    return rows


def _order(flat: Numbers, sort: str) -> Any:
    if sort == "index":
        return np.arange(flat.size)
    keys = {"value": flat, "-value": -flat, "-abs": -abs(flat)}[sort]
    return np.argsort(np.where(np.isnan(keys), np.inf, keys), kind="stable")


def _tiles(outcome: Outcome, x: tuple[Tensor, ...]) -> list[Tensor]:
    """What goes at once: pixels and tokens with all that belongs to them, in tiles if they are
    many."""
    found: list[Tensor] = []
    offset = 0
    kinds = outcome.task.study.features.values()
    for kind, leaf, part in zip(kinds, outcome.task.sample.leaves, x, strict=True):
        groupings = kind.groupings()
        word = next(w for w in ("grid-16", "windows-64", *groupings) if w in groupings)
        ids = groupings[word](leaf).to(part.device)
        ids = ids.reshape(*ids.shape, *(1,) * (part.ndim - 1 - leaf.ndim))
        found.append(ids + offset)
        offset += int(ids.max()) + 1
    return found


def _per_entry(leaf: Any, part: Tensor, kind: Any, ids: Tensor, grouped: bool) -> Tensor:
    """An attribution of which the sum over entries means something, like the input."""
    shown = kind.displayed(leaf, grouped).double()
    if leaf.shape == part.shape[1:] and not grouped:
        return leaf[None].double()
    extra = part.ndim - 1 - shown.ndim
    if kind.kind == "image":
        full = shown[None].expand(part.shape[1:])
        return full[None] / part.shape[1] if part.ndim == 4 else shown[None]
    full = shown.reshape(*shown.shape, *(1,) * extra).expand(part.shape[1:])
    return full[None] / max(1, part[0].numel() // shown.numel())
