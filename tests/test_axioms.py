"""Axioms as measures: what they say of attributions that are known to keep or to break them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import attrib
from attrib import metrics
from laws.networks import data, few, kinds, network, seeds


def linear(x: Tensor) -> Tensor:
    return (x * torch.arange(1.0, 4.0, dtype=x.dtype)).sum(-1)


X = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]])


@few
@given(kind=kinds, seed=seeds)
def test_the_gap_is_the_sum_less_the_rise(kind: str, seed: int) -> None:
    f = attrib.target(network(kind, seed), 0)
    x, baseline, attribution = (data(kind, seed + i) for i in range(3))
    found = attrib.metrics.completeness(f)(attribution, x, baseline)
    expected = attribution.flatten(1).sum(1) - (f(x) - f(baseline))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_complete_attribution_has_no_gap_and_one_that_is_off_has_it_signed() -> None:
    exact = X * torch.arange(1.0, 4.0)
    measure = attrib.metrics.completeness(linear)
    assert torch.equal(measure(exact, X), torch.zeros(2))
    assert torch.equal(
        measure(exact + torch.tensor([[1.0, 0, 0], [0, 0, -2.0]]), X), torch.tensor([1.0, -2.0])
    )


@pytest.mark.parametrize("baseline", [0.5, torch.full((3,), 0.5), torch.full((1, 3), 0.5)])
def test_a_baseline_is_whatever_the_method_takes(baseline: Any) -> None:
    attribution = attrib.integrated_gradients(linear)(X, baseline)
    gap = attrib.metrics.completeness(linear)(attribution, X, baseline)
    assert gap.abs().max() < 1e-5


def test_further_arguments_go_to_the_score() -> None:
    f = lambda x, power: x.pow(power).sum(-1)
    attribution = attrib.integrated_gradients(f)(X, 0, 3)
    assert attrib.metrics.completeness(f)(attribution, X, 0, 3).abs().max() < 1e-4
    assert attrib.metrics.completeness(f)(attribution, X, 0, 2).abs().max() > 1


def test_a_tree_is_summed_over_all_its_leaves() -> None:
    f = lambda x: x["a"].sum(-1) * (1 + x["ids"]) - x["b"].square().sum((-2, -1))
    x = {"a": X, "b": torch.ones(2, 2, 2), "ids": torch.tensor([0, 1])}
    attribution = attrib.integrated_gradients(f)(x)
    assert attribution["ids"] is None
    assert attrib.metrics.completeness(f)(attribution, x).abs().max() < 1e-4


def test_interactions_are_summed_over_both_features() -> None:
    f = lambda x: x.prod(-1)
    attribution = attrib.integrated_hessians(f)(X)
    assert attrib.metrics.completeness(f)(attribution, X).abs().max() < 1e-5


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_there_may_be_any_number_of_batch_dimensions(batch: tuple[int, ...]) -> None:
    x = torch.randn(*batch, 3)
    gap = attrib.metrics.completeness(linear)(attrib.integrated_gradients(linear)(x), x)
    assert gap.shape == batch and (gap.abs() < 1e-4).all()


def test_a_gap_has_the_dtype_of_the_score_and_derivatives() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        x = X.to(dtype)
        assert attrib.metrics.completeness(linear)(x, x).dtype == dtype
    x = X.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: attrib.metrics.completeness(linear)(a * a, a), x)


def test_a_gap_can_be_mapped_over_examples() -> None:
    measure = attrib.metrics.completeness(linear)
    assert torch.equal(torch.vmap(measure)(X, X), measure(X, X))


def test_the_model_may_write_to_its_input() -> None:
    def writing(x: Tensor) -> Tensor:
        return x.mul_(2).sum(-1)

    x = X.clone()
    gap = attrib.metrics.completeness(writing)(2 * X, x)
    assert torch.equal(x, X) and torch.equal(gap, torch.zeros(2))


@pytest.mark.parametrize("attribution", [torch.ones(3, 3), torch.ones(3), (X, X), "none"])
def test_an_attribution_of_something_else_is_refused(attribution: Any) -> None:
    with pytest.raises(attrib.AttribError, match="attribution: "):
        attrib.metrics.completeness(linear)(attribution, X)


def test_a_score_is_callable() -> None:
    with pytest.raises(TypeError, match="f: must be callable"):
        attrib.metrics.completeness(X)


def test_integers_are_at_the_baseline_where_they_have_attributions() -> None:
    table = torch.tensor([0.5, -1.0, 2.0, 4.0])
    f = lambda ids: table[ids].prod(-1)
    ids, mask = torch.tensor([[1, 2, 3], [3, 3, 1]]), torch.tensor([0, 0, 0])
    measure = metrics.completeness(f)
    exact = attrib.shapley_values(f)(ids, mask)
    assert measure(exact, ids, mask).abs().max() < 1e-5
    # The rise from the baseline is -8 - 1/8 and -16 - 1/8, not 0.
    torch.testing.assert_close(
        measure(torch.zeros_like(exact), ids, mask), torch.tensor([8.125, 16.125])
    )


@few
@given(kind=kinds, seed=seeds, factor=st.floats(0.1, 10))
def test_the_relative_gap_has_no_unit(kind: str, seed: int, factor: float) -> None:
    f = attrib.target(network(kind, seed), 0)
    x, baseline, attribution = (data(kind, seed + i) for i in range(3))
    found = metrics.sum_to_delta(f)(attribution, x, baseline)
    scaled = metrics.sum_to_delta(lambda x: factor * f(x))(factor * attribution, x, baseline)
    torch.testing.assert_close(scaled, found, rtol=1e-9, atol=1e-12)
    rise = f(x) - f(baseline)
    torch.testing.assert_close(found, (attribution.flatten(1).sum(1) / rise - 1).abs())


@few
@given(seed=seeds, factor=st.floats(0.1, 10), split=st.integers(1, 5))
def test_the_shares_of_dummies_and_of_the_others_make_one(
    seed: int, factor: float, split: int
) -> None:
    attribution = data("gelu", seed)
    unused = torch.arange(6) < split
    share = metrics.dummy(unused=unused)
    both = share(attribution) + metrics.dummy(unused=~unused)(attribution)
    torch.testing.assert_close(both, torch.ones_like(both))
    torch.testing.assert_close(share(factor * attribution), share(attribution))
    parts = (attribution[:, :split], attribution[:, split:])
    masks = (torch.ones(split, dtype=torch.bool), torch.zeros(6 - split, dtype=torch.bool))
    torch.testing.assert_close(metrics.dummy(unused=masks)(parts), share(attribution))


def test_leaves_without_attributions_have_no_dummies() -> None:
    measure = metrics.dummy(unused={"a": torch.tensor([True, False]), "ids": None})
    attribution = {"a": torch.tensor([[1.0, 3.0]]), "ids": None}
    assert torch.equal(measure(attribution), torch.tensor([0.25]))
    with pytest.raises(attrib.AttribError, match="unused: structure"):
        measure({"a": torch.ones(1, 2), "ids": torch.ones(1)})
    with pytest.raises(attrib.AttribError, match="unused: must be boolean"):
        metrics.dummy(unused=None)


@few
@given(kind=kinds, seed=seeds, factor=st.floats(0.1, 10))
def test_the_difference_of_two_attributions_is_mutual_and_bounded(
    kind: str, seed: int, factor: float
) -> None:
    x, one, other = (data(kind, seed + i) for i in range(3))
    differ = lambda a, b: metrics.implementation_invariance(lambda x: a, lambda x: b)(x)
    torch.testing.assert_close(differ(one, other), differ(other, one))
    torch.testing.assert_close(differ(factor * one, factor * other), differ(one, other))
    assert (differ(one, other) <= 2).all() and (differ(one, one) == 0).all()
    torch.testing.assert_close(differ(one, -one), torch.full_like(differ(one, one), 2))
    # Lengths a, b and the angle between them give the third side.
    a, b = (t.flatten(1).norm(dim=1) for t in (one, other))
    third = (a**2 + b**2 - 2 * (one * other).flatten(1).sum(1)).sqrt()
    torch.testing.assert_close(differ(one, other), third / torch.maximum(a, b))


@few
@given(seed=seeds)
def test_only_what_breaks_a_symmetry_has_a_gap(seed: int) -> None:
    x, weights = data("gelu", seed), data("gelu", seed + 1, batch=())
    flip = lambda x: x.flip(-1)
    f = lambda x: (x * (weights + flip(weights))).sum(-1).tanh()
    assert (metrics.symmetry(attrib.saliency(f), flip)(x) < 1e-12).all()
    # The gradient of w . x is w everywhere, so that the gap is that of w and its mirror image.
    gap = (weights - flip(weights)).norm() / weights.norm()
    found = metrics.symmetry(attrib.saliency(lambda x: (x * weights).sum(-1)), flip)(x)
    torch.testing.assert_close(found, gap.expand_as(found))


@few
@given(seed=seeds, a=st.floats(0.5, 2), b=st.floats(-2, -0.5))
def test_a_quadratic_method_misses_linearity_by_twice_the_product(
    seed: int, a: float, b: float
) -> None:
    x = data("gelu", seed)
    f, g = (lambda x: a * x.sum(-1)), (lambda x: b * x.sum(-1))
    squared = lambda f: lambda x: attrib.saliency(f)(x).square()
    # (a - b)^2 is not a^2 - b^2: with one number everywhere, norms are sizes.
    gap = abs((a - b) ** 2 - (a**2 - b**2)) / max((a - b) ** 2, abs(a**2 - b**2))
    found = metrics.linearity(squared, f, g)(x)
    torch.testing.assert_close(found, torch.full_like(found, gap))
    assert (metrics.linearity(attrib.saliency, f, g)(x) < 1e-12).all()
