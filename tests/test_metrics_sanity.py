"""Randomised models and classes; axioms as measures; linear imputation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib import metrics
from attrib.metrics._models import parameters_by_module, with_parameters


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def perceptron() -> nn.Module:
    torch.manual_seed(2)
    layers = nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
    return nn.Sequential(*layers).double().eval()


def saliency_of(model: nn.Module) -> Any:
    return attrib.saliency(attrib.target(model, 0))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.last = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.lstm(x)[0][:, -1])


def halved(parameter: Tensor, generator: torch.Generator | None) -> Tensor:
    return parameter / 2


def by_hand(model: nn.Module, names: list[str], x: Tensor, cascading: bool) -> dict[str, Tensor]:
    """Similarities after halving layers of deep copies, one model at a time."""
    base = saliency_of(model)(x).flatten(1)
    found: dict[str, Tensor] = {}
    for turn, name in enumerate(names):
        other = copy.deepcopy(model)
        for again in names[: turn + 1] if cascading else [name]:
            for parameter in other.get_submodule(again).parameters(recurse=False):
                parameter.data /= 2
        found[name] = metrics.pearson(saliency_of(other)(x).flatten(1), base)
    return found


@pytest.mark.parametrize("cascading", [True, False])
@pytest.mark.parametrize("chunk_size", [1, 2, None, "auto"])
def test_randomised_models_are_those_made_one_by_one(cascading: bool, chunk_size: Any) -> None:
    model, x = perceptron(), numbers(5, 6)
    expected = by_hand(model, ["4", "2", "0"], x, cascading)
    call = metrics.randomisation_curve(
        saliency_of,
        model,
        cascading=cascading,
        randomise=halved,
        similarity=metrics.pearson,
        chunk_size=chunk_size,
    )
    found = call(x)
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_layers_may_be_chosen_and_are_averaged() -> None:
    model, x = perceptron(), numbers(5, 6)
    expected = by_hand(model, ["0", "4"], x, True)
    measure = metrics.parameter_randomisation(
        saliency_of, model, layers=["0", "4"], randomise=halved, similarity=metrics.pearson
    )
    mean = torch.stack(list(expected.values())).mean(0)
    torch.testing.assert_close(measure(x), mean, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [1, None])
def test_convolutions_and_layers_by_name_are_randomised(chunk_size: int | None) -> None:
    from attrib.cam import grad_cam

    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    model, x = nn.Sequential(*layers).double().eval(), numbers(3, 2, 8, 8)
    method = lambda model: grad_cam(attrib.target(model, 0), "2")
    call = metrics.randomisation_curve(
        method, model, randomise=halved, similarity=metrics.pearson, chunk_size=chunk_size
    )
    found = call(x)
    assert list(found) == ["4", "1", "0"]
    other = copy.deepcopy(model)
    other[4].weight.data /= 2
    other[4].bias.data /= 2
    expected = metrics.pearson(method(other)(x).flatten(1), method(model)(x).flatten(1))
    torch.testing.assert_close(found["4"], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [1, None])
def test_the_weights_of_a_recurrent_network_are_randomised(chunk_size: int | None) -> None:
    torch.manual_seed(0)
    model, x = Recurrent().double().eval(), numbers(3, 5, 3)
    expected = by_hand(model, ["last", "lstm"], x, True)
    call = metrics.randomisation_curve(
        saliency_of, model, randomise=halved, similarity=metrics.pearson, chunk_size=chunk_size
    )
    found = call(x)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-12)
    assert (found["lstm"] < 1 - 1e-6).any()  # the copy is another network indeed


def test_an_attribution_of_the_input_alone_is_caught() -> None:
    """An edge detector does not see the model: the similarity stays one."""
    model, x = perceptron(), numbers(5, 6)
    edges = lambda model: lambda x: x.abs()
    blind = metrics.parameter_randomisation(edges, model)(x)
    assert torch.equal(blind, torch.ones(5).double())
    assert (metrics.parameter_randomisation(saliency_of, model)(x) < 1).all()


def test_random_parameters_are_normal_of_the_same_size() -> None:
    model = nn.Linear(300, 300, bias=False)
    seen: list[Tensor] = []

    def method(model: nn.Module) -> Any:
        seen.append(model.weight)
        return lambda x: x

    metrics.randomisation_curve(method, model, chunk_size=1)(torch.ones(1, 300))
    assert seen[0] is model.weight
    size = float(model.weight.detach().square().mean().sqrt())
    drawn = seen[1].detach()
    assert float(drawn.std()) == pytest.approx(size, rel=0.02)
    assert abs(float(metrics.pearson(drawn.flatten(), model.weight.detach().flatten()))) < 0.02


def test_the_model_is_left_alone_and_the_draws_are_the_generators() -> None:
    model, x = perceptron(), numbers(5, 6)
    before = copy.deepcopy(model.state_dict())
    held = {name: id(p) for name, p in model.named_parameters()}
    state = torch.get_rng_state()

    def run(seed: int, chunk_size: Any = "auto") -> Tensor:
        return metrics.parameter_randomisation(
            saliency_of,
            model,
            similarity=metrics.pearson,
            chunk_size=chunk_size,
            generator=torch.Generator().manual_seed(seed),
        )(x)

    torch.testing.assert_close(run(1), run(1, 1), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(run(1), run(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert held == {name: id(p) for name, p in model.named_parameters()}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_shared_parameters_are_replaced_together() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert {name: len(own) for name, own in parameters_by_module(model).items()} == {"0": 2, "1": 1}
    other = with_parameters(model, {model[0].weight: torch.zeros(4, 4)})
    assert not other[0].weight.any() and not other[1].weight.any()
    assert model[0].weight.any() and other[1].bias is model[1].bias


# --- similar attributions -------------------------------------------------------------------------


def test_a_method_that_ignores_the_class_fails_the_random_logit_test() -> None:
    model, x = perceptron(), numbers(5, 6)
    method = lambda c: attrib.saliency(attrib.target(model, c))
    ignoring = lambda c: lambda x: x
    assert torch.equal(metrics.random_logit(ignoring, classes=3)(x, 1), torch.ones(5).double())
    assert (metrics.random_logit(method, classes=3)(x, 1) < 1).all()


def test_another_class_is_drawn_for_every_example_and_never_its_own() -> None:
    classes = torch.arange(4).repeat(500)
    seen: list[Tensor] = []

    def method(c: Tensor) -> Any:
        seen.append(c)
        return lambda x: x

    metrics.random_logit(method, classes=4)(numbers(2000, 3), classes)
    own, other = seen
    assert torch.equal(own, classes) and (own != other).all()
    counts = torch.bincount(((other - own) % 4), minlength=4)
    # Each of three steps 2000 / 3 times, with a spread of 21.
    assert counts[0] == 0 and (counts[1:] - 2000 / 3).abs().max() < 110


def test_of_two_classes_the_other_one_is_sure() -> None:
    model, x = perceptron(), numbers(5, 6)
    method = lambda c: attrib.saliency(attrib.target(model, c))
    found = metrics.random_logit(method, classes=2, similarity=metrics.pearson)(x, 0)
    expected = metrics.pearson(method(0)(x), method(1)(x))
    torch.testing.assert_close(found, expected)


def test_agreement_compares_two_attributions() -> None:
    f = lambda x: x.square().sum(-1)
    x = numbers(4, 5)
    both = metrics.agreement(attrib.saliency(f), lambda x: -x, similarity=metrics.pearson)
    torch.testing.assert_close(both(x), -torch.ones(4).double())
    with pytest.raises(attrib.AttribError, match="other: returns another shape"):
        metrics.agreement(lambda x: x, lambda x: x[:, :2])(x)


# --- axioms ---------------------------------------------------------------------------------------


def test_sum_to_delta_is_the_gap_by_the_rise() -> None:
    f = lambda x: x.square().sum(-1)
    x, phi = numbers(4, 3), numbers(4, 3)
    gap = metrics.completeness(f)(phi, x, 0.5).abs() / (f(x) - f(torch.full_like(x, 0.5))).abs()
    torch.testing.assert_close(metrics.sum_to_delta(f)(phi, x, 0.5), gap)
    assert metrics.sum_to_delta(f)(torch.ones(1, 3), torch.zeros(1, 3)).item() == float("inf")
    assert metrics.sum_to_delta(f)(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0


def test_axioms_hold_for_gradients_and_not_for_others() -> None:
    f, g = (lambda x: x[..., :2].prod(-1)), (lambda x: x.pow(3).sum(-1))
    x = numbers(4, 3)
    unused = torch.tensor([False, False, True])
    assert torch.equal(metrics.dummy(attrib.saliency(f), unused=unused)(x), torch.zeros(4).double())
    expected = x[:, 2].abs() / x.abs().sum(1)
    torch.testing.assert_close(metrics.dummy(lambda x: -x, unused=unused)(x), expected)

    zero = torch.zeros(4).double()
    assert (metrics.linearity(attrib.saliency, f, g)(x) < 1e-14).all()
    squared = lambda f: lambda x: attrib.saliency(f)(x).square()
    a, b = attrib.saliency(f)(x), attrib.saliency(g)(x)
    left, right = (a - b).square(), a.square() - b.square()
    gap = (left - right).norm(dim=1) / torch.maximum(left.norm(dim=1), right.norm(dim=1))
    torch.testing.assert_close(metrics.linearity(squared, f, g)(x), gap)

    flip = lambda x: x.flip(-1)
    assert torch.equal(metrics.symmetry(attrib.saliency(g), flip)(x), zero)
    assert (metrics.symmetry(attrib.saliency(f), flip)(x) > 0.1).all()

    h = lambda x: x.pow(2).mul(x).sum(-1)
    same = metrics.implementation_invariance(attrib.saliency(g), attrib.saliency(h))
    assert (same(x) < 1e-14).all()
    torch.testing.assert_close(
        metrics.implementation_invariance(lambda x: x, lambda x: -x)(x), 2 + zero
    )


def test_linearity_of_modules_uses_their_difference() -> None:
    model, x = perceptron(), numbers(5, 6)
    f, g = attrib.target(model, 0), attrib.target(model, 2)
    found = metrics.linearity(attrib.integrated_gradients, f, g)(x, 0.3)
    assert (found < 1e-12).all()


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: metrics.parameter_randomisation(saliency_of, torch.relu), "model.type"),
        (lambda: metrics.parameter_randomisation(saliency_of, nn.ReLU()), "model.parameters"),
        (
            lambda: metrics.parameter_randomisation(saliency_of, perceptron(), layers=["1"]),
            "layers.unknown",
        ),
        (
            lambda: metrics.parameter_randomisation(saliency_of, perceptron(), layers="2"),
            "layers.type",
        ),
        (
            lambda: metrics.parameter_randomisation(
                saliency_of, perceptron(), randomise=lambda parameter, generator: torch.zeros(1, 9)
            )(torch.zeros(2, 6).double()),
            "randomise.shape",
        ),
        (lambda: metrics.parameter_randomisation(1, perceptron()), "method.type"),
        (lambda: metrics.random_logit(lambda c: c, classes=1), "classes.range"),
        (lambda: class_test("two"), "target.type"),
        (lambda: class_test(True), "target.type"),
        (lambda: class_test(torch.zeros(2)), "target.type"),
        (lambda: class_test(torch.zeros(3, dtype=torch.long)), "target.shape"),
        (lambda: metrics.random_logit(lambda c: torch.sin, classes=2)(None, 0), "x.type"),
        (lambda: metrics.agreement(lambda x: x, lambda x: x, similarity=1), "similarity.type"),
        (lambda: metrics.dummy(unused=torch.ones(3)), "unused.type"),
        (
            lambda: metrics.dummy(unused=torch.ones(4, dtype=torch.bool))(torch.ones(2, 3)),
            "unused.shape",
        ),
        (lambda: metrics.dummy(unused=(MASK, MASK))(torch.ones(2, 3)), "unused.structure"),
        (lambda: metrics.symmetry(lambda x: x, 3), "swap.type"),
        (
            lambda: metrics.implementation_invariance(lambda x: x, lambda x: x[:, :1])(
                torch.ones(2, 3)
            ),
            "other.shape",
        ),
    ],
)
def test_bad_arguments_are_refused(make: Any, code: str) -> None:
    with pytest.raises(attrib.AttribError) as error:
        make()
    assert error.value.code == code


def class_test(index: Any) -> Tensor:
    return metrics.random_logit(lambda c: torch.sin, classes=2)(torch.zeros(2, 3), index)


MASK = torch.zeros(3, dtype=torch.bool)
