"""What a PyTorch model's output owes to its inputs: pure, composable functions on `torch.func`."""

import gc as _gc
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

# Nothing that is imported here is garbage, but looking for some among the objects of torch takes as
# long as the import.
_collecting = _gc.isenabled()
_gc.disable()

from attrib import cam, games, perturb, rules, types
from attrib._paths import straight
from attrib._progress import progress
from attrib.attention import (
    attention_maps,
    attention_rollout,
    gradient_rollout,
    with_attention,
)
from attrib.blur import blur_ig, blur_path
from attrib.cam import (
    ablation_cam,
    eigen_cam,
    grad_cam,
    grad_cam_plus_plus,
    guided_grad_cam,
    hires_cam,
    layer_cam,
    score_cam,
    upsample,
    xgrad_cam,
)
from attrib.conductance import conductance, internal_influence, neuron_conductance
from attrib.errors import AttribError, Cancelled, NonFiniteWarning, PlotWarning
from attrib.games import (
    banzhaf_values,
    feature_ablation,
    feature_inclusion,
    feature_permutation,
    game,
    interactions,
    kernel_shap,
    lime,
    occlusion,
    owen_values,
    rise,
    shapley_sampling,
    shapley_values,
    unbiased_kernel_shap,
)
from attrib.gradient import grad_and_score, input_x_gradient, saliency
from attrib.guided import guided_ig
from attrib.hessians import integrated_hessians
from attrib.layers import (
    Site,
    activation,
    activation_and_gradient,
    gradient_x_activation,
    layer,
    neuron,
    split,
    tap,
)
from attrib.patching import (
    activation_patching,
    attribution_patching,
    edge_attribution_patching,
)
from attrib.path import average_gradient, expected_gradients, integrated_gradients
from attrib.reducers import estimate, maximum, mean, minimum, second_moment, total, variance
from attrib.rules import (
    deconvolution,
    deep_lift,
    excitation_backprop,
    guided_backprop,
    lrp,
    override,
)
from attrib.scores import batched, contrast, log_prob, per_target, prob, target
from attrib.smooth import expected, smooth, smooth_grad, smooth_grad_sq, var_grad
from attrib.types import Estimate

if _collecting:
    _gc.enable()
if _TYPE_CHECKING:
    from attrib import checking, insights, metrics, plot
    from attrib.checking import check
    from attrib.metrics import compare

__version__ = "0.1.0"

__all__ = [
    "AttribError",
    "Cancelled",
    "Estimate",
    "NonFiniteWarning",
    "PlotWarning",
    "Site",
    "ablation_cam",
    "activation",
    "activation_and_gradient",
    "activation_patching",
    "attention_maps",
    "attention_rollout",
    "attribution_patching",
    "average_gradient",
    "banzhaf_values",
    "batched",
    "blur_ig",
    "blur_path",
    "cam",
    "check",
    "checking",
    "compare",
    "conductance",
    "contrast",
    "deconvolution",
    "deep_lift",
    "edge_attribution_patching",
    "eigen_cam",
    "estimate",
    "excitation_backprop",
    "expected",
    "expected_gradients",
    "feature_ablation",
    "feature_inclusion",
    "feature_permutation",
    "game",
    "games",
    "grad_and_score",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient_rollout",
    "gradient_x_activation",
    "guided_backprop",
    "guided_grad_cam",
    "guided_ig",
    "hires_cam",
    "input_x_gradient",
    "insights",
    "integrated_gradients",
    "integrated_hessians",
    "interactions",
    "internal_influence",
    "kernel_shap",
    "layer",
    "layer_cam",
    "lime",
    "log_prob",
    "lrp",
    "maximum",
    "mean",
    "metrics",
    "minimum",
    "neuron",
    "neuron_conductance",
    "occlusion",
    "override",
    "owen_values",
    "per_target",
    "perturb",
    "plot",
    "prob",
    "progress",
    "rise",
    "rules",
    "saliency",
    "score_cam",
    "second_moment",
    "shapley_sampling",
    "shapley_values",
    "smooth",
    "smooth_grad",
    "smooth_grad_sq",
    "split",
    "straight",
    "tap",
    "target",
    "total",
    "types",
    "unbiased_kernel_shap",
    "upsample",
    "var_grad",
    "variance",
    "with_attention",
    "xgrad_cam",
]


_LATER = {"check": "attrib.checking", "compare": "attrib.metrics"}


def __getattr__(name: str) -> _Any:
    if name in ("checking", "insights", "metrics", "plot"):
        from importlib import import_module

        return import_module(f"attrib.{name}")
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'attrib' has no attribute {name!r}")
