"""Time to a given error, and error at a given number of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from benchmarks import limits, with_attrib, with_captum
from benchmarks.harness import Goal, Row, options, relative_difference, within
from benchmarks.models import Workload, build

TOLERANCE = 1e-5
KINKED_TOLERANCE = 1e-3
QUADRATURES: tuple[with_attrib.Quadrature, ...] = get_args(with_attrib.Quadrature)
STEPS = (1, 2, 4, 8, 16, 32, 64)
FLOOR = 5.0
"""An error is only told apart from the reference's own when it is so many times larger."""


def smooth(model: str, batch: int | None, finer: int) -> Row:
    """Integrated gradients of a smooth network to an error, by whatever steps that takes."""
    enough = (4, 5, 6, 8, 10, 14, 20, 50) if model.startswith("mlp") else (16, 20, 24, 50)
    rows = max(512, batch or 0) * 8 if model.startswith("mlp") else 8
    return Row(
        method=f"IG to error {TOLERANCE:.0e}",
        model=model,
        attrib=partial(with_attrib.integrated_gradients, steps=50, tol=TOLERANCE),
        captum=partial(with_captum.integrated_gradients, steps=50),
        tuned=options(with_captum.integrated_gradients, steps=enough, rows=(rows,)),
        limit=options(limits.integrated_gradients, steps=enough, rows=(rows,)),
        check=within(TOLERANCE, partial(limits.integrated_gradients, steps=finer, rows=rows)),
        goal=Goal(captum=2.5),
        batch=batch,
        quick=model == "mlp-gelu",
    )


def kinked(model: str, batch: int | None, segments: int, goal: Goal) -> Row:
    """Integrated gradients of a ReLU network to an error: secants against more gradients."""
    enough, rows = (600, 800, 1000), 4096 if model == "mlp" else 32
    # Gauss nodes in such numbers take minutes to find.
    finer = partial(limits.integrated_gradients, steps=2**13, rows=rows, rule=limits.midpoint)
    return Row(
        method=f"IG to error {KINKED_TOLERANCE:.0e}, {segments} secants",
        model=model,
        attrib=partial(with_attrib.integrated_gradients, steps=segments, quadrature="secant"),
        tuned=options(with_captum.integrated_gradients, steps=enough, rows=(rows,)),
        limit=options(limits.integrated_gradients, steps=enough, rows=(rows,)),
        check=within(KINKED_TOLERANCE, finer),
        goal=goal,
        batch=batch,
    )


ROWS: tuple[Row, ...] = (
    kinked("mlp", None, 56, Goal(tuned=3.0)),
    kinked("cnn", 2, 192, Goal(tuned=1.8)),
    smooth("mlp-gelu", None, 128),
    smooth("mlp-tanh", None, 128),
    smooth("bert", 1, 64),
)


@dataclass(frozen=True)
class Errors:
    """Relative errors of several ways to an integral on one network, (way, steps) in float64.

    Attributes:
        model: The network.
        floor: How far two references lie apart.
        found: The errors.
        steps: Numbers of evaluations.
        seconds: CPU time of one call in float32, where it was measured.
    """

    model: str
    floor: float
    found: dict[str, list[float | None]]
    steps: Sequence[int] = STEPS
    seconds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def told(self, way: str) -> list[str]:
        """The errors as text, with milliseconds; one too near the reference's is only bounded."""
        least = FLOOR * self.floor
        texts = [
            "-" if error is None else f"{error:.1e}" if error > least else f"< {least:.0e}"
            for error in self.found[way]
        ]
        if way not in self.seconds:
            return texts
        times = zip(texts, self.seconds[way], strict=True)
        return [f"{text} ({1e3 * seconds:.2g} ms)" for text, seconds in times]

    def stuck(self, quadrature: str) -> bool:
        """Whether more steps do not help: the mark of a wrong weight, not of a coarse rule."""
        errors = [error for error in self.found[quadrature] if error is not None]
        return errors[-1] > FLOOR * self.floor and errors[-1] > errors[0] / 4


def quadrature_errors(
    model: str,
    rule: limits.Rule,
    references: tuple[int, int],
    batch: int = 16,
    steps: Sequence[int] = STEPS,
) -> Errors:
    """The error of each quadrature of attrib against the finer of two hand-written references.

    Args:
        model: A key of models.WORKLOADS.
        rule: The rule of the references.
        references: Their numbers of steps; how far the two lie apart is the floor.
        batch: So many examples of the workload.
        steps: Numbers of evaluations.
    """
    workload = build(model).double().head(batch)
    with torch.no_grad():
        coarser, finer = (
            limits.integrated_gradients(workload, steps=count, rows=4096, rule=rule)()
            for count in references
        )
        found = {name: [_error(workload, name, n, finer) for n in steps] for name in QUADRATURES}
    return Errors(model, relative_difference(coarser, finer), found)


def _error(
    workload: Workload, quadrature: with_attrib.Quadrature, steps: int, reference: Tensor
) -> float | None:
    if quadrature == "trapezoid" and steps == 1:
        return None  # Its two ends are two evaluations.
    call = with_attrib.integrated_gradients(workload, steps=steps, quadrature=quadrature)
    return relative_difference(call(), reference)


TABLES: dict[str, Callable[[], Errors]] = {
    "mlp": lambda: quadrature_errors("mlp", limits.midpoint, (2**13, 2**14)),
    "mlp-gelu": lambda: quadrature_errors("mlp-gelu", limits.gauss_legendre, (96, 128)),
}
"""The tables of the report: a ReLU network, whose gradient jumps, and a smooth one."""
