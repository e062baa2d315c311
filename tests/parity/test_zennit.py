"""Relevance propagation against Zennit 0.5.1: ``pip install --no-deps zennit``.

Conventions that differ, and how the comparison meets them:

- Zennit starts from a relevance that it is handed; ours starts from the score, so it gets that.
- It stabilises sums and averages; ours follow their gradient unless `norm` is asked for.
- Its rules w² and flat stabilise their denominators, and w² counts the square of the bias as a
  contribution; ours follow the papers. It is asked to leave the bias out.
- Batch norm has to be merged by a canonizer there, which sets the norm to the identity except for
  its eps: results are about 1e-5 off. Ours merges it on the way, and is compared with Zennit on a
  model that was merged by hand.
"""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib import rules as r

from .comparing import assert_close, relative

pytestmark = [pytest.mark.parity]

TOLERANCE = 1e-10


def _zennit() -> Any:
    """Zennit, which imports torchvision for the names of some models; it works without."""
    stubs = {}
    for name in (
        "torchvision",
        "torchvision.models",
        *(f"torchvision.models.{n}" for n in _MODELS),
    ):
        stubs[name] = types.ModuleType(name)
    for name, classes in _MODELS.items():
        for found in classes:
            setattr(stubs[f"torchvision.models.{name}"], found, type(found, (nn.Module,), {}))
    kept = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    try:
        return pytest.importorskip("zennit.composites")
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


_MODELS = {"resnet": ("BasicBlock", "Bottleneck", "ResNet"), "vgg": ("VGG",)}
composites: Any = _zennit()
zennit: Any = sys.modules["zennit"]


def model(*, norm: bool = False) -> nn.Sequential:
    """A small network in the manner of VGG."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1),
        *([nn.BatchNorm2d(5)] if norm else []),
        nn.ReLU(),
        nn.Conv2d(5, 6, 3),
        *([nn.BatchNorm2d(6)] if norm else []),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 2),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(6, 7),
        nn.ReLU(),
        nn.Linear(7, 3),
    ).double()
    if norm:
        with torch.no_grad():
            net(2 * torch.randn(16, 2, 8, 8, dtype=torch.float64) + 1)
            for layer in net:
                if isinstance(layer, nn.BatchNorm2d):
                    layer.weight.normal_()
                    layer.bias.normal_()
    return net.eval()


def images() -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    x[:, :, 0] = 0
    return x


def theirs(net: nn.Module, composite: Any, x: Tensor) -> Tensor:
    """The relevance by Zennit of the second output."""
    own = copy.deepcopy(net)

    def start(output: Tensor) -> Tensor:
        return output * torch.eye(3, dtype=output.dtype)[1]

    with zennit.attribution.Gradient(model=own, composite=composite) as attributor:
        _, relevance = attributor(x.clone().requires_grad_(), start)
    return relevance


def merged(net: nn.Sequential) -> nn.Sequential:
    """The same network without batch norm."""
    layers: list[Any] = []
    for layer in copy.deepcopy(net):
        if isinstance(layer, nn.BatchNorm2d):
            scale = layer.weight / torch.sqrt(layer.running_var + layer.eps)
            before = layers[-1]
            before.weight = nn.Parameter(before.weight * scale[:, None, None, None])
            before.bias = nn.Parameter((before.bias - layer.running_mean) * scale + layer.bias)
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


def mapped(convolution: Any, first: Any = None) -> Any:
    """One rule for convolutions, LRP-epsilon for dense layers."""
    kinds, rules = zennit.types, zennit.rules
    layers = [
        (kinds.Activation, rules.Pass()),
        (kinds.AvgPool, rules.Norm()),
        (kinds.Convolution, convolution),
        (nn.Linear, rules.Epsilon()),
    ]
    if first is None:
        return composites.LayerMapComposite(layers)
    return composites.SpecialFirstLayerMapComposite(layers, [(kinds.Convolution, first)])


NORM = {"avg_pool2d": r.norm(), "linear": r.epsilon()}

CASES: dict[str, tuple[Callable[[], Any], dict[Any, Any]]] = {
    "epsilon": (lambda: mapped(zennit.rules.Epsilon()), {"conv": r.epsilon()}),
    "epsilon_without_bias": (
        lambda: mapped(zennit.rules.Epsilon(1e-6, zero_params="bias")),
        {"conv": r.epsilon(bias=False)},
    ),
    "gamma": (lambda: mapped(zennit.rules.Gamma(0.5)), {"conv": r.gamma(0.5)}),
    "alpha_beta": (lambda: mapped(zennit.rules.AlphaBeta(2.0, 1.0)), {"conv": r.alpha_beta()}),
    "z_plus": (lambda: mapped(zennit.rules.ZPlus()), {"conv": r.z_plus()}),
    "z_plus_without_bias": (
        lambda: mapped(zennit.rules.ZPlus(zero_params="bias")),
        {"conv": r.z_plus(bias=False)},
    ),
    "z_box": (
        lambda: mapped(zennit.rules.ZPlus(), zennit.rules.ZBox(-4.0, 5.0)),
        {"conv": r.z_plus(), 0: r.z_box(-4.0, 5.0)},
    ),
    "w_square": (
        lambda: mapped(zennit.rules.ZPlus(), zennit.rules.WSquare(1e-14, zero_params="bias")),
        {"conv": r.z_plus(), 0: r.w_square()},
    ),
    "flat": (
        lambda: mapped(zennit.rules.ZPlus(), zennit.rules.Flat(1e-14)),
        {"conv": r.z_plus(), 0: r.flat()},
    ),
    "epsilon_plus": (lambda: composites.EpsilonPlus(), r.epsilon_plus()),
    "epsilon_gamma_box": (
        lambda: composites.EpsilonGammaBox(low=-4.0, high=5.0),
        r.epsilon_gamma_box(-4.0, 5.0),
    ),
    "epsilon_alpha2_beta1": (lambda: composites.EpsilonAlpha2Beta1(), r.epsilon_alpha2_beta1()),
}


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch_norm"])
@pytest.mark.parametrize("name", CASES)
def test_relevance_is_zennits(name: str, norm: bool) -> None:
    build, ours = CASES[name]
    net, x = model(norm=norm), images()
    found = attrib.lrp(attrib.target(net, 1), composite={**NORM, **ours})(x)
    assert_close(found, theirs(merged(net), build(), x), tolerance=TOLERANCE)


def test_the_canonizer_of_zennit_leaves_the_eps_of_batch_norm() -> None:
    net, x = model(norm=True), images()
    found = attrib.lrp(attrib.target(net, 1), composite={**NORM, "conv": r.z_plus()})(x)
    composite = composites.EpsilonPlus(canonizers=[zennit.canonizers.SequentialMergeBatchNorm()])
    off = relative(theirs(net, composite, x), found)
    assert 1e-6 < off < 1e-4


@pytest.mark.parametrize("name", ["epsilon_plus_flat", "epsilon_alpha2_beta1_flat"])
def test_the_flat_composites_differ_by_a_stabiliser_alone(name: str) -> None:
    net, x = model(), images()
    build = {
        "epsilon_plus_flat": "EpsilonPlusFlat",
        "epsilon_alpha2_beta1_flat": "EpsilonAlpha2Beta1Flat",
    }
    ours = attrib.lrp(attrib.target(net, 1), composite={**NORM, **getattr(r, name)()})(x)
    # 1e-6 in a denominator that counts the inputs of an output: 8 to 18 of them.
    assert_close(ours, theirs(net, getattr(composites, build[name])(), x), tolerance=2e-7)


def test_excitation_backpropagation_is_zennits_per_unit_of_the_score() -> None:
    net, x = model(), images()
    f = attrib.target(net, 1)
    composite = composites.LayerMapComposite(
        [
            (zennit.types.AvgPool, zennit.rules.Norm(1e-14)),
            (zennit.types.Linear, zennit.rules.ZPlus(1e-14, zero_params="bias")),
        ]
    )
    expected = theirs(net, composite, x) / f(x)[:, None, None, None]
    assert_close(attrib.excitation_backprop(f)(x), expected, tolerance=TOLERANCE)
