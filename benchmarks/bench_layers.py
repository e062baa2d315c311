"""Rows of the methods inside a model, and the error of conductance at equal steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from benchmarks import limits_layers, with_attrib, with_captum
from benchmarks.bench_accuracy import Errors
from benchmarks.harness import (
    Agreement,
    Call,
    Check,
    Goal,
    Judge,
    Make,
    Row,
    options,
    relative_difference,
    same_evaluations,
    within,
)
from benchmarks.limits_layers import Place
from benchmarks.models import Workload, build

LAYOUTS = ("contiguous", "channels_last")
IMAGES = ("cnn", "resnet18", "vgg19")
ROWS_TRIED = {
    "mlp": (1024, 4096),
    "mlp-gelu": (1024, 4096),
    "cnn": (16, 32),
    "resnet18": (4, 8),
    "bert": (4, 16),
}


class Ways(NamedTuple):
    """A method as each contender computes it, before it is told where and by how many steps."""

    attrib: Callable[..., Call]
    captum: Callable[..., Call]
    limit: Callable[..., Call]


ACTIVATION = Ways(with_attrib.activation, with_captum.activation, limits_layers.activation)
PRODUCT = Ways(
    with_attrib.gradient_x_activation,
    with_captum.gradient_x_activation,
    limits_layers.gradient_x_activation,
)
GRAD_CAM = Ways(with_attrib.grad_cam, with_captum.grad_cam, limits_layers.grad_cam)
LAYER_IG = Ways(
    with_attrib.layer_integrated_gradients,
    with_captum.layer_integrated_gradients,
    limits_layers.integrated_gradients,
)
CONDUCTANCE = Ways(with_attrib.conductance, with_captum.conductance, limits_layers.conductance)
INFLUENCE = Ways(
    with_attrib.internal_influence,
    with_captum.internal_influence,
    limits_layers.internal_influence,
)
NEURON_IG = Ways(
    with_attrib.neuron_integrated_gradients,
    with_captum.neuron_integrated_gradients,
    limits_layers.neuron_integrated_gradients,
)
NEURON_CONDUCTANCE = Ways(
    with_attrib.neuron_conductance,
    with_captum.neuron_conductance,
    limits_layers.neuron_conductance,
)


def at_once(name: str, ways: Ways, model: str, place: Place, goal: Goal) -> Row:
    """A method that looks at the input alone."""
    return Row(
        method=f"{name}, {place}",
        model=model,
        attrib=partial(ways.attrib, place=place),
        captum=partial(ways.captum, place=place),
        limit=options(partial(ways.limit, place=place), layout=_layouts(model)),
        check=_same(model),
        goal=goal,
    )


def on_path(
    name: str,
    ways: Ways,
    model: str,
    place: Place,
    steps: int,
    goal: Goal,
    check: Check | None = None,
    rows: tuple[int, ...] | None = None,
) -> Row:
    """A method that follows a path by so many steps; what is of one neuron is of the middle."""
    rows = ROWS_TRIED[model] if rows is None else rows
    task = (
        {"steps": steps}
        if ways in (NEURON_IG, NEURON_CONDUCTANCE)
        else {
            "place": place,
            "steps": steps,
        }
    )
    return Row(
        method=f"{name}, {place}, {steps} steps",
        model=model,
        attrib=partial(ways.attrib, **task),
        captum=partial(ways.captum, **task),
        tuned=options(partial(ways.captum, **task), rows=ROWS_TRIED[model]),
        limit=options(partial(ways.limit, **task), rows=rows, layout=_layouts(model)),
        check=_same(model) if check is None else check,
        goal=goal,
    )


def conductance(
    model: str, place: Place, steps: int, goal: Goal, examples: int | None, finer: int
) -> Row:
    """Conductance by as many evaluations; what Captum adds up is near the integral, no more."""
    rows = ROWS_TRIED[model][-1]
    fine = partial(limits_layers.conductance, place=place, steps=finer, rows=rows)
    check = _same_or_near(fine, examples)
    return on_path("conductance", CONDUCTANCE, model, place, steps, goal, check)


def conductance_to_error(
    model: str,
    quadrature: with_attrib.Integral,
    steps: int,
    tolerance: float,
    enough: Sequence[int],
    goal: Goal,
    *,
    captum: bool = True,
) -> Row:
    """Conductance to an error, by whatever number of steps that takes the others."""
    rows = ROWS_TRIED[model][-1]
    fine = partial(limits_layers.conductance, place="early", steps=2**14, rows=rows)
    named = {"gauss-legendre": "exact derivatives", "secant": "secants", "telescoping": "steps"}
    theirs = partial(with_captum.conductance, place="early")
    return Row(
        method=f"conductance to error {tolerance:.0e}, {steps} {named[quadrature]}",
        model=model,
        attrib=partial(with_attrib.conductance, place="early", steps=steps, quadrature=quadrature),
        tuned=options(theirs, steps=enough, rows=(rows,)) if captum else {},
        limit=options(
            partial(limits_layers.conductance, place="early"), steps=enough, rows=(rows,)
        ),
        check=within(tolerance, fine),
        goal=goal,
        batch=64,
    )


def _same_or_near(truth: Make, examples: int | None, tolerance: float = 0.5) -> Check:
    """The evaluations of the limit to 1e-6, or another sum of them, not far from the integral."""

    def prepare(workload: Workload, trusted: Make) -> Judge:
        single = workload if examples is None else workload.head(examples)
        exact = single.double()
        same, integral = trusted(exact)(), truth(exact)()

        def judge(make: Make) -> Agreement:
            found = make(exact)()
            gap = min(
                relative_difference(found, same) / 1e-6,
                relative_difference(found, integral) / tolerance,
            )
            return Agreement(gap, relative_difference(make(single)(), integral))

        return judge

    return Check(prepare, 1.0)


def _layouts(model: str) -> tuple[str, ...]:
    return LAYOUTS if model in IMAGES else LAYOUTS[:1]


def _same(model: str) -> Check:
    return same_evaluations(examples=4 if model in IMAGES else None)


TABULAR = Goal(captum=8.0, tuned=7.0, limit=1.2)
SMALL_CNN = Goal(captum=1.0, tuned=1.0, limit=1.1)
LARGE = Goal(captum=1.0, tuned=0.97, limit=1.1)
BEHIND = Goal(captum=1.3, tuned=1.3)
LATE = Goal(captum=5.0, tuned=5.0)
"""Captum runs the whole model at every step, attrib what is behind the layer."""

_QUICK: tuple[Row, ...] = (
    at_once("layer activation", ACTIVATION, "mlp", "middle", Goal(captum=1.0)),
    at_once("gradient x activation", PRODUCT, "mlp", "early", Goal(captum=4.0)),
    on_path("layer IG", LAYER_IG, "mlp", "early", 50, TABULAR),
    conductance("mlp", "early", 50, TABULAR, examples=64, finer=2**12),
    on_path("internal influence", INFLUENCE, "mlp", "early", 50, TABULAR),
    on_path("neuron IG", NEURON_IG, "mlp", "middle", 50, TABULAR),
    on_path("neuron conductance", NEURON_CONDUCTANCE, "mlp", "middle", 50, TABULAR),
    at_once("Grad-CAM", GRAD_CAM, "cnn", "late", SMALL_CNN),
)

ROWS: tuple[Row, ...] = (
    *(replace(row, quick=True) for row in _QUICK),
    at_once("layer activation", ACTIVATION, "cnn", "middle", SMALL_CNN),
    at_once("gradient x activation", PRODUCT, "cnn", "middle", SMALL_CNN),
    at_once("gradient x activation", PRODUCT, "resnet18", "middle", LARGE),
    on_path("layer IG", LAYER_IG, "cnn", "early", 50, SMALL_CNN),
    on_path("layer IG", LAYER_IG, "cnn", "middle", 50, BEHIND),
    on_path("layer IG", LAYER_IG, "cnn", "late", 50, LATE, rows=(64, 128)),
    on_path("layer IG", LAYER_IG, "resnet18", "late", 4, Goal(captum=2.0, tuned=2.0)),
    conductance("cnn", "middle", 50, SMALL_CNN, examples=2, finer=2**9),
    conductance("resnet18", "middle", 4, LARGE, examples=1, finer=16),
    conductance("bert", "middle", 4, LARGE, examples=1, finer=2**7),
    on_path("internal influence", INFLUENCE, "cnn", "middle", 50, SMALL_CNN),
    on_path("neuron IG", NEURON_IG, "cnn", "middle", 50, SMALL_CNN),
    on_path("neuron conductance", NEURON_CONDUCTANCE, "cnn", "middle", 50, SMALL_CNN),
    at_once("Grad-CAM", GRAD_CAM, "resnet18", "late", LARGE),
    at_once("Grad-CAM", GRAD_CAM, "vgg19", "late", LARGE),
    conductance_to_error("mlp-gelu", "telescoping", 8, 1e-3, (8, 200, 400), Goal(tuned=20.0)),
    # Captum would need 25 000 steps.
    conductance_to_error(
        "mlp-gelu", "gauss-legendre", 6, 1e-5, (64, 100), Goal(limit=1.0), captum=False
    ),
    conductance_to_error("mlp", "secant", 50, 2e-3, (200, 400, 800), Goal(tuned=5.0)),
)

STEPS = (1, 2, 5, 10, 20, 50)

OF_CONDUCTANCE: dict[str, Callable[..., Call]] = {
    "attrib": with_attrib.conductance,
    "attrib, secant": partial(with_attrib.conductance, quadrature="secant"),
    "attrib, exact derivative": partial(with_attrib.conductance, quadrature="gauss-legendre"),
    "Captum": with_captum.conductance,
}


def conductance_errors(
    model: str,
    place: Place = "early",
    references: tuple[int, int] = (2**13, 2**14),
    batch: int = 16,
    steps: Sequence[int] = STEPS,
    rounds: int = 5,
) -> Errors:
    """The error and the time of every way against the finer of two hand-written references."""
    workload = build(model).head(batch)
    exact = workload.double()
    with torch.no_grad():
        coarser, finer = (
            limits_layers.conductance(exact, place=place, steps=count, rows=4096)()
            for count in references
        )
        found: dict[str, list[float | None]] = {
            way: [relative_difference(make(exact, place=place, steps=n)(), finer) for n in steps]
            for way, make in OF_CONDUCTANCE.items()
        }
        seconds = {
            way: [_seconds(make(workload, place=place, steps=n), rounds) for n in steps]
            for way, make in OF_CONDUCTANCE.items()
        }
    title = f"conductance, {model}, {place} layer"
    return Errors(title, relative_difference(coarser, finer), found, steps, seconds)


def _seconds(call: Call, rounds: int) -> float:
    times: list[float] = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


TABLES: dict[str, Callable[[], Errors]] = {
    "mlp": partial(conductance_errors, "mlp"),
    "mlp-gelu": partial(conductance_errors, "mlp-gelu"),
}
"""The tables of the report: a ReLU network, whose gradient jumps, and a smooth one."""
