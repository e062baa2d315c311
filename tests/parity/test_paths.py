"""Integrated gradients against Captum: every quadrature, baselines, batches, the delta."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import attrib

from .comparing import FLOAT32_WEIGHTS, assert_close, relative
from .networks import NETWORKS, ToyModel, pair

captum = pytest.importorskip("captum.attr")
approximation = pytest.importorskip("captum.attr._utils.approximation_methods")

pytestmark = pytest.mark.parity

RULES = {
    "gauss-legendre": "gausslegendre",
    "midpoint": "riemann_middle",
    "left": "riemann_left",
    "right": "riemann_right",
    "trapezoid": "riemann_trapezoid",
}
PUBLISHED = torch.tensor([[-0.5922, -1.5497, -1.0067], [0.0000, -0.2219, -5.1991]])


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


def share(quadrature: str, steps: int) -> float:
    """What Captum's weights sum to: all of its rules to one but the trapezoid, named so for its
    halved ends, whose other weights should be 1 / (steps - 1) and are 1 / steps."""
    return (steps - 1) / steps if quadrature == "trapezoid" else 1.0


# The published example.


def toy() -> tuple[ToyModel, Tensor]:
    """The model and input of the published example."""
    model = ToyModel()
    torch.manual_seed(123)
    return model, torch.rand(2, 3)


def test_the_published_attributions_are_found_to_every_printed_digit() -> None:
    model, x = toy()
    found = attrib.integrated_gradients(attrib.target(model, 0))(x)
    # Half a unit of the last digit that is printed.
    assert (found - PUBLISHED).abs().max() <= 0.5e-4


def test_the_published_attributions_are_complete() -> None:
    model, x = toy()
    f = attrib.target(model, 0)
    gap = attrib.metrics.completeness(f)(attrib.integrated_gradients(f)(x), x)
    assert gap.abs().max() < 1e-6


def test_the_published_attributions_are_those_of_captum_today() -> None:
    model, x = toy()
    theirs = captum.IntegratedGradients(model).attribute(x, torch.zeros_like(x), target=0)
    # Float32: a sum of fifty terms.
    assert_close(attrib.integrated_gradients(attrib.target(model, 0))(x), theirs, tolerance=1e-6)


# Quadratures.


@pytest.mark.parametrize("quadrature", RULES)
@pytest.mark.parametrize("network", NETWORKS)
def test_integrated_gradients_are_captums_up_to_its_float32_weights(
    network: str, quadrature: Any
) -> None:
    model, x = NETWORKS[network]()
    # Not a constant image: max pooling would have ties, which rounding decides.
    baseline = 0.3 * x.flip(0)
    theirs = captum.IntegratedGradients(model).attribute(
        x, baseline, target=1, n_steps=20, method=RULES[quadrature]
    )
    f = attrib.target(model, 1)
    ours = attrib.integrated_gradients(f, steps=20, quadrature=quadrature)(x, baseline)
    scaled = ours * share(quadrature, 20)
    # A node that is rounded moves the gradient by as much: its size on the way bounds both.
    assert_close(scaled, theirs, tolerance=4 * FLOAT32_WEIGHTS)


@pytest.mark.parametrize("quadrature", RULES)
def test_nothing_but_the_float32_weights_and_nodes_separates_the_two(quadrature: str) -> None:
    model, x = NETWORKS["mlp"]()
    baseline = 0.3 * torch.ones_like(x)
    theirs = captum.IntegratedGradients(model).attribute(
        x, baseline, target=1, n_steps=20, method=RULES[quadrature]
    )
    weights, nodes = approximation.approximation_parameters(RULES[quadrature])
    gradient = attrib.saliency(attrib.target(model, 1))
    rounded = torch.tensor(weights(20)).float().double()
    points = [baseline + alpha * (x - baseline) for alpha in nodes(20)]
    by_hand = sum(w * gradient(p) for w, p in zip(rounded, points, strict=True)) * (x - baseline)
    assert_close(by_hand, theirs)


def test_deviation_the_weights_of_captums_trapezoid_do_not_sum_to_one() -> None:
    """On a linear model Captum's trapezoid with n steps is (n - 1) / n of the closed form."""
    weight = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    x = torch.rand(2, 3, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        return x @ weight

    theirs = captum.IntegratedGradients(model).attribute(x, n_steps=50, method="riemann_trapezoid")
    assert_close(theirs, 0.98 * x * weight, tolerance=4 * FLOAT32_WEIGHTS)
    ours = attrib.integrated_gradients(model, steps=50, quadrature="trapezoid")(x)
    assert_close(ours, x * weight)


def test_deviation_float64_is_kept_to_the_last_digit() -> None:
    """Captum's weights are float32, so that of its result only about nine digits are right."""
    x = torch.tensor([[0.7, -1.3, 0.4]], dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        return (x**3).sum(-1)

    theirs = captum.IntegratedGradients(model).attribute(x)
    ours = attrib.integrated_gradients(model)(x)
    assert_close(ours, x**3, tolerance=1e-14)
    assert 1e-11 < relative(theirs, x**3) < FLOAT32_WEIGHTS


def test_deviation_half_precision_comes_back_in_half_precision() -> None:
    """Captum multiplies by float32 weights, and returns their dtype."""
    x = torch.tensor([[0.5, 1.0]], dtype=torch.bfloat16)

    def model(x: Tensor) -> Tensor:
        return x.square().sum(-1)

    assert captum.IntegratedGradients(model).attribute(x).dtype == torch.float32
    assert attrib.integrated_gradients(model)(x).dtype == torch.bfloat16


# Baselines, targets, batches.


@pytest.mark.parametrize("baseline", [None, 0.4, "row", "full"])
def test_a_baseline_means_what_it_means_to_captum(baseline: Any) -> None:
    model, x = NETWORKS["mlp"]()
    chosen = {"row": x.mean(0, keepdim=True), "full": x.flip(0)}.get(baseline, baseline)
    theirs = captum.IntegratedGradients(model).attribute(x, chosen, target=1, n_steps=10)
    ours = attrib.integrated_gradients(attrib.target(model, 1), steps=10)
    found = ours(x) if chosen is None else ours(x, chosen)
    assert_close(found, theirs, tolerance=FLOAT32_WEIGHTS)


@pytest.mark.parametrize("target", [-1, torch.tensor([0, 3, 1, 1, 2])], ids=["negative", "rows"])
def test_a_target_goes_along_the_path_as_in_captum(target: Any) -> None:
    model, x = NETWORKS["mlp"]()
    theirs = captum.IntegratedGradients(model).attribute(x, target=target, n_steps=10)
    ours = attrib.integrated_gradients(attrib.target(model, target), steps=10)(x)
    assert_close(ours, theirs, tolerance=FLOAT32_WEIGHTS)


def test_a_tuple_of_inputs_and_an_argument_go_along_the_path_as_in_captum() -> None:
    model, inputs = pair()
    scale = torch.rand(4, 3, dtype=torch.float64)
    baselines = tuple(0.1 * torch.ones_like(x) for x in inputs)
    theirs = captum.IntegratedGradients(model).attribute(
        inputs, baselines, target=2, n_steps=10, additional_forward_args=scale
    )
    ours = attrib.integrated_gradients(attrib.target(model, 2), steps=10)(inputs, baselines, scale)
    assert isinstance(ours, tuple)
    assert_close(ours, theirs, tolerance=FLOAT32_WEIGHTS)


def test_deviation_an_argument_that_is_no_row_is_left_alone() -> None:
    """Captum repeats every tensor argument along dimension 0, whatever it means."""
    model, inputs = pair()
    scale = torch.rand(3, dtype=torch.float64)
    with pytest.raises(RuntimeError):
        captum.IntegratedGradients(model).attribute(
            inputs, target=2, n_steps=10, additional_forward_args=scale
        )
    rows = scale.expand(4, 3)
    ours = attrib.integrated_gradients(attrib.target(model, 2), steps=10)
    assert_close(ours(inputs, 0, scale), ours(inputs, 0, rows))


@pytest.mark.parametrize("size", [1, 3, 20])
def test_chunks_change_as_little_as_captums_internal_batches(size: int) -> None:
    model, x = NETWORKS["mlp"]()
    theirs = captum.IntegratedGradients(model).attribute(
        x, target=1, n_steps=20, internal_batch_size=size * len(x)
    )
    f = attrib.target(model, 1)
    ours = attrib.integrated_gradients(f, steps=20, chunk_size=size)(x)
    assert_close(ours, theirs, tolerance=FLOAT32_WEIGHTS)


@pytest.mark.parametrize("network", NETWORKS)
def test_completeness_is_captums_convergence_delta(network: str) -> None:
    model, x = NETWORKS[network]()
    baseline = 0.1 * torch.ones_like(x)
    theirs, delta = captum.IntegratedGradients(model).attribute(
        x, baseline, target=1, n_steps=5, method="riemann_left", return_convergence_delta=True
    )
    gap = attrib.metrics.completeness(attrib.target(model, 1))(theirs, x, baseline)
    assert gap.abs().min() > 1e-4  # there is something to compare
    assert_close(gap, delta, tolerance=1e-11)


@pytest.mark.parametrize("network", NETWORKS)
def test_average_gradient_is_captums_without_the_input(network: str) -> None:
    model, x = NETWORKS[network]()
    baseline = 0.3 * torch.ones_like(x)
    theirs = captum.IntegratedGradients(model, multiply_by_inputs=False).attribute(
        x, baseline, target=1, n_steps=20
    )
    ours = attrib.average_gradient(attrib.target(model, 1), steps=20)(x, baseline)
    assert_close(ours, theirs, tolerance=FLOAT32_WEIGHTS)
