"""Interactions from samples: a quadratic game fitted to coalitions, and what it leaves over."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from attrib._map import map_chunks, slices
from attrib._tree import tree_map
from attrib.errors import AttribValueError
from attrib.games._coalitions import Pairs, Shares, distinct_pairs, pairs_of
from attrib.games._folding import (
    between_ends,
    contracted,
    pooled,
    product,
    pseudo_inverse,
    squared_errors,
    until,
    wide,
)
from attrib.games._indices import coefficients, value_weights
from attrib.games.game import Game, gathered
from attrib.perturb import Stream
from attrib.reducers import total
from attrib.types import Estimate, Tree

__all__ = ["fitted_pairs", "sure_pairs"]


class _Sample(NamedTuple):
    """Pairs of a coalition and its complement, with what belongs to each pair.

    Attributes:
        coalitions: ``(pairs, 2, players)``.
        values: Above that of nobody, ``(pairs, 2, *batch)``.
        weights: In the fit, ``(pairs,)``.
        unseen: The part of the pairs of this size that were not drawn, ``(pairs,)``.
        drawn: How many pairs of this size were drawn, ``(pairs,)``.
    """

    coalitions: Tensor
    values: Tensor
    weights: Tensor
    unseen: Tensor
    drawn: Tensor


class _Reading(NamedTuple):
    """How the index is read off.

    Attributes:
        columns: Which groups a coalition contains, and a constant where nobody is one of many,
            from ``(..., players)`` to ``(..., columns)``.
        groups: The index of each group in a game of these columns, ``(groups, columns)``.
        weigh: The weights of values in the index over the probability of a coalition to be drawn,
            ``(pairs, 2, groups)``.
    """

    columns: Callable[[Tensor], Tensor]
    groups: Tensor
    weigh: Callable[[_Sample], Tensor]


class _Fit(NamedTuple):
    """The quadratic game.

    Attributes:
        slopes: Its coefficients, ``(*batch, columns)``.
        inverse: From moments to them, ``(columns, columns)``.
        determined: Whether the sample determines all coefficients.
    """

    slopes: Tensor
    inverse: Tensor
    determined: Tensor


def fitted_pairs(
    v: Game,
    members: Tensor,
    index: str,
    order: int,
    samples: int,
    stream: Stream,
    *,
    errors: bool,
) -> Estimate:
    r"""Interactions of groups of at most two features,

    .. math:: \hat I(T) = I_q(T) + \sum_S \frac{\gamma_T(S)}{\pi_S} \big(v(S) - q(S)\big),

    where :math:`q` is the quadratic game that fits the drawn coalitions, of which :math:`S` was
    drawn with probability :math:`\pi_S`, and :math:`\gamma` are the weights of the values in the
    index. Of a faithful index, the coefficients of the fit, the second term is zero, and left out
    for its rounding errors.

    Args:
        v: The game.
        members: The groups, see `attrib.games.Interactions`.
        index: Which index.
        order: The largest size of a group.
        samples: How many coalitions.
        stream: Random numbers.
        errors: Whether standard errors are wanted; otherwise they are unknown.

    Returns:
        ``(*batch, groups)``.
    """
    sample, rise = _observed(v, len(members), index, samples, stream)
    uniform = _shares(index) == "uniform"
    reading = _reading(members, index, order, uniform, rise)
    fit = _fit(v, sample, reading, None if uniform else rise)
    value = product(fit.slopes, reading.groups.mT)
    count = len(sample.weights)
    if count and not index.startswith("faithful"):
        value = value + _left_over(sample, reading, fit)
    error = torch.full_like(value, torch.nan)
    if count == pairs_of(v.players, _shares(index)):
        error = 0 * value  # of a score that is NaN, it stays NaN
    elif errors:
        error = _squared_errors(v, sample, reading, fit).sqrt()
    dtype = wide(v.full).dtype
    return Estimate(value.to(dtype), error.to(dtype), 2 * count)


def sure_pairs(
    v: Game, members: Tensor, index: str, order: int, samples: int, stream: Stream, tol: float
) -> Estimate:
    """`fitted_pairs` from more and more independent samples, until the errors are small enough.

    Args:
        v: As for `fitted_pairs`.
        members: Likewise.
        index: Likewise.
        order: Likewise.
        samples: How many coalitions at most.
        stream: Random numbers.
        tol: See `until`.
    """
    existing, enough = 2 * pairs_of(v.players, _shares(index)), 6 * len(members)

    def more(found: Estimate | None, stop: int) -> Estimate:
        # With all coalitions there is no error, whatever was drawn before.
        before = 0 if found is None or stop == existing else found.samples
        if found is not None and stop - before < enough:
            return found  # of fewer, errors of the fit would be rough
        fresh = fitted_pairs(v, members, index, order, stop - before, stream, errors=True)
        return fresh if found is None or before == 0 else pooled(found, fresh)

    return until(v.full, more, min(samples, existing), enough, tol)


def _observed(
    v: Game, groups: int, index: str, samples: int, stream: Stream
) -> tuple[_Sample, Tensor]:
    players, shares = v.players, _shares(index)
    existing = pairs_of(players, shares)
    if samples < 2 * min(groups, existing):
        raise AttribValueError(
            f"samples: too few for {groups} single features and pairs, got {samples}; the fit "
            f"needs at least {2 * min(groups, existing)}",
            code="samples.few",
        )
    pairs = distinct_pairs(
        players,
        min(samples // 2, existing),
        shares=shares,
        draw="uniform" if shares == "uniform" else "leverage",
        stream=stream,
        like=_precise(v.full),
    )
    both = torch.stack([pairs.coalitions, ~pairs.coalitions], 1)
    empty, full, chunks = between_ends(v, slices(both.flatten(0, 1)))
    empty, full = _precise(empty), _precise(full)
    values = _precise(gathered(chunks)[1]) - empty
    values = values.reshape(len(both), 2, *v.batch)
    return _Sample(both, values, pairs.weights, pairs.unseen, _numbers(pairs)), full - empty


def _precise(values: Tensor) -> Tensor:
    """In double precision, where there is one: of nearly as many columns as samples, a fit has
    large and nearly dependent parts."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def _shares(index: str) -> Shares:
    return "uniform" if "banzhaf" in index else "kernel"


def _numbers(pairs: Pairs) -> Tensor:
    """How many of the pairs have the size of each."""
    sizes = _smaller(pairs.coalitions)
    counts = torch.zeros(pairs.coalitions.shape[-1] + 1, dtype=torch.long, device=sizes.device)
    return counts.scatter_add(0, sizes, torch.ones_like(sizes))[sizes]


def _smaller(coalitions: Tensor) -> Tensor:
    sizes = coalitions.sum(-1)
    return torch.minimum(sizes, coalitions.shape[-1] - sizes)


def _over(sample: _Sample, kernel: Callable[[_Sample], Tree], entries: int) -> Tree:
    """The sum over the pairs, a chunk of them at a time: each takes so many entries."""
    row = sample.weights.new_empty(1).expand(1, entries)

    def one(chunk: tuple[Tensor, ...]) -> Tree:
        return tree_map(lambda a: a[None], kernel(_Sample(*chunk)))

    return total(map_chunks(one, slices(tuple(sample)), chunk_size="auto", like=row))


def _reading(members: Tensor, index: str, order: int, uniform: bool, like: Tensor) -> _Reading:
    players, inside, sizes = members.shape[-1], members.to(like.dtype).mT, members.sum(-1)

    def table(numbers: object) -> Tensor:
        return torch.tensor(numbers, dtype=like.dtype, device=like.device)

    def columns(coalitions: Tensor) -> Tensor:
        held = (product(coalitions.to(like.dtype), inside) == sizes).to(like.dtype)
        return torch.nn.functional.pad(held, (0, int(uniform)), value=1.0)

    contained = product(inside.mT, inside) == sizes[:, None]
    of_groups = table(coefficients(index, players, order))[sizes][:, sizes] * contained
    weights = table(value_weights(index, players, order))

    def weigh(part: _Sample) -> Tensor:
        shared = product(part.coalitions.to(like.dtype), inside).long()
        present = part.coalitions.sum(-1)[..., None]
        found = weights[sizes.expand_as(shared), present.expand_as(shared), shared]
        return found / part.drawn[:, None, None].to(like.dtype)

    return _Reading(columns, torch.nn.functional.pad(of_groups, (0, int(uniform))), weigh)


def _fit(v: Game, sample: _Sample, reading: _Reading, rise: Tensor | None) -> _Fit:
    """Least squares; given the rise, the coefficients sum to it."""

    def moments(part: _Sample) -> tuple[Tensor, Tensor]:
        held = reading.columns(part.coalitions).flatten(0, 1)
        weighted = part.weights.repeat_interleave(2)[:, None] * held
        return product(weighted.mT, held), contracted(part.values.flatten(0, 1), weighted)

    width = reading.groups.shape[-1]
    if len(sample.weights):
        gram, cross = _over(sample, moments, 2 * width)
    else:
        gram = sample.weights.new_zeros(width, width)
        cross = sample.values.new_zeros(*v.batch, width)
    # The border holds the multiplier of the constraint.
    bordered = gram
    if rise is not None:
        bordered = torch.nn.functional.pad(gram, (0, 1, 0, 1), value=1.0)
        bordered[-1, -1] = 0
    whole = pseudo_inverse(bordered, 2 * len(sample.weights))
    inverse = whole[:width, :width]
    slopes = product(cross, inverse)
    if rise is not None:
        slopes = slopes + rise[..., None] * whole[-1, :-1]
    unknowns = width - int(rise is not None)
    determined = (inverse * gram).sum() > unknowns - 0.5
    return _Fit(slopes, inverse, determined)


def _rest(part: _Sample, held: Tensor, fit: _Fit) -> Tensor:
    """What the fit leaves over, ``(pairs, 2, *batch)``."""
    fitted = product(fit.slopes, held.flatten(0, 1).mT).movedim(-1, 0)
    return part.values - fitted.reshape(part.values.shape)


def _left_over(sample: _Sample, reading: _Reading, fit: _Fit) -> Tensor:
    """What the fit leaves over, as it counts in the index of each group, ``(*batch, groups)``."""

    def kernel(part: _Sample) -> Tensor:
        rest = _rest(part, reading.columns(part.coalitions), fit)
        return contracted(rest.flatten(0, 1), reading.weigh(part).flatten(0, 1))

    return _over(sample, kernel, 4 * len(reading.groups))


def _squared_errors(v: Game, sample: _Sample, reading: _Reading, fit: _Fit) -> Tensor:
    """The squared errors of the estimates, ``(*batch, groups)``.

    An estimate is a weighted sum of values, and so is the index; both are exact for quadratic
    games. What the weights differ by is therefore applied to what the fit leaves over (Sarndal,
    Swensson & Wretman, 1989, https://doi.org/10.1093/biomet/76.3.527).
    """
    groups, ones = len(reading.groups), [1 for _ in v.batch]

    def sampled(part: _Sample) -> Tensor:
        held = reading.columns(part.coalitions)
        return product(reading.weigh(part).flatten(0, 1).mT, held.flatten(0, 1))

    # The index in games of the columns, less what the sample makes of it.
    missed = reading.groups - _over(sample, sampled, 4 * groups)

    def kernel(part: _Sample) -> Tensor:
        held, fair = reading.columns(part.coalitions), reading.weigh(part)
        influence = part.weights[:, None, None] * product(held, fit.inverse)
        rest = _rest(part, held, fit)
        leverage = product(influence, held.mT)
        whole = _unshrunk(leverage, rest.reshape(len(rest), 2, -1), fit).reshape(*rest.shape, 1)

        def of_pairs(weights: Tensor) -> Tensor:
            return (whole * weights.reshape(len(rest), 2, *ones, groups)).sum(1)

        counted = of_pairs(fair + product(influence, missed.mT))
        unseen = part.unseen.reshape(-1, *ones, 1)
        return squared_errors(counted, of_pairs(fair), unseen).sum(0)

    return _over(sample, kernel, 4 * groups * max(1, v.batch.numel()))


def _unshrunk(leverage: Tensor, rest: Tensor, fit: _Fit) -> Tensor:
    """The residuals ``(pairs, 2, n)`` as large as they were before the fit made them smaller;
    unknown where they tell nothing, because a coefficient would not be determined without them.

    A coalition and its complement have the same leverage, and their sum and their difference are
    fitted apart. Roots, because with nearly as many coefficients as samples residuals as if their
    pairs had been left out are by far too large (HC2 instead of HC3 of MacKinnon & White, 1985).
    """
    own, other = leverage[:, 0, 0], leverage[:, 0, 1]
    spare = 1 - torch.stack([own + other, own - other], 1)
    rounding = torch.finfo(rest.dtype).eps ** 0.5
    told = fit.determined & (spare.amin(1, keepdim=True) > rounding)
    even, odd = torch.where(told, spare, torch.nan).sqrt()[..., None].unbind(1)
    even = (rest[:, 0] + rest[:, 1]) / (2 * even)
    odd = (rest[:, 0] - rest[:, 1]) / (2 * odd)
    return torch.stack([even + odd, even - odd], 1)
