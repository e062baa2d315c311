"""DeepLift, guided backpropagation and deconvolution against Captum, where Captum's are right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib

from .comparing import assert_close, relative

captum = pytest.importorskip("captum.attr")

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:.*require gradients:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*requires_grad:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting backward hooks:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*Setting forward, backward hooks:UserWarning"),
]

# Captum treats multipliers between points closer than 1e-10 as derivatives.
SECANTS = 1e-9


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


def _data(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def _mlp() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    layers = nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 8), nn.ELU()
    return nn.Sequential(*layers, nn.Linear(8, 3)).double().eval(), _data(5, 6)


def _cnn() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(2)
    first = nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2)
    last = nn.Conv2d(4, 4, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(36, 3)
    return nn.Sequential(*first, *last).double().eval(), _data(5, 2, 10, 10)


NETWORKS = {"mlp": _mlp, "cnn": _cnn}


@pytest.mark.parametrize("network", NETWORKS)
def test_deep_lift_is_captums(network: str) -> None:
    model, x = NETWORKS[network]()
    baseline = torch.randn_like(x)
    theirs = captum.DeepLift(model).attribute(x, baseline, target=1)
    ours = attrib.deep_lift(attrib.target(model, 1))(x, baseline)
    assert_close(ours, theirs.detach(), tolerance=SECANTS)


@pytest.mark.parametrize("network", NETWORKS)
def test_multipliers_are_captums_without_the_inputs(network: str) -> None:
    model, x = NETWORKS[network]()
    baseline = torch.randn_like(x)
    theirs = captum.DeepLift(model, multiply_by_inputs=False).attribute(x, baseline, target=1)
    ours = attrib.deep_lift(attrib.target(model, 1), multiply=False)(x, baseline)
    assert_close(ours, theirs.detach(), tolerance=SECANTS)


@pytest.mark.parametrize("network", NETWORKS)
def test_deep_lift_shap_is_the_expectation_over_baselines(network: str) -> None:
    model, x = NETWORKS[network]()
    baselines = torch.randn(7, *x.shape[1:], dtype=x.dtype)
    theirs = captum.DeepLiftShap(model).attribute(x, baselines, target=1)
    ours = attrib.expected(attrib.deep_lift(attrib.target(model, 1)))(x, baselines)
    assert_close(ours, theirs.detach(), tolerance=SECANTS)


@pytest.mark.parametrize("name", ["GuidedBackprop", "Deconvolution"])
@pytest.mark.parametrize("network", NETWORKS)
def test_rectified_gradients_are_captums(network: str, name: str) -> None:
    model, x = NETWORKS[network]()
    method = attrib.guided_backprop if name == "GuidedBackprop" else attrib.deconvolution
    theirs = getattr(captum, name)(model).attribute(x, target=1)
    assert_close(method(attrib.target(model, 1))(x), theirs)


# Deviations: what Captum 0.9.0 does there, and why attrib does otherwise.


def _gap(model: nn.Module, attribution: Tensor, x: Tensor, baseline: Tensor) -> float:
    rise = (model(x) - model(baseline))[:, 1]
    return relative(attribution.flatten(1).sum(1), rise)


def test_deviation_a_pool_right_after_a_rectifier() -> None:
    """Captum's hook on the one fires before that on the other, with a gradient from before."""
    layers = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)
    model, x, baseline = nn.Sequential(*layers).double(), _data(4, 2, 10, 10), _data(4, 2, 10, 10)
    theirs = captum.DeepLift(model).attribute(x, baseline, target=1)
    assert _gap(model, theirs, x, baseline) > 0.01
    ours = attrib.deep_lift(attrib.target(model, 1))(x, baseline)
    assert _gap(model, ours, x, baseline) < 1e-12


def test_deviation_a_pool_with_overlapping_windows() -> None:
    """Captum writes the maxima of the windows over each other, where they add up."""
    model = nn.Sequential(nn.MaxPool1d(3, 1), nn.Flatten(), nn.Linear(3, 3, bias=False)).double()
    nn.init.ones_(model[2].weight)
    x = torch.tensor([[[1.0, 2.0, 9.0, 7.0, 5.0]]], dtype=torch.float64)
    theirs = captum.DeepLift(model).attribute(x, torch.zeros_like(x), target=1)
    assert float(theirs.sum()) != float(model(x)[0, 1])
    ours = attrib.deep_lift(attrib.target(model, 1))(x)
    assert_close(ours.sum(), model(x)[0, 1])


def test_deviation_a_softmax_keeps_to_its_own_example() -> None:
    """Captum centres its multipliers over the whole batch."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)).double()
    x, baseline = _data(5, 4), _data(5, 4)
    theirs, ours = captum.DeepLift(model), attrib.deep_lift(attrib.target(model, 1))
    together = theirs.attribute(x, baseline, target=1)
    alone = theirs.attribute(x[:1], baseline[:1], target=1)
    assert relative(together[:1], alone) > 1e-3
    assert_close(ours(x, baseline)[:1], ours(x[:1], baseline[:1]))


class _Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


def test_deviation_functions_are_not_modules() -> None:
    """Captum changes modules, and passes the gradient of everything else."""
    model = _Functional().double()
    x, baseline = _data(4, 6), _data(4, 6)
    theirs = captum.DeepLift(model).attribute(x, baseline, target=1)
    assert _gap(model, theirs, x, baseline) > 0.01
    ours = attrib.deep_lift(attrib.target(model, 1))(x, baseline)
    assert _gap(model, ours, x, baseline) < 1e-12
    plain = captum.Saliency(model).attribute(x, target=1, abs=False)
    assert_close(captum.GuidedBackprop(model).attribute(x, target=1), plain)
    assert relative(attrib.guided_backprop(attrib.target(model, 1))(x), plain) > 0.01
