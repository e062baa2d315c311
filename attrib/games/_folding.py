"""What solutions share: sums over coalitions, means of draws, and when to stop drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor

from attrib._checks import check_callable, check_count, check_number, describe
from attrib._map import Points
from attrib._transforms import concrete
from attrib.errors import AttribValueError
from attrib.games.game import Game
from attrib.reducers import estimate, mean, total
from attrib.types import Estimate, Reducer

__all__ = [
    "Draws",
    "Take",
    "Values",
    "between_ends",
    "check_stopping",
    "contracted",
    "folded",
    "pooled",
    "product",
    "pseudo_inverse",
    "regrouped",
    "shifted",
    "squared_errors",
    "unreduced",
    "until",
    "weighted_sum",
    "wide",
]

Values: TypeAlias = tuple[Tensor, Tensor]
"""Coalitions ``(n, players)`` with their values ``(n, *batch)``."""

Draws = Callable[[int, int], Iterator[Tensor]]
"""``draws(start, stop)``: independent draws ``(n, *batch, players)``, in chunks and in order."""

Take = Callable[[int, int], Tensor]

_linalg: Any = torch.linalg

_FIRST = 16
"""So many draws stand behind the first standard error that is looked at."""


def wide(values: Tensor) -> Tensor:
    """In at least single precision."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def between_ends(v: Game, points: Points) -> tuple[Tensor, Tensor, Iterator[Values]]:
    """The values of nobody and of everybody ``(*batch,)``, and coalitions with theirs.

    Everybody is evaluated again, among the others: where a feature has no effect the scores are
    then the same to the last bit.
    """
    nobody = torch.zeros(1, v.players, dtype=torch.bool, device=v.device)
    ends = [nobody, ~nobody]

    def take(start: int, stop: int) -> Tensor:
        rest = [points.take(max(start - 2, 0), stop - 2)] if stop > 2 else []
        return torch.cat([*ends[start:stop], *rest])

    chunks = v.over(Points(points.total + 2, take))
    coalitions, values = next(chunks)
    if len(values) == 1:
        coalitions, values = map(torch.cat, zip((coalitions, values), next(chunks), strict=True))
    first = coalitions[2:], values[2:]
    return wide(values[0]), wide(values[1]), chain([first], chunks)


def product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product in the precision of its factors, which autocast would not keep."""
    return unreduced(torch.matmul, a, b)


def pseudo_inverse(symmetric: Tensor, rows: int = 1) -> Tensor:
    """The inverse of a symmetric matrix, of sums of so many rows, where it has one."""
    rounding = 4 * max(rows, len(symmetric)) * torch.finfo(symmetric.dtype).eps
    return unreduced(_linalg.pinv, symmetric, rtol=rounding, hermitian=True)


def contracted(values: Tensor, weights: Tensor) -> Tensor:
    """Sums over the coalitions, ``(n, *batch)`` and ``(n, columns)`` to ``(*batch, columns)``."""
    return product(values.movedim(0, -1), weights.to(values.dtype))


def squared_errors(counted: Tensor, fair: Tensor, unseen: Tensor) -> Tensor:
    r"""What each observation adds to the squared error of a weighted sum over a sample without
    replacement, seen from the sum over all that exist.

    An observation counts :math:`a` in the one and :math:`b` in the other sum. Seen itself, it adds
    :math:`(a - b)^2`, and as one of a part :math:`u` that is not seen it stands for :math:`u / (1 -
    u)` others that would each add :math:`b^2`. With :math:`a = b / (1 - u)` that is the well-known
    :math:`u a^2` (Cochran, 1977, 2.6).

    Args:
        counted: :math:`a`, or its product with the observation.
        fair: :math:`b / (1 - u)`, likewise.
        unseen: :math:`u`, which broadcasts to both.
    """
    seen = 1 - unseen
    return (counted - seen * fair).square() + unseen * seen * fair.square()


def weighted_sum(v: Game, points: Points, weigh: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The sum of weights times values over coalitions, ``(*batch, columns)``.

    The weights of each column sum to zero over the coalitions and that of all players, so that only
    differences from the value of all players matter.

    Args:
        v: The game.
        points: Coalitions.
        weigh: ``weigh(coalitions, start)``, the weights ``(n, columns)`` of a chunk of coalitions
            of which `start` came before.
    """
    everybody = wide(v.full)

    def sums() -> Iterator[Tensor]:
        done = 0
        for coalitions, values in v.over(points):
            yield contracted(wide(values) - everybody, weigh(coalitions, done))[None]
            done += len(values)

    return total(sums())


def shifted(take: Take, by: int) -> Take:
    """The same points, counted from a later one."""
    return lambda start, stop: take(start + by, stop + by)


def regrouped(
    chunks: Iterable[tuple[Tensor, Tensor]], size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The same coalitions and values in groups ``(n, size, ...)`` that are whole."""

    def groups(part: Tensor) -> Tensor:
        return part.reshape(len(part) // size, size, *part.shape[1:])

    rest: list[Values] = []
    for chunk in chunks:
        joined = (torch.cat(parts) for parts in zip(*rest, chunk, strict=True))
        coalitions, values = joined if rest else chunk
        over = len(values) % size
        rest = [(coalitions[-over:], values[-over:])] if over else []
        if over:
            coalitions, values = coalitions[:-over], values[:-over]
        if len(values):
            yield groups(coalitions), groups(values)


def check_stopping(samples: Any, reduce: Any, tol: Any, *, least: int = 1) -> None:
    """Refuse a number of samples, a reducer or a tolerance that do not go together."""
    check_count(samples, "samples", least=least if tol is None else max(least, _FIRST))
    check_callable(reduce, "reduce", "pass a reducer such as attrib.mean")
    if tol is None:
        return
    check_number(tol, "tol", exclusive=True)
    if reduce not in (mean, estimate):
        raise AttribValueError(
            "reduce: must be attrib.mean or attrib.estimate with tol, got "
            f"{describe(reduce)}; leave tol out",
            code="reduce.unknown",
        )


def folded(like: Tensor, draws: Draws, samples: int, reduce: Reducer, tol: float | None) -> Any:
    """What the reducer makes of the draws: of all, or of enough for a tolerance; `like` is a tensor
    that they depend on."""
    if tol is None:
        return reduce(draws(0, samples))

    def more(found: Estimate | None, stop: int) -> Estimate:
        start = 0 if found is None else found.samples
        fresh = estimate(draws(start, stop))
        return fresh if found is None else pooled(found, fresh)

    found = until(like, more, samples, _FIRST, tol)
    return found if reduce is estimate else found.value


def until(
    like: Tensor,
    more: Callable[[Estimate | None, int], Estimate],
    most: int,
    first: int,
    tol: float,
) -> Estimate:
    """An estimate from more and more samples, until its standard errors are small enough.

    Args:
        like: A tensor that it depends on.
        more: ``more(found, stop)``, the estimate from `stop` samples, given that from fewer.
        most: At most so many samples.
        first: So many to begin with.
        tol: Relative to the largest value of each example.
    """
    if not concrete(like):
        raise AttribValueError(
            "tol: needs numbers that Python can see, got an x inside of torch.vmap, "
            "torch.func.grad or torch.compile; pass samples= alone",
            code="tol.traced",
        )
    found: Estimate | None = None
    stop = first
    while True:
        stop = min(stop, most)
        found = more(found, stop)
        error, size = found.stderr.detach().amax(-1), found.value.detach().abs().amax(-1)
        if stop == most or bool((error <= tol * size).all()):
            return found
        # Half as many again: the number of looks stays small, and little is evaluated in excess.
        stop += max(2, stop // 2)


def unreduced(fn: Callable[..., Tensor], a: Tensor, *args: Any, **options: Any) -> Tensor:
    """The result of an operation in the precision of its arguments, which autocast may not keep."""
    if not torch.is_autocast_enabled(a.device.type):
        return fn(a, *args, **options)
    with torch.autocast(a.device.type, enabled=False):
        return fn(a, *args, **options)


def pooled(a: Estimate, b: Estimate) -> Estimate:
    """The estimate from the samples of both."""
    n, m = a.samples, b.samples
    gap = b.value - a.value
    squares = (
        a.stderr.square() * (n * (n - 1))
        + b.stderr.square() * (m * (m - 1))
        + gap.square() * (n * m / (n + m))
    )
    both = n + m
    return Estimate(a.value + gap * (m / both), (squares / (both * (both - 1))).sqrt(), both)
