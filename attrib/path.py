"""Attributions that integrate gradients along a path from a baseline to the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from attrib._adaptive import adaptive_integral
from attrib._batched import inherit, stacked
from attrib._checks import (
    check_baseline,
    check_callable,
    check_choice,
    check_count,
    check_input,
    check_number,
    describe,
)
from attrib._map import ChunkSize, Points, check_chunk_size, map_chunks, slices
from attrib._paths import Path, Traversal, traverse, weighted_gradients
from attrib._quadrature import RULES, Quadrature, Rule, check_rule, rule_tensors
from attrib._tree import differentiable, leaves, length, tree_map
from attrib.errors import AttribValueError
from attrib.gradient import grad_and_score
from attrib.perturb import Stream, check_scale, fork, gaussian
from attrib.reducers import estimate, mean, total
from attrib.rules.secant import sum_of_segments
from attrib.types import Attribute, Reducer, Score, Tree

__all__ = ["average_gradient", "expected_gradients", "integrated_gradients"]


def integrated_gradients(
    f: Score,
    *,
    steps: int = 50,
    quadrature: Quadrature | Literal["secant"] = "gauss-legendre",
    tol: float | None = None,
    path: Path | None = None,
    reduce: Reducer = total,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Integrated gradients along a path :math:`\gamma` from a baseline :math:`x'` to :math:`x`,

    .. math:: \phi_i = \int_0^1 \partial_i f(\gamma(\alpha))\, \gamma_i'(\alpha)\, d\alpha
              = (x_i - x'_i) \int_0^1 \partial_i f(x' + \alpha (x - x'))\, d\alpha
              \quad \text{on the straight line.}

    Args:
        f: Score.
        steps: Gradient evaluations per example; with `tol`, at most.
        quadrature: ``"gauss-legendre"`` converges geometrically where `f` is smooth and is exact
            for polynomials of degree ``2 * steps``; on ReLU networks every rule has an error of
            order ``1 / steps``. ``"midpoint"``, ``"left"``, ``"right"`` and ``"trapezoid"`` (at
            least two steps) are the Riemann sums of the literature. ``"secant"`` sums over the
            segments of the path, :math:`\sum_k (\gamma_k - \gamma_{k-1})\, m(\gamma_k,
            \gamma_{k-1})`, with the multipliers of `attrib.deep_lift` between neighbouring
            points in the place of gradients: complete up to rounding at any number of steps, with
            an error of order ``1 / steps**2`` on ReLU networks too. With one step it is DeepLift,
            but for maxima, which are split where they change hands.
        tol: Choose the number of steps per call: nested Clenshaw-Curtis rules (with 50 steps: 4, 7,
            13, 25, 49 nodes) until, for every example, both the estimated error of the largest
            attribution and the completeness gap are below ``tol`` times the largest attribution.
            Needs at least 9 steps, and numbers that Python can see: not inside `vmap` or
            `torch.compile`.
        path: Another path than the straight line: ``path(x, baseline, alpha) -> point``, any
            function that is differentiable in ``alpha``, a tensor without dimensions. See
            `attrib.blur_ig`.
        reduce: With `tol`, `attrib.estimate` reports what happened: ``Estimate(value, stderr,
            samples)``, whose ``stderr`` is the estimated error of the largest attribution of each
            example, ``(*batch,)``, and whose ``samples`` are the steps taken.
        chunk_size: Points of the path evaluated at once.

    Returns:
        ``attribute(x, baseline=0, *args)``, a tree like ``x``, in units of the score. Summed over
        an example it is ``f(x) - f(baseline)``, up to the quadrature error that
        `attrib.metrics.completeness` reports. The baseline is a number, a tensor that broadcasts to
        every leaf, or a tree like ``x``.

    Raises:
        AttribValueError: For options out of range, a baseline that does not broadcast.
        AttribTypeError: For options or baselines of another type.
        AttribError: As for `attrib.grad_and_score`.

    References:
        Sundararajan, Taly & Yan (2017), https://arxiv.org/abs/1703.01365; for the secants,
        Shrikumar, Greenside & Kundaje (2017), https://arxiv.org/abs/1704.02685, on every segment

    Example:
        >>> import torch
        >>> f = lambda x: (x[..., 0] * x[..., 1]).square()
        >>> integrated_gradients(f)(torch.tensor([[1.0, 2.0]]))
        tensor([[2., 2.]])
    """
    check_choice(quadrature, "quadrature", (*RULES, "secant"))
    secant = quadrature == "secant"
    rule = _check_rule(f, steps, "midpoint" if quadrature == "secant" else quadrature)
    chunk_size = check_chunk_size(chunk_size)
    if path is not None:
        check_callable(path, "path", "pass a function path(x, baseline, alpha)")
    if tol is not None:
        check_number(tol, "tol", exclusive=True)
        check_count(steps, "steps", least=9)
        if quadrature != "gauss-legendre":
            raise AttribValueError(
                f"quadrature: not used with tol, got {quadrature!r}; tol brings its own nested "
                "rule: leave one out",
                code="quadrature.tol",
            )
    if reduce not in (total, estimate) or (reduce is estimate and tol is None):
        raise AttribValueError(
            f"reduce: must be attrib.total, or with tol attrib.estimate, got {describe(reduce)}",
            code="reduce.unknown",
        )

    def method(f: Score) -> Attribute:
        def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
            check_input(x)
            line = traverse(path, x, check_baseline(baseline, x))
            if secant:
                return sum_of_segments(f, line.at, steps, x, args, chunk_size)
            evaluate = weighted_gradients(f, line, args)
            if tol is not None:
                found = adaptive_integral(evaluate, x, steps, tol, chunk_size)
                return found if reduce is estimate else found.value
            points = slices(rule_tensors(rule, _first(x)))
            sums = map_chunks(
                lambda node: evaluate(*node)[0], points, chunk_size=chunk_size, like=x
            )
            return _like(total(sums), x)

        return attribute

    # An estimate is a statement about the whole batch, so its rows do not stand alone.
    return method(f) if reduce is estimate else inherit(f, method)


def average_gradient(
    f: Score,
    *,
    steps: int = 50,
    quadrature: Quadrature = "gauss-legendre",
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Mean gradient on the line from a baseline to the input: integrated gradients without
    the factor :math:`x - x'`,

    .. math:: \bar g_i = \int_0^1 \partial_i f(x' + \alpha (x - x'))\, d\alpha.

    Args:
        f: Score.
        steps: Gradient evaluations per example.
        quadrature: As for `integrated_gradients`.
        chunk_size: Points of the path evaluated at once.

    Returns:
        ``attribute(x, baseline=0, *args)``, a tree like ``x``, in units of the score per unit of
        ``x``.

    Raises:
        AttribError: As for `integrated_gradients`.

    References:
        Sundararajan, Taly & Yan (2017), https://arxiv.org/abs/1703.01365

    Example:
        >>> import torch
        >>> average_gradient(lambda x: x.square().sum(-1))(torch.tensor([[1.0, 3.0]]))
        tensor([[1., 3.]])
    """
    rule = _check_rule(f, steps, quadrature)
    chunk_size = check_chunk_size(chunk_size)

    def method(f: Score) -> Attribute:
        def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
            check_input(x)
            line = traverse(None, x, check_baseline(baseline, x))
            evaluate = weighted_gradients(f, Traversal(line.at), args)
            points = slices(rule_tensors(rule, _first(x)))
            sums = map_chunks(
                lambda node: evaluate(*node)[0], points, chunk_size=chunk_size, like=x
            )
            return _like(total(sums), x)

        return attribute

    return inherit(f, method)


def expected_gradients(
    f: Score,
    *,
    samples: int = 25,
    std: Any = 0.0,
    generator: torch.Generator | None = None,
    reduce: Reducer = mean,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Integrated gradients averaged over baselines, by Monte Carlo (Captum's GradientShap),

    .. math:: \phi_i = \mathbb{E}_{x' \sim D,\ \alpha \sim U(0, 1)}\,
              (x_i - x'_i)\, \partial_i f(x' + \alpha (x - x')).

    Every sample draws, for every example, one baseline (all leaves from the same row), one point on
    the line, and, if `std` is not zero, normal noise on ``x``.

    Args:
        f: Score.
        samples: Draws per example.
        std: Standard deviation of the noise in units of ``x``: a number, or a tree of numbers like
            ``x``.
        generator: Source of randomness. Without one, the draws come from a copy of the global
            generator: the same at every call until something else advances it, so pass a generator
            in a training loop.
        reduce: How samples are folded: `attrib.estimate` adds standard errors.
        chunk_size: Draws evaluated at once. Does not change the draws.

    Returns:
        ``attribute(x, baselines, *args)``, a tree like ``x``, in units of the score; ``baselines``
        is a tree like ``x`` with leaves ``(count, *feature)``. Summed over an example it estimates
        ``f(x) - mean f(baselines)``.

    Raises:
        AttribValueError: If the baselines are empty or their features differ from those of ``x``.
        AttribError: As for `integrated_gradients` and `attrib.perturb.gaussian`.

    References:
        Erion, Janizek, Sturmfels, Lundberg & Lee (2021), https://arxiv.org/abs/1906.10670

    Example:
        >>> import torch
        >>> f = lambda x: x @ torch.tensor([1.0, 2.0])
        >>> expected_gradients(f)(torch.tensor([[1.0, 1.0]]), torch.zeros(1, 2))
        tensor([[1., 2.]])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_count(samples, "samples")
    check_callable(reduce, "reduce", "pass a reducer such as attrib.mean")
    chunk_size = check_chunk_size(chunk_size)
    check_scale(std, "std")
    noisy = any(scale > 0 for scale in leaves(std) if scale is not None)
    Stream(generator)
    gradient = grad_and_score(f)

    def attribute(x: Tree, baselines: Tree, *args: Any) -> Tree:
        check_input(x)
        batch = _check_baselines(baselines, x)
        leaf, count = _first(x), length(baselines)
        device = leaf.device
        stream = Stream(fork(generator))
        # All at once, they are small: the draws cannot depend on the chunk size.
        which = torch.randint(count, (samples, *batch), generator=stream.on(device), device=device)
        wide = torch.promote_types(leaf.dtype, torch.float32)
        alphas = torch.rand(samples, *batch, generator=stream.on(device), dtype=wide, device=device)
        perturb = gaussian(std, generator=stream.on(device)) if noisy else None

        def take(start: int, stop: int) -> Tree:
            index, alpha = which[start:stop], alphas[start:stop]
            ends = (
                _stack_of(x, stop - start) if perturb is None else _noisy(perturb, x, stop - start)
            )
            starts = tree_map(
                lambda a, b: b[index].to(a.dtype) if differentiable(a) else a, ends, baselines
            )
            ways = tree_map(lambda a, b: a - b if differentiable(a) else None, ends, starts)

            def between(b: Tensor, way: Tensor | None) -> Tensor:
                return b if way is None else b + (_expand(alpha, way) * way).to(way.dtype)

            return tree_map(between, starts, ways), ways

        def kernel(chunk: tuple[Tree, Tree]) -> Tree:
            points, ways = chunk
            return tree_map(torch.mul, stacked(gradient, *args)(points)[0], ways)

        return reduce(map_chunks(kernel, Points(samples, take), chunk_size=chunk_size, like=x))

    return attribute


def _check_rule(f: Score, steps: int, quadrature: str) -> Rule:
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    return check_rule(quadrature, steps)


def _check_baselines(baselines: Tree, x: Tree) -> torch.Size:
    """The batch dimensions of ``x``: those before the features it shares with the baselines."""
    check_baseline(
        tree_map(
            lambda b: b.new_empty(b.shape[1:]) if isinstance(b, Tensor) and b.ndim else b, baselines
        ),
        x,
        "baselines",
    )
    batches: set[torch.Size] = set()
    for a, b in zip(leaves(x), leaves(baselines), strict=True):
        if not differentiable(a):
            continue
        own = a.ndim - b.ndim + 1 if isinstance(b, Tensor) and b.ndim else -1
        if own < 0 or a.shape[own:] != b.shape[1:]:
            raise AttribValueError(
                "baselines: must be stacked on a leading axis, with the features of x, got "
                f"{describe(baselines)}; expected shape (count, *feature) for x of shape "
                f"{describe(x)}",
                code="baselines.shape",
            )
        batches.add(a.shape[:own])
    counts = {len(b) for b in leaves(baselines) if isinstance(b, Tensor)}
    if len(counts) != 1 or 0 in counts or len(batches) != 1:
        raise AttribValueError(
            "baselines: must hold the same number of at least one row in every leaf, got "
            f"{describe(baselines)}",
            code="baselines.shape",
        )
    return batches.pop()


def _first(x: Tree) -> Tensor:
    return next(leaf for leaf in leaves(x) if differentiable(leaf))


def _like(sums: Tree, x: Tree) -> Tree:
    return tree_map(lambda s, a: s.to(a.dtype), sums, x)


def _expand(alpha: Tensor, stack: Tensor) -> Tensor:
    """One alpha per point and example, against a stack."""
    return alpha.reshape(*alpha.shape, *(1 for _ in stack.shape[alpha.ndim :]))


def _stack_of(x: Tree, count: int) -> Tree:
    return tree_map(lambda a: a.expand(count, *a.shape), x)


def _noisy(perturb: Callable[[Tree], Tree], x: Tree, count: int) -> Tree:
    return tree_map(lambda *a: torch.stack(a), *(perturb(x) for _ in range(count)))
