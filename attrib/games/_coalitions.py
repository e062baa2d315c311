"""Coalitions of players: all of them, random ones, random ones that differ from each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain, combinations
from math import comb
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from attrib._transforms import compiling, constant, numbers
from attrib.perturb import Stream

__all__ = ["Pairs", "Shares", "all_coalitions", "distinct_pairs", "pairs_of", "random_rows"]

Shares = Literal["kernel", "leverage", "uniform"]
"""What all coalitions of one size count together: as in Shapley's kernel, the same for every size
but those of nobody and everybody, or as many as there are."""

# Random numbers drawn at once: rows come in blocks of a fixed size, so that they do not depend on
# how many are asked for together.
_BLOCK = 2**9

# Sizes that count so much less than one sample are left out.
_NEGLIGIBLE = 1e-6


class Pairs(NamedTuple):
    """Coalitions that stand for themselves and for their complements.

    Attributes:
        coalitions: One of each pair, bool ``(pairs, players)``.
        weights: What each pair counts, all together one, ``(pairs,)``.
        unseen: The part of the pairs of its size that are not here, ``(pairs,)``.
    """

    coalitions: Tensor
    weights: Tensor
    unseen: Tensor


def all_coalitions(players: int, device: torch.device) -> Callable[[int, int], Tensor]:
    """``take(start, stop)``: coalition number k holds the players whose bits are set in k."""
    bits = torch.arange(players, device=device)

    def take(start: int, stop: int) -> Tensor:
        index = torch.arange(start, stop, device=device)
        return (index[:, None] >> bits) & 1 == 1

    return take


def random_rows(columns: int, stream: Stream, device: torch.device) -> Callable[[int, int], Tensor]:
    """``take(start, stop)``: rows of an endless uniform matrix.

    They are taken in order; the row that was taken last may be taken again.
    """
    size = max(1, _BLOCK // columns)
    held: list[Tensor] = []  # blocks, the first of which begins with row `first`
    first = 0

    def take(start: int, stop: int) -> Tensor:
        nonlocal first
        while first + size <= start:
            del held[:1]
            first += size
        while first + size * len(held) < stop:
            held.append(_uniform((size, columns), stream.on(device), device))
        rows = held[0] if len(held) == 1 else torch.cat(held)
        return rows[start - first : stop - first]

    return take


@constant
@lru_cache(maxsize=64)
def pairs_of(players: int, shares: Shares) -> int:
    """How many pairs of complementary coalitions count."""
    existing, share = _existing(players), _shares(players, shares)
    return sum(n for n, counts in zip(existing, share, strict=True) if counts)


def distinct_pairs(
    players: int,
    count: int,
    *,
    shares: Shares,
    draw: Shares,
    stream: Stream,
    like: Tensor,
) -> Pairs:
    """Pairs of complementary coalitions, no two of them the same; all there are if that is enough.

    Every size gets its part of the pairs, up to all that exist, so that the smallest and the
    largest coalitions are often all there. Within a size all pairs are equally probable.

    Args:
        players: How many.
        count: Pairs, at least as many as there are players.
        shares: What the coalitions count.
        draw: By what the pairs are divided among the sizes.
        stream: Random numbers.
        like: A tensor of the device, and the dtype of the weights.
    """
    device = like.device
    plan = _plan(players, count, shares, draw)
    each = torch.tensor(plan.times, dtype=torch.long, device=device)
    listed = zip(plan.sizes[: plan.listed], plan.times, strict=False)
    parts = [torch.zeros(0, players, dtype=torch.bool, device=device)]
    parts += [_some_of(_listed(players, s, device), n, stream, device) for s, n in listed]
    if len(plan.sizes) > plan.listed:
        sizes = torch.tensor(plan.sizes[plan.listed :], device=device)
        sizes = sizes.repeat_interleave(
            each[plan.listed :], output_size=sum(plan.times[plan.listed :])
        )
        parts.append(_drawn(players, sizes, stream, device))
    columns = torch.tensor([plan.weights, plan.unseen], dtype=like.dtype, device=device)
    weights, unseen = columns.repeat_interleave(each, 1, output_size=sum(plan.times))
    return Pairs(torch.cat(parts), weights, unseen)


class _Plan(NamedTuple):
    """For each size: how many pairs, what each counts, and the part of them that is not drawn.

    First come those of which a list is made, as many as `listed`.
    """

    sizes: tuple[int, ...]
    times: tuple[int, ...]
    weights: tuple[float, ...]
    unseen: tuple[float, ...]
    listed: int


@constant
@lru_cache(maxsize=64)
def _plan(players: int, count: int, shares: Shares, draw: Shares) -> _Plan:
    existing, share = _existing(players), _shares(players, shares)
    numbers = _divided(existing, _shares(players, draw), count)
    # Drawing and rejecting takes long where much of a size is wanted.
    listed = [s for s, n in enumerate(numbers) if n and existing[s] <= 16 * n]
    sizes = listed + [s for s, n in enumerate(numbers) if n and existing[s] > 16 * n]
    whole = sum(share[s] for s in sizes)
    return _Plan(
        tuple(sizes),
        tuple(numbers[s] for s in sizes),
        tuple(share[s] / whole / numbers[s] for s in sizes),
        tuple(1 - numbers[s] / existing[s] for s in sizes),
        len(listed),
    )


def _existing(players: int) -> list[int]:
    """Pairs of a coalition of each size up to half of the players and its complement."""
    half = range(players // 2 + 1)
    return [comb(players, s) // (2 if 2 * s == players else 1) for s in half]


def _shares(players: int, shares: Shares) -> list[float]:
    """What the pairs of each size count together; all sizes together one."""
    if shares == "uniform":
        return [number / 2 ** (players - 1) for number in _existing(players)]
    # A pair of halves is one size, any other pair is of two.
    sizes = [(s, 1 if 2 * s == players else 2) for s in range(1, players // 2 + 1)]
    counts = [n * (1 if shares == "leverage" else 1 / (s * (players - s))) for s, n in sizes]
    return [0.0, *(c / sum(counts) for c in counts)]


def _divided(existing: Sequence[int], share: Sequence[float], count: int) -> list[int]:
    """Whole numbers in proportion to the shares, at least one each and at most all there are."""
    wanted = np.array(share)
    if count == 0:
        return [0] * len(existing)
    most = np.array([min(n, count) for n in existing], dtype=float) * (wanted > _NEGLIGIBLE / count)
    least = np.minimum(most, 1)
    if most.sum() <= count:
        return [int(n) for n in most]
    low, high = 0.0, count / wanted[most > 0].min()
    for _ in range(200):
        middle = (low + high) / 2
        if np.minimum(np.maximum(middle * wanted, least), most).sum() < count:
            low = middle
        else:
            high = middle
    exact = np.minimum(np.maximum(high * wanted, least), most)
    numbers = np.floor(exact)
    missing = int(count - numbers.sum())
    if missing > 0:
        numbers[np.argsort(-(exact - numbers), kind="stable")[:missing]] += 1
    return [int(n) for n in numbers]


def _listed(players: int, size: int, device: torch.device) -> Tensor:
    """One coalition of each pair of a size, bool ``(pairs, players)``."""
    if not compiling():
        return torch.as_tensor(_array(players, size), device=device)
    members = torch.tensor(_members(players, size), dtype=torch.long, device=device)
    members = members.reshape(_existing(players)[size], size)
    nobody = torch.zeros(len(members), players, dtype=torch.bool, device=device)
    return nobody.scatter(1, members, True)


@lru_cache(maxsize=64)
def _array(players: int, size: int) -> Any:
    members: Any = np.array(_members(players, size), dtype=np.int64)
    listed = np.zeros((_existing(players)[size], players), dtype=bool)
    np.put_along_axis(listed, members.reshape(len(listed), size), True, axis=1)
    return listed


@constant
def _members(players: int, size: int) -> tuple[int, ...]:
    """The members of the coalitions of a size, one after another."""
    if 2 * size < players or size == 0:
        return tuple(chain.from_iterable(combinations(range(players), size)))
    # Of two halves the one with the first player stands for both.
    others = combinations(range(1, players), size - 1)
    return tuple(chain.from_iterable((0, *rest) for rest in others))


def _some_of(listed: Tensor, count: int, stream: Stream, device: torch.device) -> Tensor:
    if count == len(listed):
        return listed
    order = _uniform((len(listed),), stream.on(device), device).argsort()
    return listed[order[:count]]


def _drawn(players: int, sizes: Tensor, stream: Stream, device: torch.device) -> Tensor:
    """Random coalitions of the given sizes; where two are the same, one is drawn again."""
    generator = stream.on(device)
    marks = torch.randint(2**62, (players,), generator=generator, device=device)
    half = 2 * sizes == players

    def fresh() -> Tensor:
        keys = _uniform((len(sizes), players), generator, device)
        chosen = keys.argsort(-1) < sizes[:, None]
        return chosen ^ (half & ~chosen[:, 0])[:, None]

    coalitions = fresh()
    # At most one in sixteen comes twice: what is left after a few rounds is not worth counting.
    for _ in range(8):
        repeated = _repeated(coalitions, marks)
        seen = numbers(repeated)
        if seen is not None and not bool(seen.any()):
            break
        coalitions = torch.where(repeated[:, None], fresh(), coalitions)
    return coalitions


def _uniform(
    shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device
) -> Tensor:
    # Numbers of another precision would be other numbers.
    return torch.rand(shape, generator=generator, dtype=torch.float32, device=device)


def _repeated(coalitions: Tensor, marks: Tensor) -> Tensor:
    """Which coalitions are there before."""
    # Sums of 62 random bits per player, so that other coalitions have others.
    found, order = torch.where(coalitions, marks, 0).sum(-1).sort(stable=True)
    same = torch.nn.functional.pad(found[1:] == found[:-1], (1, 0))
    return torch.zeros_like(same).scatter(0, order, same)
