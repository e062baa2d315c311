"""Infidelity: closed forms, explicit loops, hidden groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

import attrib
from attrib import games, metrics
from laws.networks import data, few, kinds, network, seeds

W = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)


def linear(x: Tensor) -> Tensor:
    return x @ W.to(x.dtype)


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def fixed(draws: Tensor) -> Any:
    """A perturbation that subtracts given numbers, a row at each call."""
    rows: Iterator[Tensor] = iter(draws)
    return lambda x: x - next(rows)


def test_the_gradient_of_a_linear_score_has_none() -> None:
    noise = attrib.perturb.gaussian(1.0)
    measure = metrics.infidelity(linear, attrib.saliency(linear), noise, samples=50)
    assert (measure(numbers(4, 3)) < 1e-28).all()


def test_integrated_gradients_of_a_linear_score_have_none_in_the_global_form() -> None:
    attribute, noise = attrib.integrated_gradients(linear), attrib.perturb.gaussian(1.0)
    measure = metrics.infidelity(linear, attribute, noise, samples=50, form="global")
    assert (measure(numbers(4, 3), numbers(4, 3)) < 1e-24).all()


def test_a_wrong_slope_of_a_linear_score_costs_its_second_moment() -> None:
    draws = numbers(20, 4, 3)
    off = numbers(4, 3)
    measure = metrics.infidelity(linear, None, fixed(draws), samples=20)
    expected = (draws * off).sum(-1).square().mean(0)
    torch.testing.assert_close(measure(W + off, numbers(4, 3)), expected, rtol=1e-12, atol=0)


def test_gaussian_noise_gives_the_squared_error_of_the_slope_in_expectation() -> None:
    off = torch.tensor([[0.5, 0.0, -1.0]], dtype=torch.float64)
    noise = attrib.perturb.gaussian(0.3, generator=torch.Generator().manual_seed(0))
    found = metrics.infidelity(linear, None, noise, samples=20_000)(W + off, numbers(1, 3))
    # E (I . off)^2 = 0.09 |off|^2; the square of a normal number has a spread of sqrt(2).
    expected = 0.09 * off.square().sum()
    assert abs(float(found) - float(expected)) < 5 * float(expected) * (2 / 20_000) ** 0.5


@few
@given(kind=kinds, seed=seeds)
def test_it_is_the_mean_square_of_what_the_attribution_misses(kind: str, seed: int) -> None:
    f = attrib.target(network(kind, seed), 0)
    x, attribution = data(kind, seed), data(kind, seed + 1)
    draws = torch.stack([data(kind, seed + 2 + s) for s in range(6)])
    each = [(attribution * d).flatten(1).sum(1) - (f(x) - f(x - d)) for d in draws]
    expected = torch.stack(each).square().mean(0)
    for chunk_size in (1, 4, None):
        measure = metrics.infidelity(f, None, fixed(draws), samples=6, chunk_size=chunk_size)
        torch.testing.assert_close(measure(attribution, x), expected, rtol=1e-10, atol=1e-12)


def test_normalised_it_is_the_residual_of_least_squares() -> None:
    model = network("gelu")
    f, x, attribution = attrib.target(model, 0), data("gelu"), data("gelu", 1)
    draws = torch.stack([data("gelu", 2 + s) for s in range(9)])
    a = (attribution * draws).sum(-1)
    d = torch.stack([f(x) - f(x - draw) for draw in draws])
    for row in range(len(x)):
        solved = torch.linalg.lstsq(a[:, row, None], d[:, row, None])
        expected = (a[:, row, None] @ solved.solution - d[:, row, None]).square().mean()
        for chunk_size in (1, 4, None):
            measure = metrics.infidelity(
                f, None, fixed(draws), samples=9, normalize=True, chunk_size=chunk_size
            )
            found = measure(attribution, x)[row]
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


def test_normalised_it_does_not_see_the_scale_of_an_attribution() -> None:
    draws, x = numbers(8, 4, 3), numbers(4, 3)
    f = lambda x: x.prod(-1)
    values = [
        metrics.infidelity(f, None, fixed(draws), samples=8, normalize=True)(
            scale * W.expand(4, 3), x
        )
        for scale in (1.0, -250.0)
    ]
    torch.testing.assert_close(*values, rtol=1e-11, atol=0)


def test_an_attribution_of_zeros_is_not_divided_by() -> None:
    draws, x = numbers(8, 4, 3), numbers(4, 3)
    measure = metrics.infidelity(linear, None, fixed(draws), samples=8, normalize=True)
    expected = (draws @ W).square().mean(0)
    torch.testing.assert_close(measure(torch.zeros(4, 3).double(), x), expected)


def test_an_attribution_may_broadcast_over_channels() -> None:
    f = lambda x: x.square().sum((1, 2, 3))
    x, draws, map_ = numbers(2, 3, 4, 4), numbers(5, 2, 3, 4, 4), numbers(2, 1, 4, 4)
    small, large = (
        metrics.infidelity(f, None, fixed(draws), samples=5)(a, x)
        for a in (map_, map_.expand(2, 3, 4, 4))
    )
    torch.testing.assert_close(small, large, rtol=1e-12, atol=0)


# --- hidden features ------------------------------------------------------------------------------


def test_hiding_enumerated_is_the_mean_over_all_coalitions() -> None:
    """Many draws of two features tend to the four coalitions, weighted by their probabilities."""
    f = lambda x: x.prod(-1)
    x, phi = torch.tensor([[2.0, 3.0]]).double(), torch.tensor([[1.0, -1.0]]).double()
    hiding = metrics.hiding(share=0.3, generator=torch.Generator().manual_seed(0))
    errors = {(0, 0): 0.0, (1, 0): 1.0 - 6, (0, 1): -1.0 - 6, (1, 1): 0.0 - 6}
    weight = {0: 0.7, 1: 0.3}
    exact = sum(weight[a] * weight[b] * e**2 for (a, b), e in errors.items())
    found = metrics.infidelity(f, None, hiding, samples=40_000)(phi, x)
    assert abs(float(found) - exact) < 5 * 49 / 200


def test_shapley_values_of_an_additive_score_foretell_every_coalition() -> None:
    f = lambda x: (x.square() * W).sum(-1)
    attribute = games.feature_ablation(f)
    measure = metrics.infidelity(f, attribute, metrics.hiding(), samples=30)
    assert (measure(numbers(4, 3), 0.5) < 1e-24).all()


def test_scores_of_superpixels_are_given_by_group_or_spread_over_entries() -> None:
    f = lambda x: x.square().sum((1, 2, 3))
    x = numbers(2, 3, 4, 4)
    ids = games.patches(x, (2, 2))
    by_group = numbers(2, 4)
    area = 3 * 2 * 2  # each of the entries of a group has an equal part of its number
    spread = by_group[:, ids].unsqueeze(1).expand(2, 3, 4, 4) / area
    values = [
        metrics.infidelity(
            f, None, metrics.hiding(ids, generator=torch.Generator().manual_seed(3)), samples=12
        )(a, x)
        for a in (by_group, spread)
    ]
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)
    exact = torch.stack([x.square()[:, :, ids == g].sum((1, 2)) for g in range(4)], -1)
    assert (metrics.infidelity(f, None, metrics.hiding(ids), samples=12)(exact, x) < 1e-24).all()


def test_a_told_change_may_have_the_shape_of_the_attribution() -> None:
    """Scores of two halves, and a perturbation of halves."""
    f, x = (lambda x: x.sum(-1)), numbers(3, 4)
    signs = iter(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).double())

    def halves(x: Tensor) -> metrics.Perturbed:
        change = next(signs)
        return metrics.Perturbed(x * (1 - change.repeat_interleave(2)), change.expand(3, 2))

    measure = metrics.infidelity(f, None, halves, samples=3)
    assert (measure(x.unflatten(-1, (2, 2)).sum(-1), x) < 1e-28).all()


def test_integers_can_be_hidden() -> None:
    table = torch.tensor([0.0, 1.0, 10.0]).double()
    f = lambda ids: table[ids].sum(-1)
    ids = torch.tensor([[1, 2], [2, 2]])
    measure = metrics.infidelity(f, None, metrics.hiding(), samples=9)
    assert torch.equal(measure(table[ids], ids), torch.zeros(2).double())


# --- calling --------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_draws_in_any_chunks() -> None:
    f, x = (lambda x: x.prod(-1)), numbers(4, 3)
    for make in (
        lambda: metrics.hiding(generator=torch.Generator().manual_seed(5)),
        lambda: attrib.perturb.gaussian(0.2, generator=torch.Generator().manual_seed(5)),
    ):
        values = [
            metrics.infidelity(f, attrib.saliency(f), make(), samples=11, chunk_size=size)(x)
            for size in (1, 4, None, "auto")
        ]
        for value in values[1:]:
            torch.testing.assert_close(value, values[0], rtol=1e-12, atol=0)


def test_its_derivative_is_that_of_finite_differences() -> None:
    f = lambda x: x.prod(-1) + x.square().sum(-1)
    draws = numbers(5, 2, 3)

    def measured(attribution: Tensor, x: Tensor, normalize: bool) -> Tensor:
        measure = metrics.infidelity(f, None, fixed(draws), samples=5, normalize=normalize)
        return measure(attribution, x)

    values = numbers(2, 3).requires_grad_(), numbers(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, x: measured(a, x, False), values)
    assert torch.autograd.gradcheck(lambda a, x: measured(a, x, True), values)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_there_may_be_any_number_of_batch_dimensions(batch: tuple[int, ...]) -> None:
    x, draws = numbers(*batch, 3), numbers(5, *batch, 3)
    found = metrics.infidelity(linear, None, fixed(draws), samples=5)(torch.zeros_like(x), x)
    torch.testing.assert_close(found, (draws @ W).square().mean(0))
    assert metrics.infidelity(linear, None, metrics.hiding())(x, x).shape == batch


@pytest.mark.parametrize(
    ("attribution", "code"),
    [
        (torch.ones(4, 2), "attribution.shape"),
        (torch.ones(3, 3), "attribution.shape"),
        ((torch.ones(4, 3), torch.ones(4, 3)), "attribution.shape"),
        ("none", "attribution.type"),
    ],
)
@pytest.mark.parametrize("perturb", [attrib.perturb.gaussian(0.1), metrics.hiding()])
def test_an_attribution_of_something_else_is_refused(
    attribution: Any, code: str, perturb: Any
) -> None:
    with pytest.raises(attrib.AttribError) as error:
        metrics.infidelity(linear, None, perturb)(attribution, numbers(4, 3))
    assert error.value.code == code


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"samples": 0}, "samples.range"),
        ({"form": "other"}, "form.unknown"),
        ({"perturb": None}, "perturb.type"),
        ({"perturb": metrics.hiding, "chunk_size": "all"}, "chunk_size.type"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], code: str) -> None:
    task: dict[str, Any] = {"perturb": attrib.perturb.gaussian(0.1), **options}
    with pytest.raises(attrib.AttribError) as error:
        metrics.infidelity(linear, None, **task)
    assert error.value.code == code


@pytest.mark.parametrize("form", ["local", "global"])
def test_integers_are_hidden_and_not_moved(form: Any) -> None:
    ids, weights = torch.tensor([[1, 2, 3], [3, 1, 2]]), torch.tensor([0.0, 1.0, -2.0, 4.0])
    f = lambda ids: weights[ids].sum(-1)
    phi = weights[ids]
    with pytest.raises(attrib.AttribError, match="hiding") as error:
        metrics.infidelity(f, None, attrib.perturb.gaussian(0.1), form=form)(phi, ids)
    assert error.value.code == "x.dtype"
    assert metrics.infidelity(f, None, metrics.hiding())(phi, ids).tolist() == [0.0, 0.0]


def test_windows_that_overlap_are_refused() -> None:
    with pytest.raises(attrib.AttribError) as error:
        metrics.hiding(games.windows((2,)))
    assert error.value.code == "groups.overlap"


def test_a_perturbation_of_another_shape_is_refused() -> None:
    with pytest.raises(attrib.AttribError, match="perturb: must return a tree like x"):
        metrics.infidelity(linear, attrib.saliency(linear), lambda x: x[:1])(numbers(4, 3))
