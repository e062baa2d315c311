"""Functions whose attributions are known exactly, in every dtype."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

import attrib
from attrib.types import Score
from laws.compare import assert_close, dtypes
from laws.methods import METHODS, Law, MethodInfo, Sample, claiming, every, such_that
from laws.networks import data, few, kinds, network, seeds

EXACT = {torch.float32: 1e-5, torch.float64: 1e-12}
halves = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])


def of(name: str) -> MethodInfo:
    return next(info for info in METHODS if info.name == name)


def vectors(seed: int, dtype: torch.dtype, rows: int = 5, features: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, features, generator=generator, dtype=torch.float64).to(dtype)


def sample(seed: int, dtype: torch.dtype) -> Sample:
    return Sample(vectors(seed, dtype), vectors(seed + 1, dtype), vectors(seed + 2, dtype, rows=1))


GRADIENTS = ("saliency", "average_gradient", "smooth_grad", "per_target(saliency)")
DIFFERENCES = (
    *("integrated_gradients", "integrated_gradients[midpoint]", "integrated_gradients[left]"),
    *("integrated_gradients[right]", "integrated_gradients[trapezoid]"),
    *("integrated_gradients[tol]", "integrated_gradients[path]", "guided_ig", "expected_gradients"),
    *("expected(integrated_gradients)", "per_target(integrated_gradients)"),
)


@such_that(lambda info: info.name in GRADIENTS)
@dtypes
@few
@given(seed=seeds)
def test_a_linear_score_has_its_weights_as_gradient(
    info: MethodInfo, dtype: torch.dtype, seed: int
) -> None:
    weight, drawn = vectors(seed, dtype, rows=1)[0], sample(seed, dtype)
    found = info(lambda x: (x * weight).sum(-1) + 3, drawn)
    assert_close(found, weight.expand_as(drawn.x), EXACT[dtype])


@such_that(lambda info: info.name in DIFFERENCES)
@dtypes
@few
@given(seed=seeds)
def test_a_linear_score_gives_each_feature_weight_times_difference(
    info: MethodInfo, dtype: torch.dtype, seed: int
) -> None:
    weight, drawn = vectors(seed + 3, dtype, rows=1)[0], sample(seed, dtype)
    start = drawn.baseline if info.takes == "baseline" else drawn.baselines
    found = info(lambda x: (x * weight).sum(-1) + 3, drawn)
    assert_close(found, weight * (drawn.x - start), EXACT[dtype])


@dtypes
@few
@given(seed=seeds)
def test_a_linear_score_gives_input_x_gradient_weight_times_input(
    dtype: torch.dtype, seed: int
) -> None:
    weight, drawn = vectors(seed + 3, dtype, rows=1)[0], sample(seed, dtype)
    found = attrib.input_x_gradient(lambda x: (x * weight).sum(-1) + 3)(drawn.x)
    assert_close(found, weight * drawn.x, EXACT[dtype])


@dtypes
@few
@given(seed=seeds)
def test_a_linear_score_has_no_variance_and_the_square_of_its_weights(
    dtype: torch.dtype, seed: int
) -> None:
    weight, drawn = vectors(seed + 3, dtype, rows=1)[0], sample(seed, dtype)
    f: Score = lambda x: (x * weight).sum(-1) + 3
    assert_close(of("var_grad")(f, drawn), torch.zeros_like(drawn.x), 0)
    expected = weight.square().expand_as(drawn.x)
    assert_close(of("smooth_grad_sq")(f, drawn), expected, EXACT[dtype])


@dtypes
@few
@given(seed=seeds)
def test_a_linear_score_has_only_diagonal_interactions(dtype: torch.dtype, seed: int) -> None:
    weight, drawn = vectors(seed + 3, dtype, rows=1)[0], sample(seed, dtype)
    # The square is worth nothing, but has the second derivative that a linear score lacks.
    found = of("integrated_hessians")(lambda x: (x * weight).sum(-1) + 0 * x.pow(2).sum(-1), drawn)
    expected = torch.diag_embed(weight * (drawn.x - drawn.baseline))
    assert_close(found, expected, EXACT[dtype])


@dtypes
@few
@given(seed=seeds)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_quadratic_form_is_integrated_exactly_from_one_point_on(
    steps: int, dtype: torch.dtype, seed: int
) -> None:
    form, drawn = vectors(seed + 3, dtype, rows=4), sample(seed, dtype)
    form = form + form.T
    integrate = attrib.integrated_gradients(lambda x: ((x @ form) * x).sum(-1), steps=steps)
    expected = (drawn.x - drawn.baseline) * ((drawn.x + drawn.baseline) @ form)
    assert_close(integrate(drawn.x, drawn.baseline), expected, EXACT[dtype])


@pytest.mark.parametrize("quadrature", ["midpoint", "trapezoid"])
@dtypes
@few
@given(seed=seeds)
def test_symmetric_rules_integrate_a_quadratic_form_exactly(
    quadrature: str, dtype: torch.dtype, seed: int
) -> None:
    form, drawn = vectors(seed + 3, dtype, rows=4), sample(seed, dtype)
    form = form + form.T
    integrate = attrib.integrated_gradients(
        lambda x: ((x @ form) * x).sum(-1), steps=6, quadrature=quadrature
    )
    expected = (drawn.x - drawn.baseline) * ((drawn.x + drawn.baseline) @ form)
    assert_close(integrate(drawn.x, drawn.baseline), expected, EXACT[dtype])


@dtypes
@few
@given(seed=seeds)
def test_a_product_is_shared_equally(dtype: torch.dtype, seed: int) -> None:
    x = vectors(seed, dtype, features=3)
    product = x.prod(-1, keepdim=True)
    for steps in (2, 50):
        found = attrib.integrated_gradients(lambda x: x.prod(-1), steps=steps)(x)
        assert_close(found, (product / 3).expand_as(x), EXACT[dtype])


@pytest.mark.parametrize("steps", [1, 2, 5])
@dtypes
def test_gauss_legendre_is_exact_up_to_twice_as_many_degrees_as_points(
    steps: int, dtype: torch.dtype
) -> None:
    x = torch.tensor([[0.5, 1.5, -1.25]], dtype=dtype)
    found = attrib.integrated_gradients(lambda x: x.pow(2 * steps).sum(-1), steps=steps)(x)
    assert_close(found, x.pow(2 * steps), EXACT[dtype])


@dtypes
@pytest.mark.parametrize("reduction", ["max", "min"])
def test_the_extreme_gets_all_of_a_maximum_or_minimum(reduction: str, dtype: torch.dtype) -> None:
    x = torch.tensor([[3.0, 2.0], [0.5, 4.0]], dtype=dtype)
    extreme = x.amax(-1, keepdim=True) if reduction == "max" else x.amin(-1, keepdim=True)
    found = attrib.integrated_gradients(lambda x: getattr(x, f"a{reduction}")(-1))(x)
    assert_close(found, torch.where(x == extreme, x, 0), EXACT[dtype])


@dtypes
@few
@given(seed=seeds)
def test_the_gradient_of_a_probability_is_known(dtype: torch.dtype, seed: int) -> None:
    weight, x = vectors(seed + 3, dtype, rows=3), vectors(seed, dtype)
    model = nn.Linear(4, 3, bias=False).to(dtype)
    model.weight.data.copy_(weight)
    p = (x.double() @ weight.double().T).softmax(-1)
    of_log = weight.double()[1] - p @ weight.double()
    assert_close(
        attrib.saliency(attrib.prob(model, 1))(x).double(), p[:, 1:2] * of_log, EXACT[dtype]
    )
    assert_close(attrib.saliency(attrib.log_prob(model, 1))(x).double(), of_log, EXACT[dtype])


@dtypes
@few
@given(seed=seeds)
def test_without_biases_and_baseline_integrated_gradients_are_input_x_gradient(
    dtype: torch.dtype, seed: int
) -> None:
    model, x = network("relu", seed, dtype), data("relu", seed, dtype)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.bias.data.zero_()
    f = attrib.target(model, 0)
    expected = attrib.input_x_gradient(f)(x)
    for name in ("integrated_gradients", "integrated_gradients[right]"):
        assert_close(of(name).attribute(f)(x), expected, EXACT[dtype])


@every()
@few
@given(kind=kinds, seed=seeds)
def test_the_dtype_of_the_input_is_that_of_the_attribution(
    info: MethodInfo, kind: str, seed: int
) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        drawn = Sample(*(data(kind, seed + i, dtype, batch=(4,)) for i in range(3)))
        found = info(attrib.target(network(kind, seed, dtype), 0), drawn)
        assert found.dtype == dtype
        assert found.isfinite().all()


@such_that(lambda info: not info.seeded and info.name != "guided_ig")
@halves
@few
@given(seed=seeds)
def test_half_precision_is_near_double_precision(
    info: MethodInfo, dtype: torch.dtype, seed: int
) -> None:
    model, drawn = network("gelu", seed, dtype), Sample(*(data("gelu", s, dtype) for s in range(3)))
    found = info(attrib.target(model, 0), drawn)
    expected = info(attrib.target(model.double(), 0), Sample(*(t.double() for t in drawn)))
    off = (found.double() - expected).abs().max()
    assert off <= 0.06 * expected.abs().max() + 0.03


@such_that(lambda info: info.takes == "baseline")
@few
@given(seed=seeds)
def test_a_baseline_of_another_dtype_is_converted(info: MethodInfo, seed: int) -> None:
    f, drawn = attrib.target(network("gelu", seed), 0), sample_of_gelu(seed)
    rough = drawn._replace(baseline=drawn.baseline.float())
    exact = drawn._replace(baseline=drawn.baseline.float().double())
    assert_close(info(f, rough), info(f, exact), 0)
    whole = drawn._replace(baseline=drawn.baseline.round().long())
    exact = drawn._replace(baseline=drawn.baseline.round())
    assert_close(info(f, whole), info(f, exact), 0)


def sample_of_gelu(seed: int) -> Sample:
    return Sample(*(data("gelu", seed + i) for i in range(3)))


@claiming(Law.COMPLETE)
def test_float64_is_honest(info: MethodInfo) -> None:
    # The same to float32 in the model: nothing in between may round.
    model, drawn = network("tanh"), Sample(*(data("tanh", s) for s in range(3)))
    rough = Sample(*(t.float() for t in drawn))
    exact = info(attrib.target(model, 0), Sample(*(t.double() for t in rough)))
    single = info(attrib.target(network("tanh", dtype=torch.float32), 0), rough)
    assert_close(single, exact.float(), 1e-5)
    assert not torch.equal(single.double(), exact)
