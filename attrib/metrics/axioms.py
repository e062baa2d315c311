"""Axioms as measures: by how much an attribution misses what theory promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attrib._checks import (
    check_baseline,
    check_callable,
    check_count,
    check_input,
    check_values,
    describe,
)
from attrib._tree import differentiable, features, leaves, leaves_for, tree_map
from attrib.errors import AttribTypeError, AttribValueError
from attrib.gradient import score_of
from attrib.metrics._calling import check_attribution, check_tensors, explaining, given_or_made
from attrib.metrics._direction import named
from attrib.metrics._statistics import norm_of, wide
from attrib.scores import contrast
from attrib.types import Attribute, Measure, Score, Tree

__all__ = [
    "completeness",
    "dummy",
    "implementation_invariance",
    "linearity",
    "sum_to_delta",
    "symmetry",
]


def completeness(f: Score, attribute: Attribute | None = None) -> Measure:
    r"""Completeness gap, :math:`\sum_i \phi_i - \big(f(x) - f(x')\big)`; zero is best.

    Args:
        f: The score that was attributed.
        attribute: Attribution function, or ``None`` to pass what one returned.

    Returns:
        ``measure(attribution, x, baseline=0, *args) -> (*batch,)``, signed, in units of the score;
        the attribution, then exactly the arguments that produced it. With an attribution function
        ``measure(x, baseline=0, *args)``.

    Raises:
        AttribValueError: If the attribution does not have the leaves and batch of ``x``.
        AttribError: As for `attrib.grad_and_score` and the baseline of
            `attrib.integrated_gradients`.

    References:
        Sundararajan, Taly & Yan (2017), section 3, https://arxiv.org/abs/1703.01365

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x.square().sum(-1)
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> completeness(f)(attrib.integrated_gradients(f)(x), x).abs() < 1e-6
        tensor([True])
    """
    return named("completeness", _completeness(f, attribute, lambda gap, rise: gap))


def sum_to_delta(f: Score, attribute: Attribute | None = None) -> Measure:
    r"""Relative completeness gap, lower is better: :math:`\big|\sum_i \phi_i - \Delta\big| /
    |\Delta|` with :math:`\Delta = f(x) - f(x')`.

    Args:
        f: The score that was attributed.
        attribute: Attribution function, or ``None`` to pass what one returned.

    Returns:
        As for `completeness`, but without a sign and a unit; infinite where the score does not
        change and the attributions do not add up to zero.

    Raises:
        AttribError: As for `completeness`.

    References:
        Shrikumar, Greenside & Kundaje (2017), section 3.1, equation 1,
        https://arxiv.org/abs/1704.02685

    Example:
        >>> import torch
        >>> f = lambda x: x.square().sum(-1)
        >>> sum_to_delta(f)(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 2.0]]))
        tensor([0.2000])
    """
    return named(
        "sum_to_delta", _completeness(f, attribute, lambda gap, rise: _share(gap.abs(), rise.abs()))
    )


def dummy(attribute: Attribute | None = None, *, unused: Any, batch_dims: int = 1) -> Measure:
    r"""Dummy gap, lower is better: the share of the attribution that features get which the score
    does not use, :math:`\sum_{i \in U} |\phi_i| / \sum_i |\phi_i|`.

    Args:
        attribute: Attribution function, or ``None`` to pass what one returned.
        unused: Boolean, true for the features :math:`U`: a tensor that broadcasts to every leaf of
            the attribution, or a tree like it.
        batch_dims: How many batch dimensions there are: 0 for one example.

    Returns:
        ``measure(attribution) -> (*batch,)``, from 0 to 1; with an attribution function
        ``measure(x, *args)``, called like that.

    Raises:
        AttribError: If `unused` does not fit the attribution.

    References:
        Sundararajan, Taly & Yan (2017), section 4 (sensitivity(b)),
        https://arxiv.org/abs/1703.01365

    Example:
        >>> import torch, attrib
        >>> saliency = attrib.saliency(lambda x: x[..., 0])
        >>> dummy(saliency, unused=torch.tensor([False, True]))(torch.ones(1, 2))
        tensor([0.])
    """
    check_count(batch_dims, "batch_dims", least=0)
    masks = [mask for mask in leaves(unused) if mask is not None]
    if not masks or any(not isinstance(mask, Tensor) or mask.dtype != torch.bool for mask in masks):
        raise AttribTypeError(
            f"unused: must be boolean tensors, got {describe(unused)}; true for the features that "
            "the score does not use",
            code="unused.type",
        )

    def measure(attribution: Tree) -> Tensor:
        parts = check_tensors(attribution)
        own = leaves_for(attribution, unused)
        if own is None or any(p is not None and m is None for p, m in zip(parts, own, strict=True)):
            raise AttribValueError(
                f"unused: structure differs from that of the attribution, got {describe(unused)} "
                f"for {describe(attribution)}",
                code="unused.structure",
            )
        pairs = [(p.abs(), m) for p, m in zip(parts, own, strict=True) if p is not None]
        try:
            given = [size * mask for size, mask in pairs]
        except RuntimeError:
            given = []
        if any(g.shape != s.shape for g, (s, _) in zip(given, pairs, strict=False)) or not given:
            raise AttribValueError(
                f"unused: does not broadcast to the attribution, got {describe(unused)} for "
                f"{describe(attribution)}",
                code="unused.shape",
            )
        wrong, whole = norm_of(given, batch_dims, 1), norm_of([s for s, _ in pairs], batch_dims, 1)
        return _share(wrong, whole).to(given[0].dtype)

    return named("dummy", explaining(attribute, measure))


def symmetry(attribute: Attribute, swap: Callable[[Tree], Tree], *, batch_dims: int = 1) -> Measure:
    r"""Symmetry gap, lower is better: whether the attribution follows a symmetry of the score,

    .. math:: \frac{\lVert \phi(\sigma x) - \sigma \phi(x) \rVert}
              {\max(\lVert \phi(\sigma x) \rVert, \lVert \phi(x) \rVert)},

    where :math:`\sigma` exchanges features without a change of the score. Where they are equal in
    ``x``, this is the axiom: symmetric features get the same.

    Args:
        attribute: Attribution function; where it has a baseline, a symmetric one is to be passed.
        swap: :math:`\sigma`, which also applies to attributions, e.g. ``lambda x: x.flip(-1)``.
        batch_dims: How many batch dimensions ``x`` has: 0 for one example.

    Returns:
        ``measure(x, *args) -> (*batch,)``, from 0 to 2, called like `attribute`.

    Raises:
        AttribError: If an argument is not what it should be.

    References:
        Sundararajan, Taly & Yan (2017), section 4.1, https://arxiv.org/abs/1703.01365

    Example:
        >>> import torch, attrib
        >>> saliency = attrib.saliency(lambda x: x.prod(-1))
        >>> symmetry(saliency, lambda x: x.flip(-1))(torch.tensor([[2.0, 3.0]]))
        tensor([0.])
    """
    sides = symmetric_pair(attribute, swap)
    return named("symmetry", implementation_invariance(*sides, batch_dims=batch_dims))


def linearity(
    method: Callable[[Score], Attribute], f: Score, g: Score, *, batch_dims: int = 1
) -> Measure:
    r"""Linearity gap, lower is better: whether the attribution of a difference of scores is the
    difference of their attributions,

    .. math:: \frac{\lVert \phi^{f - g}(x) - (\phi^f(x) - \phi^g(x)) \rVert}
              {\max(\lVert \phi^{f - g}(x) \rVert, \lVert \phi^f(x) - \phi^g(x) \rVert)}.

    Args:
        method: From a score to an attribution, e.g. `attrib.saliency`.
        f: Score.
        g: Another one.
        batch_dims: How many batch dimensions ``x`` has: 0 for one example.

    Returns:
        ``measure(x, *args) -> (*batch,)``, from 0 to 2, called like what `method` makes.

    Raises:
        AttribError: If an argument is not what it should be.

    References:
        Sundararajan, Taly & Yan (2017), section 4, https://arxiv.org/abs/1703.01365

    Example:
        >>> import torch, attrib
        >>> f, g = (lambda x: x.square().sum(-1)), (lambda x: x.prod(-1))
        >>> linearity(attrib.saliency, f, g)(torch.tensor([[2.0, 3.0]]))
        tensor([0.])
    """
    sides = linear_pair(method, f, g)
    return named("linearity", implementation_invariance(*sides, batch_dims=batch_dims))


def implementation_invariance(
    attribute: Attribute, other: Attribute, *, batch_dims: int = 1
) -> Measure:
    r"""Relative difference of two attributions, lower is better: zero, as it should be where two
    implementations of the same function are explained,

    .. math:: \frac{\lVert \phi(x) - \psi(x) \rVert}
              {\max(\lVert \phi(x) \rVert, \lVert \psi(x) \rVert)}.

    Args:
        attribute: Attribution function of the one implementation.
        other: The same method for the other one.
        batch_dims: How many batch dimensions ``x`` has: 0 for one example.

    Returns:
        ``measure(x, *args) -> (*batch,)``, from 0 to 2; both functions are called alike.

    Raises:
        AttribValueError: If the two attributions differ in shape.
        AttribError: If an argument is not what it should be.

    References:
        Sundararajan, Taly & Yan (2017), section 2.2, https://arxiv.org/abs/1703.01365

    Example:
        >>> import torch, attrib
        >>> first, second = (lambda x: x.square().sum(-1)), (lambda x: (x * x).sum(-1))
        >>> measure = implementation_invariance(attrib.saliency(first), attrib.saliency(second))
        >>> measure(torch.tensor([[2.0, 3.0]]))
        tensor([0.])
    """
    check_callable(attribute, "attribute", "pass an attribution, e.g. attrib.saliency(f)")
    check_callable(other, "other", "pass an attribution, e.g. attrib.saliency(g)")
    check_count(batch_dims, "batch_dims", least=0)

    def measure(x: Tree, *args: Any) -> Tensor:
        parts = [check_tensors(function(x, *args)) for function in (attribute, other)]
        first, second = ([part for part in own if part is not None] for own in parts)
        if [part.shape for part in first] != [part.shape for part in second]:
            raise AttribValueError(
                f"other: returns another shape, got {describe(second)} for {describe(first)}",
                code="other.shape",
            )
        gap = norm_of([a - b for a, b in zip(first, second, strict=True)], batch_dims, 2)
        sizes = (norm_of(own, batch_dims, 2) for own in (first, second))
        return _share(gap, torch.maximum(*sizes)).to(first[0].dtype)

    return named("implementation_invariance", measure)


def symmetric_pair(
    attribute: Attribute, swap: Callable[[Tree], Tree]
) -> tuple[Attribute, Attribute]:
    """What `symmetry` compares: the attribution of what is swapped, and the swapped attribution."""
    check_callable(swap, "swap", "pass a function that exchanges features of x")
    check_callable(attribute, "attribute", "pass an attribution, e.g. attrib.saliency(f)")
    swapped: Attribute = lambda x, *args: attribute(swap(x), *args)
    expected: Attribute = lambda x, *args: swap(attribute(x, *args))
    return swapped, expected


def linear_pair(
    method: Callable[[Score], Attribute], f: Score, g: Score
) -> tuple[Attribute, Attribute]:
    """What `linearity` compares: the attribution of the difference, and that of attributions."""
    check_callable(method, "method", "pass a method such as attrib.saliency")
    one, other = method(f), method(g)
    minus: Callable[[Any, Any], Any] = lambda a, b: a - b
    difference: Attribute = lambda x, *args: tree_map(minus, one(x, *args), other(x, *args))
    return method(contrast(f, g)), difference


def _completeness(
    f: Score, attribute: Attribute | None, compared: Callable[[Tensor, Tensor], Tensor]
) -> Measure:
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    score = score_of(f)

    def measure(attribution: Tree, x: Tree, baseline: Any = 0, *args: Any) -> Tensor:
        check_input(x, gradients=False)
        # Integers are hidden where they have attributions; elsewhere they are carried along.
        pairs = zip(leaves(attribution), leaves(x), strict=False)
        integers = any(p is not None and not differentiable(a) for p, a in pairs)
        start = check_baseline(baseline, x, integers=integers)
        full, known = check_values(score(x, *args))
        least = score(tree_map(lambda b, a: b.expand(a.shape), start, x), *args)
        rise = full - check_values(least, known=known)[0]
        parts = check_attribution(attribution, x, rise.shape)
        summed = [wide(features(p, rise.ndim)).sum(-1) for p in parts if p is not None]
        return compared((torch.stack(summed).sum(0) - rise).to(rise.dtype), rise)

    return given_or_made(attribute, measure)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """A part of a whole; nothing of nothing is nothing."""
    return torch.where(part == 0, 0, part / torch.where(part == 0, 1, whole))
