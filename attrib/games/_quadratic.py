"""Interactions from samples: a quadratic game fitted to coalitions, and what it leaves over."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import comb
from typing import NamedTuple

import torch
from torch import Tensor

from attrib._map import map_chunks, slices
from attrib._transforms import constant
from attrib._tree import tree_map
from attrib.errors import AttribValueError
from attrib.games._coalitions import Pairs, Shares, distinct_pairs, pairs_of
from attrib.games._folding import (
    between_ends,
    contracted,
    pooled,
    product,
    pseudo_inverse,
    solved,
    until,
    wide,
)
from attrib.games.game import Game
from attrib.perturb import Stream
from attrib.reducers import total
from attrib.types import Estimate, Tree

__all__ = ["fitted_pairs", "sure_pairs"]

Table = tuple[tuple[float, ...], ...]


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


class _Fit(NamedTuple):
    """The quadratic game: coefficients ``(*batch, columns)``, and from moments to them."""

    slopes: Tensor
    inverse: Tensor


def fitted_pairs(
    v: Game,
    members: Tensor,
    index: str,
    table: Table,
    samples: int,
    stream: Stream,
) -> Estimate:
    r"""Interactions of groups of at most two features,

    .. math:: \hat I(T) = I_q(T) + \sum_S \frac{\gamma_T(S)}{\pi_S} \big(v(S) - q(S)\big),

    where :math:`q` is the quadratic game that fits the drawn coalitions, of which :math:`S` was
    drawn with probability :math:`\pi_S`, and :math:`\gamma` are the weights of the values in the
    index. The faithful indices are the coefficients of the fit.

    Args:
        v: The game.
        members: The groups, see `attrib.games.Interactions`.
        index: Which index.
        table: The coefficients of the Moebius transform in it.
        samples: How many coalitions.
        stream: Random numbers.

    Returns:
        ``(*batch, groups)``.
    """
    sample, rise = _observed(v, len(members), index, samples, stream)
    uniform = "banzhaf" in index

    def columns(coalitions: Tensor) -> Tensor:
        """Which groups a coalition contains, and a constant where nobody is one of many."""
        shared = product(coalitions.to(rise.dtype), members.to(rise.dtype).mT)
        held = (shared == members.sum(-1)).to(rise.dtype)
        return torch.nn.functional.pad(held, (0, int(uniform)), value=1.0)

    fit = _fit(v, sample, columns, None if uniform else rise)
    count = len(members)
    weigh = None if index.startswith("faithful") else _weights_of_values(index, members, sample)
    left, variance = _left_over(v, sample, columns, fit, weigh, count)
    value = fit.slopes[..., :count]
    if weigh is not None:
        value = product(value, _reading(members, table, rise).mT) + left
    dtype = wide(v.full).dtype
    return Estimate(value.to(dtype), variance.sqrt().to(dtype), 2 * len(sample.weights))


def sure_pairs(
    v: Game,
    members: Tensor,
    index: str,
    table: Table,
    samples: int,
    stream: Stream,
    tol: float,
) -> Estimate:
    """`fitted_pairs` from more and more independent samples, until the errors are small enough.

    Args:
        v: As for `fitted_pairs`.
        members: Likewise.
        index: Likewise.
        table: Likewise.
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
        fresh = fitted_pairs(v, members, index, table, stop - before, stream)
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
    values = _precise(torch.cat([found for _, found in chunks])) - empty
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


def _fit(
    v: Game, sample: _Sample, columns: Callable[[Tensor], Tensor], rise: Tensor | None
) -> _Fit:
    """Least squares; given the rise, the coefficients sum to it."""

    def moments(part: _Sample) -> tuple[Tensor, Tensor]:
        held = columns(part.coalitions).flatten(0, 1)
        weighted = part.weights.repeat_interleave(2)[:, None] * held
        return product(weighted.mT, held), contracted(part.values.flatten(0, 1), weighted)

    width = columns(sample.coalitions[:0]).shape[-1]
    if len(sample.weights):
        gram, cross = _over(sample, moments, 2 * width)
    else:
        gram, cross = (
            sample.weights.new_zeros(width, width),
            sample.values.new_zeros(*v.batch, width),
        )
    if rise is None:
        inverse = pseudo_inverse(gram, 2 * len(sample.weights))
        return _Fit(product(cross, inverse), inverse)
    # The border holds the multiplier of the constraint.
    bordered = torch.nn.functional.pad(gram, (0, 1, 0, 1), value=1.0)
    bordered[-1, -1] = 0
    inverse = pseudo_inverse(bordered, 2 * len(sample.weights))
    slopes = product(cross, inverse[:-1, :-1]) + rise[..., None] * inverse[-1, :-1]
    return _Fit(slopes, inverse[:-1, :-1])


def _left_over(
    v: Game,
    sample: _Sample,
    columns: Callable[[Tensor], Tensor],
    fit: _Fit,
    weigh: Callable[[_Sample], Tensor] | None,
    count: int,
) -> tuple[Tensor, Tensor]:
    """What the fit leaves over, summed with weights ``(*batch, groups)``, and its variance."""
    if not len(sample.weights):
        nothing = torch.zeros_like(fit.slopes[..., :count])
        return nothing, nothing

    def kernel(part: _Sample) -> tuple[Tensor, Tensor]:
        held = columns(part.coalitions)
        influence = part.weights[:, None, None] * product(held, fit.inverse)
        fitted = product(fit.slopes, held.flatten(0, 1).mT).movedim(-1, 0)
        fitted = fitted.reshape(part.values.shape)
        rest = part.values - fitted
        weights = influence[..., :count] if weigh is None else weigh(part)
        left = contracted(rest.flatten(0, 1), weights.flatten(0, 1))
        ones = [1 for _ in v.batch]
        fair = _as_if_left_out(product(influence, held.mT), rest.reshape(len(rest), 2, -1)).reshape(
            rest.shape
        )
        pairs = (fair[..., None] * weights.reshape(len(fair), 2, *ones, count)).sum(1)
        unseen = part.unseen.reshape(-1, *ones, 1)
        return left, (unseen * pairs.square()).sum(0)

    return _over(sample, kernel, 2 * count * max(1, v.batch.numel()))


def _as_if_left_out(leverage: Tensor, rest: Tensor) -> Tensor:
    """The residuals ``(pairs, 2, ...)`` that pairs would have in a fit without them."""
    one = torch.eye(2, dtype=rest.dtype, device=rest.device)
    return solved(one * (1 + 1e-3) - leverage, rest)


def _reading(members: Tensor, table: Table, like: Tensor) -> Tensor:
    """The index of each group in a game of the groups, ``(groups, groups)``."""
    inside = members.to(like.dtype)
    sizes = members.sum(-1)
    coefficients = torch.tensor(table, dtype=like.dtype, device=like.device)
    return coefficients[sizes][:, sizes] * (product(inside, inside.mT) == sizes[:, None])


def _weights_of_values(index: str, members: Tensor, sample: _Sample) -> Callable[[_Sample], Tensor]:
    """Weights of the values in the index over the probability of a coalition to be drawn."""
    players = members.shape[-1]
    like = sample.weights
    table = torch.tensor(_value_table(index, players), dtype=like.dtype, device=like.device)
    inside, order = members.to(like.dtype).mT, members.sum(-1)

    def weigh(part: _Sample) -> Tensor:
        shared = product(part.coalitions.to(like.dtype), inside).long()
        sizes = part.coalitions.sum(-1)[..., None]
        return table[order.expand_as(shared), sizes.expand_as(shared), shared] / part.drawn[
            :, None, None
        ].to(like.dtype)

    return weigh


@constant
@lru_cache(maxsize=16)
def _value_table(index: str, players: int) -> tuple[Table, ...]:
    """``[t][s][o]``: the weight in the index of a group of t of the value of a coalition of s that
    has o of them, times the number of pairs of its size (Grabisch & Roubens, 1999)."""

    def weight(t: int, s: int, o: int) -> float:
        others = s - o
        if t == 0 or not 0 <= others <= players - t:
            return 0.0
        smaller = min(s, players - s)
        pairs = comb(players, smaller) / (2 if 2 * smaller == players else 1)
        share = (
            pairs / 2 ** (players - t)
            if index == "banzhaf"
            else pairs / ((players - t + 1) * comb(players - t, others))
        )
        return (-1) ** (t - o) * share

    return tuple(
        tuple(tuple(weight(t, s, o) for o in range(3)) for s in range(players + 1))
        for t in range(3)
    )
