"""Correlations of attributions with what the score loses: closed forms, NumPy and SciPy."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import attrib
from attrib import games, metrics
from attrib.metrics._statistics import correlation_of, residual_of
from laws.networks import data, few, kinds, network, seeds

W = torch.tensor([4.0, -1.0, 2.0, 0.5], dtype=torch.float64)
X = torch.tensor([[1.0, 2.0, -1.0, 3.0], [0.5, 0.0, 2.0, 1.0]], dtype=torch.float64)


def linear(x: Tensor) -> Tensor:
    return x @ W


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_terms_of_a_linear_score_satisfy_sensitivity_n(size: int) -> None:
    found = metrics.faithfulness_correlation(linear, size=size, samples=30)(W * X, X)
    torch.testing.assert_close(found, torch.ones(2).double())
    found = metrics.sensitivity_n(linear, sizes=[1, size], samples=30)(-W * X, X)
    torch.testing.assert_close(found, -torch.ones(2).double())
    found = metrics.faithfulness_estimate(linear)(2 * W * X + 1, X)
    torch.testing.assert_close(found, torch.ones(2).double())


@few
@given(kind=kinds, seed=seeds)
def test_the_estimate_is_the_correlation_with_ablations(kind: str, seed: int) -> None:
    f = attrib.target(network(kind, seed), 0)
    x, baseline, phi = (data(kind, seed + i) for i in range(3))
    lost = games.feature_ablation(f)(x, baseline).flatten(1).detach()
    found = metrics.faithfulness_estimate(f)(phi, x, baseline)
    for row in range(len(x)):
        expected = np.corrcoef(phi.flatten(1)[row], lost[row])[0, 1]
        assert found[row].item() == pytest.approx(expected, abs=1e-9)


def over_all_sets(f: Any, phi: Tensor, x: Tensor, size: int) -> float:
    """The correlation over all sets of a size, by enumeration."""
    predicted: list[float] = []
    lost: list[float] = []
    for members in combinations(range(x.shape[1]), size):
        hidden = x.clone()
        hidden[:, list(members)] = 0
        predicted.append(float(phi[:, list(members)].sum()))
        lost.append(float(f(x) - f(hidden)))
    return float(np.corrcoef(predicted, lost)[0, 1])


def test_random_sets_give_the_mean_over_sizes_of_the_correlation_over_all_sets() -> None:
    f = lambda x: (x.cumsum(-1).sin() * W).sum(-1)
    phi, x = torch.tensor([[1.0, 0.2, -0.5, 2.0]]).double(), X[:1]
    exact = {size: over_all_sets(f, phi, x, size) for size in (1, 2, 3)}
    # The spread of a sample correlation is at most about 1 / sqrt(samples).
    found = metrics.faithfulness_correlation(f, size=2, samples=10_000)(phi, x)
    assert found.item() == pytest.approx(exact[2], abs=0.05)
    found = metrics.sensitivity_n(f, sizes=[1, 3], samples=10_000)(phi, x)
    assert found.item() == pytest.approx((exact[1] + exact[3]) / 2, abs=0.05)
    assert abs(exact[2] - (exact[1] + exact[3]) / 2) > 0.1  # else the sizes would not matter


def test_groups_are_hidden_as_one() -> None:
    groups = torch.tensor([0, 0, 1, 2])
    terms = W * X
    by_group = torch.stack([terms[:, :2].sum(-1), terms[:, 2], terms[:, 3]], -1)
    for phi in (terms, by_group):
        found = metrics.faithfulness_estimate(linear, groups=groups)(phi, X)
        torch.testing.assert_close(found, torch.ones(2).double())


def test_draws_do_not_depend_on_chunks() -> None:
    f, phi = (lambda x: x.cumsum(-1).sin().sum(-1)), torch.randn(2, 4).double()
    values = [
        metrics.sensitivity_n(
            f,
            sizes=[1, 3],
            samples=50,
            chunk_size=size,
            generator=torch.Generator().manual_seed(4),
        )(phi, X)
        for size in (1, 7, None, "auto")
    ]
    for value in values[1:]:
        torch.testing.assert_close(value, values[0], rtol=1e-10, atol=1e-12)


def test_a_correlation_with_a_constant_is_nan() -> None:
    assert metrics.faithfulness_estimate(lambda x: x.sum(-1))(
        torch.ones(1, 4), torch.ones(1, 4)
    ).isnan()
    assert metrics.pearson(torch.full((3,), 0.1), torch.arange(3.0)).isnan()
    assert metrics.spearman(torch.ones(3), torch.arange(3.0)).isnan()


def test_a_set_of_all_features_is_refused() -> None:
    with pytest.raises(attrib.AttribError) as error:
        metrics.faithfulness_correlation(linear, size=4)(X, X)
    assert error.value.code == "size.range"


# --- statistics -----------------------------------------------------------------------------------

lists = st.lists(st.integers(-4, 4), min_size=4, max_size=12)


@given(first=lists, seed=seeds)
def test_correlations_are_those_of_scipy(first: list[int], seed: int) -> None:
    stats: Any = pytest.importorskip("scipy.stats")
    a = np.array(first, dtype=float)
    b = np.random.default_rng(seed).integers(-3, 4, len(a)).astype(float)
    if a.std() == 0 or b.std() == 0:
        return
    one, two = torch.tensor(a), torch.tensor(b)
    assert metrics.pearson(one, two).item() == pytest.approx(stats.pearsonr(a, b)[0], abs=1e-12)
    assert metrics.spearman(one, two).item() == pytest.approx(stats.spearmanr(a, b)[0], abs=1e-12)


@pytest.mark.parametrize("size", [1, 3, 10])
def test_pairs_in_chunks_are_the_pairs(size: int) -> None:
    a = torch.randn(10, 2).double() + 1e6
    b = 3 * a + torch.randn(10, 2).double()
    chunks = list(zip(a.split(size), b.split(size), strict=True))
    whole = torch.stack([torch.tensor(np.corrcoef(a[:, i], b[:, i])[0, 1]) for i in range(2)])
    torch.testing.assert_close(correlation_of(iter(chunks)), whole, rtol=1e-7, atol=0)
    for i in range(2):
        slope = torch.linalg.lstsq(a[:, i, None], b[:, i, None]).solution
        expected = (b[:, i, None] - a[:, i, None] @ slope).square().mean()
        torch.testing.assert_close(residual_of(iter(chunks))[i], expected, rtol=1e-6, atol=0)


def test_ranks_can_be_mapped_over_examples() -> None:
    a, b = torch.randn(5, 8), torch.randn(5, 8)
    assert torch.equal(torch.vmap(metrics.spearman)(a, b), metrics.spearman(a, b))
