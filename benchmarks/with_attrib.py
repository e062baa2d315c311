"""The same methods as attrib computes them. No option of speed or memory is ever set here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

import attrib
from benchmarks.models import Workload

Call = Callable[[], Tensor]
Quadrature = Literal["gauss-legendre", "midpoint", "trapezoid", "left", "right", "secant"]


def saliency(workload: Workload) -> Call:
    """The signed gradient."""
    method = attrib.saliency(attrib.target(workload.model, workload.target))
    return lambda: method(workload.x)


def input_x_gradient(workload: Workload) -> Call:
    """The input times the gradient."""
    method = attrib.input_x_gradient(attrib.target(workload.model, workload.target))
    return lambda: method(workload.x)


def integrated_gradients(
    workload: Workload,
    *,
    steps: int,
    tol: float | None = None,
    quadrature: Quadrature = "gauss-legendre",
) -> Call:
    """Integrated gradients."""
    method = attrib.integrated_gradients(
        attrib.target(workload.model, workload.target), steps=steps, tol=tol, quadrature=quadrature
    )
    return lambda: method(workload.x, workload.baseline)


def expected_gradients(workload: Workload, *, samples: int) -> Call:
    """Expected gradients."""
    method = attrib.expected_gradients(
        attrib.target(workload.model, workload.target), samples=samples
    )
    return lambda: method(workload.x, workload.baselines)


def smoothed_integrated_gradients(
    workload: Workload, *, steps: int, samples: int, std: float
) -> Call:
    """Integrated gradients averaged over noisy copies of the input."""
    method = attrib.smooth_grad(
        attrib.integrated_gradients(attrib.target(workload.model, workload.target), steps=steps),
        std=std,
        samples=samples,
    )
    return lambda: method(workload.x, workload.baseline)


def saliency_per_target(workload: Workload, *, targets: int) -> Call:
    """The signed gradients of the first `targets` outputs from one forward."""
    method = attrib.per_target(attrib.saliency, workload.model, list(range(targets)))
    return lambda: method(workload.x)


def input_x_gradient_per_target(workload: Workload, *, targets: int) -> Call:
    """The input times each of these gradients."""
    method = attrib.per_target(attrib.input_x_gradient, workload.model, list(range(targets)))
    return lambda: method(workload.x)


def deep_lift(workload: Workload) -> Call:
    """DeepLift with its rescale rule."""
    method = attrib.deep_lift(attrib.target(workload.model, workload.target))
    return lambda: method(workload.x, workload.baseline)


def deep_lift_shap(workload: Workload) -> Call:
    """DeepLift averaged over baselines."""
    method = attrib.expected(attrib.deep_lift(attrib.target(workload.model, workload.target)))
    return lambda: method(workload.x, workload.baselines)


def lrp(workload: Workload, *, epsilon: float) -> Call:
    """Relevance propagation, the epsilon rule in every layer with a weight."""
    composite = attrib.rules.epsilon(epsilon)
    method = attrib.lrp(attrib.target(workload.model, workload.target), composite=composite)
    return lambda: method(workload.x)


def guided_backprop(workload: Workload) -> Call:
    """Guided backpropagation."""
    method = attrib.guided_backprop(attrib.target(workload.model, workload.target))
    return lambda: method(workload.x)
