"""Faults that others have had, or attrib had once, each with its smallest example."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import attrib

from . import models

X = torch.tensor([[0.3, -1.2, 0.7, 0.1], [-0.4, 0.9, -0.2, 1.1], [1.3, 0.2, 0.5, -0.8]])


def test_the_rows_of_two_scores_stay_with_their_score() -> None:
    model = models.Net()
    first, second = torch.tensor([0, 1, 2]), torch.tensor([2, 2, 0])
    f, g = attrib.target(model, first), attrib.target(model, second)
    both = attrib.integrated_gradients(attrib.contrast(f, g), steps=4)(X)
    apart = attrib.integrated_gradients(f, steps=4)(X) - attrib.integrated_gradients(g, steps=4)(X)
    torch.testing.assert_close(both, apart)


def test_a_blurred_path_starts_blurred_and_ends_sharp() -> None:
    path = attrib.blur_path(30.0, (-1,))
    torch.testing.assert_close(path(X, None, torch.tensor(1.0)), X)
    # Much wider than the row: nearly its mean.
    start = path(X, None, torch.tensor(0.0))
    torch.testing.assert_close(start, X.mean(-1, keepdim=True).expand_as(X), atol=1e-2, rtol=0)


def test_a_gap_is_what_is_attributed_beyond_the_rise() -> None:
    gap = attrib.metrics.completeness(lambda x: x.sum(-1))
    torch.testing.assert_close(gap(torch.zeros_like(X), X, 1.0), X.shape[-1] - X.sum(-1))


def test_a_tensor_of_indices_beyond_the_outputs_is_named_while_gradients_are_recorded() -> None:
    # Inside of torch.func the numbers were not looked at, and gather failed without naming them.
    f = attrib.target(models.Net(), torch.tensor([0, 1, 7]))
    with pytest.raises(attrib.AttribError, match="7 is out of range for a model with 3 outputs"):
        attrib.saliency(f)(X)


def test_a_gradient_that_is_not_a_number_does_not_stop_a_guided_path_for_ever() -> None:
    # A NaN compares with nothing: the feature that has it was never chosen, and never moved.
    def f(x: Tensor) -> Tensor:
        return (x[..., 0] - x[..., 0]).sqrt() + x.sum(-1)

    found = attrib.guided_ig(f, steps=3)(X)
    # The score is finite, the derivative of the first feature is 0 / 0.
    assert found[:, 0].isnan().all()
    torch.testing.assert_close(found[:, 1:], X[:, 1:])


def test_a_hidden_nan_is_not_an_interaction_of_zero() -> None:
    # The second derivative of a gradient that was masked is zero.
    x = X.clone()
    x[1, 2] = float("nan")
    with torch.no_grad(), pytest.warns(attrib.NonFiniteWarning):
        found = attrib.integrated_hessians(attrib.target(models.Net(relu=True), 1), steps=2)(x)
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()


def test_an_argument_edited_in_place_is_the_users_no_more() -> None:
    # Every evaluation found it as the one before had left it.
    def f(x: Tensor, scale: Tensor) -> Tensor:
        return (x * scale.mul_(2)).sum(-1)

    scale = torch.ones(4)
    attribute = attrib.integrated_gradients(f, steps=5, chunk_size=1)
    with torch.no_grad():
        torch.testing.assert_close(attribute(X, 0, scale), 2 * X)
    assert scale.tolist() == [1, 1, 1, 1]
