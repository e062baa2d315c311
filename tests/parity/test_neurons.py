"""Methods on neurons against Captum: every class, every option, and where it is wrong, why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib import Site, games

from .comparing import FLOAT32_WEIGHTS, ROUNDING, assert_close, relative

captum = pytest.importorskip("captum.attr")

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:.*require gradients:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*requires_grad:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting .*hooks:UserWarning"),
]

QUADRATURES = {
    "gauss-legendre": "gausslegendre",
    "midpoint": "riemann_middle",
    "left": "riemann_left",
    "right": "riemann_right",
}
SELECTORS: dict[str, tuple[str, Any]] = {
    "number": ("hidden", 2),
    "position": ("conv", (1, 2, 0)),
    "slices": ("conv", (0, slice(1, 3), slice(None))),
    "function": ("conv", lambda h: h.square().sum((1, 2, 3))),
    "activation": ("act", 5),
}
SECANTS = 1e-9  # as in test_rules
NODES = 4 * FLOAT32_WEIGHTS

selectors = pytest.mark.parametrize("selector", SELECTORS)
sides = pytest.mark.parametrize("of", ["output", "input"])


class Network(nn.Module):
    """Convolutions and dense layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu = nn.Conv2d(2, 3, 3), nn.ReLU()
        self.hidden, self.act = nn.Linear(48, 6), nn.Sigmoid()
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.act(self.hidden(self.relu(self.conv(x)).flatten(1))))


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


def case(selector: str) -> tuple[Network, nn.Module, Any, Any, Tensor, Tensor]:
    """A model, one of its layers, the index of a neuron, the neuron, inputs and baselines."""
    model = Network().double().eval()
    name, index = SELECTORS[selector]
    x, baseline = torch.randn(2, 4, 2, 6, 6, dtype=torch.float64)
    return model, getattr(model, name), index, attrib.neuron(model, name, index), x, baseline


@selectors
def test_gradients_are_captums(selector: str) -> None:
    model, layer, index, neuron, x, _ = case(selector)
    theirs = captum.NeuronGradient(model, layer).attribute(x, index)
    assert_close(attrib.saliency(neuron)(x), theirs)


@pytest.mark.parametrize(("name", "index"), [("hidden", 7), ("relu", (1, 2, 0)), ("out", 3)])
def test_gradients_of_what_a_layer_gets_are_captums(name: str, index: Any) -> None:
    model, *_, x, _ = case("number")
    neuron = attrib.neuron(model, Site(name, of="input"), index)
    layer = getattr(model, name)
    theirs = captum.NeuronGradient(model, layer).attribute(x, index, None, True)
    assert_close(attrib.saliency(neuron)(x), theirs)


@pytest.mark.parametrize("quadrature", QUADRATURES)
@selectors
def test_integrated_gradients_are_captums(selector: str, quadrature: Any) -> None:
    model, layer, index, neuron, x, baseline = case(selector)
    options = {"n_steps": 12, "method": QUADRATURES[quadrature]}
    theirs = captum.NeuronIntegratedGradients(model, layer).attribute(x, index, baseline, **options)
    ours = attrib.integrated_gradients(neuron, steps=12, quadrature=quadrature)(x, baseline)
    assert_close(ours, theirs, tolerance=NODES)
    local = captum.NeuronIntegratedGradients(model, layer, multiply_by_inputs=False)
    ours = attrib.average_gradient(neuron, steps=12, quadrature=quadrature)(x, baseline)
    theirs = local.attribute(x, index, baseline, internal_batch_size=8, **options)
    assert_close(ours, theirs, tolerance=NODES)


# Of the function Captum takes the gradient: it has rules for modules alone.
@pytest.mark.parametrize("selector", [name for name in SELECTORS if name != "function"])
def test_deep_lift_and_its_expectation_are_captums(selector: str) -> None:
    model, layer, index, neuron, x, baseline = case(selector)
    baselines = torch.randn(7, *x.shape[1:], dtype=x.dtype)
    theirs = captum.NeuronDeepLift(model, layer).attribute(x, index, baseline)
    assert_close(attrib.deep_lift(neuron)(x, baseline), theirs, tolerance=SECANTS)
    theirs = captum.NeuronDeepLiftShap(model, layer).attribute(x, index, baselines)
    ours = attrib.expected(attrib.deep_lift(neuron))(x, baselines)
    assert_close(ours, theirs, tolerance=SECANTS)
    local = captum.NeuronDeepLift(model, layer, multiply_by_inputs=False)
    ours = attrib.deep_lift(neuron, multiply=False)(x, baseline)
    assert_close(ours, local.attribute(x, index, baseline), tolerance=SECANTS)


@pytest.mark.parametrize("name", ["GuidedBackprop", "Deconvolution"])
@selectors
def test_rectified_gradients_are_captums(selector: str, name: str) -> None:
    model, layer, index, neuron, x, _ = case(selector)
    method = attrib.guided_backprop if name == "GuidedBackprop" else attrib.deconvolution
    theirs = getattr(captum, f"Neuron{name}")(model, layer).attribute(x, index)
    assert_close(method(neuron)(x), theirs)


@selectors
def test_ablation_is_captums(selector: str) -> None:
    model, layer, index, neuron, x, baseline = case(selector)
    theirs = captum.NeuronFeatureAblation(model, layer).attribute(x, index, baseline)
    # A difference of two scores that nearly agree.
    assert_close(games.feature_ablation(neuron)(x, baseline), theirs, tolerance=10 * ROUNDING)
    mask = torch.arange(36).view(1, 1, 6, 6) // 6
    theirs = captum.NeuronFeatureAblation(model, layer).attribute(
        *(x, index, 0.5), feature_mask=mask.expand(1, 2, 6, 6), perturbations_per_eval=3
    )
    ours = games.feature_ablation(neuron, groups=mask)(x, 0.5)
    assert_close(ours, theirs, tolerance=10 * ROUNDING)


@selectors
def test_captums_draws_with_attribs_gradients_are_captums_gradient_shap(selector: str) -> None:
    model, layer, index, neuron, x, _ = case(selector)
    baselines, samples = torch.randn(7, *x.shape[1:], dtype=x.dtype), 6
    np.random.seed(4)
    theirs = captum.NeuronGradientShap(model, layer).attribute(x, index, baselines, samples)
    np.random.seed(4)
    rows = samples * len(x)
    start = baselines[np.random.choice(len(baselines), rows).tolist()]
    alpha = torch.tensor(np.random.uniform(0.0, 1.0, rows)).view(-1, 1, 1, 1)
    end = x.repeat_interleave(samples, 0)
    gradient = attrib.saliency(neuron)(start + alpha * (end - start))
    twin = (gradient * (end - start)).unflatten(0, (-1, samples)).mean(1)
    assert_close(twin, theirs, tolerance=1e-12)


# --- conductance --------------------------------------------------------------------------------


@pytest.mark.parametrize("quadrature", QUADRATURES)
@pytest.mark.parametrize("selector", ["number", "position", "activation"])
def test_conductance_is_captums(selector: str, quadrature: Any) -> None:
    model, layer, index, _, x, baseline = case(selector)
    theirs = captum.NeuronConductance(model, layer).attribute(
        x, index, baseline, 1, n_steps=12, method=QUADRATURES[quadrature]
    )
    f, name = attrib.target(model, 1), SELECTORS[selector][0]
    ours = attrib.neuron_conductance(f, name, index, steps=12, quadrature=quadrature)
    assert_close(ours(x, baseline), theirs, tolerance=NODES)


@pytest.mark.parametrize("selector", ["number", "position", "activation"])
def test_deviation_weights_of_captums_trapezoid_miss_one_step(selector: str) -> None:
    """The default of `NeuronConductance`: its weights sum to (n - 1) / n."""
    model, layer, index, _, x, baseline = case(selector)
    theirs = captum.NeuronConductance(model, layer).attribute(x, index, baseline, 1, n_steps=20)
    f, name = attrib.target(model, 1), SELECTORS[selector][0]
    ours = attrib.neuron_conductance(f, name, index, steps=20, quadrature="trapezoid")
    assert_close(ours(x, baseline) * 19 / 20, theirs, tolerance=NODES)


def test_deviation_neurons_chosen_by_slices_do_not_mix() -> None:
    """Captum adds the derivatives of the score by the neurons, those of the neurons by the input,
    and multiplies the sums. attrib's is the sum of the conductances."""
    model, layer, index, _, x, baseline = case("slices")
    f = attrib.target(model, 1)
    every = [(0, row, column) for row in (1, 2) for column in range(4)]
    alone = [attrib.neuron_conductance(f, "conv", one)(x, baseline) for one in every]
    ours = attrib.neuron_conductance(f, "conv", index)(x, baseline)
    assert_close(ours, torch.stack(alone).sum(0), tolerance=1e-12)
    theirs = captum.NeuronConductance(model, layer).attribute(
        x, index, baseline, 1, method="gausslegendre"
    )
    by_captum = [
        captum.NeuronConductance(model, layer).attribute(
            x, one, baseline, 1, method="gausslegendre"
        )
        for one in every
    ]
    assert_close(ours, torch.stack(by_captum).sum(0), tolerance=NODES)
    assert relative(theirs, ours) > 0.1


def test_conductance_without_the_inputs_is_captums() -> None:
    model, layer, index, neuron, x, baseline = case("number")
    local = captum.NeuronConductance(model, layer, multiply_by_inputs=False)
    theirs = local.attribute(x, index, baseline, 1, method="gausslegendre")
    gradient = attrib.layer(attrib.saliency, attrib.target(model, 1), "hidden")
    through = attrib.batched(lambda x: neuron(x) * gradient(x)[:, index].detach())
    assert_close(attrib.average_gradient(through)(x, baseline), theirs, tolerance=NODES)
