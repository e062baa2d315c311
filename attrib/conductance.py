"""What flows through a layer or a neuron on the way from a baseline to the input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from attrib._batched import inherit, stacked
from attrib._checks import check_baseline, check_callable, check_choice, check_input
from attrib._inside import Sites
from attrib._map import ChunkSize, check_chunk_size, map_chunks, slices
from attrib._modes import smooth_operations
from attrib._passed import only_tensor
from attrib._paths import Path, Traversal, integral, traverse
from attrib._quadrature import RULES, Quadrature, Rule, check_rule, rule_tensors
from attrib._sites import SiteLike
from attrib._transforms import concrete, depends, differentiated_outside, value_and_slope
from attrib._tree import differentiable, flatten, leaves, tree_map, unflatten
from attrib._watching import check_floating
from attrib.errors import AttribTypeError
from attrib.gradient import grad_and_score, refuse_independent
from attrib.layers import neuron_index, single
from attrib.rules.secant import sum_of_segments
from attrib.scores import choosing
from attrib.types import Attribute, Score, Tree

__all__ = ["conductance", "internal_influence", "neuron_conductance"]

Integral = Literal["telescoping", "secant"] | Quadrature


def conductance(
    f: Score,
    site: SiteLike,
    *,
    steps: int = 50,
    quadrature: Integral = "telescoping",
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
        quadrature: ``"telescoping"`` takes the middles of so many equal parts of the path, and sums
            over the segments between them and the two ends of the path
            :math:`\tfrac12 (g_k + g_{k-1}) (h_k - h_{k-1})`, where :math:`g = \partial f /
            \partial h`, at an end that of the nearest middle: the changes of the layer telescope,
            and the error is of second order in the length of a segment. ``"secant"`` takes the
            multipliers of `attrib.deep_lift` between the two ends of a segment instead of the mean
            gradient: complete up to rounding at any number of steps.
            ``"gauss-legendre"``, ``"midpoint"``, ``"left"``, ``"right"`` and ``"trapezoid"`` (at
            least two steps) take the exact derivative of the layer along the path, which needs
            second derivatives of the part before it: best where everything is smooth, for kinks
            take one of the others.
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
        >>> conductance(f, "h", steps=100)(torch.tensor([[1.0, 2.0]])).round(decimals=3)
        tensor([[2., 2.]])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_choice(quadrature, "quadrature", ("telescoping", "secant", *RULES))
    between = quadrature == "telescoping" or quadrature == "secant"
    rule = check_rule("midpoint" if between else quadrature, steps)
    chunk_size = check_chunk_size(chunk_size)
    _check_path(path)
    sites = Sites(f, site)

    def method(f: Score) -> Attribute:
        def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
            check_input(x)
            line = traverse(path, x, check_baseline(baseline, x))
            if quadrature == "telescoping":
                return _telescoped(sites, f, line, rule, x, args, chunk_size)
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
    rule = check_rule(quadrature, steps)
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

            return integral(gradient, rule, x, chunk_size)

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
    rule = check_rule(quadrature, steps)
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

            found = integral(slopes, rule, x, chunk_size)
            return found if line.velocity is None else tree_map(torch.mul, found, line.velocity)

        return attribute

    return inherit(sites.f, method)


def _telescoped(
    sites: Sites,
    f: Score,
    line: Traversal,
    rule: Rule,
    x: Tree,
    args: tuple[Any, ...],
    chunk_size: ChunkSize,
) -> Tree:
    middles, _ = rule_tensors(rule, _first(x))
    ends = torch.arange(2, dtype=middles.dtype, device=middles.device)

    def along(evaluate: Callable[..., Any], alphas: Tensor) -> Iterator[Any]:
        over = stacked(evaluate, *args)
        kernel: Callable[[Tensor], Any] = lambda alpha: over(line.at(alpha)[0])
        return map_chunks(kernel, slices(alphas), chunk_size=chunk_size, like=x)

    first: Any = None
    last: Any = None
    sums: Any = None
    for chunk in along(inherit(f, sites.gradients), middles):
        head = tree_map(lambda part: part[:1], chunk)
        first = head if first is None else first
        joint = [] if last is None else [tree_map(_joined, last, head)]
        for values, slopes in [*joint, chunk]:
            found = tree_map(_changes, slopes, values)
            sums = found if sums is None else tree_map(torch.add, sums, found)
        last = tree_map(lambda part: part[-1:], chunk)
    reached = tree_map(_joined, *along(sites.reading(f), ends))

    def completed(
        inner: Tensor, h: Tensor, g: Tensor, last_h: Tensor, last_g: Tensor, ends: Tensor
    ) -> Tensor:
        outer = g * (h - ends[:1]) + last_g * (ends[1:] - last_h)
        return (inner + outer[0]).to(g.dtype)

    return tree_map(completed, sums, *first, *last, reached)


def _joined(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def _changes(gradients: Tensor, values: Tensor) -> Tensor:
    """Changes from point to point of a stack, times the mean gradient of both."""
    wide = torch.promote_types(values.dtype, torch.float32)
    twice = (gradients[1:] + gradients[:-1]) * (values[1:] - values[:-1])
    return twice.to(wide).sum(0) / 2


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

    return integral(products, rule, x, chunk_size)


def _check_path(path: Any) -> None:
    if path is not None:
        check_callable(path, "path", "pass a function path(x, baseline, alpha)")


def _first(x: Tree) -> Tensor:
    return next(leaf for leaf in leaves(x) if differentiable(leaf))
