"""Smoothing: moments over noise and over baselines, whatever the chunks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import attrib
from laws.networks import data, network

X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def square(x: Tensor) -> Tensor:
    return x.square().sum(-1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


MOMENTS = {
    "smooth_grad": (attrib.smooth_grad, lambda a: a.mean(0)),
    "smooth_grad_sq": (attrib.smooth_grad_sq, lambda a: a.square().mean(0)),
    "var_grad": (attrib.var_grad, lambda a: a.var(0, correction=0)),
}
each = pytest.mark.parametrize(("method", "moment"), MOMENTS.values(), ids=MOMENTS.keys())


@each
@pytest.mark.parametrize("chunk_size", [1, 3, 8, None, "auto"])
def test_a_moment_is_that_of_a_loop_over_the_same_draws(
    method: Any, moment: Any, chunk_size: Any
) -> None:
    noise = attrib.perturb.gaussian(0.3, generator=seeded(3))
    draws = [noise(X) for _ in range(9)]
    expected = moment(torch.stack([2 * draw for draw in draws]))

    reduce = {
        attrib.smooth_grad: attrib.mean,
        attrib.smooth_grad_sq: attrib.second_moment,
        attrib.var_grad: attrib.variance,
    }[method]
    noise = attrib.perturb.gaussian(0.3, generator=seeded(3))
    found = attrib.smooth(
        attrib.saliency(square), noise, samples=9, reduce=reduce, chunk_size=chunk_size
    )(X)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_named_methods_have_the_moments_of_their_noise() -> None:
    samples, std = 4000, 0.3
    options: Any = {"samples": samples, "generator": seeded()}
    gradient = attrib.saliency(square)
    # Of 2 (x + std n): mean 2x, variance 4 std^2, mean square 4 x^2 + 4 std^2.
    mean = attrib.smooth_grad(gradient, std, **options)(X)
    assert ((mean - 2 * X).abs() <= 5 * 2 * std / samples**0.5).all()
    variance = attrib.var_grad(gradient, std, **options)(X)
    assert ((variance - 4 * std**2).abs() <= 5 * 4 * std**2 * (2 / samples) ** 0.5).all()
    second = attrib.smooth_grad_sq(gradient, std, **options)(X)
    spread = (2 * (2 * std) ** 4 + 4 * (2 * X) ** 2 * (2 * std) ** 2).sqrt()
    assert ((second - 4 * (X.square() + std**2)).abs() <= 5 * spread / samples**0.5).all()


def test_the_variance_is_the_second_moment_less_the_square_of_the_mean() -> None:
    gradient = attrib.saliency(square)
    mean, second, variance = (
        method(gradient, 0.3, samples=9, generator=seeded())(X)
        for method in (attrib.smooth_grad, attrib.smooth_grad_sq, attrib.var_grad)
    )
    torch.testing.assert_close(variance, second - mean.square(), rtol=1e-10, atol=1e-12)


@each
def test_no_noise_gives_the_attribution_itself(method: Any, moment: Any) -> None:
    f = attrib.target(network("gelu"), 0)
    attribute, x = attrib.integrated_gradients(f), data("gelu")
    once = attribute(x, 0.5)
    found = method(attribute, 0.0, samples=3)(x, 0.5)
    torch.testing.assert_close(found, moment(torch.stack([once] * 3)), rtol=1e-12, atol=1e-12)


def test_a_perturbation_is_drawn_once_for_each_sample() -> None:
    calls: list[tuple[int, ...]] = []

    def counted(x: Tensor) -> Tensor:
        calls.append(tuple(x.shape))
        return x

    attribute = attrib.smooth(attrib.saliency(square), counted, samples=7, chunk_size=3)
    torch.testing.assert_close(attribute(X), 2 * X)
    assert calls == [(3, 4)] * 7


def test_the_noise_of_leaves_has_its_own_scale() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def f(x: tuple[Tensor, Tensor]) -> Tensor:
        seen.append((x[0].detach(), x[1].detach()))
        return (x[0] * x[1]).sum(-1)

    zeros = torch.zeros(400, 3)
    attrib.smooth_grad(attrib.saliency(attrib.batched(f)), (1.0, 0.0), samples=6)((zeros, zeros))
    first, second = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert abs(float(first.square().mean()) - 1) < 5 * (2 / first.numel()) ** 0.5
    assert torch.equal(second, torch.zeros_like(second))


@pytest.mark.parametrize("shared", [True, False], ids=["one generator", "two generators"])
def test_draws_within_draws_do_not_depend_on_the_chunks(shared: bool) -> None:
    f, x, baselines = attrib.target(network("gelu"), 0), data("gelu"), data("gelu", 1, batch=(7,))

    def nested(outer: Any, inner: Any) -> Tensor:
        generator = seeded()
        other = generator if shared else seeded(1)
        expected = attrib.expected_gradients(f, samples=5, generator=other, chunk_size=inner)
        smoothed = attrib.smooth_grad(
            expected, 0.2, samples=6, generator=generator, chunk_size=outer
        )
        return smoothed(x, baselines).detach()

    expected = nested(1, 1)
    for outer in (1, 4, None, "auto"):
        for inner in (1, 2, None, "auto"):
            torch.testing.assert_close(nested(outer, inner), expected, rtol=1e-12, atol=1e-12)


def test_draws_within_draws_are_fresh_for_every_outer_draw() -> None:
    f, x, baselines = attrib.target(network("tanh"), 0), data("tanh"), data("tanh", 1, batch=(7,))
    generator = seeded()
    inner = attrib.expected_gradients(f, samples=1, generator=generator)
    # Without noise, all that varies from sample to sample is the inner draw.
    varied = attrib.smooth(inner, lambda x: x, samples=8, reduce=attrib.variance)(x, baselines)
    assert (varied > 0).all()


def test_a_baseline_is_also_told_by_its_name() -> None:
    f = attrib.batched(lambda x: x.pow(3).sum(-1))
    smooth = attrib.smooth_grad(attrib.integrated_gradients(f), 0.1, samples=2)
    x, baseline = torch.ones(2, 3), torch.rand(2, 3)
    assert torch.equal(smooth(x, baseline=baseline), smooth(x, baseline))
    assert not torch.equal(smooth(x, baseline), smooth(x))
    with pytest.raises(TypeError, match="steps"):
        smooth(x, steps=3)


def test_smoothing_may_be_nested() -> None:
    # Noise upon noise has the sum of the variances.
    inner = attrib.smooth_grad(attrib.saliency(square), 0.3, samples=1, generator=seeded())
    outer = attrib.var_grad(inner, 0.4, samples=4000, generator=seeded(1))
    found = outer(X)
    assert ((found - 4 * 0.25).abs() <= 5 * 4 * 0.25 * (2 / 4000) ** 0.5).all()


def test_an_estimate_of_a_smoothed_attribution_has_a_standard_error() -> None:
    noise = attrib.perturb.gaussian(0.3, generator=seeded())
    attribute = attrib.smooth(attrib.saliency(square), noise, samples=2000, reduce=attrib.estimate)
    value, stderr, samples = attribute(X)
    assert samples == 2000
    torch.testing.assert_close(stderr, torch.full_like(stderr, 0.6 / 2000**0.5), rtol=0.1, atol=0)
    assert ((value - 2 * X).abs() <= 5 * stderr).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_smoothed_in_single(dtype: torch.dtype) -> None:
    x = X.to(dtype)
    found = attrib.smooth_grad(attrib.saliency(square), 0.1, samples=600)(x)
    assert found.dtype == dtype
    # 600 draws added up in bfloat16 would be off by far more than the noise of their mean.
    off = (found.double() - 2 * x.double()).abs()
    assert (off <= 5 * 0.2 / 600**0.5 + 0.01 * (2 * x.double()).abs()).all()


# ---- over baselines


def test_an_expectation_is_a_mean_over_baselines() -> None:
    f, x, baselines = attrib.target(network("gelu"), 0), data("gelu"), data("gelu", 1, batch=(7,))
    attribute = attrib.integrated_gradients(f)
    looped = torch.stack([attribute(x, b.expand_as(x)) for b in baselines])
    for chunk_size in (1, 3, None, "auto"):
        found = attrib.expected(attribute, chunk_size=chunk_size)(x, baselines)
        torch.testing.assert_close(found, looped.mean(0), rtol=1e-12, atol=1e-12)
    value, stderr, samples = attrib.expected(attribute, reduce=attrib.estimate)(x, baselines)
    torch.testing.assert_close(value, looped.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(stderr, looped.std(0) / 7**0.5, rtol=1e-10, atol=1e-12)
    assert samples == 7


def test_a_row_of_baselines_may_be_a_whole_batch() -> None:
    f, x = attrib.target(network("gelu"), 0), data("gelu")
    baselines = torch.stack([data("gelu", seed) for seed in (1, 2, 3)])
    attribute = attrib.integrated_gradients(f)
    looped = torch.stack([attribute(x, b) for b in baselines]).mean(0)
    found = attrib.expected(attribute)(x, baselines)
    torch.testing.assert_close(found, looped, rtol=1e-12, atol=1e-12)


def test_leaves_share_the_row_of_baselines() -> None:
    f = lambda x: (x[0] * x[1]).sum(-1)
    x = (X, X + 1)
    baselines = (torch.randn(5, 4).double(), torch.randn(5, 4).double())
    attribute = attrib.integrated_gradients(f)
    looped = [attribute(x, (a, b)) for a, b in zip(*baselines, strict=True)]
    found = attrib.expected(attribute)(x, baselines)
    for place in (0, 1):
        expected = torch.stack([one[place] for one in looped]).mean(0)
        torch.testing.assert_close(found[place], expected, rtol=1e-12, atol=1e-12)


def test_an_expectation_works_for_any_method_with_a_baseline() -> None:
    f, x, baselines = attrib.target(network("gelu"), 0), data("gelu"), data("gelu", 1, batch=(3,))
    for method in (attrib.guided_ig, attrib.average_gradient, attrib.integrated_hessians):
        attribute = method(f)
        looped = torch.stack([attribute(x, b.expand_as(x)) for b in baselines]).mean(0)
        found = attrib.expected(attribute)(x, baselines)
        torch.testing.assert_close(found, looped, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: attrib.smooth(3, lambda x: x),
        lambda: attrib.smooth(attrib.saliency(square), 0.1),
        lambda: attrib.smooth(attrib.saliency(square), lambda x: x, samples=0),
        lambda: attrib.smooth(attrib.saliency(square), lambda x: x, samples=2.0),
        lambda: attrib.smooth(attrib.saliency(square), lambda x: x, reduce="mean"),
        lambda: attrib.smooth_grad(attrib.saliency(square), -1.0),
        lambda: attrib.smooth_grad(attrib.saliency(square), "wide"),
        lambda: attrib.smooth_grad(attrib.saliency(square), 0.1, generator=7),
        lambda: attrib.var_grad(None, 0.1),
        lambda: attrib.expected(None),
        lambda: attrib.expected(attrib.integrated_gradients(square), chunk_size=0),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(call: Any) -> None:
    with pytest.raises(attrib.AttribError):
        call()


def test_a_baseline_of_features_is_none_of_examples() -> None:
    # As many features as examples: the baseline must not be repeated with the draws.
    f = attrib.target(torch.nn.Linear(4, 2).eval(), 0)
    x, baseline = torch.rand(4, 4), torch.rand(4)
    attribute = attrib.smooth(attrib.integrated_gradients(f), lambda x: x + 0, samples=3)
    assert torch.allclose(
        attribute(x, baseline), attrib.integrated_gradients(f)(x, baseline), atol=1e-6
    )
