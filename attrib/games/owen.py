"""Owen values: Shapley values of features that come in unions."""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from typing import Any, Literal

import torch
from torch import Tensor

from attrib._checks import check_choice, check_several, describe
from attrib._map import ChunkSize, slices
from attrib._transforms import compiling
from attrib.errors import AttribTypeError, AttribValueError
from attrib.games._attribution import attribution, averaged
from attrib.games._coalitions import all_coalitions, random_rows
from attrib.games._folding import Draws, weighted_sum
from attrib.games.game import Game
from attrib.games.groups import Groups
from attrib.games.sampling import Ranks, contributions, walks
from attrib.games.shapley import check_few
from attrib.perturb import Stream
from attrib.reducers import mean
from attrib.types import Attribute, Reducer, Score

__all__ = ["owen_values"]


def owen_values(
    f: Score,
    *,
    unions: Tensor | Sequence[Tensor],
    samples: int | None = None,
    design: Literal["antithetic", "independent"] = "antithetic",
    groups: Groups = None,
    interventional: bool = False,
    reduce: Reducer = mean,
    tol: float | None = None,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Owen values: Shapley values of features that belong to unions, which come and go as a whole:
    words in sentences, superpixels in larger ones,

    .. math:: \phi_i = \mathbb{E}_\pi \big[ v(\mathrm{before}_\pi(i) \cup i)
              - v(\mathrm{before}_\pi(i)) \big],

    where :math:`\pi` are the orders in which every union is in one piece: the unions in random
    order, and their members in random order within them; at every level where there are several.

    The values of a union sum to its own value in the game of the unions. With every feature in a
    union of its own, or all in one, they are Shapley values.

    Args:
        f: Score.
        unions: The union of each feature, integers ``(features,)`` in the order of the features; or
            several such, from coarse to fine. A finer union is one only within a coarser one:
            words may be numbered anew in each sentence.
        samples: ``None``: all coalitions that can occur are evaluated, each once, for at most 16
            features. Otherwise independent draws of orders; with `tol`, at most.
        design: With `samples`, as for `attrib.shapley_sampling`.
        groups: Which entries of ``x`` are one feature, as for `attrib.games.game`.
        interventional: The baseline is a set to average over, as for `attrib.games.game`.
        reduce: With `samples`, how the draws are folded: `attrib.estimate` adds standard errors.
        tol: With `samples`, as for `attrib.shapley_sampling`.
        generator: With `samples`, as for `attrib.shapley_sampling`.
        chunk_size: Coalitions evaluated at once. Does not change the draws.

    Returns:
        ``attribute(x, baseline=0, *args)``, a tree like ``x``, in units of the score: every entry
        holds the value of its feature. The values of an example sum to ``f(x) - f(baseline)``.

    Raises:
        AttribValueError: For unions that do not fit the features, levels from fine to coarse, or
            more than 16 features without `samples`.
        AttribError: For options out of range, and as for `attrib.games.game`.

    References:
        Owen (1977), https://doi.org/10.1007/978-3-642-45494-3_7; for several levels, Winter (1989),
        https://doi.org/10.1007/BF01268149

    Example:
        >>> import torch
        >>> f = lambda x: x[..., 0] * x[..., 1] * x[..., 2]
        >>> owen_values(f, unions=torch.tensor([0, 0, 1]))(torch.tensor([[1.0, 2.0, 2.0]]))
        tensor([[1., 1., 2.]])
    """
    levels = _levels(unions)
    players = len(levels[-1])
    check_choice(design, "design", ("antithetic", "independent"))
    Stream(generator)
    if samples is not None:
        counts = [int(level.max()) + 1 for level in levels]

        def draws(v: Game, stream: Stream) -> Draws:
            _check_players(v, players)
            ranks = _ranks([level.to(v.device) for level in levels], counts, stream)
            return contributions(v, walks(ranks, players, design, v.device), design)

        return averaged(
            f,
            draws,
            samples=samples,
            reduce=reduce,
            tol=tol,
            generator=generator,
            groups=groups,
            interventional=interventional,
            chunk_size=chunk_size,
        )
    check_few(players)
    if reduce is not mean or tol is not None:
        raise AttribValueError(
            f"reduce: needs samples, got {describe(reduce)}; without them all coalitions are "
            "evaluated, and there is no error",
            code="reduce.unknown",
        )
    needed = _needed(levels)

    def solution(v: Game) -> Tensor:
        _check_players(v, players)
        coalitions, weights = (part.to(v.device) for part in needed)
        return weighted_sum(v, slices(coalitions), lambda z, start: weights[start:][: len(z)])

    return attribution(
        f,
        solution,
        groups=groups,
        interventional=interventional,
        chunk_size=chunk_size,
    )


def _check_players(v: Game, players: int) -> None:
    if v.players != players:
        raise AttribValueError(
            f"unions: must hold one number per feature, got {players} for {v.players} features",
            code="unions.shape",
        )


def _levels(unions: Any) -> list[Tensor]:
    """The union of each player at every level from coarse to fine; the last are the players."""
    given: list[Any] = [unions] if isinstance(unions, Tensor) else check_several(unions, "unions")
    for level in given:
        if not isinstance(level, Tensor) or level.is_floating_point() or level.is_complex():
            kind = str(level.dtype) if isinstance(level, Tensor) else type(level).__name__
            raise AttribTypeError(
                f"unions: must be integer tensors, got {kind}; number the union of each feature",
                code="unions.type",
            )
    if compiling() or any(level.is_meta for level in given):
        raise AttribTypeError(
            "unions: without numbers, got tensors inside of torch.compile; make the method outside",
            code="unions.traced",
        )
    shapes = {tuple(level.shape) for level in given}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or 0 in next(iter(shapes)):
        raise AttribValueError(
            f"unions: must hold one number per feature, got shapes {sorted(shapes)}",
            code="unions.shape",
        )
    listed: list[list[int]] = [level.tolist() for level in given]
    levels: list[Tensor] = []
    larger = 1
    for depth in range(1, len(listed) + 1):
        paths = list(zip(*listed[:depth], strict=True))
        place = {path: k for k, path in enumerate(sorted(set(paths)))}
        # With numbers anew in each larger union, those that split none would all be the same.
        if len(place) == larger and 1 < len(set(listed[depth - 1])) < larger:
            raise AttribValueError(
                f"unions: not from coarse to fine, got level {depth - 1} that joins unions of "
                f"level {depth - 2} and splits none; put the coarser level first",
                code="unions.order",
            )
        larger = len(place)
        levels.append(torch.tensor([place[path] for path in paths], device="cpu"))
    return [*levels, torch.arange(len(given[0]), device="cpu")]


def _ranks(levels: Sequence[Tensor], counts: list[int], stream: Stream) -> Ranks:
    """Random orders in which every union is in one piece, of so many unions at each level."""
    uniform = random_rows(sum(counts), stream, levels[-1].device)

    def ranks(start: int, stop: int) -> Tensor:
        keys = torch.split(uniform(start, stop), counts, -1)
        # Sorted by the players first: sorts that leave ties alone put the unions in one piece.
        order = keys[-1].argsort(-1)
        for level, key in zip(levels[-2::-1], keys[-2::-1], strict=True):
            # Ranks instead of random numbers, of which two may be the same.
            place = key.argsort(-1)[:, level]
            order = order.gather(-1, place.gather(-1, order).argsort(stable=True, dim=-1))
        return order.argsort(-1)

    return ranks


def _needed(levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The coalitions that occur along such orders, and the weights of their values."""
    players = len(levels[-1])
    coalitions = all_coalitions(players, torch.device("cpu"))(0, 2**players)
    weights = 2 * coalitions.double() - 1
    parent = torch.zeros_like(levels[-1])
    for level in levels:
        weights = weights * _part_of_orders(coalitions, level, parent)
        parent = level
    occurs = weights.ne(0).any(-1)
    return coalitions[occurs], weights[occurs]


def _part_of_orders(coalitions: Tensor, level: Tensor, parent: Tensor) -> Tensor:
    """Of the orders of the unions within a larger one, the part in which those that are present
    come before the player's own, and the others after it; zero if another is present in part."""
    inside = torch.nn.functional.one_hot(level).double()
    present = coalitions.double() @ inside
    full, some = present == inside.sum(0), (present > 0) & (present < inside.sum(0))
    # A larger union holds the unions of its players.
    beside = torch.nn.functional.one_hot(parent).double().mT @ inside > 0
    count = beside.sum(-1)[parent]
    before = (full.double() @ beside.double().mT)[:, parent] - full.double()[:, level]
    broken = (some.double() @ beside.double().mT)[:, parent] - some.double()[:, level]
    known = [factorial(n) for n in range(len(level) + 1)]
    factorials = torch.tensor(known, dtype=torch.float64, device="cpu")
    before = before.long()
    after = (count - 1 - before).clamp_min(0)
    return factorials[before] * factorials[after] / factorials[count] * (broken == 0)
