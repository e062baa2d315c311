"""Interactions: what features contribute together."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import chain, combinations
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from attrib._checks import check_callable, check_choice, check_count, check_number, describe
from attrib._map import ChunkSize, Points, check_chunk_size, map_chunks, slices
from attrib._transforms import constant
from attrib.errors import AttribTypeError, AttribValueError
from attrib.games._coalitions import all_coalitions
from attrib.games._folding import contracted, product, wide
from attrib.games._indices import INDICES, Table, coefficients
from attrib.games._quadratic import fitted_pairs, sure_pairs
from attrib.games.game import Game, game, gathered
from attrib.games.groups import Groups
from attrib.games.shapley import check_few
from attrib.perturb import Stream, fork
from attrib.reducers import estimate, mean, total
from attrib.types import Estimate, Reducer, Score, Tree

__all__ = ["Index", "Interactions", "interactions", "pairwise"]

Index: TypeAlias = Literal[
    "shapley",
    "k-shapley",
    "taylor",
    "faithful",
    "banzhaf",
    "faithful-banzhaf",
    "moebius",
]


class Interactions(NamedTuple):
    """Numbers of groups of features.

    Attributes:
        members: Who belongs to each group, bool ``(groups, features)``: first every feature alone,
            then the pairs, and so on, each size in lexicographic order.
        values: What each group contributes, ``(*batch, groups)``, in units of the score; an
            `attrib.Estimate` of them where one was asked for.
    """

    members: Tensor
    values: Any


def interactions(
    f: Score,
    *,
    index: Index = "shapley",
    order: int = 2,
    samples: int | None = None,
    groups: Groups = None,
    interventional: bool = False,
    reduce: Reducer = mean,
    tol: float | None = None,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Callable[..., Interactions]:
    r"""Interactions of features: what a group :math:`T` contributes beyond its parts. All indices
    are sums of the Moebius transform :math:`a(S) = \sum_{R \subseteq S} (-1)^{|S| - |R|} v(R)` over
    the coalitions that contain the group,

    .. math:: I(T) = \sum_{S \supseteq T} c_{|T|, |S|}\, a(S).

    ==================== ===========================================================================
    ``index``            :math:`c_{t, s}`, for groups of at most :math:`k` (the order)
    ==================== ===========================================================================
    ``shapley``          :math:`1 / (s - t + 1)`; for single features the Shapley value
    ``banzhaf``          :math:`2^{t - s}`; for single features the Banzhaf value
    ``moebius``          1 for :math:`s = t`, else 0: Harsanyi's dividends
    ``taylor``           as ``moebius`` for :math:`t < k`, and :math:`1 / \binom{s}{k}` for
                         :math:`t = k` (Shapley-Taylor)
    ``k-shapley``        ``shapley``, with smaller groups freed of what larger ones hold
    ``faithful``         the game of groups of at most :math:`k` that fits all coalitions best, by
                         the weights of `attrib.kernel_shap` (faithful Shapley)
    ``faithful-banzhaf`` the same with equal weights
    ==================== ===========================================================================

    The values of ``taylor``, ``k-shapley`` and ``faithful`` sum to ``f(x) - f(baseline)``.

    Args:
        f: Score.
        index: See above.
        order: The largest size of a group, :math:`k`.
        samples: ``None``: all coalitions of at most 16 features are evaluated, each once. Otherwise
            so many coalitions, for groups of at most two and every index but ``"moebius"``: a
            quadratic game is fitted to them, and what it leaves over is estimated by their
            probabilities. At least ``M (M + 1)`` for M features; with `tol`, at most so many.
        groups: Which entries of ``x`` are one feature, as for `attrib.games.game`.
        interventional: The baseline is a set to average over, as for `attrib.games.game`.
        reduce: With `samples`, `attrib.estimate` adds standard errors. They hold from about twice
            the fewest samples on, are zero where all coalitions were seen, and NaN where the fit
            would not be determined without one of those that were.
        tol: With `samples`: stop as soon as, for every example, all standard errors are below
            ``tol`` times its largest value.
        generator: Source of randomness, with `samples`. Without one, the draws come from a copy of
            the global generator: the same at every call until something else advances it.
        chunk_size: Coalitions evaluated at once.

    Returns:
        ``interact(x, baseline=0, *args) -> Interactions(members, values)``; `pairwise` makes
        matrices of it.

    Raises:
        AttribValueError: For more than 16 features without `samples`; for an order above two or
            Moebius with `samples`; for an unknown index.
        AttribError: For options out of range, and as for `attrib.games.game`.

    References:
        Grabisch & Roubens (1999), https://doi.org/10.1007/s001820050125; for ``taylor``,
        Sundararajan, Dhamdhere & Agarwal (2020), https://arxiv.org/abs/1902.05622; for
        ``faithful``, Tsai, Yeh & Ravikumar (2023), https://arxiv.org/abs/2203.00870; for
        ``k-shapley``, Bord & von Luxburg (2023), https://arxiv.org/abs/2209.04012

    Example:
        >>> import torch
        >>> f = lambda x: 2 * x[..., 0] + 3 * x[..., 0] * x[..., 1]
        >>> found = interactions(f)(torch.ones(1, 2))
        >>> found.members.long()
        tensor([[1, 0],
                [0, 1],
                [1, 1]])
        >>> found.values
        tensor([[3.5000, 1.5000, 3.0000]])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_choice(index, "index", INDICES)
    check_count(order, "order")
    chunk_size = check_chunk_size(chunk_size)
    Stream(generator)
    _check_samples(index, order, samples, reduce, tol)

    def interact(x: Tree, baseline: Any = 0, *args: Any) -> Interactions:
        v = game(
            f,
            x,
            baseline,
            *args,
            groups=groups,
            interventional=interventional,
            chunk_size=chunk_size,
        )
        largest = min(order, v.players)
        members = _groups(v.players, largest, v.device)
        if samples is None:
            table = coefficients(index, v.players, largest)
            return Interactions(members, _enumerated(v, members, table))
        stream = Stream(fork(generator))
        if tol is None:
            errors = reduce is estimate
            found = fitted_pairs(v, members, index, largest, samples, stream, errors=errors)
        else:
            found = sure_pairs(v, members, index, largest, samples, stream, tol)
        return Interactions(members, found if reduce is estimate else found.value)

    return interact


def pairwise(found: Interactions) -> Tensor:
    """Single features and pairs as symmetric matrices: features alone on the diagonal, and at
    ``(i, j)`` and ``(j, i)`` the whole interaction of the pair.

    Args:
        found: What `interactions` returned.

    Returns:
        ``(*batch, features, features)``.

    Raises:
        AttribTypeError: If they are something else.

    Example:
        >>> import torch
        >>> f = lambda x: 2 * x[..., 0] + 3 * x[..., 0] * x[..., 1]
        >>> pairwise(interactions(f)(torch.ones(1, 2)))
        tensor([[[3.5000, 3.0000],
                 [3.0000, 1.5000]]])
    """
    if not isinstance(found, Interactions):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise AttribTypeError(
            f"found: must be interactions, got {describe(found)}; pass what "
            "attrib.interactions(f)(x) returned",
            code="found.type",
        )
    values: Tensor = found.values.value if isinstance(found.values, Estimate) else found.values
    few = found.members.sum(-1) <= 2
    members = found.members[few].to(torch.long)
    first = members.argmax(-1)
    last = members.shape[-1] - 1 - members.flip(-1).argmax(-1)
    features = members.shape[-1]
    places = torch.cat([first * features + last, last * features + first])
    both = torch.cat([values[..., few], values[..., few]], -1)
    flat = both.new_zeros(*both.shape[:-1], features * features)
    return flat.index_copy(-1, places, both).reshape(*both.shape[:-1], features, features)


def _check_samples(
    index: str, order: int, samples: int | None, reduce: Any, tol: float | None
) -> None:
    if samples is None and (reduce is not mean or tol is not None):
        raise AttribValueError(
            f"reduce: needs samples, got {describe(reduce)}; without them all coalitions are "
            "evaluated, and there is no error",
            code="reduce.unknown",
        )
    if reduce not in (mean, estimate):
        raise AttribValueError(
            f"reduce: must be attrib.mean or attrib.estimate, got {describe(reduce)}",
            code="reduce.unknown",
        )
    if samples is None:
        return
    check_count(samples, "samples", least=2)
    if tol is not None:
        check_number(tol, "tol", exclusive=True)
    if order > 2:
        raise AttribValueError(
            f"order: at most 2 with samples, got {order}; leave samples out to enumerate the "
            "coalitions of at most 16 features",
            code="order.samples",
        )
    if index == "moebius":
        raise AttribValueError(
            "index: not estimated from samples, got 'moebius'; a dividend is made of the values of "
            "few coalitions, all of which it needs. Pass another index, or leave samples out",
            code="index.samples",
        )


def _groups(players: int, order: int, device: torch.device) -> Tensor:
    sizes, members = _listed(players, order)
    rows = torch.arange(len(sizes), device=device).repeat_interleave(
        torch.tensor(sizes, device=device), output_size=len(members)
    )
    nobody = torch.zeros(len(sizes), players, dtype=torch.bool, device=device)
    there = torch.tensor(True, device=device)
    return nobody.index_put((rows, torch.tensor(members, device=device)), there)


@constant
@lru_cache(maxsize=16)
def _listed(players: int, order: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The sizes of the groups, and their members one after another."""
    groups = [g for size in range(1, order + 1) for g in combinations(range(players), size)]
    return tuple(map(len, groups)), tuple(chain.from_iterable(groups))


def _enumerated(v: Game, members: Tensor, table: Table) -> Tensor:
    check_few(v.players)
    players = v.players
    points = Points(2**players - 1, all_coalitions(players, v.device))
    rest = gathered(v.over(points))[1]
    values = torch.nn.functional.pad(wide(rest) - wide(v.full), (0, 0) * (rest.ndim - 1) + (0, 1))
    coalitions = all_coalitions(players, v.device)(0, 2**players)
    coefficients = torch.tensor(table, dtype=values.dtype, device=values.device)
    wanted = members.to(values.dtype)
    sizes = members.sum(-1)

    def kernel(chunk: tuple[Tensor, Tensor]) -> Tensor:
        some, dividends = chunk
        contained = product(some.to(values.dtype), wanted.mT) == sizes
        weights = coefficients[sizes][:, some.sum(-1)].mT * contained
        return contracted(dividends, weights)[None]

    points = slices((coalitions, _moebius(values, players)))
    # The weights take as much memory as so many rows of as many columns as there are groups.
    return total(map_chunks(kernel, points, chunk_size="auto", like=wanted[:, :1].mT))


def _moebius(values: Tensor, players: int) -> Tensor:
    """Harsanyi's dividends of all coalitions, from their values ``(2**players, *batch)``.

    The transform is a Kronecker product: of one of the lower half of the bits and one of the upper.
    """
    lower = players // 2

    def matrix(bits: int) -> Tensor:
        sets = all_coalitions(bits, values.device)(0, 2**bits).to(values.dtype)
        sizes = sets.sum(-1)
        inside = product(sets, sets.mT) == sizes  # [S, R]: whether R is in S
        return inside * (1 - 2 * ((sizes[:, None] - sizes) % 2))

    cells = values.reshape(2 ** (players - lower), 2**lower, -1)
    cells = product(matrix(players - lower), cells.flatten(1)).reshape(cells.shape)
    return product(matrix(lower), cells).reshape(values.shape)
