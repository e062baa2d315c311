"""The same methods as Captum computes them, at its defaults and with what it can be tuned by.

Every function takes a workload and returns a call; an option that is None is Captum's default.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from captum.attr import (
    LRP,
    DeepLift,
    DeepLiftShap,
    FeatureAblation,
    GradientShap,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    InternalInfluence,
    LayerActivation,
    LayerConductance,
    LayerGradCam,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    NeuronConductance,
    NeuronIntegratedGradients,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from torch import Tensor, nn

from benchmarks.limits_games import tiles
from benchmarks.limits_layers import Place, neuron, site
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


def feature_ablation(workload: Workload, *, size: Sequence[int], together: int = 1) -> Call:
    """The score without each tile; `together` is its perturbations_per_eval."""
    method = FeatureAblation(workload.model)
    mask = tiles(workload.x, size).expand(1, *workload.x.shape[1:])
    return lambda: method.attribute(
        workload.x,
        baselines=workload.baseline,
        target=workload.target,
        feature_mask=mask,
        perturbations_per_eval=together,
    )


def occlusion(workload: Workload, *, window: int, stride: int, together: int = 1) -> Call:
    """The score behind square windows over all channels."""
    method = Occlusion(workload.model)
    channels = workload.x.shape[1]

    def call() -> Tensor:
        found = method.attribute(
            workload.x,
            (channels, window, window),
            (channels, stride, stride),
            baselines=workload.baseline,
            target=workload.target,
            perturbations_per_eval=together,
        )
        return cast("Tensor", found)

    return call


def activation(workload: Workload, *, place: Place) -> Call:
    """What a layer yields."""
    method = LayerActivation(workload.model, _layer(workload, place))
    return lambda: cast("Tensor", method.attribute(workload.x))


def gradient_x_activation(workload: Workload, *, place: Place) -> Call:
    """The gradient times what a layer yields."""
    method = LayerGradientXActivation(workload.model, _layer(workload, place))
    return lambda: cast("Tensor", method.attribute(workload.x, target=workload.target))


def grad_cam(workload: Workload, *, place: Place) -> Call:
    """Feature maps, weighted by their mean gradients."""
    method = LayerGradCam(workload.model, _layer(workload, place))
    return lambda: cast("Tensor", method.attribute(workload.x, target=workload.target)).squeeze(1)


def guided_grad_cam(workload: Workload, *, place: Place) -> Call:
    """Guided Grad-CAM."""
    model = copy.deepcopy(workload.model)
    method = GuidedGradCam(model, model.get_submodule(site(model, place)))
    return lambda: method.attribute(workload.x, target=workload.target)


def layer_integrated_gradients(
    workload: Workload, *, place: Place, steps: int, rows: int | None = None
) -> Call:
    """Integrated gradients of what is behind a layer, for which all of the model runs."""
    method = LayerIntegratedGradients(workload.model, _layer(workload, place))
    return lambda: cast("Tensor", method.attribute(**_path(workload, steps, rows)))


def conductance(workload: Workload, *, place: Place, steps: int, rows: int | None = None) -> Call:
    """Changes of a layer between the nodes of a rule, times the gradient at one end."""
    method = LayerConductance(workload.model, _layer(workload, place))
    return lambda: cast("Tensor", method.attribute(**_path(workload, steps, rows)))


def internal_influence(
    workload: Workload, *, place: Place, steps: int, rows: int | None = None
) -> Call:
    """The mean gradient by a layer on the path."""
    method = InternalInfluence(workload.model, _layer(workload, place))
    return lambda: cast("Tensor", method.attribute(**_path(workload, steps, rows)))


def neuron_integrated_gradients(workload: Workload, *, steps: int, rows: int | None = None) -> Call:
    """Integrated gradients of one neuron."""
    method = NeuronIntegratedGradients(workload.model, _layer(workload, "middle"))
    options = _path(workload, steps, rows)
    del options["target"]
    return lambda: method.attribute(neuron_selector=neuron(workload.model), **options)


def neuron_conductance(workload: Workload, *, steps: int, rows: int | None = None) -> Call:
    """What flows from the input through one neuron, by a rule whose weights sum to one: those of
    Captum's default sum to 0.98."""
    method = NeuronConductance(workload.model, _layer(workload, "middle"))
    options = {**_path(workload, steps, rows), "method": "gausslegendre"}
    return lambda: method.attribute(neuron_selector=neuron(workload.model), **options)


def _layer(workload: Workload, place: Place) -> nn.Module:
    return workload.model.get_submodule(site(workload.model, place))


def _path(workload: Workload, steps: int, rows: int | None) -> dict[str, Any]:
    return {
        "inputs": workload.x,
        "baselines": workload.baseline,
        "target": workload.target,
        "n_steps": steps,
        "internal_batch_size": None if rows is None else max(rows, len(workload.x)),
    }
