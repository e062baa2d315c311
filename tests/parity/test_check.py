"""`attrib.check` on Captum's methods: it finds the faults that they are known to have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib.types import Attribute, Score

captum = pytest.importorskip("captum.attr")

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:.*require gradients:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*requires_grad:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting .*backward hooks:UserWarning"),
]


def problem() -> tuple[nn.Module, Score, Tensor]:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double().eval()
    return model, attrib.target(model), torch.randn(5, 4, dtype=torch.float64)


def called(method: Any) -> Any:
    """A class of Captum as a method of attrib."""

    def of(f: Score) -> Attribute:
        return lambda x: method(f).attribute(x)

    return of


def test_what_is_right_in_captum_is_found_to_be_right() -> None:
    _, f, x = problem()
    method = called(captum.InputXGradient)
    laws = ["finite", "dtype", "determinism", "dummy", "symmetry", "scale", "linearity", "rows"]
    report = attrib.check(method(f), f, x, method=method, laws=laws)
    assert report and {finding.verdict for finding in report} == {"holds"}, report


def test_slopes_that_are_taken_for_constants_are_found() -> None:
    _, f, x = problem()
    report = attrib.check(called(captum.InputXGradient)(f), f, x, laws="derivative")
    assert report["derivative"].verdict == "fails" and report["derivative"].gap > 0.01


@pytest.mark.parametrize("name", ["ShapleyValueSampling", "ShapleyValues"])
def test_results_that_are_cut_to_float32_are_found(name: str) -> None:
    _, f, x = problem()
    report = attrib.check(called(getattr(captum, name))(f), f, x, laws="dtype")
    assert report["dtype"].note == "x: torch.float32 instead of torch.float64"


def test_an_input_that_is_left_asking_for_gradients_is_found() -> None:
    _, f, x = problem()

    method = called(captum.Saliency)
    report = attrib.check(method(f), f, x, method=method, laws="purity")
    assert "requires_grad of x" in report["purity"].note


def test_tensors_that_are_left_on_layers_are_found() -> None:
    model, f, x = problem()
    method = lambda x: captum.LRP(model).attribute(x, target=0)
    report = attrib.check(method, f, x, laws="purity")
    assert "attributes of Sequential" in report["purity"].note


def test_a_rescale_rule_that_does_not_see_functions_is_found() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).tanh())[:, 0]

    model = Functional().double().eval()
    f, x = attrib.target(model), torch.randn(5, 4, dtype=torch.float64)

    def attribute(x: Tensor, baseline: Any = 0) -> Tensor:
        baselines = torch.zeros_like(x) + baseline
        return captum.DeepLift(model).attribute(x, baselines)

    report = attrib.check(attribute, f, x, laws="completeness")
    assert report["completeness"].verdict == "fails"
    assert attrib.check(attrib.deep_lift(f), f, x, laws="completeness")
