"""The same methods as attrib computes them. No option of speed or memory is ever set here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor

import attrib
from attrib import attention, cam, games, patching
from benchmarks.limits_games import tiles
from benchmarks.limits_layers import Place, neuron, site
from benchmarks.limits_maps import readers, stream, writers
from benchmarks.models import Workload

Call = Callable[[], Tensor]
Quadrature = Literal["gauss-legendre", "midpoint", "trapezoid", "left", "right", "secant"]
Integral = Literal["telescoping", "secant", "gauss-legendre"]


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


def feature_ablation(workload: Workload, *, size: Sequence[int]) -> Call:
    """The score without each tile."""
    score = attrib.target(workload.model, workload.target)
    method = games.feature_ablation(score, groups=tiles(workload.x, size))
    return lambda: method(workload.x, workload.baseline)


def occlusion(workload: Workload, *, window: int, stride: int) -> Call:
    """The score behind square windows over all channels."""
    score = attrib.target(workload.model, workload.target)
    method = games.occlusion(score, (window, window), strides=stride)
    return lambda: method(workload.x, workload.baseline)


def activation(workload: Workload, *, place: Place) -> Call:
    """What a layer yields."""
    method = attrib.activation(workload.model, site(workload.model, place))
    return lambda: cast("Tensor", method(workload.x))


def gradient_x_activation(workload: Workload, *, place: Place) -> Call:
    """The gradient times what a layer yields."""
    score = attrib.target(workload.model, workload.target)
    method = attrib.gradient_x_activation(score, site(workload.model, place))
    return lambda: method(workload.x)


def grad_cam(workload: Workload, *, place: Place) -> Call:
    """Feature maps, weighted by their mean gradients."""
    score = attrib.target(workload.model, workload.target)
    method = cam.grad_cam(score, site(workload.model, place))
    return lambda: method(workload.x)


def class_activation(workload: Workload, *, name: str, place: Place) -> Call:
    """A class activation map, by the name of its function."""
    score = attrib.target(workload.model, workload.target)
    method = getattr(cam, name)(score, site(workload.model, place))
    return lambda: method(workload.x)


def guided_grad_cam(workload: Workload, *, place: Place) -> Call:
    """Guided Grad-CAM, upsampled as Captum does by default."""
    score = attrib.target(workload.model, workload.target)
    method = cam.guided_grad_cam(score, site(workload.model, place), mode="nearest")
    return lambda: method(workload.x)


def attention_rollout(workload: Workload) -> Call:
    """The product of the attention weights of all layers."""
    method = attention.attention_rollout(workload.model)
    return lambda: method(workload.x)


def gradient_rollout(workload: Workload) -> Call:
    """The same with weights times their gradients."""
    method = attention.gradient_rollout(attrib.target(workload.model, workload.target))
    return lambda: method(workload.x)


def activation_patching(workload: Workload, *, place: Place) -> Call:
    """What every position of a layer does to the score."""
    score = attrib.target(workload.model, workload.target)
    method = patching.activation_patching(score, site(workload.model, place), dims=1)
    return lambda: method(workload.x, workload.baseline)


def attribution_patching(workload: Workload) -> Call:
    """What every entry of all layers does to the score, to first order."""
    score = attrib.target(workload.model, workload.target)
    method = patching.attribution_patching(score, stream(workload.model))
    return lambda: torch.stack(method(workload.x, workload.baseline))


def edge_attribution_patching(workload: Workload) -> Call:
    """What every connection of two parts does to the score, to first order."""
    score, model = attrib.target(workload.model, workload.target), workload.model
    method = patching.edge_attribution_patching(score, writers(model), readers(model))
    return lambda: method(workload.x, workload.baseline).nan_to_num()


def layer_integrated_gradients(workload: Workload, *, place: Place, steps: int) -> Call:
    """Integrated gradients of what is behind a layer."""
    score = attrib.target(workload.model, workload.target)
    method = attrib.layer(
        lambda f: attrib.integrated_gradients(f, steps=steps), score, site(workload.model, place)
    )
    return lambda: method(workload.x, workload.baseline)


def conductance(
    workload: Workload, *, place: Place, steps: int, quadrature: Integral = "telescoping"
) -> Call:
    """Conductance of all neurons of a layer."""
    score = attrib.target(workload.model, workload.target)
    where = site(workload.model, place)
    method = attrib.conductance(score, where, steps=steps, quadrature=quadrature)
    return lambda: method(workload.x, workload.baseline)


def internal_influence(workload: Workload, *, place: Place, steps: int) -> Call:
    """The mean gradient by a layer on the path."""
    score = attrib.target(workload.model, workload.target)
    method = attrib.internal_influence(score, site(workload.model, place), steps=steps)
    return lambda: method(workload.x, workload.baseline)


def neuron_integrated_gradients(workload: Workload, *, steps: int) -> Call:
    """Integrated gradients of one neuron."""
    model = workload.model
    score = attrib.neuron(model, site(model, "middle"), neuron(model))
    method = attrib.integrated_gradients(score, steps=steps)
    return lambda: method(workload.x, workload.baseline)


def neuron_conductance(workload: Workload, *, steps: int) -> Call:
    """What flows from the input through one neuron."""
    model = workload.model
    score = attrib.target(model, workload.target)
    where, index = site(model, "middle"), neuron(model)
    method = attrib.neuron_conductance(score, where, index, steps=steps)
    return lambda: method(workload.x, workload.baseline)
