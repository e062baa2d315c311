"""Do attributions and what the score loses without features rise and fall together?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attrib._checks import check_callable, check_count, check_several
from attrib._map import ChunkSize, Points, check_chunk_size
from attrib.errors import AttribValueError
from attrib.games._coalitions import random_rows
from attrib.games.ablation import all_but_one
from attrib.games.game import Game, game
from attrib.games.groups import Groups
from attrib.metrics._calling import given_or_made
from attrib.metrics._direction import named
from attrib.metrics._hiding import check_groups, player_values
from attrib.metrics._statistics import correlation_of, pearson, wide
from attrib.perturb import Stream, fork
from attrib.types import Attribute, Measure, Score, Tree

__all__ = ["faithfulness_correlation", "faithfulness_estimate", "sensitivity_n"]


def faithfulness_correlation(
    f: Score,
    attribute: Attribute | None = None,
    *,
    size: int,
    samples: int = 100,
    groups: Groups = None,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Faithfulness correlation, higher is better: over random sets :math:`S` of features,

    .. math:: \mathrm{corr}_{S}\Big(\sum_{i \in S} \phi_i,\; f(x) - f(x_{\setminus S})\Big).

    Args:
        f: Score.
        attribute: Attribution function, or ``None`` to pass what one returned.
        size: How many features are hidden together.
        samples: How many sets are drawn; all examples have the same.
        groups: What is one feature, as for `attrib.games.game`, but no windows.
        generator: Source of randomness; without one, a copy of the global generator.
        chunk_size: Sets evaluated at once. Does not change the draws.

    Returns:
        ``measure(x, baseline=0, *args) -> (*batch,)``, from -1 to 1; without an attribution
        function ``measure(attribution, x, baseline=0, *args)``. NaN where the score or the
        attribution is the same for all sets.

    Raises:
        AttribValueError: If a set would hold all features.
        AttribError: If an argument is not what it should be, and as for `attrib.games.game`.

    References:
        Bhatt, Weller & Moura (2020), definition 3, https://arxiv.org/abs/2005.00631

    Example:
        >>> import torch
        >>> f = lambda x: x @ torch.tensor([1.0, 2.0, -1.0])
        >>> faithfulness_correlation(f, size=1)(torch.tensor([1.0, 2.0, 0.0]), torch.ones(3)) > 0.9
        tensor(True)
    """
    task: Any = {"samples": samples, "groups": groups, "chunk_size": chunk_size}
    return named(
        "faithfulness_correlation",
        sensitivity_n(f, attribute, sizes=[size], generator=generator, **task),
    )


def sensitivity_n(
    f: Score,
    attribute: Attribute | None = None,
    *,
    sizes: Sequence[int],
    samples: int = 100,
    groups: Groups = None,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Sensitivity-n, higher is better: the correlation of `faithfulness_correlation`, averaged
    over sets of several sizes :math:`n`.

    An attribution satisfies sensitivity-n if :math:`\sum_{i \in S} \phi_i = f(x) - f(x_{\setminus
    S})` for every set of :math:`n` features; the correlation is then one.

    Args:
        f: Score.
        attribute: Attribution function, or ``None`` to pass what one returned.
        sizes: The numbers :math:`n` of features that are hidden together.
        samples: How many sets are drawn for each size.
        groups: As for `faithfulness_correlation`.
        generator: As for `faithfulness_correlation`.
        chunk_size: Sets evaluated at once. Does not change the draws.

    Returns:
        As for `faithfulness_correlation`.

    Raises:
        AttribError: As for `faithfulness_correlation`.

    References:
        Ancona, Ceolini, Oztireli & Gross (2018), "sensitivity-n", https://arxiv.org/abs/1711.06104

    Example:
        >>> import torch
        >>> f = lambda x: x @ torch.tensor([1.0, 2.0, -1.0])
        >>> measure = sensitivity_n(f, sizes=[1, 2])
        >>> measure(torch.tensor([1.0, 2.0, 0.0]), torch.ones(3)) > 0.9
        tensor(True)
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_count(samples, "samples", least=2)
    hidden = [check_count(size, "size") for size in check_several(sizes, "sizes")]
    check_count(len(hidden), "sizes")
    groups, chunk_size = check_groups(groups), check_chunk_size(chunk_size)
    Stream(generator)

    def measure(attribution: Tree, x: Tree, baseline: Any = 0, *args: Any) -> Tensor:
        v = game(f, x, baseline, *args, groups=groups, chunk_size=chunk_size)
        values = player_values(attribution, v)
        if max(hidden) >= v.players:
            raise AttribValueError(
                f"size: too large, got {max(hidden)}; there are {v.players} features, and with all "
                "of them hidden every set is the same",
                code="size.range",
            )
        stream = Stream(fork(generator))
        each = [_correlation(v, values, size, samples, stream) for size in hidden]
        return torch.stack(each).mean(0).to(v.dtype)

    return named("sensitivity_n", given_or_made(attribute, measure))


def faithfulness_estimate(
    f: Score,
    attribute: Attribute | None = None,
    *,
    groups: Groups = None,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Faithfulness estimate, higher is better: over the features one by one,

    .. math:: \mathrm{corr}_{i}\big(\phi_i,\; f(x) - f(x_{\setminus i})\big).

    Args:
        f: Score.
        attribute: Attribution function, or ``None`` to pass what one returned.
        groups: As for `faithfulness_correlation`.
        chunk_size: Features hidden at once.

    Returns:
        As for `faithfulness_correlation`.

    Raises:
        AttribError: As for `faithfulness_correlation`.

    References:
        Alvarez-Melis & Jaakkola (2018), "faithfulness", https://arxiv.org/abs/1806.07538

    Example:
        >>> import torch
        >>> f = lambda x: x @ torch.tensor([1.0, 2.0, -1.0])
        >>> faithfulness_estimate(f)(torch.tensor([1.0, 2.0, 0.0]), torch.ones(3)) > 0.9
        tensor(True)
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    groups, chunk_size = check_groups(groups), check_chunk_size(chunk_size)

    def measure(attribution: Tree, x: Tree, baseline: Any = 0, *args: Any) -> Tensor:
        v = game(f, x, baseline, *args, groups=groups, chunk_size=chunk_size)
        values = player_values(attribution, v)
        points = all_but_one(v.players, v.device)
        found = torch.cat([scores for _, scores in v.over(points)])
        lost = (found[0] - found[1:]).movedim(0, -1)
        return pearson(values, wide(lost)).to(v.dtype)

    return named("faithfulness_estimate", given_or_made(attribute, measure))


def _correlation(v: Game, values: Tensor, size: int, samples: int, stream: Stream) -> Tensor:
    uniform = random_rows(v.players, stream, v.device)

    def take(start: int, stop: int) -> Tensor:
        return uniform(start, stop).argsort(-1).argsort(-1) >= size

    def pairs() -> Any:
        for present, found in v.over(Points(samples, take)):
            foretold = torch.einsum("sp,...p->s...", (~present).to(values), values)
            yield foretold, wide(v.full - found)

    return correlation_of(pairs())
