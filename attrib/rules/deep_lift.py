"""DeepLift: what the difference of a score from its value at a baseline owes to each input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from attrib._batched import inherit
from attrib._carriers import Carrier, Overridden
from attrib._checks import check_baseline, check_callable, check_choice, check_input
from attrib._transforms import compiling
from attrib._tree import differentiable, leaves, tree_map
from attrib.gradient import grad_and_score
from attrib.rules._flow import Rule, check_rules
from attrib.rules._references import OtherPathError, Recording, References, Replaying
from attrib.rules._secants import elementwise, maximum, product, rectified, softmax
from attrib.types import Attribute, Score, Tree

__all__ = ["deep_lift"]

RESCALE: dict[Any, Rule] = {
    "relu": rectified,
    "activation": elementwise,
    "elementwise": elementwise,
    "pool": maximum,
    "softmax": softmax,
    "product": product,
}


def deep_lift(
    f: Score,
    *,
    rule: str = "rescale",
    multiply: bool = True,
    rules: Mapping[Any, Rule] | None = None,
    unknown: str = "refuse",
) -> Attribute:
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_choice(unknown, "unknown", ("refuse", "gradient"))
    table = {**RESCALE, **check_rules(rules or {})}

    def method(f: Score) -> Attribute:
        def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
            check_input(x)
            start = tree_map(
                lambda a, b: b.expand_as(a) if differentiable(a) else a,
                x,
                check_baseline(baseline, x),
            )
            try:
                multipliers = _multipliers(f, table, unknown, x, start, args)
            except OtherPathError:
                if compiling():
                    raise
                # Once more: a model that was called twice at first has settled by now.
                multipliers = _multipliers(f, table, unknown, x, start, args)
            if not multiply:
                return multipliers
            return tree_map(lambda m, a, b: m * (a - b), multipliers, x, start)

        return attribute

    return inherit(f, method)


def _multipliers(
    f: Score, rules: Mapping[Any, Rule], unknown: str, x: Tree, start: Tree, args: tuple[Any, ...]
) -> Tree:
    references = References()
    own = tree_map(Tensor.clone, start)
    variables = [leaf for leaf in leaves(own) if leaf is not None]
    with torch.enable_grad(), Recording(variables, rules, unknown, references):
        f(own, *args)

    def flow(carrier: Carrier, variables: list[Tensor]) -> Replaying:
        return Replaying(carrier, variables, rules, unknown, references)

    multipliers, _ = grad_and_score(Overridden(f, flow))(x, *args)
    references.finish()
    return multipliers
