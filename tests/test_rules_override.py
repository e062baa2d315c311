"""Rules of one's own, guided backpropagation and deconvolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attrib
from attrib import deconvolution, guided_backprop, override, saliency


def _spelled(x: Tensor, spelling: str) -> Tensor:
    return {
        "module": nn.ReLU(),
        "in place": nn.ReLU(inplace=True),
        "functional": F.relu,
        "torch": torch.relu,
        "method": lambda x: x.relu(),
        "method in place": lambda x: x.relu_(),
        "torch in place": torch.relu_,
        "flag": lambda x: F.relu(x, True),
    }[spelling](x)


SPELLINGS = (
    *("module", "in place", "functional", "torch"),
    *("method", "method in place", "torch in place", "flag"),
)


def _network(spelling: str = "module") -> Callable[[Tensor], Tensor]:
    torch.manual_seed(1)
    first, second, last = nn.Linear(5, 7), nn.Linear(7, 7), nn.Linear(7, 1)

    def f(x: Tensor) -> Tensor:
        hidden = _spelled(first(x), spelling)
        return last(_spelled(second(hidden), spelling)).squeeze(-1)

    f.parts = (first, second, last)  # type: ignore[attr-defined]
    return f


@pytest.mark.parametrize("method", [guided_backprop, deconvolution])
@pytest.mark.parametrize("grad", [False, True])
def test_the_signal_is_rectified_at_every_rectifier(method: Any, grad: bool) -> None:
    f, x = _network(), torch.randn(6, 5)
    first, second, last = f.parts  # type: ignore[attr-defined]
    with torch.set_grad_enabled(grad):
        found = method(f)(x)
    with torch.no_grad():
        before = first(x)
        after = second(before.relu())
        signal = last.weight.expand(6, -1)
        for layer, at in ((second, after), (first, before)):
            signal = signal.relu() * ((at > 0) if method is guided_backprop else 1)
            signal = signal @ layer.weight
    torch.testing.assert_close(found.detach(), signal)
    assert not torch.allclose(found.detach(), saliency(f)(x).detach())


@pytest.mark.parametrize("method", [guided_backprop, deconvolution])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_the_same_operation(method: Any, spelling: str) -> None:
    x = torch.randn(4, 5)
    expected = method(_network())(x).detach()
    with torch.no_grad():
        assert torch.equal(method(_network(spelling))(x), expected)
    assert torch.equal(method(_network(spelling))(x).detach(), expected)


CAPPED: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU6(),
    "in place": nn.ReLU6(inplace=True),
    "functional": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 6.0),
    "hardtanh module": nn.Hardtanh(0.0, 6.0),
    "hardtanh in place": lambda x: F.hardtanh_(x, min_val=0, max_val=6),
}


@pytest.mark.parametrize("method", [guided_backprop, deconvolution])
@pytest.mark.parametrize("spelling", CAPPED)
@pytest.mark.parametrize("grad", [False, True])
def test_a_rectifier_with_an_upper_end_is_one(method: Any, spelling: str, grad: bool) -> None:
    first, last = nn.Linear(5, 7), nn.Linear(7, 1)
    x = 8 * torch.randn(6, 5)
    f = lambda x: last(CAPPED[spelling](first(x) + 0)).squeeze(-1)
    with torch.no_grad():
        at = first(x)
        assert (at > 6).any() and (at < 0).any()
        active = (at > 0) & (at < 6) if method is guided_backprop else torch.ones_like(at)
        expected = (last.weight.relu() * active) @ first.weight
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(method(f)(x).detach(), expected)


@pytest.mark.parametrize("method", [guided_backprop, deconvolution])
def test_a_hard_tanh_is_no_rectifier(method: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Hardtanh(), nn.Linear(6, 2))
    f, x = attrib.target(model, 0), torch.randn(3, 4)
    torch.testing.assert_close(method(f)(x), saliency(f)(x))


@pytest.mark.parametrize("method", [guided_backprop, deconvolution])
def test_without_rectifiers_it_is_the_gradient(method: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 2))
    f, x = attrib.target(model, 0), torch.randn(3, 4)
    torch.testing.assert_close(method(f)(x), saliency(f)(x))


def _twice(call: Any, carrier: Any) -> Tensor:
    (x,) = call.inputs
    return carrier.carried(call(carrier.frozen(x)), 2 * x)


def test_the_score_keeps_its_value() -> None:
    x = torch.randn(3, 4)
    gradient, score = attrib.grad_and_score(override(lambda x: x.tanh().sum(-1), {"tanh": _twice}))(
        x
    )
    torch.testing.assert_close(score, x.tanh().sum(-1))
    assert torch.equal(gradient, torch.full_like(x, 2.0))


def test_a_rule_may_be_for_a_name_a_family_or_a_function() -> None:
    x = torch.randn(3, 4)
    for operation in ("sigmoid", "activation", torch.sigmoid):
        found = saliency(override(lambda x: torch.sigmoid(x).sum(-1), {operation: _twice}))(x)
        assert torch.equal(found, torch.full_like(x, 2.0)), operation


def test_an_operation_without_a_rule_is_refused_where_it_is_called() -> None:
    f = override(lambda x: torch.erf(x).sum(-1), {"tanh": _twice})
    with pytest.raises(attrib.AttribError, match=r"erf: has no rule.*test_rules_override") as error:
        saliency(f)(torch.randn(3, 4))
    assert error.value.code == "rules.unknown"
    x = torch.randn(3, 4)
    known = override(lambda x: torch.erf(x).sum(-1), {"tanh": _twice}, unknown="gradient")
    torch.testing.assert_close(saliency(known)(x), saliency(lambda x: torch.erf(x).sum(-1))(x))


def test_an_overridden_score_has_no_value_of_its_own() -> None:
    with pytest.raises(attrib.AttribError, match=r"override last") as error:
        override(lambda x: x.sum(-1), {})(torch.ones(1, 2))
    assert error.value.code == "override.called"


def test_rules_that_are_none_are_refused() -> None:
    for rules in (3, {"relu": 3}, {3: _twice}):
        with pytest.raises(attrib.AttribError, match=r"rules: must be a mapping") as error:
            override(lambda x: x.sum(-1), rules)  # type: ignore[arg-type]
        assert error.value.code == "rules.type"


def test_derivatives_of_guided_gradients_are_those_of_what_was_computed() -> None:
    """Of x * guided(x) where the signal is x's own: 3 x^2 + ... by hand."""
    weight = torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[1.0, 3.0], [-1.0, 0.5]], dtype=torch.float64)
    # The signal is max(w, 0) where x is positive: its derivative by w is one there.
    found = guided_backprop(lambda x: (torch.relu(x) * weight).sum(-1))(x)
    assert torch.equal(found.detach(), torch.tensor([[2.0, 0.0], [0.0, 0.0]]).double())
    (slope,) = torch.autograd.grad(found.sum(), weight)
    assert torch.equal(slope, torch.tensor([1.0, 0.0]).double())
