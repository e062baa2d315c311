"""Infidelity: does an attribution foretell what perturbations do to the score?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from attrib._batched import stacked
from attrib._checks import (
    check_baseline,
    check_callable,
    check_choice,
    check_count,
    check_input,
    check_number,
    check_values,
    describe,
)
from attrib._map import ChunkSize, Points, check_chunk_size
from attrib._tree import differentiable, features, leaves
from attrib.errors import AttribTypeError, AttribValueError
from attrib.games._coalitions import random_rows
from attrib.games.game import Game, game
from attrib.games.groups import Groups
from attrib.gradient import score_of
from attrib.metrics._calling import check_attribution, check_tensors, given_or_made
from attrib.metrics._direction import named
from attrib.metrics._hiding import check_groups, player_values
from attrib.metrics._moving import Seen, folded
from attrib.metrics._statistics import ratio, residual_of, wide
from attrib.perturb import Perturbed, Stream, drawn, fork
from attrib.reducers import mean
from attrib.types import Attribute, Measure, Perturb, Score, Tree

__all__ = ["Hiding", "Perturbed", "hiding", "infidelity"]


class Hiding(NamedTuple):
    """Random features are hidden, see `hiding`."""

    groups: Groups
    share: float
    generator: torch.Generator | None


def hiding(
    groups: Groups = None, *, share: float = 0.5, generator: torch.Generator | None = None
) -> Hiding:
    r"""The indicator perturbation of `infidelity`: each feature is hidden by the baseline with some
    probability, and :math:`I` is one for those that are and zero for the others.

    Args:
        groups: What is one feature, as for `attrib.games.game`, but no windows.
        share: The probability.
        generator: Source of randomness; without one, a copy of the global generator.

    Returns:
        The ``perturb`` of `infidelity`.

    Raises:
        AttribError: If an argument is not what it should be.

    References:
        Yeh, Hsieh, Suggala, Inouye & Ravikumar (2019), section 2, perturbations to a baseline of
        random subsets, https://arxiv.org/abs/1901.09392

    Example:
        >>> import torch
        >>> f = lambda x: x @ torch.tensor([1.0, 2.0])
        >>> measure = infidelity(f, None, hiding(share=1.0))
        >>> measure(torch.tensor([[1.0, 1.0]]), torch.ones(1, 2))
        tensor([1.])
    """
    Stream(generator)
    return Hiding(check_groups(groups), check_number(share, "share", most=1.0), generator)


def infidelity(
    f: Score,
    attribute: Attribute | None,
    perturb: Perturb | Hiding | Callable[[Tree], Perturbed],
    *,
    samples: int = 10,
    form: Literal["local", "global"] = "local",
    normalize: bool = False,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Infidelity, lower is better: by how much the attribution misses what perturbations do,

    .. math:: \mathrm{INFD} = \mathbb{E}_{I}\,
              \big(I^\top \phi(x) - (f(x) - f(x - I))\big)^2.

    An attribution is *local* if it is per unit of ``x``, as gradients are, and *global* if it is in
    units of the score, as are integrated gradients and Shapley values. For a global one the
    perturbation counts as a share of the way to the baseline.

    Args:
        f: Score.
        attribute: Attribution function, or ``None`` to pass what one returned.
        perturb: ``x -> x'``, a fresh draw at every call, such as `attrib.perturb.gaussian`; a
            function ``x -> Perturbed(x', I)``; or `hiding`, for attributions in units of the score.
        samples: Number of draws.
        form: ``"local"``: :math:`I = x - x'`. ``"global"``: :math:`I = (x - x') / (x - b)` with
            the baseline :math:`b`, entry by entry, and :math:`x - x'` where that divides by zero.
            It plays no part where `perturb` says what :math:`I` is.
        normalize: Multiply the attribution of each example by the factor :math:`\beta =
            \mathbb{E}[I^\top\phi\,(f(x) - f(x'))] / \mathbb{E}[(I^\top\phi)^2]` that suits it best.
        chunk_size: Draws evaluated at once. Does not change the draws.

    Returns:
        ``measure(x, baseline=0, *args) -> (*batch,)``, in squared units of the score; without an
        attribution function ``measure(attribution, x, baseline=0, *args)``. The attribution may
        have any shape that broadcasts with :math:`I`; for `hiding`, also ``(*batch, features)``.

    Raises:
        AttribValueError: If the attribution does not fit.
        AttribTypeError: If all that has attributions are integers, which no perturbation but
            `hiding` changes by an amount.
        AttribError: If an argument is not what it should be, and as for `attrib.grad_and_score`.

    References:
        Yeh, Hsieh, Suggala, Inouye & Ravikumar (2019), definition 2.1,
        https://arxiv.org/abs/1901.09392; Kokhlikyan et al. (2020), equation 1,
        https://arxiv.org/abs/2009.07896

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x @ torch.tensor([1.0, 2.0])
        >>> measure = infidelity(f, attrib.saliency(f), attrib.perturb.gaussian(0.1))
        >>> measure(torch.zeros(1, 2)) < 1e-12
        tensor([True])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_count(samples, "samples")
    check_choice(form, "form", ("local", "global"))
    chunk_size = check_chunk_size(chunk_size)
    draw: Any = perturb
    if not isinstance(perturb, Hiding):
        check_callable(
            draw,
            "perturb",
            "pass a function x -> x', e.g. "
            "attrib.perturb.gaussian(0.1), or attrib.metrics.hiding()",
        )

    def squared(pairs: Iterable[tuple[Tensor, Tensor]]) -> Any:
        if normalize:
            return residual_of(pairs)
        return mean((foretold - lost).square() for foretold, lost in pairs)

    def measure(attribution: Tree, x: Tree, baseline: Any = 0, *args: Any) -> Tensor:
        if isinstance(perturb, Hiding):
            v = game(f, x, baseline, *args, groups=perturb.groups, chunk_size=chunk_size)
            pairs = _hidden(v, perturb, samples, player_values(attribution, v))
            return squared(pairs).to(v.full.dtype)
        check_input(x, gradients=False)
        parts = check_tensors(attribution)
        start = check_baseline(baseline, x) if form == "global" else None
        over = stacked(score_of(f, own=True), *args)

        def kernel(points: Tree) -> Seen:
            # Before the model, which may write to the points.
            changes = _changes(x, points, start)
            return Seen([over(_point(points))], changes)

        def against(here: Seen) -> Callable[[Seen], tuple[Tensor, Tensor]]:
            full, _ = check_values(here.found[0])
            if any(part is not None and part.shape[: full.ndim] != full.shape for part in parts):
                check_attribution(attribution, x, full.shape)
            return lambda there: (
                wide(_product(parts, leaves(there.beside), full.ndim)),
                wide(full - there.found[0]),
            )

        points = drawn(draw, x, samples, after_x=True, measured=True)
        return folded(kernel, against, x, points, chunk_size, squared)

    return named("infidelity", given_or_made(attribute, measure))


def _point(found: Any) -> Tree:
    return found.x if isinstance(found, Perturbed) else found


def _changes(x: Tree, points: Tree, baseline: Tree | None) -> Tree:
    """What belongs to the attribution, by how much the points differ from ``x``."""
    if isinstance(points, Perturbed):
        return points.change
    starts = leaves(x) if baseline is None else leaves(baseline)

    def change(a: Any, b: Any, point: Any) -> Any:
        if not differentiable(a):
            return None
        return a - point if baseline is None else ratio(a - point, a - b)

    return tuple(map(change, leaves(x), starts, leaves(points)))


def _product(parts: list[Any], changes: list[Any], batch_dims: int) -> Tensor:
    """The inner product of an attribution with changes, ``(samples, *batch)``."""
    if len(parts) != len(changes):
        raise AttribValueError(
            f"attribution: must be a tree like the perturbation, got {len(parts)} leaves for "
            f"{len(changes)}",
            code="attribution.shape",
        )
    products: list[Tensor] = []
    pairs = [p for p in zip(parts, changes, strict=True) if p[0] is not None and p[1] is not None]
    if not pairs:
        raise AttribTypeError(
            "x: integers where it has attributions, got no change that could be weighed; hide "
            "features by attrib.metrics.hiding(), or return attrib.metrics.Perturbed(x, change)",
            code="x.dtype",
        )
    for part, change in pairs:
        own, width = part.shape[batch_dims:], change.shape[batch_dims + 1 :]
        if own != width and not _broadcast(own, width):
            raise AttribValueError(
                f"attribution: does not broadcast to the perturbation, got {describe(part)} for "
                f"{describe(change[0])}; for numbers of features, perturb by "
                "attrib.metrics.hiding(groups)",
                code="attribution.shape",
            )
        products.append(features(part * change, batch_dims + 1).sum(-1))
    return reduce(torch.add, products)


def _broadcast(own: torch.Size, width: torch.Size) -> bool:
    """Whether two shapes go together, dimension by dimension."""
    alike = len(own) == len(width)
    return alike and all(a == b or 1 in (a, b) for a, b in zip(own, width, strict=True))


def _hidden(
    v: Game, perturb: Hiding, samples: int, values: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    uniform = random_rows(v.players, Stream(fork(perturb.generator)), v.device)

    def take(start: int, stop: int) -> Tensor:
        return uniform(start, stop) >= perturb.share

    for present, found in v.over(Points(samples, take)):
        foretold = torch.einsum("sp,...p->s...", (~present).to(values), values)
        yield wide(foretold), wide(v.full - found)
