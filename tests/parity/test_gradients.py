"""Saliency and input times gradient against Captum, with every form of target and input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attrib

from .comparing import assert_close
from .networks import NETWORKS, pair

captum = pytest.importorskip("captum.attr")

pytestmark = [
    pytest.mark.parity,
    # Captum warns whenever an input does not require gradients.
    pytest.mark.filterwarnings("ignore:.*require gradients:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*requires_grad:UserWarning"),
]


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("network", NETWORKS)
def test_saliency_is_captums_signed_saliency(network: str) -> None:
    model, x = NETWORKS[network]()
    theirs = captum.Saliency(model).attribute(x, target=2, abs=False)
    assert_close(attrib.saliency(attrib.target(model, 2))(x), theirs)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_magnitude_of_saliency_is_captums_default(network: str) -> None:
    model, x = NETWORKS[network]()
    theirs = captum.Saliency(model).attribute(x, target=2)
    assert_close(attrib.saliency(attrib.target(model, 2))(x).abs(), theirs)


@pytest.mark.parametrize("network", NETWORKS)
def test_input_times_gradient_is_captums(network: str) -> None:
    model, x = NETWORKS[network]()
    theirs = captum.InputXGradient(model).attribute(x, target=1)
    assert_close(attrib.input_x_gradient(attrib.target(model, 1))(x), theirs)


def dense(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Outputs of shape (batch, 4, 3)."""
    return lambda x: model(x)[:, :, None] * torch.arange(1.0, 4.0, dtype=x.dtype)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (3, 3),
        (-1, -1),
        (torch.tensor(3), torch.tensor(3)),
        (torch.tensor([3]), torch.tensor([3])),
        (torch.tensor([0, 3, 1, 1, 2]), torch.tensor([0, 3, 1, 1, 2])),
        (torch.tensor([0, 3, 1, 1, 2]), [0, 3, 1, 1, 2]),
    ],
    ids=["int", "negative", "0-d", "one entry", "per example", "per example as a list"],
)
def test_a_target_means_what_it_means_to_captum(ours: Any, theirs: Any) -> None:
    model, x = NETWORKS["mlp"]()
    expected = captum.Saliency(model).attribute(x, target=theirs, abs=False)
    assert_close(attrib.saliency(attrib.target(model, ours))(x), expected)


def test_a_tuple_selects_from_dense_outputs_as_in_captum() -> None:
    model, x = NETWORKS["mlp"]()
    expected = captum.Saliency(dense(model)).attribute(x, target=(1, 2), abs=False)
    assert_close(attrib.saliency(attrib.target(dense(model), (1, 2)))(x), expected)


def test_a_tuple_for_every_example_is_a_function_of_the_output() -> None:
    model, x = NETWORKS["mlp"]()
    places = [(0, 0), (1, 2), (3, 1), (2, 2), (0, 1)]
    expected = captum.Saliency(dense(model)).attribute(x, target=places, abs=False)
    rows, columns = torch.tensor(places).T
    score = attrib.target(dense(model), lambda out: out[torch.arange(5), rows, columns])
    assert_close(attrib.saliency(score)(x), expected)


def test_no_target_is_one_output_per_example_as_in_captum() -> None:
    model, x = NETWORKS["mlp"]()
    expected = captum.Saliency(lambda x: model(x)[:, 1]).attribute(x, abs=False)
    assert_close(attrib.saliency(attrib.target(lambda x: model(x)[:, 1]))(x), expected)


def test_a_tuple_of_inputs_gives_a_tuple_as_in_captum() -> None:
    model, inputs = pair()
    for theirs, ours in (
        (captum.Saliency(model).attribute(inputs, target=0, abs=False), attrib.saliency),
        (captum.InputXGradient(model).attribute(inputs, target=0), attrib.input_x_gradient),
    ):
        found = ours(attrib.target(model, 0))(inputs)
        assert isinstance(found, tuple)
        assert_close(found, theirs)


def test_further_arguments_are_captums_additional_forward_args() -> None:
    model, inputs = pair()
    scale = torch.rand(4, 3, dtype=torch.float64)
    theirs = captum.Saliency(model).attribute(
        inputs, target=0, abs=False, additional_forward_args=scale
    )
    assert_close(attrib.saliency(attrib.target(model, 0))(inputs, scale), theirs)


# Deviations: what Captum 0.9.0 does there, and why attrib does otherwise.


def test_deviation_a_numpy_integer_is_a_target() -> None:
    """Captum asks for an `int`, which the result of `argmax` of an array is not."""
    model, x = NETWORKS["mlp"]()
    with pytest.raises(AssertionError):
        captum.Saliency(model).attribute(x, target=np.int64(1))
    expected = captum.Saliency(model).attribute(x, target=1, abs=False)
    assert_close(attrib.saliency(attrib.target(model, np.int64(1)))(x), expected)


def test_deviation_one_tensor_as_two_inputs_has_two_partial_derivatives() -> None:
    """Captum differentiates with respect to the tensor object, and gives the total twice."""
    x = torch.tensor([[2.0]], dtype=torch.float64)

    def model(a: Tensor, b: Tensor) -> Tensor:
        return (a**2 * b)[:, 0]

    total = captum.Saliency(model).attribute((x, x), abs=False)
    assert [float(g) for g in total] == [12.0, 12.0]
    partial = attrib.saliency(lambda pair: model(*pair))((x, x))
    assert [float(g) for g in partial] == [8.0, 4.0]


def test_deviation_a_nan_is_not_hidden_by_a_relu() -> None:
    """Autograd gives ReLU(NaN) the derivative one, and Captum the finite map that follows."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.tensor([[0.1, float("nan"), 0.3]])
    assert captum.Saliency(model).attribute(x, target=0).isfinite().all()
    with pytest.warns(attrib.NonFiniteWarning):
        assert attrib.saliency(attrib.target(model, 0))(x).isnan().all()


def test_deviation_an_attribution_carries_its_derivative() -> None:
    """Captum's `requires_grad` says so too, but treats the gradient as a constant."""
    x = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)

    def cube(x: Tensor) -> Tensor:
        return (x**3).sum(-1)

    with torch.enable_grad():
        theirs = captum.InputXGradient(cube).attribute(x)
        ours = attrib.input_x_gradient(cube)(x)
        (derived,) = torch.autograd.grad(ours.sum(), x)
        (wrong,) = torch.autograd.grad(theirs.sum(), x)
    assert_close(ours, theirs)
    # The sum is 3 x^3, whose derivative is 9 x^2; with the factor 3 x^2 held fixed it is 3 x^2.
    assert_close(derived, 9 * x**2)
    assert_close(wrong, 3 * x**2)
