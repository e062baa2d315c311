"""Every attribution method of the library, and what cannot be read off its signature."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from attrib import cam, games
from attrib.attention import attention_maps, attention_rollout, gradient_rollout
from attrib.blur import blur_ig
from attrib.conductance import conductance, internal_influence, neuron_conductance
from attrib.games import (
    banzhaf_values,
    feature_ablation,
    feature_inclusion,
    feature_permutation,
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
from attrib.gradient import input_x_gradient, saliency
from attrib.guided import guided_ig
from attrib.hessians import integrated_hessians
from attrib.layers import gradient_x_activation, layer
from attrib.patching import activation_patching, attribution_patching, edge_attribution_patching
from attrib.path import average_gradient, expected_gradients, integrated_gradients
from attrib.rules import deconvolution, deep_lift, excitation_backprop, guided_backprop, lrp
from attrib.smooth import expected, smooth, smooth_grad, smooth_grad_sq, var_grad

__all__ = [
    "BASES",
    "GROUPS",
    "METHODS",
    "WITH_BASELINE",
    "Gives",
    "Method",
    "Passes",
    "methods",
    "options_of",
    "summary",
    "unknown",
]

Gives: TypeAlias = Literal["input", "map", "layer", "pairs", "hessian", "rollout", "attention"]
"""What a method returns: a tree like the inputs, a map of a layer, a tree like what a layer yields,
interactions, second derivatives, or matrices of tokens by tokens."""

Passes: TypeAlias = Callable[[Mapping[str, Any], int], float]
"""From arguments and the number of features to how often the model is evaluated, about; a
backward pass counts as much as a forward pass."""

GROUPS = (
    "gradients",
    "rules",
    "perturbation",
    "Shapley",
    "CAM",
    "layers",
    "attention",
    "interactions",
    "yours",
)
"""The headings of the list of methods, in order."""


class Method(NamedTuple):
    """An attribution method.

    Attributes:
        name: What it is called, in messages and links.
        make: The factory, ``make(f, **options) -> attribute``.
        group: Its heading.
        gives: What it returns.
        passes: What it costs.
        gradients: Whether it needs an input with derivatives.
        complete: Whether its values sum to ``f(x) - f(baseline)``.
        grouped: Whether it gives one number to a group of entries.
        call: What it is called with besides ``x``, if its signature does not tell.
        signed: Whether values below zero mean anything.
    """

    name: str
    make: Callable[..., Any]
    group: str
    gives: Gives = "input"
    passes: Passes = lambda args, players: 2
    gradients: bool = True
    complete: bool = False
    grouped: bool = False
    call: str | None = None
    signed: bool = True

    @property
    def title(self) -> str:
        return TITLES.get(self.name, self.name.replace("_", " "))


TITLES = {
    "ablation_cam": "Ablation-CAM",
    "blur_ig": "blur integrated gradients",
    "deep_lift": "DeepLIFT",
    "eigen_cam": "Eigen-CAM",
    "grad_cam": "Grad-CAM",
    "grad_cam_plus_plus": "Grad-CAM++",
    "guided_grad_cam": "guided Grad-CAM",
    "guided_ig": "guided integrated gradients",
    "hires_cam": "HiRes-CAM",
    "input_x_gradient": "input × gradient",
    "kernel_shap": "KernelSHAP",
    "unbiased_kernel_shap": "unbiased KernelSHAP",
    "layer_cam": "Layer-CAM",
    "lime": "LIME",
    "lrp": "layer-wise relevance propagation",
    "rise": "RISE",
    "score_cam": "Score-CAM",
    "shapley_values": "exact Shapley values",
    "smooth_grad": "SmoothGrad",
    "smooth_grad_sq": "SmoothGrad squared",
    "svarm": "SVARM",
    "var_grad": "VarGrad",
    "xgrad_cam": "XGrad-CAM",
}

BASES = (
    "saliency",
    "input_x_gradient",
    "integrated_gradients",
    "guided_backprop",
    "deconvolution",
    "deep_lift",
    "lrp",
)
"""The methods that can be smoothed, or applied behind a layer."""

WITH_BASELINE = ("integrated_gradients", "deep_lift", "feature_ablation", "kernel_shap")
"""The methods that can be averaged over baselines."""


def _steps(args: Mapping[str, Any], players: int) -> float:
    return 2.0 * args["steps"]


def _samples(args: Mapping[str, Any], players: int) -> float:
    return float(args["samples"])


def _twice_samples(args: Mapping[str, Any], players: int) -> float:
    return 2.0 * args["samples"]


def _four(args: Mapping[str, Any], players: int) -> float:
    return 4.0


def unknown(args: Mapping[str, Any], players: int) -> float:
    """The cost of what cannot be told before it runs."""
    return math.nan


def _smoothed(args: Mapping[str, Any], players: int) -> float:
    inner = 100 if args.get("attribute") == "integrated_gradients" else 2
    return float(inner * args.get("samples", args.get("references", 1)))


def _each(args: Mapping[str, Any], players: int) -> float:
    return players + 1.0


def _orders(args: Mapping[str, Any], players: int) -> float:
    drawn = {"antithetic": 2, "stratified": players}.get(args.get("design", ""), 1)
    return float(args["samples"] * drawn * (players - 1) + 3)


def _all_or_samples(args: Mapping[str, Any], players: int) -> float:
    samples = args.get("samples")
    return float(samples) if samples else 2.0 ** min(players, 60)


def _union_orders(args: Mapping[str, Any], players: int) -> float:
    return _orders(args, players) if args.get("samples") else 2.0 ** min(players, 60)


def _regression(args: Mapping[str, Any], players: int) -> float:
    return float(args["samples"] or 16 * players)


def _blocks(args: Mapping[str, Any], players: int) -> float:
    return args["samples"] * 2 * players * math.log(max(players, 4) / 2)


def _hessian(args: Mapping[str, Any], players: int) -> float:
    return 2.0 * args["steps"] * players


def _gradients() -> tuple[Method, ...]:
    group = "gradients"
    smoothed: Any = {"group": group, "passes": _smoothed}
    along: Any = {"group": group, "passes": _steps}
    squares: Any = {**smoothed, "signed": False}
    return (
        Method("saliency", saliency, group),
        Method("input_x_gradient", input_x_gradient, group),
        Method("integrated_gradients", integrated_gradients, complete=True, **along),
        Method("average_gradient", average_gradient, **along),
        Method("guided_ig", guided_ig, complete=True, **along),
        Method("blur_ig", blur_ig, **along),
        Method(
            "expected_gradients",
            expected_gradients,
            group,
            passes=_twice_samples,
        ),
        Method("expected", expected, **smoothed),
        Method("smooth", smooth, **smoothed),
        Method("smooth_grad", smooth_grad, **smoothed),
        Method("smooth_grad_sq", smooth_grad_sq, **squares),
        Method("var_grad", var_grad, **squares),
    )


def _rules() -> tuple[Method, ...]:
    group = "rules"
    return (
        Method("deep_lift", deep_lift, group, passes=_four, complete=True),
        Method("lrp", lrp, group),
        Method("excitation_backprop", excitation_backprop, group, signed=False),
        Method("guided_backprop", guided_backprop, group),
        Method("deconvolution", deconvolution, group),
    )


def _perturbation() -> tuple[Method, ...]:
    hiding: Any = {"group": "perturbation", "gradients": False, "grouped": True}
    return (
        Method("feature_ablation", feature_ablation, passes=_each, **hiding),
        Method("feature_inclusion", feature_inclusion, passes=_each, **hiding),
        Method("occlusion", occlusion, passes=_each, **hiding),
        Method("feature_permutation", feature_permutation, passes=_orders, **hiding)._replace(
            call="several"
        ),
        Method("lime", lime, passes=_samples, **hiding),
        Method("rise", rise, passes=_samples, **hiding),
    )


def _shapley() -> tuple[Method, ...]:
    hiding: Any = {"group": "Shapley", "gradients": False, "grouped": True}
    complete: Any = {**hiding, "complete": True}
    return (
        Method("kernel_shap", kernel_shap, passes=_regression, **complete),
        Method("unbiased_kernel_shap", unbiased_kernel_shap, passes=_samples, **complete),
        Method("shapley_sampling", shapley_sampling, passes=_orders, **complete),
        Method("shapley_values", shapley_values, passes=_all_or_samples, **complete),
        Method("svarm", games.svarm, passes=_blocks, **complete),
        Method("owen_values", owen_values, passes=_union_orders, **complete),
        Method("banzhaf_values", banzhaf_values, passes=_all_or_samples, **hiding),
    )


def _maps() -> tuple[Method, ...]:
    maps: Any = {"group": "CAM", "gives": "map"}
    return (
        Method("grad_cam", cam.grad_cam, **maps),
        Method("grad_cam_plus_plus", cam.grad_cam_plus_plus, **maps),
        Method("hires_cam", cam.hires_cam, **maps),
        Method("layer_cam", cam.layer_cam, **maps),
        Method("xgrad_cam", cam.xgrad_cam, **maps),
        Method("eigen_cam", cam.eigen_cam, **maps),
        Method("score_cam", cam.score_cam, passes=unknown, **maps),
        Method("ablation_cam", cam.ablation_cam, passes=unknown, **maps),
        Method("guided_grad_cam", cam.guided_grad_cam, "CAM", passes=_four),
    )


def _layers() -> tuple[Method, ...]:
    inside: Any = {"group": "layers", "gives": "layer"}
    patching: Any = {**inside, "call": "baseline"}
    return (
        Method("layer", layer, passes=_smoothed, **inside),
        Method("gradient_x_activation", gradient_x_activation, **inside),
        Method("conductance", conductance, passes=_steps, **inside),
        Method("internal_influence", internal_influence, passes=_steps, **inside),
        Method("neuron_conductance", neuron_conductance, "layers", passes=_steps),
        Method("attribution_patching", attribution_patching, passes=_steps, **patching),
        Method("activation_patching", activation_patching, passes=unknown, **patching),
        Method(
            "edge_attribution_patching",
            edge_attribution_patching,
            passes=_steps,
            **patching,
        ),
    )


def _attention() -> tuple[Method, ...]:
    tokens: Any = {"group": "attention", "gives": "rollout", "signed": False}
    return (
        Method("attention_rollout", attention_rollout, gradients=False, **tokens),
        Method("gradient_rollout", gradient_rollout, **tokens),
        Method(
            "attention_maps",
            attention_maps,
            "attention",
            "attention",
            gradients=False,
            signed=False,
        ),
    )


def _interactions() -> tuple[Method, ...]:
    return (
        Method(
            "interactions",
            interactions,
            "interactions",
            "pairs",
            passes=_all_or_samples,
            gradients=False,
            grouped=True,
        ),
        Method(
            "integrated_hessians",
            integrated_hessians,
            "interactions",
            "hessian",
            passes=_hessian,
        ),
    )


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *_gradients(),
        *_rules(),
        *_perturbation(),
        *_shapley(),
        *_maps(),
        *_layers(),
        *_attention(),
        *_interactions(),
    )
}
"""Every method of the library, by name."""


def methods() -> dict[str, Callable[..., Any]]:
    """The factories of all methods, by name: ``Study(methods={**methods(), "mine": fn})``.

    Example:
        >>> from attrib import insights
        >>> "integrated_gradients" in insights.methods()
        True
    """
    return {name: method.make for name, method in METHODS.items()}


def options_of(method: Method) -> dict[str, inspect.Parameter]:
    """The options of a factory: all its parameters but the score."""
    found = dict(inspect.signature(method.make).parameters)
    first = next(iter(found), None)
    if first is not None and first not in ("attribute", "method"):
        del found[first]
    found.pop("f", None)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: one for name, one in found.items() if one.kind not in variable}


def summary(make: Callable[..., Any]) -> str:
    """The first sentence of a docstring, without the mathematics."""
    text = (inspect.getdoc(make) or "").partition("\n\n")[0].partition(".. math::")[0]
    plain = re.sub(r":math:`([^`\\\\]*)`", r"\1", " ".join(text.split()))
    # A formula, and what explains its letters, says nothing without the rest of the page.
    words = re.sub(r",? ?:math:`[^`]*`|, where .*", "", plain).replace("`", "")
    sentence = re.split(r"(?<=[a-z)]\w)\. ", words)[0].strip().rstrip(",:;.")
    return f"{sentence}." if sentence else ""
