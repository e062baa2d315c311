"""Rows of the methods that change derivatives: DeepLift, LRP, guided backpropagation.

Captum is compared where it is right: it is not where a ReLU meets a max-pool (captum #1104), nor
with operations that are no modules.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import attrib
from benchmarks import limits, limits_rules, with_attrib, with_captum
from benchmarks.harness import Goal, Make, Row, options, same_evaluations

IMAGES = ("cnn", "cnn-average", "resnet18", "vgg19")
LAYOUTS = ("contiguous", "channels_last")
EPSILON = 1e-9
"""What Captum takes."""


def deep_lift(model: str, goal: Goal, *, captum: bool, batch: int | None = None) -> Row:
    """DeepLift with its rescale rule."""
    return _row(
        "DeepLift",
        model,
        goal,
        with_attrib.deep_lift,
        with_captum.deep_lift if captum else None,
        _limit(limits_rules.deep_lift, model),
        batch,
    )


def lrp(model: str, goal: Goal, *, captum: bool) -> Row:
    """Relevance propagation by the epsilon rule."""
    row = _row(
        "LRP, epsilon",
        model,
        goal,
        partial(with_attrib.lrp, epsilon=EPSILON),
        with_captum.lrp if captum else None,
        _limit(partial(limits_rules.lrp, epsilon=EPSILON), model),
        None,
    )
    # Captum does not merge batch norm, and lets it and every pool absorb an epsilon more.
    merges = captum and model.startswith("cnn")
    return replace(row, check=replace(row.check, tolerance=1e-5)) if merges else row


def guided_backprop(model: str, goal: Goal) -> Row:
    """Guided backpropagation."""
    return _row(
        "guided backprop",
        model,
        goal,
        with_attrib.guided_backprop,
        with_captum.guided_backprop,
        # A transformer has no ReLU: only the gradient is left.
        _limit(limits_rules.guided_backprop if model != "bert" else limits.saliency, model),
        None,
    )


def deep_lift_shap(model: str, goal: Goal, batch: int) -> Row:
    """DeepLift averaged over 32 baselines."""
    return _row(
        "DeepLiftShap, 32 baselines",
        model,
        goal,
        with_attrib.deep_lift_shap,
        with_captum.deep_lift_shap,
        options(limits_rules.deep_lift_shap, rows=(1024, 4096)),
        batch,
    )


def _row(
    method: str,
    model: str,
    goal: Goal,
    attrib: Make,
    captum: Make | None,
    limit: dict[str, Make],
    batch: int | None,
) -> Row:
    return Row(
        method=method,
        model=model,
        attrib=attrib,
        captum=captum,
        limit=limit,
        check=same_evaluations(examples=4 if model in IMAGES else None),
        goal=goal,
        batch=batch,
    )


def _limit(make: Make, model: str) -> dict[str, Make]:
    return options(make, layout=LAYOUTS if model in IMAGES else LAYOUTS[:1])


TABULAR = Goal(captum=4.0, limit=1.2)
SMALL_CNN = Goal(captum=1.8, limit=1.2)
LARGE = Goal(captum=1.0, limit=1.2)

ROWS: tuple[Row, ...] = (
    replace(deep_lift("mlp", TABULAR, captum=True), quick=True),
    replace(guided_backprop("mlp", TABULAR), quick=True),
    replace(lrp("mlp", TABULAR, captum=True), quick=True),
    deep_lift_shap("mlp", TABULAR, batch=128),
    deep_lift("cnn", Goal(limit=1.2), captum=False),
    deep_lift("cnn-average", SMALL_CNN, captum=True),
    lrp("cnn-average", SMALL_CNN, captum=True),
    replace(guided_backprop("cnn", SMALL_CNN), quick=True),
    deep_lift("resnet18", Goal(limit=1.2), captum=False),
    guided_backprop("resnet18", LARGE),
    lrp("resnet18", Goal(limit=1.2), captum=False),
    deep_lift("vgg19", Goal(limit=1.2), captum=False),
    guided_backprop("vgg19", LARGE),
    guided_backprop("bert", LARGE),
)

CHAIN = 64
"""So many operations more make the difference that is measured."""


def overheads(rounds: int = 15) -> dict[str, float]:
    """Seconds per operation with a rule, over the same operation without: in a chain of rectifiers
    of one number, where nothing but bookkeeping takes time."""
    x = torch.ones(1, 1)

    def chained(count: int) -> Callable[[Tensor], Tensor]:
        def f(x: Tensor) -> Tensor:
            for _ in range(count):
                x = torch.relu(x)
            return x.sum(-1)

        return f

    def of(method: Callable[..., Any], count: int, surrounded: bool) -> Callable[[], Tensor]:
        attribute = method(chained(count))
        mapped = torch.vmap(attribute)
        return lambda: mapped(x[None]) if surrounded else attribute(x)

    found: dict[str, float] = {}
    with torch.no_grad():
        for around, surrounded in (("no transform", False), ("torch.vmap", True)):
            plain = _slope(partial(of, attrib.saliency, surrounded=surrounded), rounds)
            for name, method in (
                ("guided_backprop", attrib.guided_backprop),
                ("deep_lift", attrib.deep_lift),
            ):
                ruled = _slope(partial(of, method, surrounded=surrounded), rounds)
                found[f"{name}, {around}"] = ruled - plain
    return found


def _slope(of: Callable[[int], Callable[[], Tensor]], rounds: int) -> float:
    calls, times = (of(1), of(1 + CHAIN)), ([], [])
    for _ in range(rounds):
        for call, found in zip(calls, times, strict=True):
            start = time.process_time()
            call()
            found.append(time.process_time() - start)
    few, many = map(statistics.median, times)
    return (many - few) / CHAIN
