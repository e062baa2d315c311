"""Coalition games with known values, as scores of ones and zeros, and slow solutions from the
definitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, combinations, permutations

import torch
from torch import Tensor

Value = Callable[[frozenset[int]], float]


@dataclass(frozen=True)
class Known:
    """A game.

    Attributes:
        players: How many.
        value: Of a set of players.
        shapley: The Shapley values.
        banzhaf: The Banzhaf values.
    """

    players: int
    value: Value
    shapley: tuple[float, ...]
    banzhaf: tuple[float, ...]


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of one's own."""
    return torch.Generator().manual_seed(seed)


def bent(x: Tensor) -> Tensor:
    """A score with interactions of all orders, for any number of features."""
    waves = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    return torch.tanh(x @ waves.cos()) + torch.relu(x @ waves.sin() - 0.5) + x.prod(-1)


def score(players: int, value: Value) -> Callable[[Tensor], Tensor]:
    """The game as a score of x: a player is present where x is one."""
    sets = [[i for i in range(players) if code >> i & 1] for code in range(2**players)]
    table = torch.tensor([value(frozenset(members)) for members in sets], dtype=torch.float64)
    powers = 2 ** torch.arange(players)
    return lambda x: table[(x * powers).sum(-1).long()]


def everybody(players: int, batch: int = 1) -> Tensor:
    """The x of which all players are present."""
    return torch.ones(batch, players, dtype=torch.float64)


def subsets(players: Iterable[int]) -> Iterator[frozenset[int]]:
    """All subsets, the empty one first."""
    members = list(players)
    sized = (combinations(members, size) for size in range(len(members) + 1))
    return map(frozenset, chain.from_iterable(sized))


def random_game(players: int, seed: int) -> Value:
    """Independent values for all coalitions."""
    draws = torch.rand(2**players, generator=torch.Generator().manual_seed(seed)).tolist()
    return lambda members: draws[sum(1 << i for i in members)]


def shapley(players: int, value: Value) -> list[float]:
    """The mean contribution over all orders."""
    sums = [0.0] * players
    for order in permutations(range(players)):
        for place, player in enumerate(order):
            before = frozenset(order[:place])
            sums[player] += value(before | {player}) - value(before)
    return [s / math.factorial(players) for s in sums]


def banzhaf(players: int, value: Value) -> list[float]:
    """The mean contribution over all coalitions."""
    return [
        sum(value(s | {i}) - value(s) for s in subsets(set(range(players)) - {i}))
        / 2 ** (players - 1)
        for i in range(players)
    ]


def _airport(members: frozenset[int]) -> float:
    return max((1.0, 3.0, 4.0, 8.0)[i] for i in members) if members else 0.0


def _gloves(members: frozenset[int]) -> float:
    return float(min(len(members & {0}), len(members & {1, 2})))


def _votes(members: frozenset[int]) -> float:
    return float(sum((3, 2, 1, 1)[i] for i in members) >= 4)


GAMES = {
    # Each gets their own.
    "additive": Known(3, lambda s: 5 + sum((1, -2, 4)[i] for i in s), (1, -2, 4), (1, -2, 4)),
    # Everybody of {0, 2, 3} is needed: equal shares, and a swing in a quarter of the coalitions.
    "unanimity": Known(
        5, lambda s: float({0, 2, 3} <= s), (1 / 3, 0, 1 / 3, 1 / 3, 0), (0.25, 0, 0.25, 0.25, 0)
    ),
    # One left glove, two right ones (Shapley & Shubik, 1969).
    "gloves": Known(3, _gloves, (2 / 3, 1 / 6, 1 / 6), (0.75, 0.25, 0.25)),
    # Each part of the runway is shared by those who need it (Littlechild & Owen, 1973).
    "airport": Known(
        4,
        _airport,
        (1 / 4, 1 / 4 + 2 / 3, 1 / 4 + 2 / 3 + 1 / 2, 1 / 4 + 2 / 3 + 1 / 2 + 4),
        # A player adds what is above the most expensive of the others present.
        (1 / 8, 1 / 8 + 2 / 4, 1 / 8 + 2 / 4 + 1 / 2, 1 / 8 + 2 / 4 + 1 / 2 + 4),
    ),
    # Quota 4 of votes 3, 2, 1, 1: winning are those with the first and another, and all the others.
    # The first turns 12 of the 24 orders, each of the others 4.
    "votes": Known(4, _votes, (1 / 2, 1 / 6, 1 / 6, 1 / 6), (3 / 4, 1 / 4, 1 / 4, 1 / 4)),
}
