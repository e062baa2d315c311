"""Shapley and Banzhaf values from samples: what is exact in them, and how sure the rest is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise, permutations
from typing import Any

import pytest
import torch
from torch import Tensor

import attrib
from attrib.games.banzhaf import banzhaf_values
from attrib.games.kernel import kernel_shap, unbiased_kernel_shap
from attrib.games.sampling import shapley_sampling
from attrib.games.shapley import shapley_values
from attrib.games.svarm import svarm
from known_games import bent, everybody, random_game, score, seeded

DESIGNS = ("antithetic", "independent", "stratified")


def close(found: Any, expected: Any) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64).expand_as(found)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


X = torch.randn(3, 7, dtype=torch.float64, generator=seeded())
BASELINE = torch.randn(7, dtype=torch.float64, generator=seeded(1))
RISE = bent(X) - bent(BASELINE.expand_as(X))

SAMPLED: dict[str, Callable[..., Any]] = {
    **{
        design: lambda f, samples=20, design=design, **options: shapley_sampling(
            f, samples=samples, design=design, **options
        )
        for design in DESIGNS
    },
    "leverage": lambda f, samples=40, **options: kernel_shap(f, samples=samples, **options),
    "kernel": lambda f, samples=40, **options: kernel_shap(
        f, samples=samples, sampling="kernel", **options
    ),
    "process": lambda f, samples=40, **options: kernel_shap(
        f, samples=samples, regression="gaussian_process", **options
    ),
    "unbiased": lambda f, samples=60, **options: unbiased_kernel_shap(
        f, samples=samples, **options
    ),
    "svarm": lambda f, samples=5, **options: svarm(f, samples=samples, **options),
}
sampled = pytest.mark.parametrize("method", SAMPLED.values(), ids=SAMPLED.keys())
with_banzhaf = pytest.mark.parametrize(
    "method",
    [
        *SAMPLED.values(),
        lambda f, samples=40, **options: banzhaf_values(f, samples=samples, **options),
    ],
    ids=[*SAMPLED, "banzhaf"],
)


# Random orders and random coalitions.


@sampled
@pytest.mark.parametrize("chunk_size", [1, 5, 64, None])
def test_values_sum_to_the_rise_however_few_samples(method: Any, chunk_size: Any) -> None:
    found = method(bent, chunk_size=chunk_size, generator=seeded())(X, BASELINE)
    close(found.sum(-1), RISE)


@pytest.mark.parametrize("kind", [*DESIGNS, "unbiased", "svarm"])
def test_every_draw_is_complete(kind: str) -> None:
    def gaps(chunks: Any) -> Tensor:
        return torch.cat(list(chunks)).sum(-1) - RISE

    # Sums per example are spread over its features: all of them show the same gap.
    found = SAMPLED[kind](
        bent, reduce=lambda chunks: gaps(chunks).abs().amax(0)[..., None].expand(X.shape)
    )
    close(found(X, BASELINE), torch.zeros_like(X))


@with_banzhaf
@pytest.mark.parametrize("chunk_size", [1, 5, None])
@pytest.mark.parametrize("reduce", [attrib.mean, attrib.estimate])
def test_estimates_do_not_depend_on_the_chunk_size(
    method: Any, chunk_size: Any, reduce: Any
) -> None:
    options: Any = {"reduce": reduce}
    found = method(bent, chunk_size=chunk_size, generator=seeded(), **options)(X, BASELINE)
    expected = method(bent, generator=seeded(), **options)(X, BASELINE)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@with_banzhaf
def test_the_value_of_an_estimate_is_that_without_errors(method: Any) -> None:
    found = method(bent, generator=seeded(), reduce=attrib.estimate)(X, BASELINE)
    expected = method(bent, generator=seeded())(X, BASELINE)
    torch.testing.assert_close(found.value, expected, rtol=1e-10, atol=1e-12)


@with_banzhaf
def test_a_feature_without_effect_gets_nothing_on_average(method: Any) -> None:
    found = method(
        lambda x: bent(x[..., :6]), samples=200, generator=seeded(), reduce=attrib.estimate
    )(X, BASELINE)
    gap, error = found.value[:, 6].abs(), found.stderr[:, 6]
    assert (gap <= 4 * error + 1e-12).all()


@pytest.mark.parametrize("design", DESIGNS)
def test_along_an_order_a_feature_without_effect_gets_exactly_nothing(design: Any) -> None:
    f = lambda x: bent(x[..., :6])
    found = shapley_sampling(f, samples=3, design=design)(X, BASELINE)
    close(found[:, 6], torch.zeros(3))


@pytest.mark.parametrize("kind", [*DESIGNS, "leverage", "kernel", "process"])
def test_of_an_additive_score_every_sample_is_exact(kind: str) -> None:
    # The unbiased kernel is not: its moments are not those of the coalitions it draws.
    weights = torch.arange(7, dtype=torch.float64) - 3
    found = SAMPLED[kind](lambda x: x @ weights + 2)(X, BASELINE)
    close(found, (X - BASELINE) * weights)


@pytest.mark.parametrize("players", [4, 5, 6, 7])
def test_over_all_orders_the_blocks_and_complements_are_exact(
    players: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = torch.tensor(list(permutations(range(players))), dtype=torch.float32)
    monkeypatch.setattr(
        sys.modules["attrib.games.svarm"], "random_rows", lambda *_: lambda a, b: orders[a:b]
    )
    f, x = score(players, random_game(players, 1)), everybody(players)
    close(svarm(f, samples=len(orders))(x), shapley_values(f)(x))


@pytest.mark.parametrize("players", [1, 2, 3])
def test_of_three_features_a_single_draw_of_blocks_is_exact(players: int) -> None:
    f, x = score(players, random_game(players, 1)), everybody(players, batch=2)
    found = svarm(f, samples=3, reduce=attrib.estimate)(x)
    close(found.value, shapley_values(f)(x))
    close(found.stderr, torch.zeros_like(x))


def test_blocks_and_complements_of_all_sizes_are_evaluated_once_per_draw() -> None:
    seen: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        seen.append(x)
        return bent(x)

    svarm(f, samples=1, chunk_size=1)(torch.ones(8).double())
    sizes = torch.stack(seen).sum(-1).long().bincount().tolist()
    # Everybody once more, for the game. Three blocks of three cover eight places.
    assert sizes == [1, 8, 4, 3, 4, 3, 4, 8, 2]


def test_an_order_and_its_reverse_are_exact_for_pairs() -> None:
    a = torch.randn(7, 7, dtype=torch.float64, generator=seeded(2))
    a = a + a.mT
    found = shapley_sampling(lambda x: ((x @ a) * x).sum(-1), samples=1)(X, BASELINE)
    close(found, (X - BASELINE) * ((X + BASELINE) @ a))


def test_pairs_of_coalitions_are_exact_for_pairs_of_features() -> None:
    a = torch.randn(7, 7, dtype=torch.float64, generator=seeded(2))
    a = a + a.mT
    found = kernel_shap(lambda x: ((x @ a) * x).sum(-1), samples=30)(X, BASELINE)
    close(found, (X - BASELINE) * ((X + BASELINE) @ a))


def test_rotations_of_an_order_give_every_feature_every_place_once() -> None:
    # The contribution to the size of a coalition, squared, tells the place.
    squares = lambda x: x.sum(-1).square()
    found = shapley_sampling(squares, samples=1, design="stratified")(torch.ones(5).double())
    close(found, torch.full((5,), sum(2 * k + 1 for k in range(5)) / 5))


@pytest.mark.parametrize("design", ["independent", "antithetic", "stratified"])
def test_an_order_takes_one_evaluation_less_than_features(design: str) -> None:
    rows: list[int] = []

    def f(x: Tensor) -> Tensor:
        rows.append(len(x))
        return x.sum(-1)

    shapley_sampling(attrib.batched(f), samples=4, design=design)(torch.ones(1, 6))
    orders = {"independent": 4, "antithetic": 8, "stratified": 24}[design]
    # Nobody, and everybody: alone, for the game, and among the others.
    assert sum(rows) == orders * 5 + 3


@pytest.mark.parametrize("samples", [14, 60, 126, 500])
def test_the_regression_evaluates_as_many_coalitions_as_it_says(samples: int) -> None:
    seen: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        seen.append(x)
        return bent(x)

    found = kernel_shap(f, samples=samples, chunk_size=1, reduce=attrib.estimate)(
        torch.ones(7).double()
    )
    # Beside those of nobody and everybody; none comes twice.
    assert len(seen) - 2 == found.samples == min(samples, 2**7 - 2)
    assert len(torch.stack(seen).unique(dim=0)) == len(seen)


@pytest.mark.parametrize(
    "method", [kernel_shap, banzhaf_values, *(SAMPLED[kind] for kind in ("process", *DESIGNS))]
)
def test_without_a_generator_the_state_of_the_global_one_decides(method: Any) -> None:
    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        found = method(bent, samples=30)(X, BASELINE)
        close(method(bent, samples=30)(X, BASELINE), found)  # it has not been advanced
        # Regressions with standard errors keep nothing from one call to the next.
        close(method(bent, samples=30, reduce=attrib.estimate)(X, BASELINE).value, found)
        return found

    first = [drawn(seed) for seed in range(10)]
    assert all((a - b).abs().max() > 1e-6 for a, b in pairwise(first))
    for seed in range(10):
        close(drawn(seed), first[seed])


@pytest.mark.parametrize("kind", ["leverage", "process", "antithetic"])
def test_what_was_drawn_in_inference_mode_does_not_spoil_derivatives(kind: str) -> None:
    torch.manual_seed(101)
    method = SAMPLED[kind](bent)
    with torch.inference_mode():
        method(X, BASELINE)
    x = X.clone().requires_grad_()
    method(x, BASELINE).square().sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0


@pytest.mark.parametrize("kind", ["leverage", "process", *DESIGNS])
def test_what_is_kept_is_what_would_be_drawn(kind: str) -> None:
    torch.manual_seed(7)
    found = [SAMPLED[kind](bent, chunk_size=size)(X, BASELINE) for size in (None, None, 5)]
    assert torch.equal(found[0], found[1])
    close(found[2], found[0])
    with pytest.MonkeyPatch.context() as patch:
        for module in ("_regression", "sampling"):
            patch.setattr(sys.modules[f"attrib.games.{module}"], "may_be_kept", lambda *_: False)
        close(SAMPLED[kind](bent)(X, BASELINE), found[0])


def test_where_all_coalitions_are_seen_there_is_no_error() -> None:
    for method, exact in ((kernel_shap, shapley_values), (banzhaf_values, banzhaf_values)):
        found = method(bent, samples=128, reduce=attrib.estimate)(X, BASELINE)
        close(found.value, exact(bent)(X, BASELINE))
        close(found.stderr, torch.zeros_like(X))


def test_many_features_are_no_more_python() -> None:
    weights = torch.linspace(-1, 1, 500, dtype=torch.float64)
    x = torch.randn(2, 500, dtype=torch.float64, generator=seeded())
    f = lambda x: x @ weights
    close(shapley_sampling(f, samples=1, design="independent")(x), x * weights)
    close(kernel_shap(f, samples=1100)(x), x * weights)


# Enough samples for a tolerance. How sure an estimate is, test_games_coverage.py asks.


@pytest.mark.parametrize(
    "kind", ["antithetic", "unbiased", "svarm", "leverage", "process", "banzhaf"]
)
def test_a_tolerance_stops_when_the_errors_are_small_enough(kind: str) -> None:
    method: Any = {
        "antithetic": shapley_sampling,
        "unbiased": unbiased_kernel_shap,
        "svarm": svarm,
        "leverage": kernel_shap,
        "process": partial(kernel_shap, regression="gaussian_process"),
        "banzhaf": banzhaf_values,
    }[kind]
    exact = (banzhaf_values if kind == "banzhaf" else shapley_values)(bent)(X, BASELINE)
    taken: list[int] = []
    for tol in (0.2, 0.05):
        found = method(bent, samples=20000, tol=tol, generator=seeded(), reduce=attrib.estimate)(
            X, BASELINE
        )
        size = found.value.abs().amax(-1, keepdim=True)
        assert (found.stderr <= tol * size).all()
        assert ((found.value - exact).abs() <= 5 * tol * size).all()
        taken.append(found.samples)
        close(method(bent, samples=20000, tol=tol, generator=seeded())(X, BASELINE), found.value)
    assert taken[0] < taken[1] < 20000


def test_every_target_has_its_own_estimate() -> None:
    model = torch.nn.Linear(7, 3).double()
    method = lambda f: shapley_sampling(
        f, samples=4, reduce=attrib.estimate, generator=seeded(), design="independent"
    )
    for targets in ([0, 2], [1]):
        found = attrib.per_target(method, model, targets)(X, 0.5)
        each = [method(attrib.target(model, t))(X, 0.5) for t in targets]
        close(found.value, torch.stack([e.value for e in each]))
        close(found.stderr, torch.stack([e.stderr for e in each]))
        assert found.samples.tolist() == [e.samples for e in each]


def test_with_a_tolerance_the_draws_are_the_same() -> None:
    found = shapley_sampling(
        bent, samples=1000, tol=0.1, generator=seeded(), reduce=attrib.estimate
    )(X)
    expected = shapley_sampling(
        bent, samples=found.samples, generator=seeded(), reduce=attrib.estimate
    )(X)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_a_tolerance_that_is_never_reached_takes_all_samples() -> None:
    found = shapley_sampling(bent, samples=50, tol=1e-9, reduce=attrib.estimate)(X)
    assert found.samples == 50
    # For a regression, all coalitions: then there is no error.
    found = kernel_shap(bent, samples=1000, tol=1e-9, reduce=attrib.estimate)(X)
    close(found.value, shapley_values(bent)(X))
    close(found.stderr, torch.zeros_like(X))


@with_banzhaf
def test_a_score_that_is_not_finite_is_reported_and_stays_in_its_row(method: Any) -> None:
    f = lambda x: bent(x) + torch.where(x[..., 0] > 5, torch.nan, 0.0)
    x = X.clone()
    x[1, 0] = 6.0
    with pytest.warns(attrib.NonFiniteWarning):
        found = method(f, generator=seeded())(x, BASELINE)
    assert found[1].isnan().all()
    close(found[[0, 2]], method(f, generator=seeded())(x[[0, 2]], BASELINE))


# Refusals.


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: shapley_sampling(bent, samples=0), "samples.range"),
        (lambda: shapley_sampling(bent, samples=2.5), "samples.type"),
        (lambda: shapley_sampling(bent, design="paired"), "design.unknown"),
        (lambda: shapley_sampling(bent, samples=4, tol=0.1), "samples.range"),
        (lambda: shapley_sampling(bent, tol=-0.1), "tol.range"),
        (lambda: shapley_sampling(bent, tol=0.1, reduce=attrib.variance), "reduce.unknown"),
        (lambda: shapley_sampling(bent, generator=3), "generator.type"),
        (lambda: kernel_shap(bent, samples=1), "samples.range"),
        (lambda: kernel_shap(bent, sampling="shap"), "sampling.unknown"),
        (lambda: kernel_shap(bent, reduce=attrib.variance), "reduce.unknown"),
        (lambda: kernel_shap(bent, samples=12)(X), "samples.few"),
        (lambda: banzhaf_values(bent, samples=12)(X), "samples.few"),
        (lambda: shapley_values(3), "f.type"),
        (lambda: torch.vmap(shapley_sampling(bent, tol=0.1))(X), "tol.traced"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Any, code: str) -> None:
    with pytest.raises(attrib.AttribError) as caught:
        make()
    assert caught.value.code == code
