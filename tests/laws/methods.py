"""The table: every method, what it is called with, and the laws it claims.

A new method is a new row. Laws that nobody needs to claim (purity, dtypes, determinism, threads,
inputs of every form, the same numbers in every mode) are tested for every row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor

import attrib
from attrib import games
from attrib.games.banzhaf import banzhaf_values
from attrib.games.kernel import kernel_shap, unbiased_kernel_shap
from attrib.games.sampling import shapley_sampling
from attrib.games.surrogate import lime
from attrib.games.svarm import svarm
from attrib.types import Attribute, Score, Tree
from laws import hiding, sites


class Law(Enum):
    """What a method may claim."""

    COMPLETE = auto()
    """On smooth networks the attribution sums to the rise of the score from the baseline(s)."""
    ANCHORED = auto()
    """A feature that does not differ from its baseline(s) gets exactly nothing."""
    SYMMETRIC = auto()
    """Features that the score and the data treat alike get alike."""
    LINEAR = auto()
    """The attribution of a weighted sum of scores is the weighted sum of their attributions."""
    AFFINE = auto()
    """Other units and origins of the features do not change the attribution."""
    ANTISYMMETRIC = auto()
    """Exchanging input and baseline changes the sign."""
    PERMUTED = auto()
    """Permuting the examples permutes the attributions."""
    ALONE = auto()
    """An example gets in a batch what it gets alone."""
    NESTED = auto()
    """There may be any number of batch dimensions."""
    UNDISTURBED = auto()
    """An example gets the same whatever the other examples are."""
    SPLIT = auto()
    """A tuple of pieces of x gets the pieces of the attribution of x."""
    VMAP = auto()
    """`torch.vmap` of the attribution is a loop."""
    COMPILE = auto()
    """`torch.compile` of the attribution gives the attribution."""


class Sample(NamedTuple):
    """Everything a method may be called with."""

    x: Tree
    baseline: Tree
    baselines: Tree


TWINS = frozenset({"functional", "in place", "clamp", "where", "leaky"})


@dataclass(frozen=True)
class MethodInfo:
    """One method.

    Attributes:
        name: How it appears in the report.
        factory: ``factory(f, **options)``, with few samples.
        laws: What it claims, see `Law`.
        takes: What it is called with beside x: nothing, ``"baseline"`` or ``"baselines"``.
        seeded: Whether the factory takes a generator.
        chunked: Whether the factory takes a chunk size.
        degree: The attribution of ``c * f`` is ``c**degree`` times that of ``f``; ``None`` if it
            is no such multiple.
        pairs: Whether the attribution is a matrix of features.
        precise: Options that leave no error but rounding on smooth networks, where those of the
            factory do not.
        odd: The attribution of ``-f`` has the size of that of ``f``.
        twins: The spellings of a ReLU by which it is attributed alike, in whatever units its
            input is.
        integers: Whether integers and booleans in the input are attributed too.
        dummies: Whether what has no effect gets exactly nothing. A fit to samples leaves it a part
            of what it does not explain.
    """

    name: str
    factory: Callable[..., Attribute]
    laws: frozenset[Law] = field(default_factory=frozenset)
    takes: str = ""
    seeded: bool = False
    chunked: bool = True
    degree: int | None = 1
    pairs: bool = False
    precise: dict[str, Any] = field(default_factory=dict)
    odd: bool = True
    twins: frozenset[str] = TWINS
    integers: bool = False
    dummies: bool = True

    def attribute(self, f: Score, *, seed: int = 0, **options: Any) -> Attribute:
        """The attribution of a score, with a generator of its own."""
        if self.seeded:
            options["generator"] = torch.Generator().manual_seed(seed)
        return self.factory(f, **options)

    def arguments(self, sample: Sample) -> tuple[Tree, ...]:
        """What the attribution is called with."""
        extra = {"": (), "baseline": (sample.baseline,), "baselines": (sample.baselines,)}
        return (sample.x, *extra[self.takes])

    def __call__(self, f: Score, sample: Sample, *, seed: int = 0, **options: Any) -> Tree:
        return self.attribute(f, seed=seed, **options)(*self.arguments(sample))

    def per_feature(self, attribution: Tensor, features: int) -> Tensor:
        """One number per feature: a matrix of interactions summed over partners."""
        if not self.pairs:
            return attribution
        return attribution.flatten(attribution.ndim - features).sum(-1)


def claiming(*laws: Law) -> pytest.MarkDecorator:
    """Run a test for every method that claims all these laws."""
    rows = [info for info in METHODS if info.laws >= set(laws)]
    return pytest.mark.parametrize("info", rows, ids=[info.name for info in rows])


def such_that(condition: Callable[[MethodInfo], bool]) -> pytest.MarkDecorator:
    """Run a test for every method with a property."""
    rows = [info for info in METHODS if condition(info)]
    return pytest.mark.parametrize("info", rows, ids=[info.name for info in rows])


def every() -> pytest.MarkDecorator:
    """Run a test for every method."""
    return such_that(lambda info: True)


def bent(x: Tree, baseline: Tree, alpha: Tensor) -> Tree:
    """A path of one's own: every feature has its own detour from the straight line."""

    def leaf(a: Any, b: Any) -> Any:
        if not a.is_floating_point():
            return a
        detour = torch.arange(a.shape[-1], dtype=a.dtype, device=a.device).cos()
        return b + (alpha + 0.3 * torch.sin(torch.pi * alpha) * detour).to(a.dtype) * (a - b)

    return pytree.tree_map(leaf, x, baseline)


def _options(method: Callable[..., Attribute], **fixed: Any) -> Callable[..., Attribute]:
    return lambda f, **options: method(f, **{**fixed, **options})


def _smoothed(method: Callable[..., Attribute], **fixed: Any) -> Callable[..., Attribute]:
    return lambda f, **options: method(attrib.saliency(f), 0.3, **fixed, **options)


def _smooth_uniform(
    f: Score, *, generator: torch.Generator | None = None, **options: Any
) -> Attribute:
    def attribute(x: Tree, *args: Any) -> Tree:
        noise = attrib.perturb.uniform(0.3, generator=generator)
        integrate = attrib.integrated_gradients(f, steps=8)
        return attrib.smooth(integrate, noise, samples=5, **options)(x, *args)

    return attribute


def _smooth_expected(
    f: Score, *, generator: torch.Generator | None = None, **options: Any
) -> Attribute:
    inner = attrib.expected_gradients(f, samples=3, generator=generator)
    return attrib.smooth_grad(inner, 0.1, samples=4, generator=generator, **options)


def _expected(f: Score, **options: Any) -> Attribute:
    return attrib.expected(attrib.integrated_gradients(f, steps=64), **options)


def _expected_ablation(f: Score, **options: Any) -> Attribute:
    return attrib.expected(games.feature_ablation(f, **options), **options)


def _occlusion(f: Score, **options: Any) -> Attribute:
    def attribute(x: Tree, *args: Any) -> Tree:
        window = pytree.tree_map(lambda leaf: (1,), x)
        return games.occlusion(f, window, **options)(x, *args)

    return attribute


def _lean(method: Callable[..., Attribute]) -> Callable[..., Attribute]:
    """With so few samples that not all coalitions are seen, unless there must be more."""

    def factory(f: Score, **options: Any) -> Attribute:
        def attribute(x: Tree, *args: Any) -> Tree:
            try:
                return method(f, samples=20, **options)(x, *args)
            except attrib.AttribError as error:
                if error.code != "samples.few":
                    raise
            return method(f, samples=160, **options)(x, *args)

        return attribute

    return factory


def _expected_lift(f: Score, **options: Any) -> Attribute:
    return attrib.expected(attrib.deep_lift(f), **options)


def _one_target(method: Callable[..., Attribute]) -> Callable[..., Attribute]:
    """A score as the second of two outputs, attributed by `per_target`."""

    def factory(f: Score, **options: Any) -> Attribute:
        def model(*parts: Any, **named: Any) -> Tensor:
            # The arguments of a model are the parts of x: put x together again.
            score = f(named or (parts[0] if len(parts) == 1 else parts))
            return torch.stack([score.square(), score], -1)

        def method_of_x(g: Score) -> Attribute:
            return method(lambda x, *args: g(x, *args))

        attribute = attrib.per_target(method_of_x, model, [1], **options)
        return lambda x, *args: pytree.tree_map(
            lambda leaf: None if leaf is None else leaf[0], attribute(x, *args)
        )

    return factory


_ROWS = frozenset({Law.PERMUTED, Law.ALONE, Law.UNDISTURBED, Law.NESTED})
_TRANSFORMS = frozenset({Law.VMAP, Law.COMPILE})
_GRADIENT = _ROWS | _TRANSFORMS | {Law.LINEAR, Law.SYMMETRIC, Law.SPLIT}
_PATH = _GRADIENT | {Law.ANCHORED, Law.AFFINE}
_INTEGRAL = _PATH | {Law.COMPLETE}
_NOISE = _TRANSFORMS | {Law.UNDISTURBED, Law.NESTED}
_RELUS = frozenset({"functional", "in place"})
# Conditions that depend on x are refused.
_NO_CONDITIONS = TWINS - {"where"}
# The rules of guided backpropagation and DeepLift do not add up over scores.
_RULED = _ROWS | _TRANSFORMS | {Law.SYMMETRIC, Law.SPLIT}
_LIFT = _RULED | {Law.COMPLETE, Law.ANCHORED, Law.AFFINE}
# Those of relevance propagation depend on the score alone, not on what comes from above.
_RELEVANCE = _RULED | {Law.LINEAR}
# Differences of scores, with and without a feature.
_DIFFERENCE = _GRADIENT | {Law.ANCHORED, Law.AFFINE}
_SAMPLED = _ROWS | _TRANSFORMS | {Law.LINEAR, Law.AFFINE, Law.SPLIT}

METHODS = [
    MethodInfo("saliency", attrib.saliency, _GRADIENT, chunked=False),
    MethodInfo("input_x_gradient", attrib.input_x_gradient, _GRADIENT, chunked=False),
    MethodInfo(
        "integrated_gradients",
        _options(attrib.integrated_gradients, steps=64),
        _INTEGRAL | {Law.ANTISYMMETRIC},
        takes="baseline",
    ),
    MethodInfo(
        "integrated_gradients[midpoint]",
        _options(attrib.integrated_gradients, steps=7, quadrature="midpoint"),
        _PATH | {Law.ANTISYMMETRIC},
        takes="baseline",
    ),
    MethodInfo(
        "integrated_gradients[left]",
        _options(attrib.integrated_gradients, steps=7, quadrature="left"),
        _PATH,
        takes="baseline",
    ),
    MethodInfo(
        "integrated_gradients[right]",
        _options(attrib.integrated_gradients, steps=7, quadrature="right"),
        _PATH,
        takes="baseline",
    ),
    MethodInfo(
        "integrated_gradients[trapezoid]",
        _options(attrib.integrated_gradients, steps=7, quadrature="trapezoid"),
        _PATH | {Law.ANTISYMMETRIC},
        takes="baseline",
    ),
    # How many steps there are depends on the scores and on the whole batch.
    MethodInfo(
        "integrated_gradients[tol]",
        _options(attrib.integrated_gradients, steps=200, tol=1e-9),
        frozenset(
            {
                Law.COMPLETE,
                Law.ANCHORED,
                Law.SYMMETRIC,
                Law.ANTISYMMETRIC,
                Law.PERMUTED,
                Law.SPLIT,
                Law.NESTED,
            }
        ),
        takes="baseline",
    ),
    MethodInfo(
        "integrated_gradients[path]",
        _options(attrib.integrated_gradients, steps=16, path=bent),
        _ROWS | _TRANSFORMS | {Law.COMPLETE, Law.ANCHORED, Law.LINEAR, Law.AFFINE},
        takes="baseline",
        precise={"steps": 200},
    ),
    MethodInfo(
        "average_gradient",
        _options(attrib.average_gradient, steps=16),
        _GRADIENT,
        takes="baseline",
    ),
    MethodInfo(
        "expected_gradients",
        _options(attrib.expected_gradients, samples=9),
        _TRANSFORMS
        | {
            Law.ANCHORED,
            Law.SYMMETRIC,
            Law.LINEAR,
            Law.AFFINE,
            Law.UNDISTURBED,
            Law.NESTED,
            Law.SPLIT,
        },
        takes="baselines",
        seeded=True,
    ),
    MethodInfo(
        "expected_gradients[std]",
        _options(attrib.expected_gradients, samples=9, std=0.2),
        _NOISE | {Law.LINEAR},
        takes="baselines",
        seeded=True,
    ),
    MethodInfo(
        "integrated_hessians",
        _options(attrib.integrated_hessians, steps=6),
        (_ROWS | {Law.VMAP, Law.COMPILE})
        | {Law.COMPLETE, Law.ANCHORED, Law.SYMMETRIC, Law.LINEAR, Law.AFFINE},
        takes="baseline",
        pairs=True,
        precise={"steps": 64},
    ),
    # Which of two features that are alike goes first may be up to a rounding error.
    MethodInfo(
        "guided_ig",
        _options(attrib.guided_ig, steps=9),
        _ROWS | {Law.ANCHORED, Law.SPLIT},
        takes="baseline",
        chunked=False,
    ),
    MethodInfo(
        "blur_ig",
        _options(attrib.blur_ig, steps=16, max_sigma=3.0, dims=(-1,)),
        _ROWS | _TRANSFORMS | {Law.LINEAR},
    ),
    MethodInfo(
        "smooth_grad",
        _smoothed(attrib.smooth_grad, samples=9),
        _NOISE | {Law.LINEAR},
        seeded=True,
    ),
    MethodInfo(
        "smooth_grad_sq",
        _smoothed(attrib.smooth_grad_sq, samples=9),
        _NOISE,
        seeded=True,
        degree=2,
    ),
    MethodInfo(
        "var_grad",
        _smoothed(attrib.var_grad, samples=9),
        _NOISE,
        seeded=True,
        degree=2,
    ),
    MethodInfo(
        "smooth(integrated_gradients, uniform)",
        _smooth_uniform,
        _NOISE | {Law.LINEAR},
        takes="baseline",
        seeded=True,
    ),
    MethodInfo(
        "smooth_grad(expected_gradients)",
        _smooth_expected,
        _NOISE | {Law.LINEAR},
        takes="baselines",
        seeded=True,
    ),
    MethodInfo(
        "expected(integrated_gradients)",
        _expected,
        _INTEGRAL,
        takes="baselines",
    ),
    # The outputs of a model are (batch, classes).
    MethodInfo(
        "per_target(saliency)",
        _one_target(attrib.saliency),
        _GRADIENT - {Law.NESTED},
    ),
    MethodInfo(
        "per_target(integrated_gradients)",
        _one_target(_options(attrib.integrated_gradients, steps=64)),
        (_INTEGRAL | {Law.ANTISYMMETRIC}) - {Law.NESTED},
        takes="baseline",
    ),
    # What is called relu is what they are about.
    MethodInfo(
        "guided_backprop",
        attrib.guided_backprop,
        _RULED,
        chunked=False,
        odd=False,
        twins=_RELUS,
    ),
    MethodInfo(
        "deconvolution",
        attrib.deconvolution,
        _RULED,
        chunked=False,
        odd=False,
        twins=_RELUS,
    ),
    MethodInfo(
        "deep_lift",
        attrib.deep_lift,
        _LIFT | {Law.ANTISYMMETRIC},
        takes="baseline",
        twins=_NO_CONDITIONS,
        chunked=False,
    ),
    MethodInfo(
        "integrated_gradients[secant]",
        _options(attrib.integrated_gradients, steps=5, quadrature="secant"),
        _LIFT | {Law.ANTISYMMETRIC},
        takes="baseline",
        twins=_NO_CONDITIONS,
    ),
    MethodInfo(
        "deep_lift[multipliers]",
        _options(attrib.deep_lift, multiply=False),
        _RULED,
        takes="baseline",
        twins=_NO_CONDITIONS,
        chunked=False,
    ),
    MethodInfo(
        "deep_lift[reveal-cancel]",
        _options(attrib.deep_lift, rule="reveal-cancel"),
        _LIFT | {Law.ANTISYMMETRIC},
        takes="baseline",
        twins=_NO_CONDITIONS,
        chunked=False,
    ),
    MethodInfo(
        "expected(deep_lift)",
        _expected_lift,
        _LIFT,
        takes="baselines",
        twins=_NO_CONDITIONS,
    ),
    MethodInfo(
        "per_target(deep_lift)",
        _one_target(attrib.deep_lift),
        (_LIFT | {Law.ANTISYMMETRIC}) - {Law.NESTED},
        takes="baseline",
        twins=_NO_CONDITIONS,
    ),
    # An epsilon is in units of its layer.
    MethodInfo("lrp", attrib.lrp, _RELEVANCE, chunked=False, twins=frozenset()),
    MethodInfo(
        "lrp[epsilon 0]",
        _options(attrib.lrp, composite=attrib.rules.epsilon(0.0)),
        _RELEVANCE,
        chunked=False,
    ),
    MethodInfo(
        "lrp[epsilon_plus]",
        _options(attrib.lrp, composite=attrib.rules.epsilon_plus(0.0)),
        _RELEVANCE,
        chunked=False,
    ),
    MethodInfo(
        "lrp[attn_lrp]",
        _options(attrib.lrp, composite=attrib.rules.attn_lrp()),
        _RELEVANCE,
        chunked=False,
        twins=frozenset(),
    ),
    # A probability: the same for multiples of a score, and of a sum no sum.
    MethodInfo(
        "excitation_backprop",
        attrib.excitation_backprop,
        _RULED,
        chunked=False,
        degree=0,
    ),
    MethodInfo(
        "feature_ablation",
        games.feature_ablation,
        _DIFFERENCE,
        takes="baseline",
        integers=True,
    ),
    MethodInfo(
        "feature_ablation[interventional]",
        _options(games.feature_ablation, interventional=True),
        _DIFFERENCE,
        takes="baselines",
        integers=True,
    ),
    MethodInfo(
        "feature_inclusion",
        games.feature_inclusion,
        _DIFFERENCE,
        takes="baseline",
        integers=True,
    ),
    MethodInfo(
        "expected(feature_ablation)",
        _expected_ablation,
        _DIFFERENCE,
        takes="baselines",
        integers=True,
    ),
    MethodInfo(
        "per_target(feature_ablation)",
        _one_target(games.feature_ablation),
        _DIFFERENCE - {Law.NESTED},
        takes="baseline",
        integers=True,
    ),
    # A larger window hides neighbours too.
    MethodInfo(
        "occlusion",
        _occlusion,
        _DIFFERENCE,
        takes="baseline",
        integers=True,
    ),
    # The examples share the coalitions, so that each gets alone what it gets among others.
    MethodInfo(
        "shapley_sampling[antithetic]",
        _options(shapley_sampling, samples=3),
        _SAMPLED | {Law.COMPLETE, Law.ANTISYMMETRIC},
        takes="baseline",
        seeded=True,
        integers=True,
    ),
    MethodInfo(
        "shapley_sampling[independent]",
        _options(shapley_sampling, samples=3, design="independent"),
        _SAMPLED | {Law.COMPLETE},
        takes="baseline",
        seeded=True,
        integers=True,
    ),
    MethodInfo(
        "shapley_sampling[stratified]",
        _options(shapley_sampling, samples=1, design="stratified"),
        _SAMPLED | {Law.COMPLETE},
        takes="baseline",
        seeded=True,
        integers=True,
    ),
    MethodInfo(
        "kernel_shap",
        _lean(kernel_shap),
        _SAMPLED | {Law.COMPLETE, Law.ANTISYMMETRIC},
        takes="baseline",
        seeded=True,
        integers=True,
        dummies=False,
    ),
    MethodInfo(
        "kernel_shap[gaussian_process]",
        _lean(_options(kernel_shap, regression="gaussian_process")),
        _SAMPLED | {Law.COMPLETE, Law.ANTISYMMETRIC},
        takes="baseline",
        seeded=True,
        integers=True,
        dummies=False,
    ),
    MethodInfo(
        "unbiased_kernel_shap",
        _options(unbiased_kernel_shap, samples=7),
        _SAMPLED | {Law.ANTISYMMETRIC},
        takes="baseline",
        seeded=True,
        integers=True,
        dummies=False,
    ),
    MethodInfo(
        "svarm",
        _options(svarm, samples=2),
        _SAMPLED | {Law.COMPLETE, Law.ANTISYMMETRIC},
        takes="baseline",
        seeded=True,
        integers=True,
        dummies=False,
    ),
    MethodInfo(
        "banzhaf_values",
        _lean(banzhaf_values),
        _SAMPLED | {Law.ANTISYMMETRIC},
        takes="baseline",
        seeded=True,
        integers=True,
        dummies=False,
    ),
    MethodInfo(
        "lime",
        _options(lime, samples=50, alpha=0.01),
        _SAMPLED,
        takes="baseline",
        seeded=True,
        integers=True,
        dummies=False,
    ),
    MethodInfo(
        "owen_values",
        _options(hiding.owen, samples=3),
        _SAMPLED - {Law.COMPILE} | {Law.COMPLETE, Law.ANTISYMMETRIC},
        takes="baseline",
        seeded=True,
        integers=True,
    ),
    MethodInfo(
        "interactions[alone]",
        hiding.alone,
        _SAMPLED,
        takes="baseline",
        seeded=True,
        integers=True,
        dummies=False,
    ),
    # The mean score where a place is visible, whatever is there.
    MethodInfo(
        "rise",
        _options(hiding.visible, samples=8),
        _SAMPLED - {Law.SPLIT},
        takes="baseline",
        seeded=True,
        dummies=False,
    ),
    # At a site that is the input itself, what is known of attributions to the input holds.
    MethodInfo("layer(saliency)", sites.of_layer(attrib.saliency), _GRADIENT, chunked=False),
    MethodInfo(
        "layer(integrated_gradients)",
        sites.of_layer(attrib.integrated_gradients, steps=64),
        _INTEGRAL | {Law.ANTISYMMETRIC},
        takes="baseline",
    ),
    MethodInfo(
        "layer(deep_lift)",
        sites.of_layer(attrib.deep_lift),
        _LIFT | {Law.ANTISYMMETRIC},
        takes="baseline",
        twins=_NO_CONDITIONS,
        chunked=False,
    ),
    MethodInfo(
        "gradient_x_activation",
        sites.at_input(attrib.gradient_x_activation),
        _GRADIENT,
        chunked=False,
    ),
    MethodInfo(
        "conductance",
        sites.at_input(attrib.conductance, steps=7),
        _PATH | {Law.ANTISYMMETRIC},
        takes="baseline",
    ),
    MethodInfo(
        "conductance[secant]",
        sites.at_input(attrib.conductance, steps=5, quadrature="secant"),
        _LIFT | {Law.ANTISYMMETRIC},
        takes="baseline",
        twins=_NO_CONDITIONS,
    ),
    MethodInfo(
        "conductance[gauss-legendre]",
        sites.at_input(attrib.conductance, steps=7, quadrature="gauss-legendre"),
        _INTEGRAL | {Law.ANTISYMMETRIC},
        takes="baseline",
        precise={"steps": 64},
    ),
    MethodInfo(
        "conductance[path]",
        sites.at_input(attrib.conductance, steps=7, quadrature="gauss-legendre", path=bent),
        _ROWS | _TRANSFORMS | {Law.COMPLETE, Law.ANCHORED, Law.LINEAR, Law.AFFINE},
        takes="baseline",
        precise={"steps": 200},
    ),
    MethodInfo(
        "internal_influence",
        sites.at_input(attrib.internal_influence, steps=7),
        _GRADIENT,
        takes="baseline",
    ),
    MethodInfo(
        "attribution_patching",
        sites.at_input(sites.patching),
        _DIFFERENCE,
        takes="baseline",
    ),
    MethodInfo(
        "attribution_patching[steps]",
        sites.at_input(sites.patching, steps=5),
        _DIFFERENCE,
        takes="baseline",
    ),
    # A layer of neurons is (batch, neurons).
    MethodInfo(
        "neuron_conductance",
        sites.through_the_score,
        (_INTEGRAL | {Law.ANTISYMMETRIC}) - {Law.NESTED},
        takes="baseline",
    ),
    # One weight for all features of an example.
    MethodInfo(
        "grad_cam",
        sites.of_one_channel(attrib.grad_cam),
        _ROWS | _TRANSFORMS | {Law.LINEAR, Law.SYMMETRIC},
        chunked=False,
        dummies=False,
    ),
    MethodInfo(
        "hires_cam",
        sites.of_one_channel(attrib.hires_cam),
        _GRADIENT,
        chunked=False,
    ),
    MethodInfo(
        "grad_cam_plus_plus",
        sites.of_one_channel(attrib.grad_cam_plus_plus, positive=True),
        _ROWS | _TRANSFORMS | {Law.SYMMETRIC},
        chunked=False,
        degree=None,
        odd=False,
        dummies=False,
    ),
    MethodInfo(
        "xgrad_cam",
        sites.of_one_channel(attrib.xgrad_cam, positive=True),
        _ROWS | _TRANSFORMS | {Law.LINEAR, Law.SYMMETRIC},
        chunked=False,
        dummies=False,
    ),
    MethodInfo(
        "layer_cam",
        sites.of_one_channel(attrib.layer_cam),
        _RULED,
        chunked=False,
        odd=False,
    ),
    MethodInfo(
        "score_cam",
        sites.of_two_channels(attrib.score_cam),
        _ROWS | _TRANSFORMS | {Law.SYMMETRIC},
        takes="baseline",
        degree=None,
        odd=False,
        dummies=False,
    ),
    MethodInfo(
        "score_cam[increases]",
        sites.of_one_channel(partial(attrib.score_cam, softmax=False)),
        _ROWS | _TRANSFORMS | {Law.LINEAR, Law.SYMMETRIC},
        takes="baseline",
        dummies=False,
    ),
    MethodInfo(
        "ablation_cam",
        sites.of_each_leaf(sites.ablated),
        _ROWS | _TRANSFORMS | {Law.LINEAR, Law.SYMMETRIC},
        dummies=False,
    ),
    MethodInfo(
        "eigen_cam",
        sites.of_two_channels(attrib.eigen_cam),
        _ROWS | _TRANSFORMS | {Law.SYMMETRIC},
        chunked=False,
        degree=None,
        odd=False,
        dummies=False,
    ),
    MethodInfo(
        "guided_grad_cam",
        sites.of_each_leaf(sites.guided),
        _ROWS | _TRANSFORMS | {Law.SYMMETRIC},
        chunked=False,
        degree=2,
        odd=False,
        twins=_RELUS,
    ),
    # Every feature is a token that attends to all of them, in front of the score.
    MethodInfo(
        "attention_rollout",
        sites.of_all_features(sites.rollout),
        _ROWS | _TRANSFORMS | {Law.SYMMETRIC},
        chunked=False,
        degree=None,
        odd=False,
        dummies=False,
    ),
    MethodInfo(
        "gradient_rollout",
        sites.of_all_features(sites.weighted_rollout),
        _ROWS | _TRANSFORMS | {Law.SYMMETRIC},
        chunked=False,
        odd=False,
        dummies=False,
    ),
    MethodInfo(
        "activation_patching",
        sites.of_each_leaf(sites.effects),
        _DIFFERENCE,
        takes="baseline",
    ),
    MethodInfo(
        "edge_attribution_patching",
        sites.of_all_features(sites.edges, takes=1),
        _DIFFERENCE,
        takes="baseline",
    ),
    MethodInfo(
        "edge_attribution_patching[steps]",
        sites.of_all_features(partial(sites.edges, steps=5), takes=1),
        _DIFFERENCE,
        takes="baseline",
    ),
]
