"""Shapley values, KernelSHAP and LIME against Captum, interactions against shapiq.

Captum draws from the global generator, so that estimates are compared in distribution: their means
over many seeds, in standard errors of these means, and how widely they scatter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib.games.banzhaf import banzhaf_values
from attrib.games.interactions import interactions
from attrib.games.kernel import kernel_shap, unbiased_kernel_shap
from attrib.games.sampling import shapley_sampling
from attrib.games.shapley import shapley_values
from attrib.games.surrogate import lime

captum = pytest.importorskip("captum.attr")
pytestmark = [
    pytest.mark.parity,
    # Captum warns of masks with gaps, and that exact values take long.
    pytest.mark.filterwarnings("ignore::UserWarning:captum"),
]

PLAYERS = 6
SEEDS = 60
torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(PLAYERS, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
X, BASELINE = torch.randn(2, 1, PLAYERS)
F = attrib.target(MODEL, 1)


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def over_seeds(estimate: Callable[[int], Tensor]) -> Tensor:
    def one(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return estimate(seed).flatten()

    return torch.stack([one(seed) for seed in range(SEEDS)]).double()


def assert_the_same_mean(found: Tensor, expected: Tensor) -> None:
    gap = (found.mean(0) - expected.mean(0)).abs()
    error = ((found.var(0) + expected.var(0)) / SEEDS).sqrt()
    assert (gap <= 4 * error + 1e-6).all()


def test_exact_shapley_values() -> None:
    expected = captum.ShapleyValues(MODEL).attribute(X, BASELINE, 1, perturbations_per_eval=100)
    torch.testing.assert_close(shapley_values(F)(X, BASELINE), expected, rtol=1e-5, atol=1e-6)


def test_exact_shapley_values_of_groups() -> None:
    groups = torch.tensor([[0, 1, 1, 2, 0, 3]])
    expected = captum.ShapleyValues(MODEL).attribute(X, BASELINE, 1, feature_mask=groups)
    found = shapley_values(F, groups=groups)(X, BASELINE)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_shapley_values_from_the_same_orders() -> None:
    torch.manual_seed(3)
    orders = torch.stack([torch.randperm(PLAYERS) for _ in range(5)])
    torch.manual_seed(3)
    expected = captum.ShapleyValueSampling(MODEL).attribute(X, BASELINE, 1, n_samples=5)
    # The walk itself, one order at a time.
    found = torch.zeros(PLAYERS)
    for order in orders:
        present = torch.zeros(PLAYERS, dtype=torch.bool)
        for player in order:
            before = F(torch.where(present, X, BASELINE))
            present[player] = True
            found[player] += (F(torch.where(present, X, BASELINE)) - before).item() / 5
    torch.testing.assert_close(found[None], expected, rtol=1e-4, atol=1e-5)


def test_one_independent_order_is_distributed_as_captum_s() -> None:
    sampler = captum.ShapleyValueSampling(MODEL)
    expected = over_seeds(
        lambda seed: sampler.attribute(X, BASELINE, 1, n_samples=4, perturbations_per_eval=40)
    )
    found = over_seeds(
        lambda seed: shapley_sampling(F, samples=4, design="independent", generator=seeded(seed))(
            X, BASELINE
        )
    )
    assert_the_same_mean(found, expected)
    # The scatter of a mean of four orders; a variance from 60 seeds is good to 1 / sqrt(30).
    ratio = found.var(0).sum() / expected.var(0).sum()
    assert 1 / 1.6 < ratio < 1.6


def test_kernel_shap_has_the_mean_of_captum_s_and_scatters_less() -> None:
    sampler = captum.KernelShap(MODEL)
    samples = 40
    expected = over_seeds(
        lambda seed: sampler.attribute(
            X, BASELINE, 1, n_samples=samples, perturbations_per_eval=samples
        )
    )
    found = over_seeds(
        lambda seed: kernel_shap(F, samples=samples, generator=seeded(seed))(X, BASELINE)
    )
    unbiased = over_seeds(
        lambda seed: unbiased_kernel_shap(F, samples=samples, generator=seeded(seed))(X, BASELINE)
    )
    truth = shapley_values(F)(X, BASELINE).flatten().double().expand_as(found)
    assert_the_same_mean(found, expected)
    assert_the_same_mean(unbiased, truth)
    errors = [(estimates - truth).square().sum() for estimates in (found, expected)]
    assert errors[1] > 2.5 * errors[0]


def test_lime_has_the_mean_of_captum_s_without_a_penalty() -> None:
    linear = pytest.importorskip("captum._utils.models.linear_model")
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    similarity = get_exp_kernel_similarity_function("euclidean", kernel_width=1000.0)
    sampler = captum.Lime(
        MODEL, interpretable_model=linear.SkLearnLinearRegression(), similarity_func=similarity
    )
    expected = over_seeds(
        lambda seed: sampler.attribute(X, BASELINE, 1, n_samples=60, perturbations_per_eval=60)
    )
    # Captum measures distances in the input, so they only agree where all weights are equal.
    found = over_seeds(
        lambda seed: lime(
            F, samples=60, similarity=lambda z: torch.ones(len(z)), generator=seeded(seed)
        )(X, BASELINE)
    )
    assert_the_same_mean(found, expected)
    ratio = found.var(0).sum() / expected.var(0).sum()
    assert 1 / 1.6 < ratio < 1.6


def test_captum_returns_single_precision_for_double_and_attrib_does_not() -> None:
    # Captum 0.9.0: `ShapleyValues` always makes float32 attributions.
    model, x, baseline = MODEL.double(), X.double(), BASELINE.double()
    try:
        expected = captum.ShapleyValues(model).attribute(x, baseline, 1)
        found = shapley_values(F)(x, baseline)
        assert expected.dtype == torch.float32
        assert found.dtype == torch.float64
    finally:
        MODEL.float()


# shapiq, which is no extra of attrib: where it happens to be installed.

INDICES = {
    "shapley": "SII",
    "k-shapley": "k-SII",
    "taylor": "STII",
    "faithful": "FSII",
    "banzhaf": "BII",
    "faithful-banzhaf": "FBII",
    "moebius": "Moebius",
}


@pytest.fixture(name="exact")
def _exact() -> Any:
    shapiq = pytest.importorskip("shapiq")

    def values(coalitions: np.ndarray) -> np.ndarray:
        present = torch.as_tensor(np.asarray(coalitions), dtype=torch.bool)
        return F(torch.where(present, X, BASELINE)).double().numpy()

    return shapiq.ExactComputer(values, n_players=PLAYERS)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("order", [2, 3])
def test_interactions_are_those_of_shapiq(exact: Any, index: Any, order: int) -> None:
    expected = exact(INDICES[index], order=order if index != "moebius" else PLAYERS)
    found = interactions(F, index=index, order=order)(X, BASELINE)
    for group, number in zip(found.members, found.values[0].tolist(), strict=True):
        members = tuple(map(int, group.nonzero().flatten()))
        # shapiq keeps no entry for what is zero.
        known = expected.dict_values.get(members, 0.0)
        assert math.isclose(number, known, rel_tol=1e-3, abs_tol=1e-5), (members, number, known)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize(("name", "method"), [("SV", shapley_values), ("BV", banzhaf_values)])
def test_values_are_those_of_shapiq(exact: Any, name: str, method: Any) -> None:
    expected = exact(name, order=1)
    found = method(F)(X, BASELINE)[0]
    for player in range(PLAYERS):
        known = expected.dict_values.get((player,), 0.0)
        assert math.isclose(found[player].item(), known, rel_tol=1e-3, abs_tol=1e-5)
