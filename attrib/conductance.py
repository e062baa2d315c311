"""What flows through a layer or a neuron on the way from a baseline to the input."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from attrib._batched import inherit, stacked
from attrib._checks import check_baseline, check_callable, check_choice, check_count, check_input
from attrib._inside import Sites, check_floating
from attrib._map import ChunkSize, check_chunk_size, map_chunks, slices
from attrib._modes import smooth_operations
from attrib._passed import only_tensor
from attrib._paths import Path, Traversal, traverse
from attrib._quadrature import RULES, Quadrature, Rule, nodes, rule_tensors
from attrib._sites import SiteLike
from attrib._transforms import concrete, depends, differentiated_outside, value_and_slope
from attrib._tree import differentiable, flatten, leaves, tree_map, unflatten
from attrib.errors import AttribTypeError
from attrib.gradient import grad_and_score, refuse_independent
from attrib.layers import neuron_index, single
from attrib.reducers import total
from attrib.rules.secant import sum_of_segments
from attrib.scores import choosing
from attrib.types import Attribute, Score, Tree

__all__ = ["conductance", "internal_influence", "neuron_conductance"]

Integral = Literal["trapezoid", "secant", "gauss-legendre", "midpoint", "left", "right"]


def conductance(
    f: Score,
    site: SiteLike,
    *,
    steps: int = 50,
    quadrature: Integral = "trapezoid",
    path: Path | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Conductance of every neuron of a layer, for all of them at once: the score's change on the
    path from a baseline :math:`x'` to :math:`x`, as far as it flows through the neuron,

    .. math:: \mathrm{Cond}_j = \int_0^1 \frac{\partial f}{\partial h_j}\,
              \frac{d h_j}{d \alpha}\, d\alpha, \qquad h(\alpha) = h(\gamma(\alpha)).

    Args:
        f: Score.
        site: A `Site`, a module, its dotted name or the name of a `tap`, or a tree of them, which
            one backward pass per point serves.
        steps: Gradient evaluations per example; of secants, segments, which have one end more.
        quadrature: ``"trapezoid"`` (at least two steps) sums over the segments between its points
            :math:`\tfrac12 (g_k + g_{k-1}) (h_k - h_{k-1})`, where :math:`g = \partial f /
            \partial h`: the changes of the layer telescope, and the error is of second order in
            the length of a segment. ``"secant"`` takes the multipliers of `attrib.deep_lift`
            between the two ends of a segment instead of the mean gradient: complete up to rounding
            at any number of steps.
            ``"gauss-legendre"``, ``"midpoint"``, ``"left"`` and ``"right"`` take the exact
            derivative of the layer along the path, which needs second derivatives of the part
            before it: best where everything is smooth, for kinks take one of the others.
        path: As for `attrib.integrated_gradients`.
        chunk_size: Points of the path evaluated at once.

    Returns:
        ``attribute(x, baseline=0, *args)``, a tree like what the site yields, in units of the
        score. Summed over a layer that all of ``x`` passes it is ``f(x) - f(baseline)``.

    Raises:
        AttribValueError: For options out of range, or a baseline that does not broadcast.
        AttribError: As for `attrib.activation_and_gradient` and, for secants, `attrib.deep_lift`.

    References:
        Dhamdhere, Sundararajan & Yan (2018), https://arxiv.org/abs/1805.12233

        Shrikumar, Su & Kundaje (2018), all neurons in one pass, https://arxiv.org/abs/1807.09946

    Example:
        >>> import torch, attrib
        >>> f = attrib.batched(lambda x: attrib.tap("h", x.square()).prod(-1))
        >>> conductance(f, "h", steps=200)(torch.tensor([[1.0, 2.0]])).round(decimals=3)
        tensor([[2., 2.]])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_choice(quadrature, "quadrature", (*RULES, "secant"))
    rule = _rule(steps, "midpoint" if quadrature == "secant" else quadrature)
    chunk_size = check_chunk_size(chunk_size)
    _check_path(path)
    sites = Sites(f, site)

    def method(f: Score) -> Attribute:
        def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
            check_input(x)
            line = traverse(path, x, check_baseline(baseline, x))
            if quadrature == "trapezoid":
                return _telescoped(sites, f, line, steps, x, args, chunk_size)
            if quadrature == "secant":
                return _by_secants(sites, f, line, steps, x, args, chunk_size)
            return _by_derivative(sites, f, line, rule, x, args, chunk_size)

        return attribute

    return inherit(sites.f, method)


def internal_influence(
    f: Score,
    site: SiteLike,
    *,
    steps: int = 50,
    quadrature: Quadrature = "gauss-legendre",
    path: Path | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Internal influence of every neuron of a layer: the mean derivative of the score by it on the
    path from a baseline to the input,

    .. math:: I_j = \int_0^1 \frac{\partial f}{\partial h_j}(\gamma(\alpha))\, d\alpha.

    Args:
        f: Score.
        site: As for `conductance`.
        steps: Gradient evaluations per example.
        quadrature: As for `attrib.integrated_gradients`.
        path: As for `attrib.integrated_gradients`.
        chunk_size: Points of the path evaluated at once.

    Returns:
        ``attribute(x, baseline=0, *args)``, a tree like what the site yields, in units of the
        score per unit of the layer.

    Raises:
        AttribError: As for `conductance`.

    References:
        Leino, Sen, Datta, Fredrikson & Li (2018), https://arxiv.org/abs/1802.03788

    Example:
        >>> import torch, attrib
        >>> f = attrib.batched(lambda x: attrib.tap("h", 3 * x).square().sum(-1))
        >>> internal_influence(f, "h")(torch.tensor([[1.0, 2.0]])).round(decimals=3)
        tensor([[3., 6.]])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    rule = _rule(steps, quadrature)
    chunk_size = check_chunk_size(chunk_size)
    _check_path(path)
    sites = Sites(f, site)

    def method(f: Score) -> Attribute:
        gradients = inherit(f, sites.gradients)

        def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
            check_input(x)
            line = traverse(path, x, check_baseline(baseline, x))

            def gradient(alpha: Tensor) -> Tree:
                return stacked(gradients, *args)(line.at(alpha)[0])[1]

            return _integral(gradient, rule, x, chunk_size)

        return attribute

    return inherit(sites.f, method)


def neuron_conductance(
    f: Score,
    site: SiteLike,
    index: Any,
    *,
    steps: int = 50,
    quadrature: Quadrature = "gauss-legendre",
    path: Path | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""What every entry of the input contributes to the score through one neuron :math:`h_j`,

    .. math:: \phi_i = \int_0^1 \frac{\partial f}{\partial h_j}\,
              \frac{\partial h_j}{\partial x_i}\, \gamma_i'(\alpha)\, d\alpha.

    Args:
        f: Score.
        site: A `Site`, a module, its dotted name or the name of a `tap`.
        index: Which neuron, as for `attrib.neuron`, but no function; what flows through several
            chosen with slices is summed.
        steps: Gradient evaluations per example.
        quadrature: As for `attrib.integrated_gradients`.
        path: As for `attrib.integrated_gradients`.
        chunk_size: Points of the path evaluated at once.

    Returns:
        ``attribute(x, baseline=0, *args)``, a tree like ``x``, in units of the score. Summed over
        ``x`` it is the `conductance` of the neuron.

    Raises:
        AttribError: As for `conductance` and `attrib.neuron`.

    References:
        Dhamdhere, Sundararajan & Yan (2018), https://arxiv.org/abs/1805.12233

    Example:
        >>> import torch, attrib
        >>> f = attrib.batched(lambda x: attrib.tap("h", 3 * x).square().sum(-1))
        >>> neuron_conductance(f, "h", 1)(torch.tensor([[1.0, 2.0]])).round(decimals=3)
        tensor([[ 0., 36.]])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    if callable(index) and not isinstance(index, Tensor):
        raise AttribTypeError(
            "index: must be a position, got a function; conductance goes through single neurons: "
            "pass an integer, a tuple or slices",
            code="target.type",
        )
    choice = neuron_index(index)
    rule = _rule(steps, quadrature)
    chunk_size = check_chunk_size(chunk_size)
    _check_path(path)
    sites = Sites(f, site)

    def method(f: Score) -> Attribute:
        gradients = inherit(f, sites.gradients)

        def weigh(read: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def weighed(x: Tree, gradient: Tensor, *args: Any) -> Tensor:
                return read(x, *args) * only_tensor(gradient)

            return weighed

        apart = grad_and_score(choosing(inherit(single(sites.reading(f)), weigh), choice))
        # Where nobody differentiates the result, one forward pass serves both derivatives.
        together = grad_and_score(choosing(single(inherit(f, sites.weighted)), choice))

        def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
            check_input(x)
            line = traverse(path, x, check_baseline(baseline, x))

            plain = not differentiated_outside()

            def slopes(alpha: Tensor) -> Tree:
                point, velocity = line.at(alpha)
                if plain:
                    slope, _ = stacked(together, *args)(point)
                else:
                    _, gradient = stacked(gradients, *args)(point)
                    slope, _ = stacked(apart, *args)(point, gradient)
                return slope if velocity is None else tree_map(torch.mul, slope, velocity)

            found = _integral(slopes, rule, x, chunk_size)
            return found if line.velocity is None else tree_map(torch.mul, found, line.velocity)

        return attribute

    return inherit(sites.f, method)


def _telescoped(
    sites: Sites,
    f: Score,
    line: Traversal,
    steps: int,
    x: Tree,
    args: tuple[Any, ...],
    chunk_size: ChunkSize,
) -> Tree:
    gradients = stacked(inherit(f, sites.gradients), *args)
    wide = torch.promote_types(_first(x).dtype, torch.float32)
    alphas = torch.linspace(0, 1, steps, dtype=wide, device=_first(x).device)

    def kernel(alpha: Tensor) -> Tree:
        return gradients(line.at(alpha)[0])

    return _sum_of_changes(map_chunks(kernel, slices(alphas), chunk_size=chunk_size, like=x))


def _sum_of_changes(chunks: Iterable[tuple[Tree, Tree]]) -> Tree:
    """The reducer of stacked values and gradients: changes from point to point, times the mean
    gradient of both."""

    def changes(value: Tensor, gradient: Tensor) -> Tensor:
        mean = (gradient[1:] + gradient[:-1]) / 2
        wide = torch.promote_types(value.dtype, torch.float32)
        return (mean * (value[1:] - value[:-1])).to(wide).sum(0)

    last: Any = None
    sums: Any = None
    for values, gradients in chunks:
        if last is not None:
            values = tree_map(_after, values, last[0])
            gradients = tree_map(_after, gradients, last[1])
        found = tree_map(lambda g, v: changes(v, g), gradients, values)
        sums = found if sums is None else tree_map(torch.add, sums, found)
        last = tree_map(lambda v: v[-1:], values), tree_map(lambda g: g[-1:], gradients)
    return tree_map(lambda s, g: s.to(g.dtype), sums, last[1])


def _by_secants(
    sites: Sites,
    f: Score,
    line: Traversal,
    steps: int,
    x: Tree,
    args: tuple[Any, ...],
    chunk_size: ChunkSize,
) -> Tree:
    """Of the layer and of what goes around it, whose share is left away."""

    def tail(f: Score) -> Score:
        behind = sites.tail(f)
        return lambda both, *args: behind(*both, *args)

    read = stacked(sites.reading(f, apart=True), *args)

    def at(alpha: Tensor) -> tuple[Tree, None]:
        point, _ = line.at(alpha)
        return (read(point), point), None

    like = (tree_map(lambda h: h[0], at(torch.zeros(1, device=_first(x).device))[0][0]), x)
    check_floating(like[0])
    found = sum_of_segments(inherit(f, tail), at, steps, like, args, chunk_size)[0]
    parts = [part for part in leaves(found) if part is not None]
    if all(concrete(part) and not part.any() for part in parts):
        sites.gradients(f)(x, *args)  # refuses a score that does not depend on the site
    return found


def _by_derivative(
    sites: Sites,
    f: Score,
    line: Traversal,
    rule: Rule,
    x: Tree,
    args: tuple[Any, ...],
    chunk_size: ChunkSize,
) -> Tree:
    gradients = stacked(inherit(f, sites.gradients), *args)
    read = stacked(sites.reading(f), *args)

    def products(alpha: Tensor) -> Tree:
        def moving(alpha: Tensor) -> tuple[Tensor, ...]:
            values = read(line.at(alpha)[0])
            check_floating(values)
            found = tuple(value for value in leaves(values) if differentiable(value))
            if not any(map(depends, found)):
                refuse_independent()
            return found

        gradient, spec = flatten(gradients(line.at(alpha)[0])[1])
        # Rows do not interact: the derivative by all alphas together is that of each by its own.
        with smooth_operations():
            _, velocity = value_and_slope(moving, alpha)
        speeds = iter(velocity)
        return unflatten(spec, [None if g is None else g * next(speeds) for g in gradient])

    return _integral(products, rule, x, chunk_size)


def _rule(steps: int, quadrature: str) -> Rule:
    check_choice(quadrature, "quadrature", RULES)
    return nodes(
        quadrature, check_count(steps, "steps", least=2 if quadrature == "trapezoid" else 1)
    )


def _integral(
    integrand: Callable[[Tensor], Tree], rule: Rule, x: Tree, chunk_size: ChunkSize
) -> Tree:
    """The weighted sum of what a function of stacked alphas returns, rounded once."""
    dtypes: list[torch.dtype | None] = []

    def kernel(node: tuple[Tensor, Tensor]) -> Tree:
        alpha, weight = node
        stacks, spec = flatten(integrand(alpha))
        dtypes[:] = [None if stack is None else stack.dtype for stack in stacks]
        return unflatten(spec, [None if s is None else _weighted(s, weight) for s in stacks])

    points = slices(rule_tensors(rule, _first(x)))
    sums, spec = flatten(total(map_chunks(kernel, points, chunk_size=chunk_size, like=x)))
    return unflatten(
        spec, [None if s is None else s.to(d) for s, d in zip(sums, dtypes, strict=True)]
    )


def _weighted(stack: Tensor, weight: Tensor) -> Tensor:
    return (stack * weight.reshape(-1, *(1 for _ in stack.shape[1:]))).sum(0, keepdim=True)


def _check_path(path: Any) -> None:
    if path is not None:
        check_callable(path, "path", "pass a function path(x, baseline, alpha)")


def _after(stack: Tensor, last: Tensor) -> Tensor:
    return torch.cat([last, stack])


def _first(x: Tree) -> Tensor:
    return next(leaf for leaf in leaves(x) if differentiable(leaf))
