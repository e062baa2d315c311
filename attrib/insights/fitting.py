"""Which methods fit which models and features."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from attrib.insights.registry import Method
from attrib.insights.sites import layers_of
from attrib.insights.study import Sample, Study

__all__ = ["reason"]


def reason(method: Method, study: Study, model: Any, sample: Sample | None) -> str | None:
    """Why a method does not fit a model and these features; nothing if it does."""
    kinds = [feature.kind for feature in study.features.values()]
    module = isinstance(model, nn.Module)
    if method.gradients and sample is not None and not _differentiable(study, sample):
        return "needs an input with derivatives; give insights.text(embed=...)"
    if method.gives in ("map", "layer") or method.name in ("guided_grad_cam", "neuron_conductance"):
        if not module:
            return "needs a torch.nn.Module, to name its layers"
        if method.name == "edge_attribution_patching" and len(layers_of(model)) < 2:
            return "needs a model with several layers"
        if method.group == "CAM" and not _has(model, nn.Conv1d, nn.Conv2d, nn.Conv3d):
            return "needs a layer with spatial dimensions, a convolution"
        if method.gives == "map" and not {"image", "timeseries"} & set(kinds):
            return "needs an image or a time series"
    if method.group == "attention" and not _attends(model):
        return "needs attention in the model"
    if method.name in ("blur_ig", "rise") and set(kinds) != {"image"}:
        return "needs images"
    if method.gives == "hessian" and (kinds not in (["tabular"], ["array"]) or _wide(sample)):
        return "needs one table with at most 200 columns"
    if method.call == "several" and len(study.data) < 2:
        return "needs several samples"
    return None


def _real(leaf: Tensor) -> bool:
    return leaf.is_floating_point()


def _differentiable(study: Study, sample: Sample) -> bool:
    return any(
        _real(leaf) or kind.embed is not None
        for kind, leaf in zip(study.features.values(), sample.leaves, strict=True)
    )


def _has(model: nn.Module, *kinds: type) -> bool:
    return any(isinstance(module, kinds) for module in model.modules())


def _attends(model: Any) -> bool:
    return isinstance(model, nn.Module) and any(
        isinstance(module, nn.MultiheadAttention) or "Attention" in type(module).__name__
        for module in model.modules()
    )


def _wide(sample: Sample | None) -> bool:
    return sample is not None and sample.leaves[0].numel() > 200
