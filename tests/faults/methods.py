"""One row per method: how it is made and called on a problem."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

import attrib
from attrib import games
from attrib._batched import inherit
from attrib._taps import mark
from attrib.games.banzhaf import banzhaf_values
from attrib.games.kernel import kernel_shap
from attrib.games.sampling import shapley_sampling
from attrib.games.shapley import shapley_values
from attrib.games.surrogate import lime
from attrib.patching import attribution_patching
from laws import hiding, sites

from . import inside

DEFAULT: Any = object()
"""Stands for a baseline, or baselines, that fit x."""


@dataclass
class Problem:
    """One call of one method.

    Attributes:
        model: Module or function.
        x: What is explained.
        index: Which output.
        output: Where the outputs are.
        score: Instead of `model`, `index` and `output`.
        base: Baseline or baselines, for the methods that take them.
        args: Whatever else the score takes.
        options: Options of the method that replace its quick ones.
        stochastic: As for `attrib.target`.
        context: What surrounds the call.
        watch: More modules and tensors that must not change.
    """

    model: Any
    x: Any
    index: Any = 1
    output: Any = None
    score: Any = None
    base: Any = DEFAULT
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    stochastic: bool = False
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    watch: list[Any] = field(default_factory=list)

    def target(self) -> Any:
        """The score."""
        if self.score is not None:
            return self.score
        return attrib.target(self.model, self.index, output=self.output, stochastic=self.stochastic)


@dataclass(frozen=True, eq=False)
class Method:
    """A method with options that make it quick.

    Attributes:
        name: As in the documentation, with a word for the variant.
        call: ``call(problem, options)``.
        base: ``"baseline"``, ``"baselines"``, or nothing.
        options: Quick options.
        takes: The other options that the method knows.
        points: Whether the score is evaluated at more than one point.
        targets: Whether it takes a model and targets instead of a score.
    """

    name: str
    call: Callable[[Problem, dict[str, Any]], Any]
    base: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    takes: frozenset[str] = frozenset()
    points: bool = True
    targets: bool = False

    def run(self, problem: Problem) -> Any:
        """Make the method and call it."""
        with problem.context():
            return self.call(problem, self.options | problem.options)

    def knows(self, option: str) -> bool:
        """Whether the method has an option."""
        return option in self.options or option in self.takes


def _plain(factory: Callable[..., Any], *lead: Any) -> Callable[[Problem, dict[str, Any]], Any]:
    return lambda p, options: factory(p.target(), **options)(p.x, *lead, *p.args)


def _with_base(factory: Callable[..., Any], base: str) -> Callable[[Problem, dict[str, Any]], Any]:
    def call(p: Problem, options: dict[str, Any]) -> Any:
        attribute = factory(p.target(), **options)
        return attribute(p.x, _base(p, base), *p.args)

    return call


def _base(p: Problem, kind: str) -> Any:
    if p.base is not DEFAULT:
        return p.base
    if kind == "baseline":
        return 0.25
    return pytree.tree_map(_two_rows, p.x)


def _two_rows(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    rows = torch.ones((2, *leaf.shape[1:]), dtype=leaf.dtype, device=leaf.device)
    rows[0] = 0
    return rows


def _smoothed(smoother: Callable[..., Any], inner: Callable[..., Any]) -> Callable[..., Any]:
    def factory(f: Any, **options: Any) -> Any:
        return smoother(inner(f), options.pop("std"), **options)

    return factory


def _uniform(f: Any, **options: Any) -> Any:
    radius, generator = options.pop("radius"), options.pop("generator", None)
    noise = attrib.perturb.uniform(radius, generator=generator)
    return attrib.smooth(attrib.integrated_gradients(f, steps=2), noise, **options)


def _expected(f: Any, **options: Any) -> Any:
    return attrib.expected(attrib.integrated_gradients(f, steps=3), **options)


def _expected_lift(f: Any, **options: Any) -> Any:
    return attrib.expected(attrib.deep_lift(f), **options)


def _interventional(f: Any, **options: Any) -> Any:
    return games.feature_ablation(f, interventional=True, **options)


def _lrp(composite: Any) -> Callable[..., Any]:
    return lambda f, **options: attrib.lrp(f, composite=composite, **options)


def _per_target(inner: Callable[..., Any], *lead: Any) -> Callable[[Problem, dict[str, Any]], Any]:
    def call(p: Problem, options: dict[str, Any]) -> Any:
        targets = options.pop("targets", DEFAULT)
        targets = [p.index, 0] if targets is DEFAULT else targets
        attribute = attrib.per_target(
            inner, p.model, targets, output=p.output, stochastic=p.stochastic, **options
        )
        return attribute(p.x, *lead, *p.args)

    return call


def _at_site(
    method: Callable[..., Any], base: str = ""
) -> Callable[[Problem, dict[str, Any]], Any]:
    """A method at the site of the options, or at one that all of x passes."""

    def call(p: Problem, options: dict[str, Any]) -> Any:
        f, site = p.target(), options.pop("site", None)
        start = [_base(p, base)] if base else []
        if site is not None:
            return method(f, site, **options)(p.x, *start, *p.args)
        found = method(inherit(f, _marking), "x", **options)(p.x, *start, *p.args)
        # The only tensor of a tree passes a site as that tensor.
        return found if type(found) is type(p.x) else inside.put_back(found, p.x)

    return call


def _inside(run: inside.Run, base: str = "") -> Callable[[Problem, dict[str, Any]], Any]:
    """A map or a patch."""

    def call(p: Problem, options: dict[str, Any]) -> Any:
        return run(p.target(), p.x, [_base(p, base)] if base else [], p.args, options)

    return call


def _secant_conductance(f: Any, site: Any, **options: Any) -> Any:
    return attrib.conductance(f, site, quadrature="secant", **options)


def _exact_conductance(f: Any, site: Any, **options: Any) -> Any:
    return attrib.conductance(f, site, quadrature="gauss-legendre", **options)


def _patching(f: Any, site: Any, **options: Any) -> Any:
    """From a run in which everything is a quarter, but for integers."""
    attribute = attribution_patching(f, site, **options)
    return lambda x, *args: attribute(x, inside.quarter(x), *args)


def _marking(f: Any) -> Any:
    return lambda x, *args: f(mark("x", x), *args)


def _of_layer(method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda f, site, **options: attrib.layer(lambda tail: method(tail, **options), f, site)


def _neuron(p: Problem, options: dict[str, Any]) -> Any:
    """Through one neuron of the site of the options, or through one that is a quarter of f."""
    f, site, index = p.target(), options.pop("site", None), 1
    if site is None:
        f, site, index = inherit(f, _marking_score), "last", None
    attribute = attrib.neuron_conductance(f, site, options.pop("neuron", index), **options)
    return attribute(p.x, _base(p, "baseline"), *p.args)


def _marking_score(f: Any) -> Any:
    def score(x: Any, *args: Any) -> Any:
        value = f(x, *args)
        return 4 * attrib.tap("last", value / 4) if isinstance(value, Tensor) else value

    return score


def _completeness(p: Problem, options: dict[str, Any]) -> Any:
    measure = attrib.metrics.completeness(p.target(), **options)
    # Any tree like x has a completeness gap; x itself is one.
    attribution = pytree.tree_map(lambda leaf: leaf if attributable(leaf) else None, p.x)
    return measure(attribution, p.x, _base(p, "baseline"), *p.args)


def _infidelity(p: Problem, options: dict[str, Any]) -> Any:
    """Of an attribution that is a quarter of x."""
    noise = attrib.perturb.gaussian(options.pop("std"), generator=options.pop("generator", None))
    measure = attrib.metrics.infidelity(p.target(), None, noise, **options)
    quarter = pytree.tree_map(lambda leaf: leaf * 0.25 if attributable(leaf) else None, p.x)
    return measure(quarter, p.x, 0, *p.args)


def _max_sensitivity(p: Problem, options: dict[str, Any]) -> Any:
    noise = attrib.perturb.gaussian(options.pop("std"), generator=options.pop("generator", None))
    saliency = attrib.saliency(p.target())
    return attrib.metrics.max_sensitivity(saliency, noise, **options)(p.x, *p.args)


def _checked(p: Problem, options: dict[str, Any]) -> Any:
    """An attribution whose laws have been checked, which must leave nothing behind."""
    f = p.target()
    attribution = attrib.saliency(f, **options)(p.x, *p.args)
    attrib.check(attrib.saliency(f), f, p.x, *p.args, method=attrib.saliency)
    return attribution


def attributable(leaf: Any) -> bool:
    """Whether gradient methods attribute to a leaf."""
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


_LAYER = frozenset({"site", "chunk_size"})
_NOISE = {"std": 0.1, "samples": 3}
_SMOOTH = frozenset({"generator", "chunk_size"})

METHODS: tuple[Method, ...] = (
    Method("saliency", _plain(attrib.saliency), points=False),
    Method("saliency, checked", _checked, points=False),
    Method("grad_and_score", _plain(attrib.grad_and_score), points=False),
    Method("input_x_gradient", _plain(attrib.input_x_gradient), points=False),
    Method(
        "integrated_gradients",
        _with_base(attrib.integrated_gradients, "baseline"),
        "baseline",
        {"steps": 3},
        frozenset({"chunk_size", "quadrature", "tol", "path", "reduce"}),
    ),
    Method(
        "integrated_gradients tol",
        _with_base(attrib.integrated_gradients, "baseline"),
        "baseline",
        {"steps": 9, "tol": 1e-2},
        frozenset({"chunk_size", "quadrature"}),
    ),
    Method(
        "integrated_gradients path",
        _with_base(attrib.integrated_gradients, "baseline"),
        "baseline",
        {"steps": 3, "path": attrib.straight},
        frozenset({"chunk_size"}),
    ),
    Method(
        "average_gradient",
        _with_base(attrib.average_gradient, "baseline"),
        "baseline",
        {"steps": 3},
        frozenset({"chunk_size", "quadrature"}),
    ),
    Method(
        "expected_gradients",
        _with_base(attrib.expected_gradients, "baselines"),
        "baselines",
        {"samples": 3},
        frozenset({"chunk_size", "std", "generator", "reduce"}),
    ),
    Method(
        "integrated_hessians",
        _with_base(attrib.integrated_hessians, "baseline"),
        "baseline",
        {"steps": 2},
        frozenset({"chunk_size"}),
    ),
    Method(
        "guided_ig",
        _with_base(attrib.guided_ig, "baseline"),
        "baseline",
        {"steps": 4},
        frozenset({"fraction", "max_distance"}),
    ),
    Method(
        "blur_ig",
        _plain(attrib.blur_ig),
        "",
        {"steps": 3, "dims": (-1,), "max_sigma": 2.0},
        frozenset({"chunk_size", "quadrature"}),
    ),
    Method(
        "smooth_grad",
        _plain(_smoothed(attrib.smooth_grad, attrib.saliency)),
        "",
        _NOISE,
        _SMOOTH,
    ),
    Method(
        "smooth_grad_sq",
        _plain(_smoothed(attrib.smooth_grad_sq, attrib.input_x_gradient)),
        "",
        _NOISE,
        _SMOOTH,
    ),
    Method("var_grad", _plain(_smoothed(attrib.var_grad, attrib.saliency)), "", _NOISE, _SMOOTH),
    Method("smooth", _plain(_uniform, 0), "", {"radius": 0.1, "samples": 3}, _SMOOTH | {"reduce"}),
    Method(
        "expected",
        _with_base(_expected, "baselines"),
        "baselines",
        {},
        frozenset({"chunk_size", "reduce"}),
    ),
    Method(
        "per_target saliency",
        _per_target(attrib.saliency),
        takes=frozenset({"chunk_size", "targets"}),
        targets=True,
    ),
    Method(
        "per_target integrated_gradients",
        _per_target(lambda f: attrib.integrated_gradients(f, steps=2), 0),
        takes=frozenset({"chunk_size", "targets"}),
        targets=True,
    ),
    Method("guided_backprop", _plain(attrib.guided_backprop), points=False),
    Method("deconvolution", _plain(attrib.deconvolution), points=False),
    Method("deep_lift", _with_base(attrib.deep_lift, "baseline"), "baseline"),
    Method(
        "deep_lift reveal-cancel",
        _with_base(attrib.deep_lift, "baseline"),
        "baseline",
        {"rule": "reveal-cancel"},
    ),
    Method(
        "expected deep_lift",
        _with_base(_expected_lift, "baselines"),
        "baselines",
        {},
        frozenset({"chunk_size", "reduce"}),
    ),
    Method(
        "lrp",
        _plain(attrib.lrp),
        "",
        {"composite": attrib.rules.epsilon()},
        frozenset({"unknown"}),
        points=False,
    ),
    Method("lrp attn_lrp", _plain(_lrp(attrib.rules.attn_lrp())), points=False),
    Method("lrp epsilon_plus_flat", _plain(_lrp(attrib.rules.epsilon_plus_flat())), points=False),
    Method("excitation_backprop", _plain(attrib.excitation_backprop), points=False),
    Method("completeness", _completeness, "baseline", points=False),
    Method("infidelity", _infidelity, "", _NOISE, _SMOOTH),
    Method("max_sensitivity", _max_sensitivity, "", _NOISE, _SMOOTH),
    Method(
        "feature_ablation",
        _with_base(games.feature_ablation, "baseline"),
        "baseline",
        {},
        frozenset({"chunk_size", "groups"}),
    ),
    Method(
        "feature_ablation interventional",
        _with_base(_interventional, "baselines"),
        "baselines",
        {},
        frozenset({"chunk_size", "groups"}),
    ),
    Method(
        "feature_inclusion",
        _with_base(games.feature_inclusion, "baseline"),
        "baseline",
        {},
        frozenset({"chunk_size", "groups"}),
    ),
    Method(
        "per_target feature_ablation",
        _per_target(games.feature_ablation, 0),
        takes=frozenset({"chunk_size", "targets"}),
        targets=True,
    ),
    Method(
        "shapley_values",
        _with_base(shapley_values, "baseline"),
        "baseline",
        {},
        frozenset({"chunk_size", "groups"}),
    ),
    Method(
        "shapley_sampling",
        _with_base(shapley_sampling, "baseline"),
        "baseline",
        {"samples": 3},
        frozenset({"chunk_size", "groups", "samples", "generator"}),
    ),
    Method(
        "kernel_shap",
        _with_base(kernel_shap, "baseline"),
        "baseline",
        {},
        frozenset({"chunk_size", "groups", "generator"}),
    ),
    Method(
        "banzhaf_values",
        _with_base(banzhaf_values, "baseline"),
        "baseline",
        {},
        frozenset({"chunk_size", "groups", "generator"}),
    ),
    Method(
        "lime",
        _with_base(lime, "baseline"),
        "baseline",
        {"samples": 30, "alpha": 0.01},
        frozenset({"chunk_size", "groups", "samples", "generator"}),
    ),
    Method(
        "owen_values",
        _with_base(partial(hiding.owen, samples=3), "baseline"),
        "baseline",
        {},
        frozenset({"chunk_size", "groups", "generator"}),
    ),
    Method(
        "interactions",
        _with_base(hiding.alone, "baseline"),
        "baseline",
        {},
        frozenset({"chunk_size", "groups", "generator"}),
    ),
    Method(
        "rise",
        _with_base(hiding.visible, "baseline"),
        "baseline",
        {"samples": 8},
        frozenset({"chunk_size", "generator"}),
    ),
    # At a site that is the input itself, unless a case says where.
    Method(
        "layer saliency",
        _at_site(_of_layer(attrib.saliency)),
        takes=frozenset({"site"}),
        points=False,
    ),
    Method(
        "layer integrated_gradients",
        _at_site(_of_layer(attrib.integrated_gradients), "baseline"),
        "baseline",
        {"steps": 3},
        _LAYER | {"quadrature"},
    ),
    Method(
        "layer deep_lift",
        _at_site(_of_layer(attrib.deep_lift), "baseline"),
        "baseline",
        takes=frozenset({"site"}),
    ),
    Method(
        "gradient_x_activation",
        _at_site(attrib.gradient_x_activation),
        takes=frozenset({"site"}),
        points=False,
    ),
    Method(
        "conductance",
        _at_site(attrib.conductance, "baseline"),
        "baseline",
        {"steps": 3},
        _LAYER | {"path"},
    ),
    Method(
        "conductance secant",
        _at_site(_secant_conductance, "baseline"),
        "baseline",
        {"steps": 3},
        _LAYER,
    ),
    Method(
        "conductance gauss-legendre",
        _at_site(_exact_conductance, "baseline"),
        "baseline",
        {"steps": 3},
        _LAYER | {"path"},
    ),
    Method(
        "internal_influence",
        _at_site(attrib.internal_influence, "baseline"),
        "baseline",
        {"steps": 3},
        _LAYER | {"quadrature", "path"},
    ),
    Method(
        "attribution_patching",
        _at_site(_patching),
        takes=frozenset({"site"}),
        points=False,
    ),
    Method(
        "neuron_conductance",
        _neuron,
        "baseline",
        {"steps": 3},
        _LAYER | {"neuron", "quadrature", "path"},
    ),
    *(
        Method(
            name,
            _inside(inside.channel(factory)),
            takes=frozenset({"site", "reshape"}),
            points=False,
        )
        for name, factory in {
            "grad_cam": attrib.grad_cam,
            "grad_cam_plus_plus": attrib.grad_cam_plus_plus,
            "hires_cam": attrib.hires_cam,
            "xgrad_cam": attrib.xgrad_cam,
            "layer_cam": attrib.layer_cam,
        }.items()
    ),
    Method(
        "score_cam",
        _inside(inside.channel(attrib.score_cam), "baseline"),
        "baseline",
        {"softmax": False},
        _LAYER | {"reshape", "mode"},
        points=False,
    ),
    Method(
        "ablation_cam",
        _inside(inside.each_leaf(inside.ablated)),
        takes=_LAYER | {"reshape"},
        points=False,
    ),
    Method(
        "eigen_cam",
        _inside(inside.principal),
        takes=frozenset({"site", "reshape"}),
        points=False,
    ),
    Method(
        "guided_grad_cam",
        _inside(inside.guided),
        takes=frozenset({"site", "reshape", "mode"}),
        points=False,
    ),
    Method(
        "attention_rollout",
        _inside(inside.all_features(sites.rollout)),
        takes=frozenset({"head_fusion", "residual"}),
        points=False,
    ),
    Method(
        "gradient_rollout",
        _inside(inside.all_features(sites.weighted_rollout)),
        takes=frozenset({"head_fusion"}),
        points=False,
    ),
    Method(
        "activation_patching",
        _inside(inside.each_leaf(inside.effects)),
        takes=_LAYER,
        points=False,
    ),
    Method(
        "edge_attribution_patching",
        _inside(inside.all_features(sites.edges, patched=True)),
        "",
        {"steps": 2},
        frozenset({"quadrature", "chunk_size"}),
        points=False,
    ),
)
