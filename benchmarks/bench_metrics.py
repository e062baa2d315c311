"""Rows of the measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import captum.attr
import captum.metrics
import torch
from torch import Tensor

import attrib
from benchmarks import limits_metrics
from benchmarks.harness import Goal, Row, options, same_in_the_mean
from benchmarks.models import Workload

Call = Callable[[], Tensor]

SAMPLES = 10
SIZE = 0.03
"""The standard deviation of the noise, and the radius of the box."""

ROWS_TRIED = {"mlp": (1024, 2560, 4096), "cnn": (16, 32)}
TOGETHER_TRIED = {"mlp": (1024, 2560, 4096), "cnn": (16, 32, 64)}
"""How many examples Captum is let evaluate at once, where it is tuned."""

LAYOUTS = {"mlp": ("contiguous",), "cnn": ("contiguous", "channels_last")}


def infidelity(model: str, draws: int, goal: Goal) -> Row:
    """Infidelity of the gradient under normal noise, the attribution given."""
    return Row(
        method=f"infidelity, {SAMPLES} draws",
        model=model,
        attrib=_infidelity,
        captum=_captum_infidelity,
        tuned=options(_captum_infidelity, together=TOGETHER_TRIED[model]),
        limit=options(
            partial(limits_metrics.infidelity, std=SIZE, samples=SAMPLES),
            rows=ROWS_TRIED[model],
            layout=LAYOUTS[model],
        ),
        check=same_in_the_mean(draws),
        goal=goal,
    )


def max_sensitivity(model: str, draws: int, goal: Goal) -> Row:
    """Max-sensitivity of the gradient in a box, as Captum draws it."""
    return Row(
        method=f"max-sensitivity, {SAMPLES} draws",
        model=model,
        attrib=_max_sensitivity,
        captum=_captum_max_sensitivity,
        tuned=options(_captum_max_sensitivity, together=TOGETHER_TRIED[model]),
        limit=options(
            partial(limits_metrics.max_sensitivity, radius=SIZE, samples=SAMPLES),
            rows=ROWS_TRIED[model],
            layout=LAYOUTS[model],
        ),
        check=same_in_the_mean(draws),
        goal=goal,
    )


def _infidelity(workload: Workload) -> Call:
    f = attrib.target(workload.model, workload.target)
    attribution = limits_metrics.gradient(workload, workload.x)

    def call() -> Tensor:
        noise = attrib.perturb.gaussian(SIZE)
        measure = attrib.metrics.infidelity(f, None, noise, samples=SAMPLES)
        return measure(attribution, workload.x)

    return call


def _max_sensitivity(workload: Workload) -> Call:
    saliency = attrib.saliency(attrib.target(workload.model, workload.target))

    def call() -> Tensor:
        noise = attrib.perturb.uniform(SIZE)
        return attrib.metrics.max_sensitivity(saliency, noise, samples=SAMPLES)(workload.x)

    return call


def _captum_infidelity(workload: Workload, *, together: int | None = None) -> Call:
    attribution = limits_metrics.gradient(workload, workload.x)

    def noisy(x: Tensor) -> tuple[Tensor, Tensor]:
        noise = SIZE * torch.randn_like(x)
        return noise, x - noise

    measure: Any = captum.metrics.infidelity
    return lambda: measure(
        workload.model,
        noisy,
        workload.x,
        attribution,
        target=workload.target,
        n_perturb_samples=SAMPLES,
        max_examples_per_batch=_examples(together, workload),
    )


def _captum_max_sensitivity(workload: Workload, *, together: int | None = None) -> Call:
    saliency = captum.attr.Saliency(workload.model)
    measure: Any = captum.metrics.sensitivity_max
    return lambda: measure(
        saliency.attribute,
        workload.x,
        perturb_radius=SIZE,
        n_perturb_samples=SAMPLES,
        max_examples_per_batch=_examples(together, workload),
        target=workload.target,
        abs=False,
    )


def _examples(together: int | None, workload: Workload) -> int | None:
    """As many as Captum allows: those of one draw at least, those of all draws at most."""
    batch = len(workload.x)
    return None if together is None else min(max(together, batch), SAMPLES * batch)


ROWS: tuple[Row, ...] = (
    replace(infidelity("mlp", 400, Goal(limit=1.1)), quick=True),
    replace(max_sensitivity("mlp", 400, Goal(captum=10.0, limit=1.1)), quick=True),
    infidelity("cnn", 20, Goal(captum=1.0, tuned=1.0, limit=1.1)),
    max_sensitivity("cnn", 20, Goal(captum=1.0, tuned=1.0, limit=1.1)),
)
