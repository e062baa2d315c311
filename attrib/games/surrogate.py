"""LIME: an additive game that fits the score near the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from attrib._checks import check_callable, check_choice, check_number, describe
from attrib._map import ChunkSize, Points
from attrib._transforms import concrete, numbers
from attrib.errors import AttribValueError
from attrib.games._attribution import attribution
from attrib.games._coalitions import random_rows
from attrib.games._folding import (
    check_stopping,
    contracted,
    product,
    pseudo_inverse,
    shifted,
    until,
    wide,
)
from attrib.games.game import Game, gathered
from attrib.games.groups import Groups
from attrib.perturb import Stream, fork
from attrib.reducers import estimate, mean, total
from attrib.types import Attribute, Estimate, Reducer, Score

__all__ = ["exponential_kernel", "lime"]

Similarity = Callable[[Tensor], Tensor]

_linalg: Any = torch.linalg


def lime(
    f: Score,
    *,
    samples: int = 500,
    similarity: Similarity | None = None,
    penalty: Literal["ridge", "lasso"] = "ridge",
    alpha: float | None = None,
    groups: Groups = None,
    interventional: bool = False,
    reduce: Reducer = mean,
    tol: float | None = None,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""LIME: the slopes of a linear function of which features are present, fitted to the score of
    random coalitions with weights :math:`\pi` that go by their similarity to the input,

    .. math:: \min_{\phi, c} \frac{\sum_z \pi(z) \big( v(z) - c - z \cdot \phi \big)^2}
              {\sum_z \pi(z)} + \alpha \lVert \phi \rVert_2^2,
              \quad z_i \sim \mathrm{Bernoulli}(\tfrac12).

    Args:
        f: Score.
        samples: Coalitions evaluated beside the input; with `tol`, at most. Without a penalty, two
            more than features at least.
        similarity: ``similarity(coalitions) -> weights``, from boolean ``(samples, features)`` to
            numbers ``(samples,)``, not negative. ``None`` means `exponential_kernel`.
        penalty: ``"ridge"``: as above, ordinary least squares if `alpha` is zero. ``"lasso"``: half
            of the mean square and :math:`\alpha \lVert \phi \rVert_1`, for sparse slopes; needs
            scikit-learn (the extra ``attrib[lasso]``), whose `Lasso` has the same, and
            `torch.no_grad`.
        alpha: Weight of the penalty. The larger it is, the smaller are the slopes. ``None``: 0 for
            the ridge, 0.01 for the lasso, which is Captum's and meant for scores around one, such
            as probabilities: of the lasso it is in units of the score, and at 0 there is no
            penalty.
        groups: Which entries of ``x`` are one feature, as for `attrib.games.game`.
        interventional: The baseline is a set to average over, as for `attrib.games.game`.
        reduce: `attrib.estimate` adds standard errors (of the ridge), for which one number per
            coalition and example is kept. They hold from about three samples per feature on, and
            are NaN where a slope would not be determined without one of the coalitions.
        tol: As for `attrib.kernel_shap`, with the ridge.
        generator: Source of randomness. Without one, the draws come from a copy of the global
            generator: the same at every call until something else advances it.
        chunk_size: Coalitions evaluated at once. Does not change the draws.

    Returns:
        ``attribute(x, baseline=0, *args)``, a tree like ``x``, in units of the score: every entry
        holds the slope of its feature. The examples share the coalitions, each has a fit of its
        own. The slopes need not sum to ``f(x) - f(baseline)``.

    Raises:
        AttribError: For options out of range, and as for `attrib.games.game`.
        ImportError: For the lasso without scikit-learn.

    References:
        Ribeiro, Singh & Guestrin (2016), https://arxiv.org/abs/1602.04938; Garreau & von Luxburg
        (2020), https://arxiv.org/abs/2001.03447

    Example:
        >>> import torch
        >>> f = lambda x: x @ torch.tensor([1.0, 2.0, 0.0]) + 7
        >>> lime(f)(torch.tensor([[1.0, 1.0, 1.0]])).round(decimals=3).abs()
        tensor([[1., 2., 0.]])
    """
    kernel = exponential_kernel() if similarity is None else similarity
    check_callable(kernel, "similarity", "pass a function of coalitions (samples, features)")
    check_choice(penalty, "penalty", ("ridge", "lasso"))
    weight = (
        {"ridge": 0.0, "lasso": 0.01}[penalty] if alpha is None else check_number(alpha, "alpha")
    )
    check_stopping(samples, reduce, tol)
    Stream(generator)
    if reduce not in (mean, estimate) or (
        penalty == "lasso" and (reduce is estimate or tol is not None)
    ):
        raise AttribValueError(
            "reduce: must be attrib.mean, or attrib.estimate for the ridge, got "
            f"{describe(reduce)}; a regression has no samples to fold",
            code="reduce.unknown",
        )

    def solution(v: Game) -> Tensor | Estimate:
        if samples < v.players + 2 and weight == 0:
            raise AttribValueError(
                f"samples: too few for {v.players} features, got {samples}; without a penalty the "
                f"regression needs at least {v.players + 2}",
                code="samples.few",
            )
        uniform = random_rows(v.players, Stream(fork(generator)), v.device)

        def take(start: int, stop: int) -> Tensor:
            return uniform(start, stop) < 0.5

        if tol is None and reduce is mean:
            moments = _moments(v, Points(samples, take), kernel)
            sparse = penalty == "lasso" and weight > 0
            return _lasso(moments, weight) if sparse else _ridge(moments, weight)
        return _estimated(v, take, kernel, samples, weight, tol, reduce)

    return attribution(
        f,
        solution,
        groups=groups,
        interventional=interventional,
        chunk_size=chunk_size,
        random=True,
    )


def exponential_kernel(
    width: float = 0.25, *, distance: Literal["cosine", "euclidean"] = "cosine"
) -> Similarity:
    r"""Weights that fall with the distance of a coalition from all features,
    :math:`\pi(z) = \exp\big(-d(z)^2 / (2\,\mathrm{width}^2)\big)`.

    Args:
        width: In units of the distance. The default is LIME's, for images and texts.
        distance: ``"cosine"``: :math:`d = 1 - \sqrt{|z| / M}`. ``"euclidean"``:
            :math:`d = \sqrt{M - |z|}`.

    Returns:
        ``similarity(coalitions)``, for `lime`.

    Raises:
        AttribError: If the width is not positive, or the distance is unknown.

    References:
        Ribeiro, Singh & Guestrin (2016), https://arxiv.org/abs/1602.04938

    Example:
        >>> import torch
        >>> exponential_kernel(1.0)(torch.tensor([[True, True], [False, False]]))
        tensor([1.0000, 0.6065], dtype=torch.float64)
    """
    check_number(width, "width", exclusive=True)
    check_choice(distance, "distance", ("cosine", "euclidean"))

    def similarity(coalitions: Tensor) -> Tensor:
        dtype = torch.float32 if coalitions.device.type == "mps" else torch.float64
        present, players = coalitions.sum(-1, dtype=dtype), coalitions.shape[-1]
        if distance == "cosine":
            squares = (1 - (present / players).sqrt()).square()
        else:
            squares = players - present
        return torch.exp(-squares / (2 * width**2))

    return similarity


class _Moments(NamedTuple):
    """Weighted means over coalitions, about the means of what they are made of.

    Attributes:
        centre: Mean of the coalitions, ``(players,)``.
        gram: Their covariance, ``(players, players)``.
        cross: Their covariance with the values, ``(*batch, players)``.
    """

    centre: Tensor
    gram: Tensor
    cross: Tensor


def _weights(kernel: Similarity, coalitions: Tensor, like: Tensor) -> Tensor:
    found: Any = kernel(coalitions)
    fits = isinstance(found, Tensor) and found.shape == coalitions.shape[:1]
    if not fits or found.is_complex():
        raise AttribValueError(
            f"similarity: must return one real number per coalition, got {describe(found)} for "
            f"{describe(coalitions)}; weigh the rows",
            code="similarity.shape",
        )
    senseless = numbers(~(torch.isfinite(found) & (found >= 0)))
    if senseless is not None and bool(senseless.any()):
        raise AttribValueError(
            f"similarity: must not be negative, infinite or NaN, got {int(senseless.sum())} such "
            f"weights of {senseless.numel()}; they are how much coalitions count",
            code="similarity.range",
        )
    return found.to(like.dtype)


def _moments(v: Game, points: Points, kernel: Similarity) -> _Moments:
    everybody = wide(v.full)

    def sums() -> Iterator[tuple[Tensor, Tensor]]:
        for coalitions, values in v.over(points):
            # Seen from one half and the value of everybody, large numbers are small ones.
            design = torch.nn.functional.pad(
                coalitions.to(everybody.dtype) - 0.5, (0, 1), value=1.0
            )
            weighted = _weights(kernel, coalitions, everybody)[:, None] * design
            cross = contracted(wide(values) - everybody, weighted)
            yield product(weighted.mT, design)[None], cross[None]

    gram, cross = total(sums())
    weight = gram[-1, -1]
    nothing = numbers(weight == 0)
    if nothing is not None and bool(nothing.any()):
        raise AttribValueError(
            "similarity: zero for all coalitions that were drawn, got nothing to fit; choose a "
            "wider kernel or more samples",
            code="similarity.zero",
        )
    centre = gram[-1, :-1] / weight
    level = cross[..., -1:] / weight
    return _Moments(
        centre,
        gram[:-1, :-1] / weight - centre[:, None] * centre,
        cross[..., :-1] / weight - level * centre,
    )


def _ridge(moments: _Moments, alpha: float) -> Tensor:
    return product(moments.cross, _inverse(moments.gram, alpha))


def _inverse(gram: Tensor, alpha: float) -> Tensor:
    shifted_gram = gram + alpha * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return pseudo_inverse(shifted_gram)


def _lasso(moments: _Moments, alpha: float) -> Tensor:
    """The lasso from moments: on a root of the covariance its mean square is the same but for a
    constant, and scikit-learn fits all examples in one call."""
    from sklearn.linear_model import Lasso  # pyright: ignore[reportMissingTypeStubs]

    if not concrete(moments.cross) or moments.cross.requires_grad:
        raise AttribValueError(
            "penalty: the lasso has no derivative here, got a score that is differentiated; call "
            "it under torch.no_grad() and outside of transforms, or pass penalty='ridge'",
            code="penalty.traced",
        )
    values, vectors = _linalg.eigh(moments.gram.double())
    kept = values > values.max() * len(values) * torch.finfo(torch.float64).eps
    root = values[kept].sqrt()[:, None] * vectors.mT[kept]
    cross = moments.cross.double().reshape(-1, len(values))
    targets = (cross @ vectors[:, kept] / values[kept].sqrt()).mT
    # scikit-learn takes the mean over the rows, of which there are now as many as players.
    scale = math.sqrt(len(root))
    model: Any = Lasso(alpha=alpha, fit_intercept=False, tol=1e-8, max_iter=100_000)
    model.fit((scale * root).cpu().numpy(), (scale * targets).cpu().numpy())
    slopes = torch.tensor(model.coef_, dtype=torch.float64, device="cpu")
    return slopes.to(moments.cross).reshape(moments.cross.shape)


def _estimated(
    v: Game,
    take: Callable[[int, int], Tensor],
    kernel: Similarity,
    samples: int,
    alpha: float,
    tol: float | None,
    reduce: Reducer,
) -> Tensor | Estimate:
    seen: list[tuple[Tensor, Tensor]] = []

    def more(found: Estimate | None, stop: int) -> Estimate:
        before = 0 if found is None else found.samples
        seen.append(gathered(v.over(Points(stop - before, shifted(take, before)))))
        return _with_errors(v, *gathered(seen), kernel, alpha)

    if tol is None:
        return more(None, samples)
    found = until(v.full, more, samples, min(samples, 4 * v.players + 16), tol)
    return found if reduce is estimate else found.value


def _with_errors(
    v: Game, coalitions: Tensor, values: Tensor, kernel: Similarity, alpha: float
) -> Estimate:
    """The ridge with the standard errors of its linearisation, for independent coalitions, each
    residual as if its coalition had been left out (MacKinnon & White, 1985). Where a slope would
    not be determined without some coalition, the errors are unknown."""
    values = wide(values) - wide(v.full)
    weights = _weights(kernel, coalitions, values)
    weights = weights / weights.sum()
    design = coalitions.to(values.dtype)
    design = design - product(weights, design)
    centred = values - product(values.movedim(0, -1), weights)
    inverse = _inverse(product(design.mT, weights[:, None] * design), alpha)
    influence = product(weights[:, None] * design, inverse)
    slopes = product(contracted(centred, weights[:, None] * design), inverse)
    leverage = weights + (influence * design).sum(-1)
    spare, ones = 1 - leverage, [1 for _ in v.batch]
    determined = alpha > 0 or leverage.sum() > v.players + 0.5
    told = determined & (spare > torch.finfo(values.dtype).eps ** 0.5)
    residual = centred - product(slopes, design.mT).movedim(-1, 0)
    residual = residual / torch.where(told, spare, torch.nan).reshape(-1, *ones)
    # Each coalition pulls at the slopes, and the penalty pulls back as much on average.
    back = alpha * product(slopes, inverse)
    squares = (
        contracted(residual.square(), influence.square())
        - 2 * back * contracted(residual, influence * weights[:, None])
        + back.square() * weights.square().sum()
    )
    return Estimate(slopes, squares.clamp_min(0).sqrt(), len(values))
