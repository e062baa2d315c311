r"""Fitting an additive game, perhaps with interactions beside it, to pairs of complementary
coalitions.

With :math:`q = 2z - 1` and :math:`y = v(z) - v(1 - z)` an additive game has :math:`y = q \cdot
\phi`: what all coalitions have in common is gone, and a pair is one observation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrib._map import slices
from attrib.games._coalitions import Pairs, Shares, distinct_pairs
from attrib.games._folding import (
    contracted,
    product,
    pseudo_inverse,
    squared_errors,
    until,
    weighted_sum,
    wide,
)
from attrib.games._kept import kept, may_be_kept
from attrib.games._process import posterior
from attrib.games.game import Game
from attrib.perturb import Stream, fork
from attrib.reducers import estimate
from attrib.types import Estimate, Reducer

__all__ = ["Sampling", "fitted"]


class Sampling(NamedTuple):
    """What the pairs count, by what they are divided among the sizes, as for `distinct_pairs`;
    whether the values must sum to the rise from nobody to everybody; and whether a Gaussian process
    is fitted, where not all pairs are seen."""

    shares: Shares
    draw: Shares
    efficient: bool
    process: bool = False


class _Design(NamedTuple):
    """Coalitions, and the fit as a sum over their values less that of everybody.

    Attributes:
        coalitions: Nobody, then every coalition before its complement.
        weights: ``(coalitions, players)``.
    """

    coalitions: Tensor
    weights: Tensor


class _Observed(NamedTuple):
    """Pairs, their differences ``(pairs, *batch)``, and the rise from nobody to everybody."""

    pairs: Pairs
    differences: Tensor
    rise: Tensor


class _Model(NamedTuple):
    """What the fit needs of the pairs.

    With efficiency the mean of the players is known, and only what is left beside it is fitted.

    Attributes:
        share: The part of the rise that is the mean of the players; zero without efficiency.
        signs: :math:`q`, with efficiency without its mean, ``(pairs, players)``.
        sums: The sum of :math:`q`, ``(pairs,)``.
        weighted: The signs times the weights, ``(pairs, players)``.
        inverse: From moments to the fit, ``(players, players)``.
    """

    share: float
    signs: Tensor
    sums: Tensor
    weighted: Tensor
    inverse: Tensor


def fitted(
    v: Game,
    how: Sampling,
    count: int,
    generator: torch.Generator | None,
    *,
    existing: int,
    reduce: Reducer,
    tol: float | None,
) -> Tensor | Estimate:
    r"""The least squares fit :math:`\min_\phi \sum_z w_z (y_z - q_z \cdot \phi)^2`, or that of a
    Gaussian process.

    Args:
        v: The game.
        how: How the pairs are drawn, and what is fitted.
        count: Pairs; with `tol`, at most.
        generator: Source of randomness, or ``None``.
        existing: All pairs that there are.
        reduce: `attrib.mean`, or `attrib.estimate` for standard errors.
        tol: Stop when the standard errors are so small, see `until`.

    Returns:
        ``(*batch, players)``. The samples of an estimate are coalitions.
    """
    stream = Stream(fork(generator))
    if tol is None and count == existing:
        how = how._replace(process=False)  # nothing is left to be foretold
    if tol is None and reduce is not estimate:
        key = wide(v.full), v.players, count, how
        again = may_be_kept(count * v.players, generator, v.full)
        coalitions, weights = kept(_drawn, stream, *key) if again else _drawn(stream, *key)
        return weighted_sum(v, slices(coalitions), lambda z, start: weights[start:][: len(z)])
    like = wide(v.full)
    seen: list[_Observed] = []

    def more(found: Estimate | None, stop: int) -> Estimate:
        before = 0 if found is None else found.samples // 2
        whole = stop == existing
        if whole:
            # With all pairs there is no error, whatever was drawn before.
            seen.clear()
            before = 0
        seen.append(_observed(v, _pairs(stream, like, v.players, stop - before, how)))
        pooled = _pooled(seen)
        if how.process and not whole:
            return _foretold(pooled if len(seen) == 1 else _once(pooled), 2 * stop)
        return _with_errors(pooled, how.efficient, whole)

    first = min(count, 4 * v.players)
    found = more(None, count) if tol is None else until(v.full, more, count, first, tol)
    return found if reduce is estimate else found.value


def _pairs(stream: Stream, like: Tensor, players: int, count: int, how: Sampling) -> Pairs:
    return distinct_pairs(
        players, count, shares=how.shares, draw=how.draw, stream=stream, like=like
    )


def _drawn(stream: Stream, like: Tensor, players: int, count: int, how: Sampling) -> _Design:
    return _design(_pairs(stream, like, players, count, how), how)


def _design(pairs: Pairs, how: Sampling) -> _Design:
    if how.process:
        found = posterior(pairs.coalitions).weights.to(pairs.weights.dtype)
        both = _alternating(found[1:], -found[1:])
        return _Design(_coalitions(pairs), torch.cat([-found[:1], both]))
    model = _model(pairs, how.efficient)
    signs = _alternating(model.weighted, -model.weighted)
    # The rise is what nobody lacks. A part of it is the mean of the players, the rest is fitted.
    fitted = product(product(model.sums, model.weighted), model.inverse)
    nobody = model.share * (fitted - 1)
    return _Design(_coalitions(pairs), torch.cat([nobody[None], product(signs, model.inverse)]))


def _model(pairs: Pairs, efficient: bool) -> _Model:
    signs = 2 * pairs.coalitions.to(pairs.weights.dtype) - 1
    sums = signs.sum(1)
    share = 1 / signs.shape[1] if efficient else 0.0
    signs = signs - sums[:, None] * share
    weighted = pairs.weights[:, None] * signs
    # The direction that efficiency determines is taken out of the rank, not left to rounding.
    gram = product(weighted.mT, signs) + share
    inverse = pseudo_inverse(gram, len(signs)) - share
    return _Model(share, signs, sums, weighted, inverse)


def _solved(model: _Model, moments: Tensor, rise: Tensor) -> Tensor:
    """The fit to weighted sums of ``y q``."""
    mean = rise[..., None] * model.share
    sums = product(model.sums, model.weighted)
    return mean + product(moments - mean * sums, model.inverse)


def _observed(v: Game, pairs: Pairs) -> _Observed:
    values = wide(v(_coalitions(pairs)))
    return _Observed(pairs, values[1::2] - values[2::2], wide(v.full) - values[0])


def _coalitions(pairs: Pairs) -> Tensor:
    """Nobody, then every coalition before its complement."""
    both = _alternating(pairs.coalitions, ~pairs.coalitions)
    return torch.nn.functional.pad(both, (0, 0, 1, 0))


def _alternating(first: Tensor, second: Tensor) -> Tensor:
    return torch.stack([first, second], 1).flatten(0, 1)


def _pooled(seen: list[_Observed]) -> _Observed:
    """All that was observed, each part weighted by its number of pairs."""
    whole = max(1, sum(len(o.differences) for o in seen))  # one player has no pairs
    coalitions, weights, unseen = (
        torch.cat(parts) for parts in zip(*(o.pairs for o in seen), strict=True)
    )
    part = torch.cat([torch.full_like(o.pairs.weights, len(o.differences) / whole) for o in seen])
    pairs = Pairs(coalitions, weights * part, unseen)
    return _Observed(pairs, torch.cat([o.differences for o in seen]), seen[-1].rise)


def _once(seen: _Observed) -> _Observed:
    """The same without pairs that were there before: what is known tells nothing new."""
    coalitions = seen.pairs.coalitions
    halves = torch.where(coalitions[:, :1], coalitions, ~coalitions)
    rows: Any = halves
    distinct, places = rows.unique(dim=0, return_inverse=True)
    order = torch.arange(len(halves), device=halves.device)
    first = order[: len(distinct)].scatter_reduce(0, places, order, "amin", include_self=False)
    pairs = Pairs(*(part[first] for part in seen.pairs))
    return _Observed(pairs, seen.differences[first], seen.rise)


def _foretold(seen: _Observed, samples: int) -> Estimate:
    """The values by a Gaussian process, with its standard deviations."""
    found = posterior(seen.pairs.coalitions)
    differences = torch.cat([seen.rise[None], seen.differences])
    value = contracted(differences, found.weights)
    errors = found.errors(differences.to(found.weights.dtype)).to(value.dtype)
    return Estimate(value, errors, samples)


def _with_errors(seen: _Observed, efficient: bool, whole: bool) -> Estimate:
    """The fit with standard errors: how far it is from the fit to all pairs.

    Each residual is divided by one minus its leverage, as if its pair had been left out (MacKinnon
    & White, 1985), but where none of its size could have been. Without a pair of leverage one some
    value would not be determined: its residual tells nothing, and the errors are unknown.
    """
    pairs, differences, rise = seen
    model = _model(pairs, efficient)
    value = _solved(model, contracted(differences, model.weighted), rise)
    if whole:
        return Estimate(value, 0 * value, 2 * len(pairs.weights))  # NaN stays NaN
    influence = product(model.weighted, model.inverse)
    spare = 1 - (influence * model.signs).sum(-1)
    unknowns = influence.shape[-1] - int(efficient)
    determined = (1 - spare).sum() > unknowns - 0.5
    told = determined & (spare > torch.finfo(spare.dtype).eps ** 0.5)
    spare = torch.where(told, torch.where(pairs.unseen > 0, spare, 1.0), torch.nan)
    rest = value - rise[..., None] * model.share
    known = rise[..., None] * model.share * model.sums
    fit = (product(rest, model.signs.mT) + known).movedim(-1, 0)
    left_out = (differences - fit) / spare.reshape(-1, *(1 for _ in rise.shape))
    # Over all pairs of a size players are alike: the gram is a multiple of the identity.
    scale = (model.weighted * model.signs).sum() / unknowns
    spread = squared_errors(influence, model.weighted / scale, pairs.unseen[:, None])
    return Estimate(value, contracted(left_out.square(), spread).sqrt(), 2 * len(spare))
