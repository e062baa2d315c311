"""What a PyTorch model's output owes to its inputs: pure, composable functions on `torch.func`."""

from attrib import metrics, perturb, rules, types
from attrib._paths import straight
from attrib._progress import progress
from attrib.blur import blur_ig, blur_path
from attrib.conductance import conductance, internal_influence, neuron_conductance
from attrib.errors import AttribError, Cancelled, NonFiniteWarning
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

__version__ = "0.1.0"

__all__ = [
    "AttribError",
    "Cancelled",
    "Estimate",
    "NonFiniteWarning",
    "Site",
    "activation",
    "activation_and_gradient",
    "average_gradient",
    "batched",
    "blur_ig",
    "blur_path",
    "conductance",
    "contrast",
    "deconvolution",
    "deep_lift",
    "estimate",
    "excitation_backprop",
    "expected",
    "expected_gradients",
    "grad_and_score",
    "gradient_x_activation",
    "guided_backprop",
    "guided_ig",
    "input_x_gradient",
    "integrated_gradients",
    "integrated_hessians",
    "internal_influence",
    "layer",
    "log_prob",
    "lrp",
    "maximum",
    "mean",
    "metrics",
    "minimum",
    "neuron",
    "neuron_conductance",
    "override",
    "per_target",
    "perturb",
    "prob",
    "progress",
    "rules",
    "saliency",
    "second_moment",
    "smooth",
    "smooth_grad",
    "smooth_grad_sq",
    "split",
    "straight",
    "tap",
    "target",
    "total",
    "types",
    "var_grad",
    "variance",
]
