"""Shapley values by a Gaussian process: what follows from the pairs, coalition by coalition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import attrib
from attrib.games import kernel_shap, shapley_values
from known_games import everybody, random_game, score, seeded

SCALE, ROUNDING = 4.0, 1e-6


def close(found: Any, expected: Any, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def process(f: Any, **options: Any) -> Any:
    return kernel_shap(f, regression="gaussian_process", **options)


class Recorded:
    """A rough score of ones and zeros that remembers its coalitions."""

    def __init__(self, players: int) -> None:
        self.table = torch.rand(2**players, dtype=torch.float64, generator=seeded(players))
        self.codes: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        codes = (x * 2 ** torch.arange(x.shape[-1])).sum(-1).long()
        self.codes.append(codes.flatten())
        return self.table[codes]


def shapley_matrix(players: int) -> Any:
    """From the values of all coalitions to the Shapley values, ``(players, coalitions)``."""
    present = (np.arange(2**players)[:, None] >> np.arange(players)) & 1
    sizes = present.sum(1, keepdims=True)
    others = sizes - present
    count = [1 / (players * math.comb(players - 1, size)) for size in range(players)]
    return ((2 * present - 1) * np.array([*count, 0.0])[others]).T


@pytest.mark.parametrize(("players", "samples"), [(5, 16), (5, 24), (6, 26), (7, 40)])
def test_values_and_errors_are_those_after_conditioning_on_the_pairs(
    players: int, samples: int
) -> None:
    f = Recorded(players)
    method = process(f, samples=samples, reduce=attrib.estimate, generator=seeded(), chunk_size=1)
    found = method(everybody(players))
    seen = torch.cat(f.codes).unique().numpy()
    whole = 2**players - 1
    assert len(seen) == samples + 2
    one_of_each = seen[seen > whole - seen]
    signs = 2.0 * ((np.arange(whole + 1)[:, None] >> np.arange(players)) & 1) - 1
    table = f.table.numpy()
    differences = table[one_of_each] - table[whole - one_of_each]
    rows = signs[one_of_each]

    def covariance(a: Any, b: Any) -> Any:
        return np.sinh(SCALE / players * a @ b.T)

    # Kriging with an unknown additive part: the best linear prediction that is unbiased whatever
    # that part is, from its Lagrangian.
    own = covariance(rows, rows) + ROUNDING * np.sinh(SCALE) * np.eye(len(rows))
    system = np.block([[own, rows], [rows.T, np.zeros((players, players))]])
    beside = np.hstack([covariance(signs, rows), signs])
    solved = np.linalg.solve(system, beside.T)
    foretold = solved[: len(rows)].T @ differences
    spread = covariance(signs, signs) - beside @ solved

    # Half of the odd part of a game: the other half, and the even part, have no other values.
    shapley = shapley_matrix(players) / 2
    torch.testing.assert_close(
        found.value[0], torch.tensor(shapley @ foretold), rtol=1e-4, atol=1e-6
    )
    inverse = np.linalg.inv(system)[: len(rows), : len(rows)]
    amount = differences @ inverse @ differences / (len(rows) - players - 2)
    errors = np.sqrt(amount * np.diag(shapley @ spread @ shapley.T))
    torch.testing.assert_close(found.stderr[0], torch.tensor(errors), rtol=1e-4, atol=1e-6)
    assert found.samples == samples


@pytest.mark.parametrize("players", [1, 2, 3, 6])
def test_where_all_coalitions_are_seen_it_is_exact(players: int) -> None:
    f, x = score(players, random_game(players, 1)), everybody(players, batch=2)
    exact = shapley_values(f)(x)
    close(process(f, samples=2**players)(x), exact)
    for method in (process, kernel_shap):
        for options in ({}, {"tol": 1e-9}):
            found = method(f, samples=2**players, reduce=attrib.estimate, **options)(x)
            close(found.value, exact)
            close(found.stderr, torch.zeros_like(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_of_a_wide_score_too_the_values_sum_to_the_rise(dtype: torch.dtype) -> None:
    x = torch.rand(2, 120, dtype=dtype, generator=seeded())
    f = lambda x: (x.double() @ torch.linspace(-1, 1, 120).double()).sin().to(dtype)
    found = process(f, generator=seeded())(x, 0)
    tolerance = {torch.float16: 1e-2, torch.float32: 1e-5, torch.float64: 1e-11}[dtype]
    rise = f(x) - f(torch.zeros_like(x))
    assert (found.double().sum(-1) - rise).abs().max() < tolerance
    assert found.dtype == dtype


def test_errors_are_unknown_where_the_pairs_only_just_determine_the_values() -> None:
    x = everybody(7)
    for pairs, known in ((7, False), (8, False), (9, True), (20, True)):
        found = process(Recorded(7), samples=2 * pairs, reduce=attrib.estimate, generator=seeded())(
            x
        )
        assert found.value.isfinite().all()
        assert bool(found.stderr.isfinite().all()) == known
        assert bool(found.stderr.isnan().all()) == (not known)


@pytest.mark.parametrize("size", [1e3, 1e8, 1e11])
def test_an_additive_part_however_large_leaves_the_errors_alone(size: float) -> None:
    weights = torch.randn(10, 16, dtype=torch.float64, generator=seeded(6))
    x = torch.randn(4, 10, dtype=torch.float64, generator=seeded(7))

    def errors(size: float) -> Tensor:
        f = lambda x: (x @ weights).tanh().sum(-1) + size * x.sum(-1)
        return process(f, reduce=attrib.estimate, generator=seeded())(x).stderr

    torch.testing.assert_close(errors(size), errors(0.0), rtol=1e-2, atol=0)


def test_it_is_nearer_than_least_squares_from_the_same_coalitions() -> None:
    rows = torch.randn(12, 9, dtype=torch.float64, generator=seeded(1))
    first = torch.randn(9, 16, dtype=torch.float64, generator=seeded(2)) / 2
    last = torch.randn(16, dtype=torch.float64, generator=seeded(3))
    for f in (
        lambda x: torch.relu(x @ first) @ last,
        lambda x: (torch.tanh(x @ first) @ last).sigmoid(),
    ):
        exact = shapley_values(f)(rows)
        errors = [
            torch.stack(
                [
                    (kernel_shap(f, regression=kind, generator=seeded(seed))(rows) - exact).square()
                    for seed in range(10)
                ]
            ).mean()
            for kind in ("least_squares", "gaussian_process")
        ]
        assert errors[0] > 1.5 * errors[1] > 1e-9


def test_derivatives_and_maps_go_through_it() -> None:
    weights = torch.randn(6, 6, dtype=torch.float64, generator=seeded(4))
    f = lambda x: ((x @ weights).tanh() * x).sum(-1)
    x = torch.randn(3, 6, dtype=torch.float64, generator=seeded(5))
    method = process(f, samples=30)
    expected = method(x)
    close(torch.vmap(method, randomness="same")(x), expected)
    variable = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(method(variable).square().sum(), variable)
    step = 1e-6 * torch.ones_like(x)
    change = (method(x + step).square().sum() - method(x - step).square().sum()) / 2
    close((slope * step).sum(), change, 1e-9)
    errors = lambda x: process(f, samples=30, reduce=attrib.estimate)(x).stderr
    close(torch.vmap(errors, randomness="same")(x), errors(x), 1e-7)


def test_another_regression_is_refused() -> None:
    with pytest.raises(attrib.AttribError) as caught:
        kernel_shap(lambda x: x.sum(-1), regression="lasso")  # pyright: ignore[reportArgumentType]
    assert caught.value.code == "regression.unknown"
    assert "least_squares" in str(caught.value) and "gaussian_process" in str(caught.value)
