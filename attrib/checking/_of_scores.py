"""Laws about attributions of other scores, made from the one at hand without knowing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attrib._tree import differentiable, features, leaves, put, tree_map
from attrib.checking._subject import (
    NotApplicable,
    Outcome,
    Subject,
    attributed,
    difference,
    made,
    method_of,
    on_entries,
    scored,
    steady,
)
from attrib.metrics import dummy as dummy_share
from attrib.metrics.axioms import linear_pair, symmetric_pair
from attrib.types import Attribute, Score, Tree

__all__ = ["affine", "dummy", "implementation", "linearity", "negation", "scale", "symmetry"]


def scale(subject: Subject) -> Outcome:
    """The attribution of four times the score is four times the attribution, in every bit."""
    return _times(subject, 4)


def negation(subject: Subject) -> Outcome:
    """The attribution of the negated score is the negated attribution, in every bit."""
    return _times(subject, -1)


def linearity(subject: Subject) -> Outcome:
    """The attribution of a sum of scores is the sum of their attributions.

    The second score is half of the first with every other feature held fixed.
    """
    fixed, _ = _with_fixed_features(subject)
    second = made(fixed, lambda g: lambda x, *args: -0.5 * g(x, *args))
    return _compared(subject, linear_pair(method_of(subject), subject.f, second), subject.args)


def dummy(subject: Subject) -> Outcome:
    """Features that are held fixed inside of the score get exactly nothing."""
    fixed, unused = _with_fixed_features(subject)
    found = attributed(subject, fixed)
    share = dummy_share(unused=unused, batch_dims=subject.batch_dims)(found)
    expected = tree_map(lambda p, u: torch.where(u, 0, p), found, unused)
    outcome = difference(subject, found, expected)
    return outcome._replace(gap=float(share.nan_to_num(torch.inf).max()))


def symmetry(subject: Subject) -> Outcome:
    """Where exchanging features leaves the score as it is, it exchanges their attributions.

    The score is made symmetric: it is added to itself with the features of every leaf reversed.
    """
    _need(subject, 2, lambda leaf: True)

    def swap(tree: Tree) -> Tree:
        return on_entries(subject, lambda leaf, i: _reversed(leaf, _shape(subject, i)), tree)

    def mirrored(leaf: Tensor, number: int) -> Tensor:
        shape = _shape(subject, number)
        first = torch.arange(shape.numel(), device=leaf.device).reshape(shape) < shape.numel() // 2
        return torch.where(first, leaf, _reversed(leaf, shape))

    scored(subject, swap(subject.x), subject.shared, "features in another order")
    symmetric = made(subject.f, lambda g: lambda x, *args: g(x, *args) + g(swap(x), *args))
    args = subject.args
    if subject.role:
        args = (on_entries(subject, mirrored, args[0]), *args[1:])
    return _compared(subject, symmetric_pair(method_of(subject)(symmetric), swap), args)


def implementation(subject: Subject) -> Outcome:
    """The same function, written otherwise: the mean of itself and of itself in other units."""

    def halved(tree: Tree) -> Tree:
        return tree_map(lambda leaf: (leaf / 2) * 2 if differentiable(leaf) else leaf, tree)

    twin = made(subject.f, lambda g: lambda x, *args: (g(halved(x), *args) + g(x, *args)) / 2)
    return difference(subject, attributed(subject, twin), subject.found)


def affine(subject: Subject) -> Outcome:
    """Other units and origins of the features do not change the attribution."""
    _need(subject, 1, differentiable)
    if not subject.role:
        raise NotApplicable(
            "the attribution takes no baseline, so it may be in units of the score per unit of x"
        )
    given = [leaves(subject.x)[place] for place in subject.places]
    # Powers of two, which are exact, and origins of the size of x.
    units = [_alternating(leaf, _shape(subject, i)) for i, leaf in enumerate(given)]
    origins = [leaf.abs().amax() / 2 if leaf.numel() else leaf.sum() for leaf in given]

    def there(leaf: Tensor, number: int) -> Tensor:
        return leaf * units[number] + origins[number] if differentiable(leaf) else leaf

    def back(leaf: Tensor, number: int) -> Tensor:
        return (leaf - origins[number]) / units[number] if differentiable(leaf) else leaf

    moved = made(subject.f, lambda g: lambda u, *args: g(on_entries(subject, there, u), *args))
    attribute = steady(method_of(subject)(moved), subject.restore)
    x, baseline = (on_entries(subject, back, tree) for tree in (subject.x, subject.args[0]))
    return difference(subject, attribute(x, baseline, *subject.shared), subject.found)


def _compared(
    subject: Subject, sides: tuple[Attribute, Attribute], args: tuple[Any, ...]
) -> Outcome:
    one, other = (steady(side, subject.restore)(subject.x, *args) for side in sides)
    return difference(subject, one, other)


def _times(subject: Subject, factor: int) -> Outcome:
    score = made(subject.f, lambda g: lambda x, *args: factor * g(x, *args))
    expected = tree_map(lambda p: factor * p, subject.found)
    return difference(subject, attributed(subject, score), expected)


def _with_fixed_features(subject: Subject) -> tuple[Score, Tree]:
    """The score with every other feature, by rank of attribution, held at what it is in the first
    example; and which features these are. The largest one stays."""
    _need(subject, 2, lambda leaf: True)
    found, given = (
        [leaves(tree)[place] for place in subject.places] for tree in (subject.found, subject.x)
    )
    rows = [features(leaf.detach(), subject.batch_dims) for leaf in found]
    sizes = torch.cat([row.abs().double().reshape(-1, row.shape[-1]).sum(0).cpu() for row in rows])
    # Which of equal ones comes first must not depend on the machine.
    rank = sizes.argsort(descending=True, stable=True).argsort()
    sections = [row.shape[-1] for row in rows]
    parts: tuple[Tensor, ...] = torch.split(rank % 2 == 1, sections)
    shapes = [_shape(subject, number) for number in range(len(given))]
    unused = [
        part.to(leaf.device).reshape(shape)
        for part, leaf, shape in zip(parts, given, shapes, strict=True)
    ]
    first = [leaf.detach()[(0,) * subject.batch_dims] for leaf in given]

    def held(leaf: Tensor, number: int) -> Tensor:
        return torch.where(unused[number], first[number], leaf)

    fixed = made(subject.f, lambda g: lambda x, *args: g(on_entries(subject, held, x), *args))
    scored(subject, on_entries(subject, held, subject.x), subject.shared, "features held fixed")
    masks = tree_map(lambda leaf: torch.zeros((), dtype=torch.bool), subject.x)
    parts_of_mask = put(leaves(masks), subject.places, unused)
    return fixed, _like(masks, parts_of_mask)


def _like(tree: Tree, parts: list[Any]) -> Tree:
    following = iter(parts)
    return tree_map(lambda leaf: next(following), tree)


def _need(subject: Subject, count: int, kind: Callable[[Any], bool]) -> None:
    """Refuse an ``x`` with too few features that have attributions of their own."""
    method_of(subject)
    given = [leaves(subject.x)[place] for place in subject.places]
    features_of = [_shape(subject, number).numel() for number in range(len(given))]
    if sum(n for n, leaf in zip(features_of, given, strict=True) if kind(leaf)) < count:
        raise NotApplicable(f"asks for {count} or more features with attributions of their own")


def _shape(subject: Subject, number: int) -> torch.Size:
    """The shape of the features of a leaf with attributions."""
    return leaves(subject.x)[subject.places[number]].shape[subject.batch_dims :]


def _reversed(leaf: Tensor, shape: torch.Size) -> Tensor:
    if not shape:
        return leaf
    return leaf.flip([-1 - i for i in range(len(shape))])


def _alternating(leaf: Tensor, shape: torch.Size) -> Tensor:
    odd = torch.arange(shape.numel(), device=leaf.device).reshape(shape) % 2
    return torch.where(odd == 1, 2.0, 0.5).to(leaf.dtype if differentiable(leaf) else torch.float32)
