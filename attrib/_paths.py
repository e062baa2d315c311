"""Paths from a baseline to an input, and weighted sums of gradients along them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attrib._batched import stacked
from attrib._checks import describe
from attrib._transforms import value_and_slope
from attrib._tree import differentiable, flatten, leaves, tree_map, unflatten
from attrib.errors import AttribValueError
from attrib.gradient import grad_and_score
from attrib.types import Score, Tree

__all__ = ["Path", "straight", "traverse", "weighted_gradients"]

Path: TypeAlias = Callable[[Tree, Tree, Tensor], Tree]
"""``path(x, baseline, alpha) -> point``, differentiable in the 0-dimensional ``alpha``."""


def straight(x: Tree, baseline: Tree, alpha: Tensor) -> Tree:
    r"""The straight line :math:`\gamma(\alpha) = x' + \alpha (x - x')`.

    Example:
        >>> import torch
        >>> straight(torch.tensor([4.0]), torch.tensor([2.0]), torch.tensor(0.5))
        tensor([3.])
    """
    return tree_map(
        lambda a, b: (b + alpha * (a - b)).to(a.dtype) if differentiable(a) else a, x, baseline
    )


def traverse(path: Path | None, x: Tree, baseline: Tree) -> Callable[[Tensor], tuple[Tree, Tree]]:
    """From stacked alphas to stacked points and the velocity of the path, which broadcasts."""
    if path is None:
        # What vmap over `straight` computes, without its overhead, and with a velocity that is
        # constant.
        difference = tree_map(lambda a, b: a - b if differentiable(a) else None, x, baseline)

        def line(alpha: Tensor) -> tuple[Tree, Tree]:
            def at(a: Tensor, b: Tensor, d: Tensor | None) -> Tensor:
                return (
                    a.expand(len(alpha), *a.shape)
                    if d is None
                    else (b + _expand_to(alpha, a) * d).to(a.dtype)
                )

            return tree_map(at, x, baseline, difference), difference

        return line

    chosen = path

    def point_and_velocity(alpha: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        def moving(alpha: Tensor) -> tuple[Tensor, ...]:
            return tuple(
                leaf for leaf in _check_point(chosen(x, baseline, alpha), x) if differentiable(leaf)
            )

        return value_and_slope(moving, alpha)

    def curve(alpha: Tensor) -> tuple[Tree, Tree]:
        points, velocities = map(iter, torch.vmap(point_and_velocity)(alpha))
        parts, spec = flatten(x)
        still = [None if a is None else a.expand(len(alpha), *a.shape) for a in parts]
        return (
            unflatten(
                spec,
                [
                    next(points) if differentiable(a) else s
                    for a, s in zip(parts, still, strict=True)
                ],
            ),
            unflatten(spec, [next(velocities) if differentiable(a) else None for a in parts]),
        )

    return curve


def weighted_gradients(
    f: Score, points: Callable[[Tensor], tuple[Tree, Tree]], args: tuple[Any, ...]
) -> Callable[[Tensor, Tensor], tuple[Tree, Tensor]]:
    """A stack of nodes as one summand of the integral, and the scores at the nodes.

    Weights are ``(nodes,)``, or ``(nodes, rules)`` for several integrals from the same gradients.
    """
    gradient = stacked(grad_and_score(f), *args)

    def evaluate(alpha: Tensor, weight: Tensor) -> tuple[Tree, Tensor]:
        point, velocity = points(alpha)
        slope, score = gradient(point)
        rules = weight.shape[1:]

        def weighted(g: Tensor, v: Tensor | None) -> Tensor:
            # A product and a sum: autocast would do a matrix product in half precision.
            step = g.to(weight.dtype) if v is None else g.to(weight.dtype) * v
            step = step.reshape(len(alpha), *(1 for _ in rules), *g.shape[1:])
            return (step * weight.reshape(*weight.shape, *(1 for _ in g.shape[1:]))).sum(
                0, keepdim=True
            )

        return tree_map(
            weighted, slope, tree_map(lambda g: None, slope) if velocity is None else velocity
        ), score

    return evaluate


def _check_point(point: Tree, x: Tree) -> list[Any]:
    parts = leaves(point)
    if [getattr(p, "shape", None) for p in parts] != [getattr(a, "shape", None) for a in leaves(x)]:
        raise AttribValueError(
            f"path: must return a tree like x, got {describe(point)} for {describe(x)}; write it "
            "for one alpha without dimensions",
            code="path.shape",
        )
    return parts


def _expand_to(alpha: Tensor, leaf: Tensor) -> Tensor:
    """One alpha per point, against stacked leaves."""
    return alpha.reshape(-1, *(1 for _ in leaf.shape))
