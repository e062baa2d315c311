"""Shapley values: all coalitions, each evaluated once."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import torch
from torch import Tensor

from attrib._map import ChunkSize, Points
from attrib.errors import AttribValueError
from attrib.games._attribution import attribution
from attrib.games._coalitions import all_coalitions
from attrib.games._folding import weighted_sum, wide
from attrib.games.game import Game
from attrib.games.groups import Groups
from attrib.types import Attribute, Score

__all__ = ["MOST_PLAYERS", "check_few", "semivalues", "shapley_values"]

MOST_PLAYERS = 16
"""Games of more players are not enumerated: 65 536 coalitions."""


def shapley_values(
    f: Score,
    *,
    groups: Groups = None,
    interventional: bool = False,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Shapley values by enumeration: what a feature adds to a coalition, on average over all
    orders in which the features may come,

    .. math:: \phi_i = \sum_{S \not\ni i} \frac{|S|!\,(M - |S| - 1)!}{M!}\,
              \big(v(S \cup i) - v(S)\big).

    Each of the :math:`2^M` coalitions is evaluated once.

    Args:
        f: Score.
        groups: Which entries of ``x`` are one feature, as for `attrib.games.game`; at most 16
            features.
        interventional: The baseline is a set to average over, as for `attrib.games.game`.
        chunk_size: Coalitions evaluated at once.

    Returns:
        ``attribute(x, baseline=0, *args)``, a tree like ``x``, in units of the score: every entry
        holds the value of its feature. The values of an example sum to ``f(x) - f(baseline)``.

    Raises:
        AttribValueError: For more than 16 features; use `attrib.kernel_shap` or
            `attrib.shapley_sampling`, or group them.
        AttribError: As for `attrib.games.game`.

    References:
        Shapley (1953), https://doi.org/10.1515/9781400881970-018; Strumbelj & Kononenko (2014),
        https://doi.org/10.1007/s10115-013-0679-x

    Example:
        >>> import torch
        >>> f = lambda x: x.amax(-1)
        >>> shapley_values(f)(torch.tensor([[6.0, 3.0, 0.0]]))
        tensor([[4.5000, 1.5000, 0.0000]])
    """
    return attribution(
        f,
        lambda v: semivalues(v, _shares(v.players)),
        groups=groups,
        interventional=interventional,
        chunk_size=chunk_size,
    )


def semivalues(v: Game, shares: Sequence[float]) -> Tensor:
    r"""Average contributions with weights that go by the size of a coalition,

    .. math:: \phi_i = \sum_{S \not\ni i} w_{|S|}\, \big(v(S \cup i) - v(S)\big).

    Args:
        v: A game of at most 16 players.
        shares: The weights :math:`w_0, \dots, w_{M - 1}`.

    Returns:
        ``(*batch, players)``.
    """
    check_few(v.players)
    joins = torch.tensor([*shares, 0.0], dtype=wide(v.full).dtype, device=v.device)
    leaves = joins.roll(1)

    def weigh(coalitions: Tensor, start: int) -> Tensor:
        sizes = coalitions.sum(-1)
        return torch.where(coalitions, leaves[sizes][:, None], -joins[sizes][:, None])

    # The last coalition, of everybody, needs no second evaluation.
    return weighted_sum(v, Points(2**v.players - 1, all_coalitions(v.players, v.device)), weigh)


def check_few(players: int) -> None:
    """Refuse to enumerate the coalitions of many players."""
    if players > MOST_PLAYERS:
        raise AttribValueError(
            f"groups: too many features to enumerate, got {players}; the coalitions of at most "
            f"{MOST_PLAYERS} are evaluated one and all. Use a method that samples, such as "
            "attrib.kernel_shap or attrib.shapley_sampling, or group the features",
            code="groups.many",
        )


def _shares(players: int) -> list[float]:
    return [1 / (players * comb(players - 1, size)) for size in range(players)]
