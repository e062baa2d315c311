"""LIME and RISE: their regressions and means from the definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import attrib
from attrib.games.rise import rise
from attrib.games.surrogate import exponential_kernel, lime
from known_games import bent, seeded


def close(found: Any, expected: Any, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


X = torch.randn(3, 6, dtype=torch.float64, generator=seeded())
BASELINE = torch.randn(6, dtype=torch.float64, generator=seeded(1))


class Recorded:
    """A similarity that remembers the coalitions it was asked about."""

    def __init__(self, width: float = 0.4) -> None:
        self.kernel = exponential_kernel(width)
        self.seen: list[Tensor] = []

    def __call__(self, coalitions: Tensor) -> Tensor:
        self.seen.append(coalitions)
        return self.kernel(coalitions)

    @property
    def coalitions(self) -> Tensor:
        return torch.cat(self.seen)


def values_of(coalitions: Tensor) -> Tensor:
    return bent(torch.where(coalitions[:, None], X, BASELINE))


# LIME.


@pytest.mark.parametrize("alpha", [0.0, 0.05])
@pytest.mark.parametrize("chunk_size", [1, 7, None, "auto"])
def test_the_fit_is_that_of_the_normal_equations(alpha: float, chunk_size: Any) -> None:
    kernel = Recorded()
    found = lime(
        bent, samples=60, similarity=kernel, alpha=alpha, chunk_size=chunk_size, generator=seeded()
    )(X, BASELINE)
    z = kernel.coalitions
    weights = exponential_kernel(0.4)(z).double()
    weights = weights / weights.sum()
    # With the intercept as one more column, of which the ridge takes no notice.
    design = torch.cat([z.double(), torch.ones(60, 1)], 1)
    ridge = alpha * torch.diag(torch.tensor([1.0] * 6 + [0.0], dtype=torch.float64))
    slopes = torch.linalg.solve(
        design.mT @ (weights[:, None] * design) + ridge,
        design.mT @ (weights[:, None] * values_of(z)),
    )
    close(found, slopes[:6].mT)


def test_an_additive_score_has_its_own_slopes() -> None:
    weights = torch.arange(6, dtype=torch.float64) - 2
    found = lime(lambda x: x @ weights + 3, samples=20)(X, BASELINE)
    close(found, (X - BASELINE) * weights)


def test_examples_have_fits_of_their_own() -> None:
    together = lime(bent, samples=40, generator=seeded())(X, BASELINE)
    alone = [lime(bent, samples=40, generator=seeded())(x, BASELINE) for x in X]
    close(together, torch.stack(alone))


def test_without_similarity_the_slopes_are_banzhaf_values_in_the_limit() -> None:
    from attrib.games.banzhaf import banzhaf_values

    found = lime(
        bent,
        samples=4000,
        similarity=lambda z: torch.ones(len(z)),
        reduce=attrib.estimate,
        generator=seeded(),
    )(X, BASELINE)
    expected = banzhaf_values(bent)(X, BASELINE)
    assert ((found.value - expected).abs() <= 4 * found.stderr + 1e-12).all()


@pytest.mark.parametrize("alpha", [0.001, 0.02, 0.3])
def test_the_lasso_fulfils_its_optimality_conditions(alpha: float) -> None:
    pytest.importorskip("sklearn")
    kernel = Recorded()
    with torch.no_grad():
        found = lime(
            bent, samples=80, similarity=kernel, penalty="lasso", alpha=alpha, generator=seeded()
        )(X, BASELINE)
    z = kernel.coalitions
    weights = exponential_kernel(0.4)(z).double()
    weights = weights / weights.sum()
    design, values = z.double() - weights @ z.double(), values_of(z)
    values = values - weights @ values
    gradient = design.mT @ (weights[:, None] * (values - design @ found.mT))
    zero = found.mT == 0
    assert (gradient[zero].abs() <= alpha + 1e-7).all()
    close(gradient[~zero], alpha * found.mT[~zero].sign(), 1e-7)
    assert zero.any() or alpha < 0.01


@pytest.mark.parametrize(("alpha", "weight"), [(None, 0.01), (0.1, 0.1)])
def test_the_lasso_is_that_of_scikit_learn_and_captums_alpha_by_default(
    alpha: float | None, weight: float
) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    kernel = Recorded()
    options: Any = {} if alpha is None else {"alpha": alpha}
    with torch.no_grad():
        found = lime(
            bent, samples=90, similarity=kernel, penalty="lasso", generator=seeded(), **options
        )(X, BASELINE)
    z = kernel.coalitions
    for row, values in zip(found, values_of(z).mT, strict=True):
        model = linear_model.Lasso(alpha=weight, tol=1e-12, max_iter=100_000)
        model.fit(z.numpy(), values.numpy(), sample_weight=kernel.kernel(z).numpy())
        close(row, torch.from_numpy(model.coef_), 1e-6)


def test_without_a_penalty_the_lasso_is_least_squares() -> None:
    options: Any = {"samples": 40, "alpha": 0.0}
    found = lime(bent, penalty="lasso", generator=seeded(), **options)(X, BASELINE)
    close(found, lime(bent, generator=seeded(), **options)(X, BASELINE))
    close(found, lime(bent, samples=40, generator=seeded())(X, BASELINE))


def test_the_lasso_is_refused_where_somebody_differentiates() -> None:
    x = X.clone().requires_grad_()
    with pytest.raises(attrib.AttribError) as caught:
        lime(bent, penalty="lasso", alpha=0.1)(x)
    assert caught.value.code == "penalty.traced"


def test_similarities_fall_with_the_distance() -> None:
    z = torch.tensor([[True] * 4, [True, False, False, False], [False] * 4])
    distance = 1 - torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    close(exponential_kernel(0.5)(z), (-distance.square() / 0.5).exp())
    hidden = torch.tensor([0.0, 3.0, 4.0], dtype=torch.float64)
    close(exponential_kernel(2.0, distance="euclidean")(z), (-hidden / 8).exp())


def test_lime_stops_at_a_tolerance() -> None:
    found = lime(bent, samples=20000, tol=0.05, reduce=attrib.estimate, generator=seeded())(X)
    assert (found.stderr <= 0.05 * found.value.abs().amax(-1, keepdim=True)).all()
    assert found.samples < 20000
    expected = lime(bent, samples=found.samples, reduce=attrib.estimate, generator=seeded())(X)
    close(found, expected)


# RISE.


def test_rise_is_the_mean_of_scores_times_masks() -> None:
    seen: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        seen.append(x)
        return x.square().mean((-3, -2, -1))

    x = torch.rand(2, 12, 10, dtype=torch.float64, generator=seeded())
    found = rise(f, samples=20, cells=(3, 4), probability=0.4, chunk_size=1)(x)
    # At a baseline of zero what f saw is the mask times x.
    masks = torch.stack(seen) / x
    close(masks[:, 0], masks[:, 1])
    scores = torch.stack(seen).square().mean((-3, -2, -1))
    expected = (scores[:, None, None, None] * masks).mean(0) / 0.4
    close(found, expected)
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-12


def test_every_place_is_as_visible_as_a_cell() -> None:
    found = rise(lambda x: torch.ones(()), samples=4000, probability=0.3, reduce=attrib.estimate)(
        torch.zeros(1, 20, 17, dtype=torch.float64)
    )
    # The mean mask is p everywhere, so that a constant score has itself as its map.
    assert ((found.value - 1).abs() <= 5 * found.stderr).all()
    assert found.stderr.max() < 0.05


def test_a_tolerance_stops_when_the_errors_of_rise_are_small_enough() -> None:
    f = lambda x: x["a"][..., :4, :4].mean((-3, -2, -1)) + x["b"].mean((-2, -1))
    x = {"a": torch.ones(2, 3, 8, 8).double(), "b": torch.ones(2, 8, 8).double()}
    taken: list[int] = []
    for tol in (0.2, 0.05):
        options: Any = {"cells": (4, 4), "reduce": attrib.estimate}
        found = rise(f, samples=5000, tol=tol, generator=seeded(), **options)(x)
        size = found.value["a"].flatten(1).amax(-1)
        assert (found.stderr["a"].flatten(1).amax(-1) <= tol * size).all()
        expected = rise(f, samples=found.samples, generator=seeded(), **options)(x)
        for kind in ("value", "stderr"):
            torch.testing.assert_close(getattr(found, kind), getattr(expected, kind))
        taken.append(found.samples)
    assert taken[0] < taken[1] < 5000


def test_masks_fade() -> None:
    seen: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        seen.append(x)
        return x.sum((-2, -1))

    rise(f, samples=8, cells=(2, 2), chunk_size=1)(torch.ones(16, 16))
    masks = torch.stack(seen)
    assert ((masks > 0) & (masks < 1)).double().mean() > 0.2
    # From one place to the next by no more than one over the size of a cell.
    assert masks.diff(dim=-1).abs().max() <= 2 / 16 + 1e-6


@pytest.mark.parametrize("space", [(9,), (9, 8), (6, 7, 8)])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("chunk_size", [1, 3, None])
def test_rise_takes_sequences_images_and_volumes(space: Any, batch: Any, chunk_size: Any) -> None:
    x = torch.rand(*batch, 2, *space, generator=seeded())
    f = lambda x: x.flatten(len(batch)).sum(-1)
    options: Any = {"samples": 7, "cells": (3,) * len(space)}
    found = rise(f, chunk_size=chunk_size, generator=seeded(), **options)(x)
    assert found.shape == x.shape
    close(found, rise(f, generator=seeded(), **options)(x), 1e-5)


# Refusals.


def _weighed(*weights: float) -> Tensor:
    def explained(weight: Tensor) -> Tensor:
        same = lambda z: torch.ones(len(z)) * weight
        return lime(bent, samples=20, similarity=same, generator=seeded())(X)

    return torch.vmap(explained, randomness="same")(torch.tensor(weights))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: lime(bent, samples=0), "samples.range"),
        (lambda: lime(bent, samples=7)(X), "samples.few"),
        (lambda: lime(bent, alpha=-1), "alpha.range"),
        (lambda: lime(bent, penalty="elastic"), "penalty.unknown"),
        (lambda: lime(bent, similarity=0.25), "similarity.type"),
        (lambda: lime(bent, similarity=lambda z: z)(X), "similarity.shape"),
        (lambda: lime(bent, similarity=lambda z: z.sum(1) * 1j)(X), "similarity.shape"),
        (lambda: lime(bent, similarity=lambda z: 0.5 - z[:, 0].float())(X), "similarity.range"),
        (lambda: lime(bent, similarity=lambda z: z.sum(1) * torch.nan)(X), "similarity.range"),
        (lambda: lime(bent, similarity=lambda z: z.sum(1) + torch.inf)(X), "similarity.range"),
        (lambda: _weighed(1.0, -1.0), "similarity.range"),
        (lambda: _weighed(1.0, 0.0), "similarity.zero"),
        (lambda: lime(bent, similarity=lambda z: torch.zeros(len(z)))(X), "similarity.zero"),
        (lambda: lime(bent, reduce=attrib.variance), "reduce.unknown"),
        (lambda: lime(bent, penalty="lasso", reduce=attrib.estimate), "reduce.unknown"),
        (lambda: exponential_kernel(0), "width.range"),
        (lambda: exponential_kernel(distance="hamming"), "distance.unknown"),
        (lambda: rise(bent, samples=0), "samples.range"),
        (lambda: rise(bent, probability=0), "probability.range"),
        (lambda: rise(bent, probability=1.5), "probability.range"),
        (lambda: rise(bent, cells=(1, 2, 3, 4)), "cells.length"),
        (lambda: rise(bent, cells=(2, 2))(X[0]), "cells.length"),
        (lambda: rise(lambda x: x, cells=(2,))(torch.ones(3)), "cells.length"),
        (lambda: rise(bent, tol=-1.0), "tol.range"),
        (lambda: torch.vmap(rise(bent, cells=(2,), tol=0.1))(torch.ones(2, 3)), "tol.traced"),
        (lambda: rise(bent, cells=(2,))(torch.ones(2, 3).long()), "x.dtype"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Any, code: str) -> None:
    with pytest.raises(attrib.AttribError) as caught:
        make()
    assert caught.value.code == code
