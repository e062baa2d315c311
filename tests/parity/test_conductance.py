"""Conductance against its definition and against Captum, which leaves out parts of the path."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attrib

from .comparing import assert_close, relative
from .networks import NETWORKS

captum = pytest.importorskip("captum.attr")
approximation = pytest.importorskip("captum.attr._utils.approximation_methods")

pytestmark = pytest.mark.parity

METHODS = ["gausslegendre", "riemann_middle", "riemann_left", "riemann_right", "riemann_trapezoid"]
SITES = [("mlp", "0"), ("mlp", "3"), ("cnn", "2"), ("cnn", "4"), ("transformer", "layer.linear1")]


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


def smooth() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(5)
    layers = nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 8), nn.Sigmoid(), nn.Linear(8, 3)
    model = nn.Sequential(*layers).double()
    return model, 2 * torch.randn(5, 6).double(), 2 * torch.randn(5, 6).double()


def by_definition(model: nn.Sequential, cut: int, x: Tensor, baseline: Tensor) -> Tensor:
    """The integral of gradient times velocity of what leaves the module `cut`, with 200 nodes."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    found: Any = 0
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        point = baseline + float(node) * (x - baseline)
        h, velocity = torch.autograd.functional.jvp(model[: cut + 1], point, x - baseline)
        gradient = torch.func.grad(lambda h: model[cut + 1 :](h)[:, 1].sum())(h)
        found = found + float(weight) * gradient * velocity
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("network", "site"), SITES)
def test_deviation_captums_conductance_misses_the_ends_of_the_path(
    network: str, site: str, method: str
) -> None:
    """It adds the gradient at the start of a step times the change of the layer in it, without any
    weights, between `n_steps + 1` nodes of a quadrature. So it is of first order, and most
    quadratures have no nodes at the ends of the path."""
    model, x = NETWORKS[network]()
    layer, f, baseline = model.get_submodule(site), attrib.target(model, 1), torch.randn_like(x)
    theirs = captum.LayerConductance(model, layer).attribute(
        x, baseline, 1, n_steps=9, method=method
    )
    nodes = approximation.approximation_parameters(method)[1](10)
    both = attrib.activation_and_gradient(f, site)
    points = [both(baseline + node * (x - baseline)) for node in nodes]
    steps = itertools.pairwise(points)
    twin = sum(gradient * (after - h) for (h, gradient), (after, _) in steps)
    assert_close(twin, theirs, tolerance=1e-12)


@pytest.mark.parametrize("cut", [0, 1, 2])  # behind 3 all is linear: every step is exact
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 50])
def test_conductance_is_nearer_to_its_definition_than_captums(steps: int, cut: int) -> None:
    model, x, baseline = smooth()
    truth = by_definition(model, cut, x, baseline)
    ours = attrib.conductance(attrib.target(model, 1), str(cut), steps=steps)(x, baseline)
    for method in ("gausslegendre", "riemann_trapezoid"):
        theirs = captum.LayerConductance(model, model[cut]).attribute(
            x, baseline, 1, n_steps=steps, method=method
        )
        assert relative(ours, truth) < relative(theirs, truth)


STEPS = (*range(1, 11), 20, 50)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.Tanh])
def test_over_many_networks_the_mean_error_is_below_captums_at_every_number_of_steps(
    activation: Any,
) -> None:
    errors: dict[str, list[list[float]]] = {"ours": [], "captum": []}
    for seed in range(12):
        torch.manual_seed(seed)
        layers = nn.Linear(10, 24), activation(), nn.Linear(24, 24), activation(), nn.Linear(24, 3)
        model = nn.Sequential(*layers).double()
        for parameter in model.parameters():
            parameter.mul_(1.5)
        x, baseline = torch.randn(2, 4, 10).double()
        cut = seed % 3
        truth, f = by_small_steps(model, cut, x, baseline), attrib.target(model, 1)
        conductance = captum.LayerConductance(model, model[cut]).attribute
        errors["ours"].append(
            [
                relative(attrib.conductance(f, str(cut), steps=steps)(x, baseline), truth)
                for steps in STEPS
            ]
        )
        errors["captum"].append(
            [relative(conductance(x, baseline, 1, n_steps=steps), truth) for steps in STEPS]
        )
    ours, theirs = (torch.tensor(found).mean(0) for found in errors.values())
    assert (ours < theirs).all(), (ours / theirs).tolist()


def by_small_steps(model: nn.Sequential, cut: int, x: Tensor, baseline: Tensor) -> Tensor:
    """The sum that the integral is the limit of, with 4000 steps."""
    edges = torch.linspace(0, 1, 4001).double()[:, None, None]
    h = model[: cut + 1](baseline + edges * (x - baseline))
    middles = model[: cut + 1](baseline + (edges[1:] + edges[:-1]) / 2 * (x - baseline))
    gradient = torch.func.grad(lambda h: model[cut + 1 :](h)[..., 1].sum())(middles)
    return (gradient * (h[1:] - h[:-1])).sum(0)


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_conductance_by_derivatives_is_its_definition_at_ten_steps(cut: int) -> None:
    model, x, baseline = smooth()
    truth = by_definition(model, cut, x, baseline)
    f = attrib.target(model, 1)
    ours = attrib.conductance(f, str(cut), steps=10, quadrature="gauss-legendre")(x, baseline)
    theirs = captum.LayerConductance(model, model[cut]).attribute(x, baseline, 1, n_steps=50)
    assert relative(ours, truth) < 1e-5
    assert relative(theirs, truth) > 1e-3
