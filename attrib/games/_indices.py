"""Indices of interaction: what dividends and values of coalitions count in each."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import comb

from attrib._transforms import constant

__all__ = ["INDICES", "Table", "coefficients", "value_weights"]

Table = tuple[tuple[float, ...], ...]


@constant
@lru_cache(maxsize=64)
def coefficients(index: str, players: int, order: int) -> Table:
    """``c[t][s]``: what the dividend of a coalition of s counts for a group of t that it contains,
    see `attrib.games.interactions`."""
    return tuple(tuple(map(float, row)) for row in _exact(index, players, order))


@constant
@lru_cache(maxsize=16)
def value_weights(index: str, players: int, order: int) -> tuple[Table, ...]:
    r"""``[t][s][o]``: what the value of a coalition of s counts for a group of t of which it has o,
    times the number of pairs of a coalition of its size and the complement.

    A value is a part of the dividends of all larger coalitions: with :math:`u` players in the
    coalition or the group it counts :math:`(-1)^{t - o} \sum_j (-1)^j \binom{M - u}{j} c_{t, u +
    j}`, a difference of order :math:`M - u`. Such sums cancel, so they are taken of fractions.
    """
    differences: list[list[Fraction]] = []
    for row in _exact(index, players, order):
        level, found = list(row), [row[players]]
        for _ in range(players):
            level = [here - above for here, above in pairwise(level)]
            found.append(level[-1])
        differences.append(found[::-1])

    def weight(t: int, s: int, o: int) -> float:
        union = s + t - o
        if t == 0 or o > min(t, s) or union > players:
            return 0.0
        pairs = Fraction(comb(players, s), 2 if 2 * s == players else 1)
        return float((-1) ** (t - o) * pairs * differences[t][union])

    return tuple(
        tuple(tuple(weight(t, s, o) for o in range(order + 1)) for s in range(players + 1))
        for t in range(order + 1)
    )


def _exact(index: str, players: int, order: int) -> list[list[Fraction]]:
    rule = _RULES[index]
    return [
        [rule(t, s, order) if s >= t >= 1 else Fraction() for s in range(players + 1)]
        for t in range(order + 1)
    ]


_BERNOULLI = tuple(
    Fraction(n, d)
    for n, d in (
        *((1, 1), (-1, 2), (1, 6), (0, 1), (-1, 30), (0, 1), (1, 42), (0, 1), (-1, 30)),
        *((0, 1), (5, 66), (0, 1), (-691, 2730), (0, 1), (7, 6), (0, 1), (-3617, 510)),
    )
)


def _shapley(t: int, s: int, k: int) -> Fraction:
    return Fraction(1, s - t + 1)


def _banzhaf(t: int, s: int, k: int) -> Fraction:
    return Fraction(1, 2 ** (s - t))


def _moebius(t: int, s: int, k: int) -> Fraction:
    return Fraction(int(s == t))


def _taylor(t: int, s: int, k: int) -> Fraction:
    return Fraction(1, comb(s, k)) if t == k else Fraction(int(s == t))


def _k_shapley(t: int, s: int, k: int) -> Fraction:
    sizes = range(t, min(k, s) + 1)
    parts = (_BERNOULLI[n - t] * Fraction(comb(s - t, n - t), s - n + 1) for n in sizes)
    return sum(parts, Fraction())


def _faithful(t: int, s: int, k: int) -> Fraction:
    if s <= k:
        return Fraction(int(s == t))
    sign = (-1) ** (k - t)
    return sign * Fraction(t * comb(k, t) * comb(s - 1, k), (k + t) * comb(s + k - 1, k + t))


def _faithful_banzhaf(t: int, s: int, k: int) -> Fraction:
    if s <= k:
        return Fraction(int(s == t))
    return (-1) ** (k - t) * Fraction(comb(s - t - 1, k - t), 2 ** (s - t))


_RULES: dict[str, Callable[[int, int, int], Fraction]] = {
    "shapley": _shapley,
    "k-shapley": _k_shapley,
    "taylor": _taylor,
    "faithful": _faithful,
    "banzhaf": _banzhaf,
    "faithful-banzhaf": _faithful_banzhaf,
    "moebius": _moebius,
}

INDICES = tuple(_RULES)
