"""Axioms as measures: the completeness gap."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

import attrib
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
