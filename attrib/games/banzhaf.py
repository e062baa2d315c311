"""Banzhaf values."""

from __future__ import annotations

import torch
from torch import Tensor

from attrib._map import ChunkSize
from attrib.games._attribution import attribution
from attrib.games._coalitions import pairs_of
from attrib.games._regression import Sampling, fitted
from attrib.games.game import Game
from attrib.games.groups import Groups
from attrib.games.kernel import check_regression, regression_count
from attrib.games.shapley import check_few, semivalues
from attrib.perturb import Stream
from attrib.reducers import mean
from attrib.types import Attribute, Estimate, Reducer, Score

__all__ = ["banzhaf_values"]


def banzhaf_values(
    f: Score,
    *,
    samples: int | None = None,
    groups: Groups = None,
    interventional: bool = False,
    reduce: Reducer = mean,
    tol: float | None = None,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Banzhaf values: what a feature adds to a coalition, on average over all coalitions,

    .. math:: \beta_i = \frac{1}{2^{M - 1}} \sum_{S \not\ni i} \big(v(S \cup i) - v(S)\big).

    They are the slopes of the additive game that fits all coalitions best. Without `samples` all
    are evaluated, each once; with `samples`, the additive game is fitted to random ones: pairs with
    their complements, none of which comes twice.

    Args:
        f: Score.
        samples: Coalitions evaluated; with `tol`, at most. At least two per feature, unless there
            are fewer coalitions. ``None``: all, of at most 16 features.
        groups: Which entries of ``x`` are one feature, as for `attrib.games.game`.
        interventional: The baseline is a set to average over, as for `attrib.games.game`.
        reduce: With `samples`, as for `attrib.kernel_shap`.
        tol: With `samples`, as for `attrib.kernel_shap`.
        generator: As for `attrib.kernel_shap`.
        chunk_size: Coalitions evaluated at once. Does not change the draws.

    Returns:
        ``attribute(x, baseline=0, *args)``, a tree like ``x``, in units of the score. The values of
        an example need not sum to ``f(x) - f(baseline)``.

    Raises:
        AttribValueError: For more than 16 features without `samples`.
        AttribError: For options out of range, and as for `attrib.games.game`.

    References:
        Banzhaf (1965), Weighted voting doesn't work, Rutgers Law Review 19, 317-343; as a fit,
        Hammer & Holzman (1992), https://doi.org/10.1007/BF01541038; from samples, Liu, Witter, Korn
        et al. (2024), https://arxiv.org/abs/2410.08336

    Example:
        >>> import torch
        >>> f = lambda x: x.prod(-1)
        >>> banzhaf_values(f)(torch.tensor([[2.0, 1.0, 3.0]]))
        tensor([[1.5000, 1.5000, 1.5000]])
    """
    check_regression(samples, reduce, tol)
    Stream(generator)

    def solution(v: Game) -> Tensor | Estimate:
        players = v.players
        if samples is None and reduce is mean and tol is None:
            return semivalues(v, [0.5 ** (players - 1)] * players)
        if samples is None:
            check_few(players)
        existing = pairs_of(players, "uniform")
        count = existing if samples is None else regression_count(samples, players, existing)
        how = Sampling("uniform", "uniform", efficient=False)
        return fitted(v, how, count, generator, existing=existing, reduce=reduce, tol=tol)

    return attribution(
        f,
        solution,
        groups=groups,
        interventional=interventional,
        chunk_size=chunk_size,
        random=samples is not None,
    )
