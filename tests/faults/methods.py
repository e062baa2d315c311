"""One row per method: how it is made and called on a problem."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

import attrib

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


def _completeness(p: Problem, options: dict[str, Any]) -> Any:
    measure = attrib.metrics.completeness(p.target(), **options)
    # Any tree like x has a completeness gap; x itself is one.
    attribution = pytree.tree_map(lambda leaf: leaf if attributable(leaf) else None, p.x)
    return measure(attribution, p.x, _base(p, "baseline"), *p.args)


def attributable(leaf: Any) -> bool:
    """Whether gradient methods attribute to a leaf."""
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


_NOISE = {"std": 0.1, "samples": 3}
_SMOOTH = frozenset({"generator", "chunk_size"})

METHODS: tuple[Method, ...] = (
    Method("saliency", _plain(attrib.saliency), points=False),
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
)
