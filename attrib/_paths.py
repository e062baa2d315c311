"""Paths from a baseline to an input, and weighted sums of gradients along them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from attrib._batched import stacked
from attrib._checks import check_like
from attrib._map import ChunkSize, map_chunks, slices
from attrib._quadrature import Rule, rule_tensors
from attrib._transforms import depends, value_and_slope
from attrib._tree import differentiable, flatten, leaves, tree_map, unflatten
from attrib.errors import AttribValueError
from attrib.gradient import grad_and_score
from attrib.reducers import total
from attrib.types import Score, Tree

__all__ = ["Path", "Traversal", "integral", "straight", "traverse", "weighted_gradients"]

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


class Traversal(NamedTuple):
    """A path between two given ends.

    Attributes:
        at: From stacked alphas to stacked points, and their velocities unless those are constant.
        velocity: The velocity on the whole path, if it is constant.
    """

    at: Callable[[Tensor], tuple[Tree, Tree | None]]
    velocity: Tree | None = None


def traverse(path: Path | None, x: Tree, baseline: Tree) -> Traversal:
    """The path from a baseline to ``x``; the straight line if there is no other."""
    if path is None:
        difference = tree_map(lambda a, b: a - b if differentiable(a) else None, x, baseline)

        # What vmap over `straight` computes, without its overhead.
        def line(alpha: Tensor) -> tuple[Tree, None]:
            def on_line(a: Tensor, b: Tensor, d: Tensor | None) -> Tensor:
                if d is None:
                    return a.expand(len(alpha), *a.shape)
                return (b + _expand_to(alpha, a) * d).to(a.dtype)

            return tree_map(on_line, x, baseline, difference), None

        return Traversal(line, difference)

    chosen = path

    def point_and_velocity(alpha: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        def moving(alpha: Tensor) -> tuple[Tensor, ...]:
            point = check_like(
                chosen(x, baseline, alpha), x, "path", "write it for one alpha without dimensions"
            )
            moved = tuple(leaf for leaf in point if differentiable(leaf))
            if not any(depends(leaf) for leaf in moved):
                raise AttribValueError(
                    "path: does not depend on alpha, got a point without a derivative; look for "
                    "detach(), torch.no_grad() or .data in it",
                    code="path.independent",
                )
            return moved

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

    return Traversal(curve)


def weighted_gradients(
    f: Score, traversal: Traversal, args: tuple[Any, ...]
) -> Callable[[Tensor, Tensor], tuple[Tree, Tensor]]:
    """A stack of nodes as one summand of the integral, and the scores at the nodes.

    Weights are ``(nodes,)``, or ``(nodes, rules)`` for several integrals from the same gradients.
    """
    gradient = stacked(grad_and_score(f), *args)

    def evaluate(alpha: Tensor, weight: Tensor) -> tuple[Tree, Tensor]:
        point, velocity = traversal.at(alpha)
        slope, score = gradient(point)
        if velocity is not None:
            slope = tree_map(lambda g, v: g.to(weight.dtype) * v, slope, velocity)
        rules = (1,) * (weight.ndim - 1)

        def summed(g: Tensor) -> Tensor:
            # A product and a sum: autocast would do a matrix product in half precision.
            scale = weight.reshape(*weight.shape, *(1 for _ in g.shape[1:]))
            return (g.reshape(len(alpha), *rules, *g.shape[1:]) * scale).sum(0, keepdim=True)

        sums = tree_map(summed, slope)
        if traversal.velocity is not None:
            sums = tree_map(torch.mul, sums, traversal.velocity)
        return sums, score

    return evaluate


def integral(
    integrand: Callable[[Tensor], Tree], rule: Rule, like: Tree, chunk_size: ChunkSize
) -> Tree:
    """The weighted sum of what a function of stacked alphas returns, rounded once.

    Args:
        integrand: From the nodes of a chunk to stacks of values.
        rule: Nodes and weights.
        like: A tree as large as one point, with a floating-point leaf.
        chunk_size: Nodes evaluated at once.
    """
    dtypes: list[torch.dtype | None] = []

    def kernel(node: tuple[Tensor, Tensor]) -> Tree:
        alpha, weight = node
        stacks, spec = flatten(integrand(alpha))
        dtypes[:] = [None if stack is None else stack.dtype for stack in stacks]
        return unflatten(spec, [None if s is None else _weighted(s, weight) for s in stacks])

    points = slices(rule_tensors(rule, next(filter(differentiable, leaves(like)))))
    sums, spec = flatten(total(map_chunks(kernel, points, chunk_size=chunk_size, like=like)))
    return unflatten(
        spec, [None if s is None else s.to(d) for s, d in zip(sums, dtypes, strict=True)]
    )


def _weighted(stack: Tensor, weight: Tensor) -> Tensor:
    return (stack * weight.reshape(-1, *(1 for _ in stack.shape[1:]))).sum(0, keepdim=True)


def _expand_to(alpha: Tensor, leaf: Tensor) -> Tensor:
    """One alpha per point, against stacked leaves."""
    return alpha.reshape(-1, *(1 for _ in leaf.shape))
