"""The same methods as Captum computes them, at its defaults and with what it can be tuned by.

Every function takes a workload and returns a call; an option that is None is Captum's default.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import cast

import torch
from captum.attr import (
    LRP,
    DeepLift,
    DeepLiftShap,
    GradientShap,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    NoiseTunnel,
    Saliency,
)
from torch import Tensor

from benchmarks.models import Workload

Call = Callable[[], Tensor]


def silence() -> None:
    """Captum warns whenever it sets requires_grad itself, which is how it is meant to be called."""
    warnings.filterwarnings("ignore", category=UserWarning, module="captum")


def saliency(workload: Workload) -> Call:
    """The signed gradient."""
    method = Saliency(workload.model)
    return lambda: method.attribute(workload.x, target=workload.target, abs=False)


def input_x_gradient(workload: Workload) -> Call:
    """The input times the gradient."""
    method = InputXGradient(workload.model)
    return lambda: method.attribute(workload.x, target=workload.target)


def integrated_gradients(workload: Workload, *, steps: int, rows: int | None = None) -> Call:
    """Integrated gradients; `rows` is Captum's internal_batch_size."""
    method = IntegratedGradients(workload.model)
    return lambda: method.attribute(
        workload.x,
        baselines=workload.baseline,
        target=workload.target,
        n_steps=steps,
        internal_batch_size=None if rows is None else max(rows, len(workload.x)),
    )


def expected_gradients(workload: Workload, *, samples: int) -> Call:
    """GradientShap without noise, which has no option that bounds its memory."""
    method = GradientShap(workload.model)
    return lambda: method.attribute(
        workload.x, baselines=workload.baselines, target=workload.target, n_samples=samples
    )


def smoothed_integrated_gradients(
    workload: Workload,
    *,
    steps: int,
    samples: int,
    std: float,
    together: int | None = None,
    rows: int | None = None,
) -> Call:
    """NoiseTunnel over integrated gradients; `together` is its nt_samples_batch_size."""
    method = NoiseTunnel(IntegratedGradients(workload.model))
    attribute = cast("Callable[..., Tensor]", method.attribute)
    return lambda: attribute(
        workload.x,
        baselines=workload.baseline,
        target=workload.target,
        nt_type="smoothgrad",
        nt_samples=samples,
        nt_samples_batch_size=together,
        stdevs=std,
        n_steps=steps,
        internal_batch_size=rows,
    )


def saliency_per_target(workload: Workload, *, targets: int) -> Call:
    """One call per target: Captum explains one target of each example at a time."""
    method = Saliency(workload.model)
    return lambda: torch.stack(
        [method.attribute(workload.x, target=target, abs=False) for target in range(targets)]
    )


def input_x_gradient_per_target(workload: Workload, *, targets: int) -> Call:
    """One call per target."""
    method = InputXGradient(workload.model)
    return lambda: torch.stack(
        [method.attribute(workload.x, target=target) for target in range(targets)]
    )


def deep_lift(workload: Workload) -> Call:
    """DeepLift with its rescale rule, on a copy of the model, which it changes while it runs."""
    method = DeepLift(copy.deepcopy(workload.model))
    return lambda: method.attribute(workload.x, baselines=workload.baseline, target=workload.target)


def deep_lift_shap(workload: Workload) -> Call:
    """DeepLift averaged over baselines."""
    method = DeepLiftShap(copy.deepcopy(workload.model))
    return lambda: method.attribute(
        workload.x, baselines=workload.baselines, target=workload.target
    )


def lrp(workload: Workload) -> Call:
    """Relevance propagation; its rule by default is that of epsilon 1e-9 in every layer."""
    method = LRP(copy.deepcopy(workload.model))
    return lambda: cast("Tensor", method.attribute(workload.x, target=workload.target))


def guided_backprop(workload: Workload) -> Call:
    """Guided backpropagation."""
    method = GuidedBackprop(copy.deepcopy(workload.model))
    return lambda: method.attribute(workload.x, target=workload.target)
