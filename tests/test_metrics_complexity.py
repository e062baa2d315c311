"""Sparseness, entropy, effective complexity; pointing, mass, rank, overlap: values by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attrib
from attrib import metrics

rows = st.lists(st.floats(-5, 5), min_size=2, max_size=8).filter(lambda v: max(map(abs, v)) > 1e-3)


@given(rows)
def test_sparseness_is_the_mean_difference_of_sizes(values: list[float]) -> None:
    """The Gini index is half of the relative mean absolute difference (Gini 1912)."""
    sizes = [abs(v) for v in values]
    n = len(sizes)
    expected = sum(abs(a - b) for a in sizes for b in sizes) / (2 * n * sum(sizes))
    found = metrics.sparseness()(torch.tensor([values], dtype=torch.float64))
    assert found.item() == pytest.approx(expected, abs=1e-12)


@given(rows)
def test_entropy_is_that_of_the_shares(values: list[float]) -> None:
    shares = [abs(v) / sum(map(abs, values)) for v in values]
    expected = -sum(p * math.log(p) for p in shares if p > 0)
    found = metrics.entropy()(torch.tensor([values], dtype=torch.float64))
    assert found.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("count", [1, 4, 9])
def test_one_feature_is_simplest_and_equal_ones_are_not(count: int) -> None:
    one, equal = torch.zeros(1, 9).double(), torch.zeros(1, count).double() - 2
    one[0, 3] = -5.0
    assert metrics.sparseness()(one).item() == pytest.approx(1 - 1 / 9)
    assert metrics.sparseness()(equal).item() == pytest.approx(0, abs=1e-15)
    assert metrics.entropy()(one).item() == 0
    assert metrics.entropy()(equal).item() == pytest.approx(math.log(count), abs=1e-15)


def test_an_attribution_of_zeros_has_no_complexity() -> None:
    for measure in (metrics.sparseness(), metrics.entropy()):
        assert measure(torch.zeros(2, 3)).isnan().all()


def test_trees_count_all_their_leaves_and_absent_ones_none() -> None:
    a, b = torch.randn(4, 3).double(), torch.randn(4, 2, 2).double()
    flat = torch.cat([a, b.flatten(1)], 1)
    for measure in (metrics.sparseness(), metrics.entropy()):
        torch.testing.assert_close(measure({"a": a, "b": b, "ids": None}), measure(flat))


def test_complexities_have_derivatives_and_batches() -> None:
    a = torch.randn(2, 5).double().requires_grad_()
    for make in (metrics.sparseness, metrics.entropy):
        assert torch.autograd.gradcheck(make(), a)
        assert torch.equal(make(batch_dims=0)(a[0]), make()(a)[0])
        assert torch.equal(torch.vmap(make(batch_dims=0))(a), make()(a))
        assert make(batch_dims=2)(a[None]).shape == (1, 2)
        with pytest.raises(attrib.AttribError, match="batch_dims"):
            make()(a.sum())


def test_effective_complexity_counts_features_until_the_score_is_known() -> None:
    weight = torch.tensor([1.0, -3.0, 2.0, 0.1]).double()
    f, x = (lambda x: x @ weight), torch.ones(1, 4).double()
    phi = weight[None]
    # Without the rest the score is off by 0.1, then 1.1, 3.1 and 0.1.
    off = {4: 0.0, 3: 0.1, 2: 1.1, 1: 3.1, 0: 0.1}
    for tol in (0.0, 0.02, 1.3, 10.0):
        expected = min(k for k, gap in off.items() if gap**2 <= tol)
        found = metrics.effective_complexity(f, tol=tol)(phi, x)
        assert found.item() == expected
    # The sizes order them: without the largest one, the score of which is negative, 10 is missing.
    x = torch.tensor([[1.0, -10.0]]).double()
    found = metrics.effective_complexity(lambda x: x.sum(-1), tol=2.0)(x, x)
    assert found.item() == 1


def test_effective_complexity_over_a_set_of_baselines_takes_the_mean_square() -> None:
    """A mean score may hit by chance what no single one does."""
    f, x = (lambda x: x.sum(-1)), torch.ones(1, 2).double()
    baselines = torch.tensor([[1.0, 0.0], [1.0, 2.0]]).double()
    phi = torch.tensor([[2.0, 1.0]]).double()
    for chunk_size in (1, 3, None):
        task: Any = {"interventional": True, "chunk_size": chunk_size}
        found = metrics.effective_complexity(f, tol=0.5, **task)(phi, x, baselines)
        assert found.item() == 2  # one feature leaves errors of -1 and 1: their mean square is 1
        found = metrics.effective_complexity(f, tol=1.0, **task)(phi, x, baselines)
        assert found.item() == 0  # the first one is right in both


def test_effective_complexity_of_a_module_is_that_of_the_function() -> None:
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
    ).double()
    x, phi = torch.randn(6, 5).double(), torch.randn(6, 5).double()
    values = [
        metrics.effective_complexity(f, tol=0.01)(phi, x, 0.2)
        for f in (attrib.target(model, 1), lambda x: model(x)[..., 1])
    ]
    assert torch.equal(*values) and values[0].unique().numel() > 1


# --- localisation ---------------------------------------------------------------------------------

PHI = torch.tensor([[0.0, 5.0, 2.0, -9.0], [4.0, 1.0, 3.0, 2.0]]).double()
MASK = torch.tensor([[False, False, True, True], [True, False, True, False]])


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (metrics.pointing_game(), [0.0, 1.0]),
        (metrics.pointing_game(tolerance=1), [1.0, 1.0]),
        (metrics.relevance_mass(), [2 / 7, 7 / 10]),
        (metrics.relevance_rank(), [1 / 2, 1.0]),
        (metrics.top_k(k=1), [0.0, 1.0]),
        (metrics.top_k(k=3), [1 / 3, 2 / 3]),
        (metrics.iou(), [0.0, 2 / 3]),  # {1} and {0, 2, 3} are at least half of the largest
        (metrics.iou(threshold=0.4), [1 / 3, 2 / 3]),
        (metrics.iou(threshold=0.0), [1 / 3, 2 / 4]),
    ],
)
def test_localisations_by_hand(measure: Any, expected: list[float]) -> None:
    torch.testing.assert_close(measure(PHI, MASK), torch.tensor(expected).double())


def test_a_perfect_map_is_perfect() -> None:
    for make in (
        metrics.pointing_game,
        metrics.relevance_mass,
        metrics.relevance_rank,
        metrics.iou,
    ):
        assert torch.equal(make()(MASK.double(), MASK), torch.ones(2).double())
        assert torch.equal(
            make(batch_dims=0)(MASK[0].double(), MASK[0]), torch.tensor(1.0).double()
        )


def test_channels_are_summed_whether_the_mask_has_them_or_not() -> None:
    phi, mask = torch.randn(3, 2, 4, 5).double(), torch.rand(3, 4, 5) > 0.6
    for measure in (metrics.relevance_mass(), metrics.relevance_rank(), metrics.iou()):
        expected = measure(phi.sum(1), mask)
        assert torch.equal(measure(phi, mask), expected)
        assert torch.equal(measure(phi, mask[:, None]), expected)


def test_tolerance_is_a_distance_in_pixels() -> None:
    phi, mask = torch.zeros(1, 5, 7), torch.zeros(1, 5, 7, dtype=torch.bool)
    phi[0, 1, 1], mask[0, 4, 5] = 1.0, True  # 3 down and 4 to the right
    assert metrics.pointing_game(tolerance=4.99)(phi, mask).item() == 0
    assert metrics.pointing_game(tolerance=5)(phi, mask).item() == 1


def test_what_is_not_there_is_nan() -> None:
    nothing = torch.zeros(2, 4, dtype=torch.bool)
    assert metrics.relevance_rank()(PHI, nothing).isnan().all()
    assert metrics.relevance_mass()(-PHI.abs(), MASK).isnan().all()
    broken = PHI.clone()
    broken[0, 0] = math.nan
    assert metrics.pointing_game()(broken, MASK).isnan().tolist() == [True, False]


def test_a_function_is_called_with_what_stands_behind_the_mask() -> None:
    attribute = lambda x, factor: factor * x
    found = metrics.relevance_rank(attribute)(PHI, MASK, -1.0)
    assert torch.equal(found, metrics.relevance_rank()(-PHI, MASK))
    assert torch.equal(metrics.sparseness(attribute)(PHI, 2.0), metrics.sparseness()(2 * PHI))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: metrics.iou()(PHI, MASK.double()), "mask.type"),
        (lambda: metrics.iou()(PHI, MASK[:, :3]), "mask.shape"),
        (lambda: metrics.iou()(PHI, MASK[:1]), "mask.shape"),
        (lambda: metrics.iou()((PHI, PHI), MASK), "attribution.type"),
        (lambda: metrics.iou()("none", MASK), "attribution.type"),
        (lambda: metrics.top_k(k=5)(PHI, MASK), "k.range"),
        (lambda: metrics.top_k(k=0), "k.range"),
        (lambda: metrics.iou(threshold=2.0), "threshold.range"),
        (lambda: metrics.effective_complexity(lambda x: x, tol=-1.0), "tol.range"),
        (lambda: metrics.sparseness(torch.ones(2)), "attribute.type"),
    ],
)
def test_bad_arguments_are_refused(make: Any, code: str) -> None:
    with pytest.raises(attrib.AttribError) as error:
        make()
    assert error.value.code == code
