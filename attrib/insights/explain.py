"""One attribution of one sample: the score, the baseline, the call, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrib._batched import baseline_of
from attrib.insights.binding import Place, bound, ids_of, joined, players_of
from attrib.insights.features import Feature
from attrib.insights.field import Setting
from attrib.insights.heads import collate, embedded, score_of
from attrib.insights.plain import distinct
from attrib.insights.protocol import Failure
from attrib.insights.reading import leaves_of, read
from attrib.insights.study import Sample
from attrib.insights.task import (
    Extra,
    Task,
    alike,
    baseline_choices,
    entered_places,
    filled,
)
from attrib.layers import split
from attrib.scores import batched
from attrib.types import Estimate, Score

__all__ = ["EXCHANGED", "Explained", "difference", "explain"]

EXCHANGED = 15
"""How many other samples take part where values are exchanged between samples."""


class Explained(NamedTuple):
    """What came of it, on the CPU, without batch dimension.

    Attributes:
        leaves: For every feature, a tensor like its input (or its embedding), or nothing.
        errors: Their standard errors, where they were asked for.
        extra: What belongs to no feature.
        totals: What every feature adds in all.
        segments: Which entries were one feature, for every feature.
        grouped: Whether all entries of a group hold its number.
        score: The score of the sample.
        base: That of the baseline, for methods which have one.
        passes: About how often the model was evaluated.
        role: What the attribution was called with besides ``x``, if anything.
        shapes: Of what the method took for every feature.
    """

    leaves: list[Tensor | None]
    errors: list[Tensor | None]
    extra: list[Extra]
    totals: list[float | None]
    segments: list[Tensor | None]
    grouped: bool
    score: float
    base: float | None
    passes: float
    role: str | None = None
    shapes: Sequence[torch.Size] = ()

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        tensors = [*self.leaves, *self.errors, *self.segments, *(one.values for one in self.extra)]
        return 1000 + sum(one.nbytes for one in tensors if one is not None)


def explain(task: Task, most_passes: float = math.inf) -> Explained:
    """Attribute the score of a sample.

    Raises:
        Failure: If it would take more passes than allowed.
        AttribError: As for the method.
    """
    _, args = collate([task.sample], task.model)
    setting = Setting(task.study.features, task.sample.leaves, {})
    f = score_of(task.model, task.study, task.head, task.pair)
    x, enter, f = _entered(task, f)
    place = Place(setting, x, task.model, f, args)
    passes = _passes(task, place)
    if passes > most_passes:
        raise Failure(
            "limit",
            f"about {passes:.2g} evaluations of the model, where {most_passes:.2g} are allowed",
            hint="lower the number of samples or steps, or choose larger groups",
        )
    attribute = bound(task.method, task.args, place)(f)
    role = task.method.call or baseline_of(attribute)
    data = _data(task, role, enter)
    if role == "several":
        result = _of_several(task, attribute, enter, args)
    else:
        result = attribute(joined(x), *data, *args)
    score = float(f(joined(x), *args).reshape(-1)[0])
    base = _base(task, f, data, args)
    found = _explained(task, place, result, score, base, passes)
    return found._replace(role=role, shapes=[part.shape[1:] for part in x])


def difference(after: Explained, before: Explained) -> Explained:
    """What became of an attribution, for inputs that have as many entries as before."""

    def minus(one: Tensor | None, other: Tensor | None) -> Tensor | None:
        if one is None or other is None or one.shape != other.shape:
            return None
        return one - other

    leaves = [minus(*pair) for pair in zip(after.leaves, before.leaves, strict=True)]
    pairs = zip(after.extra, before.extra, strict=True)
    parts = [(one, minus(one.values, other.values)) for one, other in pairs]
    totals = [
        None if leaf is None or one is None or other is None else one - other
        for leaf, one, other in zip(leaves, after.totals, before.totals, strict=True)
    ]
    whole = all(leaf is not None for leaf in leaves)
    bases = after.base, before.base
    base = None if bases[0] is None or bases[1] is None or not whole else bases[0] - bases[1]
    return after._replace(
        leaves=leaves,
        errors=[None for _ in leaves],
        extra=[one._replace(values=values) for one, values in parts if values is not None],
        totals=totals,
        score=after.score - before.score,
        base=base,
    )


def _entered(
    task: Task, f: Score
) -> tuple[tuple[Tensor, ...], Callable[[Sequence[Sample]], tuple[Tensor, ...]], Score]:
    """Inputs as a method takes them, how other samples become such, and the score of them.

    Token ids have no derivatives: methods that need some are applied to what a site inside of the
    model makes of them, together with the other inputs.
    """
    features = list(task.study.features.values())

    def outside(samples: Sequence[Sample]) -> tuple[Tensor, ...]:
        leaves, _ = collate(samples, task.model)
        return tuple(
            embedded(kind, leaf, task.model) for kind, leaf in zip(features, leaves, strict=True)
        )

    inside = entered_places(task)
    ids = outside([task.sample])
    if not inside:
        return ids, outside, f
    head, tail = split(f, [features[place].embed for place in inside])

    def entered(samples: Sequence[Sample]) -> tuple[Tensor, ...]:
        _, own = collate(samples, task.model)
        leaves = list(outside(samples))
        found = head(joined(leaves), *own)
        for place, activation in zip(inside, found, strict=True):
            leaves[place] = activation
        return tuple(leaves)

    def behind(z: Any, *further: Any) -> Tensor:
        leaves = [*z] if len(features) > 1 else [z]
        rows, rest = further[: len(inside)], further[len(inside) :]
        h = [leaves[place] for place in inside]
        for place, original in zip(inside, rows, strict=True):
            leaves[place] = original
        return tail(h, joined(leaves), *rest)

    rows = [ids[place] for place in inside]
    return entered([task.sample]), entered, batched(behind, rows=rows)


def _data(
    task: Task, role: str | None, enter: Callable[[Sequence[Sample]], tuple[Tensor, ...]]
) -> tuple[Any, ...]:
    """The baseline, or the baselines, for a method that takes one."""
    if role == "baselines" or task.args.get("interventional"):
        others = [*alike(task).values()]
        if not others:
            raise Failure(
                "field",
                "references: no other sample has the same shape",
                field="references",
                hint="choose another method, or samples of the same length",
            )
        return (joined(enter(others[: task.args["references"]])),)
    if role != "baseline":
        return ()
    leaves = [
        filled(baseline_choices(task.study, name)[task.baseline[name]], leaf)
        for name, leaf in zip(task.study.features, task.sample.leaves, strict=True)
    ]
    return (joined(enter([task.sample._replace(leaves=tuple(leaves))])),)


def _of_several(task: Task, attribute: Any, enter: Any, args: tuple[Any, ...]) -> Any:
    """What a method that exchanges values between samples says of the first one."""
    others = [*alike(task).values()][:EXCHANGED]
    if not others:
        raise Failure("value", "no other sample has the same shape, to exchange values with")
    batch = [task.sample, *others]
    _, further = collate(batch, task.model)
    result = attribute(joined(enter(batch)), *further)
    return _mapped(lambda leaf: leaf[:1], result)


def _mapped(fn: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Apply a function to the tensors of a result."""
    if isinstance(tree, Tensor):
        return fn(tree)
    if isinstance(tree, Estimate):
        return Estimate(_mapped(fn, tree.value), _mapped(fn, tree.stderr), tree.samples)
    return tuple(_mapped(fn, part) for part in tree) if isinstance(tree, tuple) else tree  # pyright: ignore[reportUnknownVariableType]


def _base(task: Task, f: Score, data: tuple[Any, ...], args: tuple[Any, ...]) -> float | None:
    if not data or task.method.gives not in ("input", "pairs", "hessian"):
        return None
    parts = leaves_of(data[0])
    if len(parts[0]) != 1:  # one row at a time: the arguments of the score have one
        rows = range(len(parts[0]))
        each = [f(joined([part[i : i + 1] for part in parts]), *args) for i in rows]
        return float(torch.stack(each).mean())
    return float(f(data[0], *args).reshape(-1)[0])


def _passes(task: Task, place: Place) -> float:
    players = players_of(task.args, place)
    passes = task.method.passes(task.args, players)
    factor = task.args["references"] if task.args.get("interventional") else 1
    return passes * factor


def _explained(
    task: Task, place: Place, result: Any, score: float, base: float | None, passes: float
) -> Explained:
    count = len(task.study.features)
    nothing: list[Tensor | None] = [None] * count
    estimate = result if isinstance(result, Estimate) else None
    value: Any = result.value if isinstance(result, Estimate) else result
    leaves, extra = read(task, place, value)
    leaves = [None if leaf is None else leaf.detach().cpu() for leaf in leaves]
    errors = nothing
    if estimate is not None and task.method.gives == "input":
        errors = [None if e is None else e[0].detach().cpu() for e in leaves_of(estimate.stderr)]
    named = f"groups.{next(iter(task.study.features))}" in task.args
    segments: list[Tensor | None] = nothing
    if named and task.method.grouped and task.method.gives == "input":
        segments = [
            ids.expand(leaf.shape[1:]).cpu()
            for ids, leaf in zip(ids_of("groups", task.args, place), place.x, strict=True)
        ]
    grouped = task.method.grouped or task.method.gives == "map"
    totals: list[float | None] = [
        None if leaf is None else _total(leaf, kind, ids, grouped)
        for leaf, kind, ids in zip(leaves, task.study.features.values(), segments, strict=True)
    ]
    if task.method.gives in ("map", "rollout"):
        totals = [None for _ in leaves]  # in other units than the inputs'
    return Explained(leaves, errors, extra, totals, segments, grouped, score, base, passes)


def _total(leaf: Tensor, kind: Feature, ids: Tensor | None, grouped: bool) -> float:
    values = leaf.double()
    if ids is None:
        return float(kind.displayed(values, grouped).sum())
    kept = ids >= 0
    _, inverse, counts = distinct(ids[kept])
    # Every entry holds the number of its group, which counts once.
    return float((values[kept] / counts[inverse]).sum())
