"""How far attributions move: bounds, closed forms, loops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

import attrib
from attrib import metrics
from laws.networks import data, few, kinds, network, seeds

SENSITIVITIES = {"max_sensitivity": torch.amax, "average_sensitivity": torch.mean}


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def fixed(draws: Tensor) -> Any:
    rows: Iterator[Tensor] = iter(draws)
    return lambda x: x + next(rows)


@pytest.mark.parametrize("name", SENSITIVITIES)
def test_the_gradient_of_a_linear_score_does_not_move(name: str) -> None:
    saliency = attrib.saliency(lambda x: x @ torch.tensor([1.0, 2.0]))
    measure = getattr(metrics, name)(saliency, attrib.perturb.uniform(1.0))
    assert torch.equal(measure(torch.randn(4, 2)), torch.zeros(4))


def test_the_gradient_of_a_quadratic_moves_within_its_lipschitz_bound() -> None:
    """|grad f(y) - grad f(x)| <= L r sqrt(d) / |grad f(x)| in a ball of the maximum norm."""
    matrix = numbers(5, 5)
    matrix = matrix + matrix.T
    f = lambda x: 0.5 * torch.einsum("...i,ij,...j->...", x, matrix, x)
    x, radius = numbers(6, 5), 0.3
    lipschitz = torch.linalg.matrix_norm(matrix, 2)
    bound = lipschitz * radius * 5**0.5 / (x @ matrix).norm(dim=-1)
    measure = metrics.max_sensitivity(
        attrib.saliency(f), attrib.perturb.uniform(radius), samples=200
    )
    found = measure(x)
    assert (found <= bound).all() and (found > 0.2 * bound).all()
    steepest = metrics.local_lipschitz(
        attrib.saliency(f), attrib.perturb.gaussian(0.1), samples=200
    )(x)
    assert (steepest <= lipschitz * (1 + 1e-9)).all() and (steepest > 0.5 * lipschitz).all()


@few
@given(kind=kinds, seed=seeds)
def test_sensitivities_are_loops_over_draws(kind: str, seed: int) -> None:
    saliency = attrib.saliency(attrib.target(network(kind, seed), 0))
    x = data(kind, seed)
    draws = 0.1 * torch.stack([data(kind, seed + 1 + s) for s in range(5)])
    base = saliency(x).flatten(1)
    moved = [saliency(x + d).flatten(1) - base for d in draws]
    for p in (1, 2, 3.0, float("inf")):
        far = torch.stack([m.norm(p, dim=1) for m in moved]) / base.norm(p, dim=1)
        for name, fold in SENSITIVITIES.items():
            for chunk_size in (1, 2, None):
                task: Any = {"samples": 5, "norm": p, "chunk_size": chunk_size}
                measure = getattr(metrics, name)(saliency, fixed(draws), **task)
                torch.testing.assert_close(measure(x), fold(far, 0), rtol=1e-9, atol=1e-12)
    slopes = torch.stack([m.norm(dim=1) for m in moved]) / draws.flatten(2).norm(dim=-1)
    found = metrics.local_lipschitz(saliency, fixed(draws), samples=5)(x)
    torch.testing.assert_close(found, slopes.amax(0), rtol=1e-9, atol=1e-12)


def test_a_norm_may_be_a_function_and_the_distance_absolute() -> None:
    f, x, draws = (lambda x: x.pow(3).sum(-1)), numbers(4, 3), numbers(5, 4, 3)
    largest = lambda rows: rows.abs().amax(-1)
    values = [
        metrics.max_sensitivity(
            attrib.saliency(f), fixed(draws), samples=5, norm=norm, relative=False
        )(x)
        for norm in (largest, float("inf"))
    ]
    assert torch.equal(*values)
    expected = (3 * (x + draws).square() - 3 * x.square()).abs().amax((0, 2))
    torch.testing.assert_close(values[0], expected)


def test_one_norm_is_taken_over_all_leaves_and_integers_stay() -> None:
    f = lambda x: (x["a"].square() * x["ids"][..., None]).sum(-1) + x["b"].pow(3)
    x = {"a": numbers(4, 3), "b": numbers(4), "ids": torch.tensor([1, 2, 0, 1])}
    move: Any = lambda x: {"a": x["a"] + 1, "b": x["b"] + 2, "ids": x["ids"]}
    base = torch.cat([2 * x["a"] * x["ids"][:, None], 3 * x["b"].square()[:, None]], 1)
    change = torch.cat(
        [(2 * x["ids"][:, None]).expand(4, 3), (12 * x["b"] + 12)[:, None]], 1
    ).double()
    found = metrics.max_sensitivity(attrib.saliency(f), move, samples=1)(x)
    torch.testing.assert_close(found, change.norm(dim=1) / base.norm(dim=1))
    found = metrics.local_lipschitz(attrib.saliency(f), move, samples=1)(x)
    torch.testing.assert_close(found, change.norm(dim=1) / 7**0.5)


def test_a_draw_that_does_not_move_x_has_no_slope() -> None:
    saliency = attrib.saliency(lambda x: x.square().sum(-1))
    found = metrics.local_lipschitz(saliency, lambda x: x.clone())(torch.ones(2, 3))
    assert torch.equal(found, torch.zeros(2))


# --- relative stability ---------------------------------------------------------------------------


def relative_change(after: Tensor, before: Tensor) -> Tensor:
    return ((after - before) / before).flatten(1).norm(dim=1)


def test_relative_stabilities_are_their_formulas() -> None:
    model = network("tanh")
    saliency, hidden = attrib.saliency(attrib.target(model, 0)), model[:2]
    x, draws = data("tanh"), 0.1 * numbers(6, 5, 6)
    top = torch.stack([relative_change(saliency(x + d), saliency(x)) for d in draws])
    bottoms = {
        "input": [relative_change(x + d, x) for d in draws],
        "representation": [relative_change(hidden(x + d), hidden(x)) for d in draws],
        "output": [(model(x + d) - model(x)).norm(dim=1) for d in draws],
    }
    for chunk_size in (1, 4, None):
        task: Any = {"samples": 6, "chunk_size": chunk_size}
        found = {
            "input": metrics.relative_input_stability(saliency, fixed(draws), **task),
            "representation": metrics.relative_representation_stability(
                saliency, attrib.activation(model, "1"), fixed(draws), **task
            ),
            "output": metrics.relative_output_stability(saliency, model, fixed(draws), **task),
        }
        for name, measure in found.items():
            expected = (top / torch.stack(bottoms[name])).amax(0)
            torch.testing.assert_close(measure(x), expected, rtol=1e-9, atol=0)


def test_draws_that_change_the_prediction_do_not_count() -> None:
    f = lambda x: x.pow(3).sum(-1)
    x = torch.tensor([[1.0], [1.0]]).double()
    draws = torch.tensor([[[-3.0], [-3.0]], [[1.0], [-4.0]]]).double()
    measure = metrics.relative_input_stability(
        attrib.saliency(f), fixed(draws), samples=2, predict=lambda x: x[..., 0] > 0
    )
    found = measure(x)
    # From 1 to 2: the slope 3 becomes 12, by three times itself for once the input.
    assert found[0].item() == pytest.approx(3.0) and found[1].isnan()


def test_what_does_not_move_is_divided_by_eps() -> None:
    saliency = lambda x: torch.where(x > 0, 2.0, 1.0)
    measure = metrics.relative_output_stability(
        saliency, lambda x: x.abs(), lambda x: -x, samples=1, eps=0.5
    )
    assert measure(torch.tensor([[-1.0]])).item() == 2.0


# --- calling --------------------------------------------------------------------------------------


def test_a_module_sees_all_draws_as_one_batch() -> None:
    """`torch.vmap` could not trace this one."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(3, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.gru(x)[1][-1]

    model, x = Recurrent().double(), torch.rand(4, 5, 3, dtype=torch.float64)

    def measure(**options: Any) -> Tensor:
        noise = attrib.perturb.gaussian(0.1, generator=torch.Generator().manual_seed(0))
        square = attrib.saliency(lambda x: x.pow(3).sum((-2, -1)))
        return metrics.relative_output_stability(square, model, noise, **options)(x)

    with torch.no_grad():
        torch.testing.assert_close(measure(), measure(chunk_size=1), rtol=1e-12, atol=0)


def test_a_baseline_is_also_told_by_its_name() -> None:
    f = attrib.batched(lambda x: x.square().sum(-1))
    measure = metrics.max_sensitivity(attrib.integrated_gradients(f), lambda x: x + 0.1)
    x, baseline = torch.ones(2, 3), torch.rand(2, 3)
    assert torch.equal(measure(x, baseline=baseline), measure(x, baseline))
    assert not torch.equal(measure(x, baseline), measure(x))
    with pytest.raises(TypeError, match="steps"):
        measure(x, steps=3)


def test_further_arguments_go_to_the_attribution() -> None:
    f = lambda x, power: x.pow(power).sum(-1)
    x, draws = numbers(4, 3), numbers(5, 4, 3)
    ig = attrib.integrated_gradients(f)
    found = metrics.max_sensitivity(ig, fixed(draws), samples=5)(x, 0.5, 2)
    base = x.square() - 0.25
    expected = torch.stack([((x + d).square() - 0.25 - base).norm(dim=1) for d in draws])
    torch.testing.assert_close(found, expected.amax(0) / base.norm(dim=1), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("batch", "dims"), [((), 0), ((2,), 1), ((2, 3), 2)])
def test_batch_dimensions_are_told(batch: tuple[int, ...], dims: int) -> None:
    saliency = attrib.saliency(lambda x: x.square().sum(-1))
    x, draws = numbers(*batch, 3), numbers(5, *batch, 3)
    found = metrics.max_sensitivity(saliency, fixed(draws), samples=5, batch_dims=dims)(x)
    torch.testing.assert_close(found, (draws.norm(dim=-1) / x.norm(dim=-1)).amax(0))


def test_one_example_of_a_module_needs_no_batch() -> None:
    saliency, x = attrib.saliency(attrib.target(network("gelu"), 0)), data("gelu")
    draws = numbers(5, 6)
    one = metrics.max_sensitivity(saliency, fixed(draws), samples=5, batch_dims=0)(x[0])
    row = metrics.max_sensitivity(saliency, fixed(draws[:, None]), samples=5)(x[:1])
    torch.testing.assert_close(one, row[0])


def test_the_slope_of_a_sensitivity_is_that_of_finite_differences() -> None:
    saliency = attrib.saliency(lambda x: x.pow(3).sum(-1))
    x, draws = numbers(2, 3).requires_grad_(), numbers(5, 2, 3)

    def measured(name: str) -> Any:
        return lambda x: getattr(metrics, name)(saliency, fixed(draws), samples=5)(x)

    for name in ("max_sensitivity", "average_sensitivity", "local_lipschitz"):
        assert torch.autograd.gradcheck(measured(name), x)
    assert torch.autograd.gradcheck(measured("relative_input_stability"), x)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"samples": 0}, "samples.range"),
        ({"norm": 0.5}, "norm.range"),
        ({"norm": "fro"}, "norm.type"),
        ({"batch_dims": -1}, "batch_dims.range"),
        ({"perturb": 0.1}, "perturb.type"),
        ({"attribute": torch.ones(2)}, "attribute.type"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], code: str) -> None:
    task: dict[str, Any] = {"attribute": lambda x: x, "perturb": lambda x: x, **options}
    for measure in (metrics.max_sensitivity, metrics.relative_input_stability):
        with pytest.raises(attrib.AttribError) as error:
            measure(**task)
        assert error.value.code == code


def test_a_perturbation_of_another_shape_is_refused() -> None:
    with pytest.raises(attrib.AttribError, match="perturb: must return a tree like x"):
        metrics.max_sensitivity(lambda x: x, lambda x: x[:1])(torch.ones(2, 3))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (metrics.local_lipschitz, "x.dtype"),
        (metrics.relative_input_stability, "x.dtype"),
        (
            lambda a, p: metrics.relative_representation_stability(a, lambda x: x, p),
            "representation.dtype",
        ),
        (lambda a, p: metrics.relative_output_stability(a, lambda x: x, p), "outputs.dtype"),
    ],
)
def test_integers_have_no_size_by_which_they_move(make: Any, code: str) -> None:
    def attribute(x: Tensor) -> Tensor:
        raise AssertionError

    with pytest.raises(attrib.AttribError) as refused:
        make(attribute, lambda ids: ids.flip(-1))(torch.arange(6).reshape(2, 3))
    assert refused.value.code == code


@pytest.mark.parametrize("name", [*SENSITIVITIES, "local_lipschitz"])
def test_one_example_says_that_it_has_no_batch(name: str) -> None:
    factory = getattr(metrics, name)
    saliency, move = attrib.saliency(lambda x: x.sin()), lambda x: x + 1
    with pytest.raises(attrib.AttribError, match="pass batch_dims=0") as refused:
        factory(saliency, move)(torch.tensor(0.5))
    assert refused.value.code == "attribution.shape"
    assert factory(saliency, move, batch_dims=0)(torch.tensor(0.5)).shape == ()


@pytest.mark.parametrize(
    "measure",
    [
        lambda f, noise: metrics.max_sensitivity(attrib.saliency(f), noise),
        lambda f, noise: lambda x: metrics.infidelity(f, None, noise)(x, x),
    ],
)
def test_noise_that_does_not_fit_is_refused_before_the_model_is_called(measure: Any) -> None:
    def f(x: Tensor) -> Tensor:
        raise AssertionError

    noise, x = attrib.perturb.gaussian((0.1, 0.2)), torch.ones(2, 3)
    with pytest.raises(attrib.AttribError) as refused:
        measure(f, noise)(x)
    assert refused.value.code == "std.structure"


@pytest.mark.parametrize("make", [attrib.perturb.gaussian, attrib.perturb.uniform])
@pytest.mark.parametrize("chunk_size", [1, 2, 4, 5, None, "auto"])
def test_a_noise_is_compared_with_the_input_itself(make: Any, chunk_size: Any) -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    saliency = attrib.saliency(lambda x: (x**3).sum(-1))
    draw, draws = (make(0.4, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    here, moved = saliency(x), [saliency(draw(x)) for _ in range(5)]
    ratios = torch.stack([(there - here).norm(dim=-1) / here.norm(dim=-1) for there in moved])
    measure = metrics.max_sensitivity(saliency, draws, samples=5, chunk_size=chunk_size)
    torch.testing.assert_close(measure(x), ratios.amax(0), rtol=1e-12, atol=0)


def test_zeros_keep_their_sign_next_to_noise() -> None:
    x = torch.full((1, 4), -0.0)
    points = attrib.perturb.drawn(attrib.perturb.gaussian(0.1), x, 1, after_x=True).take(0, 2)
    assert torch.equal(torch.signbit(points[0]), torch.signbit(x))
