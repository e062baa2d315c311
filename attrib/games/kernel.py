"""Shapley values by regression: KernelSHAP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from attrib._checks import check_choice, check_count, describe
from attrib._map import ChunkSize, Points
from attrib.errors import AttribValueError
from attrib.games._attribution import attribution, averaged
from attrib.games._coalitions import pairs_of, random_rows
from attrib.games._folding import (
    Draws,
    between_ends,
    check_stopping,
    regrouped,
    shifted,
    wide,
)
from attrib.games._regression import Sampling, fitted
from attrib.games.game import Game
from attrib.games.groups import Groups
from attrib.perturb import Stream
from attrib.reducers import estimate, mean
from attrib.types import Attribute, Estimate, Reducer, Score

__all__ = ["check_regression", "kernel_shap", "regression_count", "unbiased_kernel_shap"]


def kernel_shap(
    f: Score,
    *,
    samples: int | None = None,
    sampling: Literal["leverage", "kernel"] = "leverage",
    regression: Literal["least_squares", "gaussian_process"] = "least_squares",
    groups: Groups = None,
    interventional: bool = False,
    reduce: Reducer = mean,
    tol: float | None = None,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Shapley values as the additive game that fits the scores of coalitions best,

    .. math:: \min_\phi \sum_{S \ne \emptyset, N} \frac{M - 1}{\binom{M}{|S|} |S| (M - |S|)}
              \Big( v(S) - v(\emptyset) - \sum_{i \in S} \phi_i \Big)^2
              \quad \text{with} \quad \sum_i \phi_i = v(N) - v(\emptyset).

    The coalitions come in pairs with their complements, and no coalition comes twice: small and
    large ones are enumerated as far as there are enough samples, of the others each size gets its
    part. Where `samples` covers all coalitions, the result is exact.

    Args:
        f: Score.
        samples: Coalitions evaluated beside those of no and of all features; with `tol`, at most.
            At least two per feature, unless there are fewer coalitions. ``None`` means 16 per
            feature.
        sampling: ``"leverage"``: every size gets as many coalitions, by their leverage in the
            regression. ``"kernel"``: by their weight in the sum above, which favours small and
            large ones, as SHAP does.
        regression: ``"least_squares"``: the fit above. ``"gaussian_process"``: beside the additive
            game one of interactions, about which only their sizes are assumed, is foretold from the
            coalitions that were seen, and the Shapley values of both are returned. From the same
            coalitions its mean squared errors were 1.8 to 2.7 times smaller on models of tables and
            images; where many features matter only together they may be larger. It takes time in
            proportion to the third power of the coalitions: with 16 per feature, a tenth of a
            second for 128 features and a minute for 1000.
        groups: Which entries of ``x`` are one feature, as for `attrib.games.game`.
        interventional: The baseline is a set to average over, as for `attrib.games.game`.
        reduce: `attrib.estimate` adds standard errors, for which one number per coalition and
            example is kept. They hold from about four samples per feature on, are zero where all
            coalitions were seen, and NaN where a value would not be determined without one of those
            that were.
        tol: Stop as soon as, for every example, all standard errors are below ``tol`` times its
            largest value. Needs numbers that Python can see: not inside `torch.vmap` or
            `torch.compile`.
        generator: Source of randomness. Without one, the draws come from a copy of the global
            generator: the same at every call until something else advances it.
        chunk_size: Coalitions evaluated at once. Does not change the draws.

    Returns:
        ``attribute(x, baseline=0, *args)``, a tree like ``x``, in units of the score: every entry
        holds the value of its feature. The examples share the coalitions. The values of an example
        sum to ``f(x) - f(baseline)``, however few samples there are.

    Raises:
        AttribError: For options out of range, and as for `attrib.games.game`.

    References:
        Lundberg & Lee (2017), https://arxiv.org/abs/1705.07874; for the pairs, Covert & Lee (2021),
        https://arxiv.org/abs/2012.01536; for leverage, Musco & Witter (2024),
        https://arxiv.org/abs/2410.01917; for Gaussian processes beside unknown functions,
        Rasmussen & Williams (2006), section 2.7

    Example:
        >>> import torch
        >>> f = lambda x: x[..., 0] * x[..., 1] + x[..., 2]
        >>> kernel_shap(f, samples=6)(torch.tensor([[2.0, 3.0, 5.0]])).round(decimals=4)
        tensor([[3., 3., 5.]])
    """
    check_choice(sampling, "sampling", ("leverage", "kernel"))
    check_choice(regression, "regression", ("least_squares", "gaussian_process"))
    process = regression == "gaussian_process"
    check_regression(samples, reduce, tol)
    Stream(generator)

    def solution(v: Game) -> Tensor | Estimate:
        existing = pairs_of(v.players, "kernel")
        count = regression_count(samples, v.players, existing)
        how = Sampling("kernel", sampling, efficient=True, process=process)
        return fitted(v, how, count, generator, existing=existing, reduce=reduce, tol=tol)

    return attribution(
        f,
        solution,
        groups=groups,
        interventional=interventional,
        chunk_size=chunk_size,
        random=True,
    )


def unbiased_kernel_shap(
    f: Score,
    *,
    samples: int = 256,
    groups: Groups = None,
    interventional: bool = False,
    reduce: Reducer = mean,
    tol: float | None = None,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""KernelSHAP with the expectation of its normal equations instead of their sample: an unbiased
    mean over independent pairs of complementary coalitions,

    .. math:: \phi = \frac{v(N) - v(\emptyset)}{M} + H_{M - 1}\, \mathbb{E}_z \Big[ \Big( z -
              \frac{|z|}{M} \Big) \big( v(z) - v(1 - z) \big) \Big],
              \quad p(z) \propto \frac{M - 1}{\binom{M}{|z|} |z| (M - |z|)}.

    Its errors are larger than those of `kernel_shap`, but nothing is biased at any number of
    samples, and any reducer may fold them.

    Args:
        f: Score.
        samples: Independent pairs; with `tol`, at most.
        groups: Which entries of ``x`` are one feature, as for `attrib.games.game`.
        interventional: The baseline is a set to average over, as for `attrib.games.game`.
        reduce: How the pairs are folded: `attrib.estimate` adds standard errors.
        tol: As for `attrib.shapley_sampling`.
        generator: As for `attrib.kernel_shap`.
        chunk_size: Coalitions evaluated at once. Does not change the draws.

    Returns:
        ``attribute(x, baseline=0, *args)``, what `reduce` makes of trees like ``x``, in units of
        the score. The values of an example sum to ``f(x) - f(baseline)`` in every draw.

    Raises:
        AttribError: For options out of range, and as for `attrib.games.game`.

    References:
        Covert & Lee (2021), section 3.2, https://arxiv.org/abs/2012.01536

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x[..., 0] * x[..., 1]
        >>> unbiased_kernel_shap(f)(torch.tensor([[2.0, 3.0]]))
        tensor([[3., 3.]])
    """
    return averaged(
        f,
        _unbiased,
        samples=samples,
        reduce=reduce,
        tol=tol,
        generator=generator,
        groups=groups,
        interventional=interventional,
        chunk_size=chunk_size,
    )


def check_regression(samples: int | None, reduce: Reducer, tol: float | None) -> None:
    """Refuse options of a regression on coalitions."""
    if samples is not None:
        check_count(samples, "samples", least=2)
    check_stopping(2**30, reduce, tol)
    if reduce not in (mean, estimate):
        raise AttribValueError(
            f"reduce: must be attrib.mean or attrib.estimate, got {describe(reduce)}; a regression "
            "has no samples to fold",
            code="reduce.unknown",
        )


def regression_count(samples: int | None, players: int, existing: int) -> int:
    """How many pairs of coalitions to evaluate, of all that exist."""
    count = 8 * players if samples is None else samples // 2
    if count < min(players, existing):
        raise AttribValueError(
            f"samples: too few for {players} features, got {samples}; the regression needs at "
            f"least {2 * min(players, existing)}",
            code="samples.few",
        )
    return min(count, existing)


def _unbiased(v: Game, stream: Stream) -> Draws:
    players = v.players
    sizes = torch.arange(1, max(2, players), device=v.device)
    weights = (sizes * (players - sizes)).clamp_min(1).to(torch.float32).reciprocal()
    bounds = (weights / weights.sum()).cumsum(0)[:-1]
    harmonic = sum(1 / size for size in range(1, players))
    uniform = random_rows(players + 1, stream, v.device)

    def take(start: int, stop: int) -> Tensor:
        """Coalitions of pairs, each before its complement."""
        begin, end = start // 2, (stop - 1) // 2 + 1
        numbers = uniform(begin, end)
        size = 1 + torch.bucketize(numbers[:, 0].contiguous(), bounds)
        drawn = numbers[:, 1:].argsort(-1) < size[:, None]
        index = torch.arange(start, stop, device=v.device)
        return drawn[index // 2 - begin] ^ (index % 2 == 1)[:, None]

    def draws(start: int, stop: int) -> Iterator[Tensor]:
        points = Points(2 * (stop - start), shifted(take, 2 * start))
        empty, full, chunks = between_ends(v, points)
        mean = (full - empty)[..., None] / players
        for coalitions, values in regrouped(chunks, 2):
            differences = wide(values[:, 0] - values[:, 1])[..., None]
            z = coalitions[:, 0].to(differences.dtype)
            weights = (z - z.mean(-1, keepdim=True)).reshape(len(z), *(1 for _ in v.batch), players)
            yield mean + harmonic * weights * differences

    return draws
