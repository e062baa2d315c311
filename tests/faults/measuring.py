"""One row per measure: how it is made and called on a problem; and the cases it is put to.

Three measures stand in the table of methods, with all of its cases. The others are made of the same
parts: here are the cases that each of them could get wrong by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

import attrib
from attrib import metrics

from .methods import DEFAULT, Method, Problem, attributable

Run = Callable[[Problem, dict[str, Any]], Any]


def _base(p: Problem) -> Any:
    return 0.25 if p.base is DEFAULT else p.base


def _hiding(name: str, **quick: Any) -> Run:
    """Of an attribution that is a quarter of x."""

    def call(p: Problem, options: dict[str, Any]) -> Any:
        measure = getattr(metrics, name)(p.target(), **quick, **options)
        return measure(pytree.tree_map(_quarter, p.x), p.x, _base(p), *p.args)

    return call


def _moving(name: str) -> Run:
    def call(p: Problem, options: dict[str, Any]) -> Any:
        noise = attrib.perturb.gaussian(0.1, generator=options.pop("generator", None))
        factory = getattr(metrics, name)
        return factory(attrib.saliency(p.target()), noise, samples=2, **options)(p.x, *p.args)

    return call


def _relative_to(name: str) -> Run:
    """To what twice the score does."""

    def call(p: Problem, options: dict[str, Any]) -> Any:
        noise = attrib.perturb.gaussian(0.1, generator=options.pop("generator", None))
        f, factory = p.target(), getattr(metrics, name)
        twice = attrib.batched(lambda x, *args: 2 * f(x, *args)[..., None])
        return factory(attrib.saliency(f), twice, noise, samples=2, **options)(p.x, *p.args)

    return call


def _looking(name: str, **quick: Any) -> Run:
    def call(p: Problem, options: dict[str, Any]) -> Any:
        measure = getattr(metrics, name)(attrib.saliency(p.target()), **quick, **options)
        return measure(p.x, *p.args)

    return call


def _masked(name: str, **quick: Any) -> Run:
    """Beside a mask of the first two features."""

    def call(p: Problem, options: dict[str, Any]) -> Any:
        measure = getattr(metrics, name)(attrib.saliency(p.target()), **quick, **options)
        shape = p.x.shape if isinstance(p.x, Tensor) else (3, 4)
        mask = (torch.arange(shape[-1], device="cpu") < 2).expand(shape)
        return measure(p.x, mask, *p.args)

    return call


def _comparing(name: str) -> Run:
    def call(p: Problem, options: dict[str, Any]) -> Any:
        f = p.target()
        first, second = attrib.saliency(f), attrib.input_x_gradient(f)
        return getattr(metrics, name)(first, second, **options)(p.x, *p.args)

    return call


def _linearity(p: Problem, options: dict[str, Any]) -> Any:
    f = p.target()
    g = replace(p, index=0).target() if isinstance(p.index, int) else f
    return metrics.linearity(_slope, f, g, **options)(p.x, *p.args)


def _symmetry(p: Problem, options: dict[str, Any]) -> Any:
    swap = lambda x: pytree.tree_map(lambda leaf: -leaf if attributable(leaf) else leaf, x)
    return metrics.symmetry(attrib.saliency(p.target()), swap, **options)(p.x, *p.args)


def _randomised(p: Problem, options: dict[str, Any]) -> Any:
    def method(model: Any) -> Any:
        return attrib.saliency(replace(p, model=model).target())

    return metrics.parameter_randomisation(method, p.model, **options)(p.x, *p.args)


def _random_logit(p: Problem, options: dict[str, Any]) -> Any:
    def method(index: Tensor) -> Any:
        return attrib.saliency(replace(p, index=index).target())

    return metrics.random_logit(method, classes=2, **options)(p.x, p.index, *p.args)


def _road(p: Problem, options: dict[str, Any]) -> Any:
    """Of x as an image of two by two pixels."""
    f = p.target()
    images = pytree.tree_map(_as_image, p.x)
    score = attrib.batched(lambda x, *args: f(x.flatten(-3), *args))
    measure = metrics.road(score, shares=[0.3, 0.6], **options)
    return measure(pytree.tree_map(_quarter, images), images, 0, *p.args)


def _as_image(leaf: Any) -> Any:
    fits = isinstance(leaf, Tensor) and leaf.layout == torch.strided and leaf.ndim > 1
    return leaf.unflatten(-1, (1, 2, 2)) if fits else leaf


def _quarter(leaf: Any) -> Any:
    return leaf * 0.25 if attributable(leaf) else None


def _slope(f: Any) -> Any:
    """No linear method."""
    saliency = attrib.saliency(f)
    return lambda x, *args: pytree.tree_map(_square, saliency(x, *args))


def _square(leaf: Any) -> Any:
    return None if leaf is None else leaf.square()


_CHUNKED = frozenset({"chunk_size"})
_DRAWN = _CHUNKED | {"generator"}

_HIDING: dict[str, dict[str, Any]] = {
    "deletion": {},
    "insertion": {},
    "aopc": {},
    "deletion_gap": {},
    "comprehensiveness": {},
    "sufficiency": {},
    "monotonicity": {},
    "faithfulness_estimate": {},
    "effective_complexity": {"tol": 0.1},
}
_LOOKING = ("sparseness", "entropy")
_MASKED: dict[str, dict[str, Any]] = {
    "pointing_game": {},
    "relevance_mass": {},
    "relevance_rank": {},
    "top_k": {"k": 2},
    "iou": {},
}

MEASURES: tuple[Method, ...] = (
    *(
        Method(name, _hiding(name, **quick), "baseline", {}, _CHUNKED)
        for name, quick in _HIDING.items()
    ),
    Method(
        "faithfulness_correlation",
        _hiding("faithfulness_correlation", size=2, samples=5),
        "baseline",
        {},
        _DRAWN,
    ),
    Method("sensitivity_n", _hiding("sensitivity_n", sizes=[1], samples=5), "baseline", {}, _DRAWN),
    *(
        Method(name, _hiding(name), "baseline", points=False)
        for name in ("average_drop", "average_increase", "sum_to_delta")
    ),
    Method("road", _road, "", {}, _DRAWN),
    *(
        Method(name, _moving(name), "", {}, _DRAWN, points=False)
        for name in ("average_sensitivity", "local_lipschitz", "relative_input_stability")
    ),
    *(
        Method(name, _relative_to(name), "", {}, _DRAWN, points=False)
        for name in ("relative_output_stability", "relative_representation_stability")
    ),
    *(Method(name, _looking(name), points=False) for name in _LOOKING),
    *(Method(name, _masked(name, **quick), points=False) for name, quick in _MASKED.items()),
    Method("dummy", _looking("dummy", unused=torch.tensor(True)), points=False),
    *(
        Method(name, _comparing(name), points=False)
        for name in ("agreement", "implementation_invariance")
    ),
    Method("linearity", _linearity, points=False),
    Method("symmetry", _symmetry, points=False),
    Method("parameter_randomisation", _randomised, "", {}, _DRAWN, points=False),
    Method("random_logit", _random_logit, "", {}, frozenset({"generator"}), points=False),
)

_ONE_TENSOR = frozenset({"road", *_MASKED})

# Measures to which a case does not apply as it stands, and why.
APART: dict[str, frozenset[str]] = {
    # What is right there is another model, which has other parameters and classes.
    "tuple of two": _ONE_TENSOR | {"linearity", "parameter_randomisation", "random_logit"},
    "dict with an absent leaf": _ONE_TENSOR,
    "edits a leaf of its argument in place": _ONE_TENSOR,
    "adds a key to its argument": frozenset({"road"}),
}

CHOSEN: tuple[tuple[str, str], ...] = (
    ("values", "nan in one row"),
    ("values", "NaN parameter"),
    ("values", "NaN baseline"),
    ("inputs", "empty batch"),
    ("inputs", "complex"),
    ("inputs", "numpy for x"),
    ("inputs", "None for x"),
    ("inputs", "empty dict for x"),
    ("inputs", "inference tensor"),
    ("inputs", "tuple of two"),
    ("inputs", "dict with an absent leaf"),
    ("baselines", "baseline: wrong features"),
    ("baselines", "baseline: string"),
    ("numbers", "chunk_size=0"),
    ("numbers", "generator=0"),
    ("numbers", "misspelt option"),
    ("model", "dropout in train mode"),
    ("model", "raises at the first call"),
    ("model", "ValueError at the second call"),
    ("model", "edits its argument in place"),
    ("model", "edits a further argument in place"),
    ("model", "edits a leaf of its argument in place"),
    ("model", "adds a key to its argument"),
    ("model", "forward hook"),
    ("context", "inference_mode"),
    ("context", "default dtype bfloat16"),
    ("context", "default device meta"),
)
"""Cases by group and name."""
