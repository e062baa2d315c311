"""What methods return, by feature: values of inputs, maps, layers, matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from attrib.cam import upsample
from attrib.games import pairwise
from attrib.insights.binding import Place, ids_of
from attrib.insights.plain import listed
from attrib.insights.task import Extra, Task

__all__ = ["Reading", "leaves_of", "read"]

Reading = tuple[list[Tensor | None], list[Extra]]
"""For every feature a tensor without batch dimension, or nothing; and what belongs to none."""


def read(task: Task, place: Place, value: Any) -> Reading:
    """The result of a method."""
    return _READ[task.method.gives](task, place, value)


def leaves_of(value: Any) -> list[Any]:
    """The parts of a tree that is one tensor, or a tuple of some."""
    return [*value] if isinstance(value, (tuple, list)) else [value]  # pyright: ignore[reportUnknownVariableType]


def _input(task: Task, place: Place, value: Any) -> Reading:
    return [None if leaf is None else leaf[0] for leaf in leaves_of(value)], []


def _map(task: Task, place: Place, value: Any) -> Reading:
    """A map of a layer, at the resolution of the first input with as many dimensions of space."""
    found: Tensor = value[0]
    leaves: list[Tensor | None] = []
    for kind, leaf in zip(task.study.features.values(), task.sample.leaves, strict=True):
        space = {"image": 2, "timeseries": 1}.get(kind.kind)
        fits = space == found.ndim and all(one is None for one in leaves)
        larger = upsample(found[None], leaf.shape[-found.ndim :])[0] if fits else None
        leaves.append(larger if larger is None else larger.expand(leaf.shape))
    extra = [] if any(leaf is not None for leaf in leaves) else [Extra("map", found)]
    return leaves, extra


def _layer(task: Task, place: Place, value: Any) -> Reading:
    site = task.args.get("site") or task.args.get("sites")
    if task.method.name == "edge_attribution_patching":
        names = ([str(task.args["sources"])], [str(task.args["destinations"])])
        return [None] * len(place.x), [Extra("edges", value[0], names)]
    parts = [part for part in leaves_of(value) if isinstance(part, Tensor)]
    named = [str(site)] if len(parts) == 1 else [f"{site}, {i}" for i in range(len(parts))]
    extra = [Extra(name, part[0].detach().cpu()) for name, part in zip(named, parts, strict=True)]
    return [None] * len(place.x), extra


def _pairs(task: Task, place: Place, value: Any) -> Reading:
    matrix = pairwise(value)[0].detach().cpu()
    names = _group_names(task, place)
    return [None] * len(place.x), [Extra("interactions", matrix, (names, names))]


def _hessian(task: Task, place: Place, value: Any) -> Reading:
    leaf = task.sample.leaves[0]
    matrix = value[0].reshape(leaf.numel(), leaf.numel()).detach().cpu()
    kind = next(iter(task.study.features.values()))
    known = kind.names(leaf)
    names = known[0] if known else [str(index) for index in range(leaf.numel())]
    return [matrix.sum(1).reshape(leaf.shape)], [Extra("interactions", matrix, (names, names))]


def _rollout(task: Task, place: Place, value: Any) -> Reading:
    matrix: Tensor = value[0].detach().cpu()
    leaves: list[Tensor | None] = []
    for kind, leaf in zip(task.study.features.values(), task.sample.leaves, strict=True):
        text = kind.kind == "text" and leaf.shape[0] == len(matrix)
        leaves.append(matrix[0] if text else None)
    names = _token_names(task, len(matrix))
    return leaves, [Extra("attention", matrix, (names, names))]


def _attention(task: Task, place: Place, value: Any) -> Reading:
    extra: list[Extra] = []
    for number, weights in enumerate(value[:24]):
        matrix = weights[0].mean(0).detach().cpu()
        names = tuple(_token_names(task, length) for length in matrix.shape)
        extra.append(Extra(f"attention {number}, mean of heads", matrix, (names[0], names[1])))
    return [None] * len(place.x), extra


_READ: dict[str, Callable[[Task, Place, Any], Reading]] = {
    "input": _input,
    "map": _map,
    "layer": _layer,
    "pairs": _pairs,
    "hessian": _hessian,
    "rollout": _rollout,
    "attention": _attention,
}


def _token_names(task: Task, length: int) -> Sequence[str]:
    for kind, leaf in zip(task.study.features.values(), task.sample.leaves, strict=True):
        names = kind.names(leaf) if kind.kind == "text" else None
        if names is not None and len(names[0]) == length:
            return names[0]
    return [str(index) for index in range(length)]


def _group_names(task: Task, place: Place) -> list[str]:
    """A name for every group: that of its only entry, or the feature and a number."""
    found: dict[int, str] = {}
    all_ids = ids_of("groups", task.args, place)
    for (feature, kind), leaf, ids in zip(
        task.study.features.items(), task.sample.leaves, all_ids, strict=True
    ):
        names = kind.names(leaf)
        flat: list[int] = listed(ids.flatten())
        single = names is not None and len(names) == 1 and len(names[0]) == len(set(flat))
        for place_of, number in enumerate(flat):
            if number >= 0 and number not in found:
                own = names[0][place_of] if single and names is not None else None
                found[number] = own or (
                    feature if len(set(flat)) == 1 else f"{feature} {len(found) + 1}"
                )
    return [found[number] for number in sorted(found)]
