"""Second order: how pairs of features act together."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from attrib._batched import inherit, stacked
from attrib._checks import check_baseline, check_callable, check_count, check_finite, check_input
from attrib._map import ChunkSize, Points, check_chunk_size, map_chunks, slices
from attrib._modes import smooth_operations
from attrib._quadrature import logarithmic, rule_tensors
from attrib._transforms import vjp
from attrib._tree import differentiable, features, flatten, put, tree_map, unflatten
from attrib.errors import AttribValueError
from attrib.gradient import grad_and_score, score_of
from attrib.reducers import total
from attrib.types import Attribute, Score, Tree

__all__ = ["integrated_hessians"]


def integrated_hessians(f: Score, *, steps: int = 50, chunk_size: ChunkSize = "auto") -> Attribute:
    r"""Interactions of pairs of features on the line from a baseline :math:`x'` to :math:`x`,
    integrated gradients of integrated gradients. With :math:`\delta = x - x'`,

    .. math:: \Gamma_{ij} = \delta_i \delta_j \int_0^1\!\!\int_0^1 \alpha\beta\,
              \partial_{ij} f(x' + \alpha\beta\,\delta)\, d\alpha\, d\beta
              + [i = j]\, \delta_i \int_0^1\!\!\int_0^1 \partial_i f(x' + \alpha\beta\,\delta)\,
              d\alpha\, d\beta.

    The product :math:`u = \alpha\beta` has the density :math:`-\log u`, so one Gauss rule for that
    weight replaces the double integral: `steps` points instead of its square.

    A network of ReLUs has no second derivative: its interactions sit in the kinks, which no
    quadrature sees, and rows then do not sum to integrated gradients. The paper replaces ReLU by
    softplus.

    Args:
        f: Score, twice differentiable.
        steps: Points on the line, at most 200; each costs one backward pass per feature.
        chunk_size: Features whose Hessian rows are computed at once.

    Returns:
        ``attribute(x, baseline=0, *args)``, in units of the score. For a tensor ``x`` of shape
        ``(*batch, *feature)`` it is ``(*batch, *feature, *feature)``, symmetric, and its sum over
        the last ``feature`` is `attrib.integrated_gradients`. For a tree, each leaf holds a tree
        like ``x``.

    Raises:
        AttribError: As for `attrib.integrated_gradients`.

    References:
        Janizek, Sturmfels & Lee (2021), https://arxiv.org/abs/2002.04138

    Example:
        >>> import torch
        >>> integrated_hessians(lambda x: x[..., 0] * x[..., 1])(torch.tensor([[2.0, 3.0]]))
        tensor([[[1.5000, 1.5000],
                 [1.5000, 1.5000]]])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    chunk_size = check_chunk_size(chunk_size)
    if check_count(steps, "steps") > 200:
        raise AttribValueError(
            f"steps: too large, got {steps}; must be at most 200", code="steps.range"
        )

    rule = logarithmic(steps)

    def method(f: Score) -> Attribute:
        def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
            check_input(x)
            parts, spec = flatten(x)
            places = [place for place, part in enumerate(parts) if differentiable(part)]
            variables = tuple(parts[place] for place in places)
            start, _ = flatten(check_baseline(baseline, x))
            delta = tuple(parts[place] - start[place] for place in places)
            batch_dims = score_of(f)(x, *args).ndim

            def gradient_at(point: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                with smooth_operations():
                    slopes, _ = flatten(
                        grad_and_score(f)(unflatten(spec, put(parts, places, point)), *args)[0]
                    )
                return tuple(slopes[place] for place in places)

            basis = _unit_vectors(variables, batch_dims)

            def interactions(
                alpha: Tensor, weight: Tensor
            ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
                point = tuple(
                    start[p] + (alpha * d).to(d.dtype) for p, d in zip(places, delta, strict=True)
                )
                gradient, pullback = vjp(gradient_at, point)

                def row(unit: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                    # Mapped wherever x is: in torch 2.13 the second derivative of layer_norm
                    # writes in place, to where it cannot inside of a vmap over x alone.
                    mapped = (u + torch.zeros_like(g) for u, g in zip(unit, gradient, strict=True))
                    return pullback(tuple(mapped))[0]

                chunks = map_chunks(stacked(row), basis, chunk_size=chunk_size, like=x)
                rows = tree_map(lambda *part: torch.cat(part), *chunks)
                return tree_map(lambda r: weight * alpha * r, rows), tree_map(
                    lambda g: weight * g, gradient
                )

            nodes = slices(rule_tensors(rule, variables[0]))
            one = stacked(interactions)
            hessian, slope = total(map_chunks(lambda node: one(*node), nodes, chunk_size=1, like=x))
            pairs = _pairs(hessian, slope, delta, batch_dims)
            # A NaN gradient marks an example that has no Hessian either.
            marks = [(features(s, batch_dims) * 0).sum(-1) for s in slope]
            pairs = [check_finite(row, torch.stack(marks).sum(0)) for row in pairs]
            nothing: list[Any] = [None] * len(parts)
            rows = [unflatten(spec, put(nothing, places, row)) for row in pairs]
            return unflatten(spec, put(nothing, places, rows))

        return attribute

    return inherit(f, method)


def _unit_vectors(variables: tuple[Tensor, ...], batch_dims: int) -> Points:
    """For every feature, a tree that is one there, for all examples, and zero elsewhere."""
    sizes = [math.prod(variable.shape[batch_dims:]) for variable in variables]

    def take(begin: int, end: int) -> tuple[Tensor, ...]:
        rows = torch.eye(sum(sizes), dtype=variables[0].dtype, device=variables[0].device)[
            begin:end
        ]
        return tuple(
            part.reshape(end - begin, *(1 for _ in range(batch_dims)), *v.shape[batch_dims:])
            .expand(end - begin, *v.shape)
            .to(v.dtype)
            for part, v in zip(torch.split(rows, sizes, 1), variables, strict=True)
        )

    return Points(sum(sizes), take)


def _pairs(
    hessian: tuple[Tensor, ...],
    slope: tuple[Tensor, ...],
    delta: tuple[Tensor, ...],
    batch_dims: int,
) -> list[list[Tensor]]:
    """Interactions of every leaf with every leaf, from Hessian rows stacked over all features."""
    sizes = [math.prod(d.shape[batch_dims:]) for d in delta]

    def block(a: int, b: int) -> Tensor:
        left, right = features(delta[a], batch_dims), features(delta[b], batch_dims)
        second = features(torch.split(hessian[b], sizes)[a], batch_dims + 1).movedim(0, batch_dims)
        found = left[..., :, None] * second * right[..., None, :]
        if a == b:
            found = found + torch.diag_embed(left * features(slope[a], batch_dims))
        shape = delta[a].shape + delta[b].shape[batch_dims:]
        return found.reshape(shape).to(delta[a].dtype)

    every = range(len(delta))
    return [[block(a, b) for b in every] for a in every]
