"""Axioms: completeness, dummy, symmetry, linearity, invariances of the formulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

import attrib
from attrib.types import Score
from laws.compare import assert_close, dtypes
from laws.methods import Law, MethodInfo, Sample, claiming, such_that
from laws.networks import KINDS, data, few, kinds, network, seeds, smooth_kinds

LOOSE = {torch.float32: 2e-5, torch.float64: 1e-8}
EXACT = {torch.float32: 1e-5, torch.float64: 1e-11}
SHIFTED = {torch.float32: 2e-5, torch.float64: 1e-11}
weights = st.floats(-3, 3).filter(lambda weight: weight == 0 or abs(weight) > 1e-3)
SAME = {torch.float32: 2e-6, torch.float64: 1e-12}


def sample(kind: str, seed: int, dtype: torch.dtype) -> Sample:
    return Sample(
        data(kind, seed, dtype),
        data(kind, seed + 1, dtype),
        data(kind, seed + 2, dtype, batch=(4,)),
    )


def start_of(info: MethodInfo, f: Score, drawn: Sample) -> Tensor:
    """The score from which the attributions lead to that of x."""
    return f(drawn.baseline) if info.takes == "baseline" else f(drawn.baselines).mean()


def one_by_one(info: MethodInfo) -> dict[str, Any]:
    """Options for methods that compare scores: a matrix product may round one example of a batch
    unlike another, so that only examples in the same place have the same last bit."""
    return {"chunk_size": 1} if info.chunked else {}


@claiming(Law.COMPLETE)
@dtypes
@few
@given(kind=smooth_kinds, seed=seeds)
def test_attributions_sum_to_the_rise_of_the_score(
    info: MethodInfo, dtype: torch.dtype, kind: str, seed: int
) -> None:
    f, drawn = attrib.target(network(kind, seed, dtype), 1), sample(kind, seed, dtype)
    with torch.no_grad():
        summed = info(f, drawn, **info.precise).flatten(1).sum(1)
        end, start = f(drawn.x), start_of(info, f, drawn)
        # Differences of scores are as exact as the scores.
        scale = torch.stack([end.abs().max(), start.abs().max()])
        assert_close(summed, end - start, LOOSE[dtype], scale)


@such_that(lambda info: info.dummies)
@few
@given(kind=kinds, seed=seeds)
def test_a_dummy_feature_gets_exactly_nothing(info: MethodInfo, kind: str, seed: int) -> None:
    model, drawn = network(kind, seed), sample(kind, seed, torch.float64)
    used = torch.arange(drawn.x.shape[-1]) != 1
    f = lambda x: model(torch.where(used, x, 0.5))[..., 0]
    attribution = info(f, drawn, **one_by_one(info))
    assert torch.equal(attribution[..., 1], torch.zeros_like(attribution[..., 1]))
    assert attribution.abs().max() > 0
    if info.pairs:  # ... nor does anything get something together with it
        row = attribution.select(-1 - len(KINDS[kind].features), 1)
        assert torch.equal(row, torch.zeros_like(row))


@claiming(Law.ANCHORED)
@few
@given(kind=kinds, seed=seeds)
def test_a_feature_at_its_baseline_gets_exactly_nothing(
    info: MethodInfo, kind: str, seed: int
) -> None:
    f = attrib.target(network(kind, seed), 0)
    x, baseline, baselines = sample(kind, seed, torch.float64)
    x = x[:1].expand_as(x)
    still = torch.arange(x.shape[-1]) != 2
    drawn = Sample(x, torch.where(still, x, baseline), torch.where(still, x[:1], baselines))
    attribution = info(f, drawn, **one_by_one(info))
    assert torch.equal(attribution[..., still], torch.zeros_like(attribution[..., still]))
    assert attribution.abs().max() > 0


@claiming(Law.COMPLETE)
@dtypes
@few
@given(kind=smooth_kinds, seed=seeds)
def test_the_only_feature_that_differs_gets_the_whole_rise(
    info: MethodInfo, dtype: torch.dtype, kind: str, seed: int
) -> None:
    f = attrib.target(network(kind, seed, dtype), 0)
    x, baseline, baselines = sample(kind, seed, dtype)
    x = x[:1].expand_as(x)
    features = x[0].numel()
    only = (torch.arange(features) == 2).reshape(x.shape[1:])
    drawn = Sample(x, torch.where(only, baseline, x), torch.where(only, baselines, x[:1]))
    with torch.no_grad():
        found = info(f, drawn, **info.precise)
        attribution = info.per_feature(found, len(KINDS[kind].features))
        end, start = f(x), start_of(info, f, drawn)
        scale = torch.stack([end.abs().max(), start.abs().max()])
        assert_close(attribution.flatten(1)[:, 2], end - start, LOOSE[dtype], scale)


@claiming(Law.SYMMETRIC)
@dtypes
@few
@given(kind=kinds, seed=seeds)
def test_features_that_are_alike_get_alike(
    info: MethodInfo, dtype: torch.dtype, kind: str, seed: int
) -> None:
    model = network(kind, seed, dtype)
    order = torch.arange(KINDS[kind].features[-1])
    exchanged = torch.cat([order[[1, 0]], order[2:]])
    drawn = Sample(*(t.index_select(-1, order.clamp_min(1)) for t in sample(kind, seed, dtype)))
    attribution = info(lambda x: (model(x) + model(x[..., exchanged]))[..., 0], drawn)
    attribution = info.per_feature(attribution, len(KINDS[kind].features))
    assert_close(attribution[..., 0], attribution[..., 1], EXACT[dtype], attribution)


@claiming(Law.LINEAR)
@dtypes
@few
@given(kind=kinds, seed=seeds, a=weights, b=weights)
def test_attribution_is_linear_in_the_score(
    info: MethodInfo, dtype: torch.dtype, kind: str, seed: int, a: float, b: float
) -> None:
    model, drawn = network(kind, seed, dtype), sample(kind, seed, dtype)
    f, g = attrib.target(model, 0), attrib.target(model, 1)
    of_f, of_g = a * info(f, drawn), b * info(g, drawn)
    both = info(lambda x: a * f(x) + b * g(x), drawn)
    assert_close(both, of_f + of_g, EXACT[dtype], torch.stack([of_f, of_g]))


@claiming(Law.LINEAR)
@few
@given(kind=kinds, seed=seeds)
def test_the_attribution_of_a_contrast_is_the_contrast_of_attributions(
    info: MethodInfo, kind: str, seed: int
) -> None:
    model, drawn = network(kind, seed), sample(kind, seed, torch.float64)
    f, g = attrib.target(model, 0), attrib.log_prob(model, torch.tensor([0, 2, 1, 1, 0]))
    of_f, of_g = info(f, drawn), info(g, drawn)
    assert_close(info(attrib.contrast(f, g), drawn), of_f - of_g, 1e-11, torch.stack([of_f, of_g]))


@such_that(lambda info: info.degree is not None)
@few
@given(kind=kinds, seed=seeds, power=st.integers(-6, 6))
def test_scaling_a_score_by_a_power_of_two_scales_every_bit(
    info: MethodInfo, kind: str, seed: int, power: int
) -> None:
    assert info.degree is not None
    f, drawn = attrib.target(network(kind, seed), 0), sample(kind, seed, torch.float64)
    scaled = info(attrib.batched(lambda x: 2.0**power * f(x)), drawn)
    assert torch.equal(scaled, 2.0 ** (power * info.degree) * info(f, drawn))


@such_that(lambda info: info.odd)
@few
@given(kind=kinds, seed=seeds)
def test_negating_a_score_negates_every_bit(info: MethodInfo, kind: str, seed: int) -> None:
    assert info.degree is not None
    f, drawn = attrib.target(network(kind, seed), 0), sample(kind, seed, torch.float64)
    negated = info(attrib.batched(lambda x: -f(x)), drawn)
    assert torch.equal(negated, (-1) ** info.degree * info(f, drawn))


def _relu_module(x: Tensor) -> Tensor:
    return nn.ReLU(inplace=True)(x)


TWINS: dict[str, Callable[[Tensor], Tensor]] = {
    "functional": F.relu,
    "in place": _relu_module,
    "clamp": lambda x: x.clamp_min(0),
    "where": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "leaky": lambda x: F.leaky_relu(x, 0.0),
}


@such_that(lambda info: bool(info.twins))
@dtypes
@few
@given(twin=st.sampled_from(list(TWINS)), seed=seeds)
def test_only_the_function_counts_not_how_it_is_written(
    info: MethodInfo, dtype: torch.dtype, twin: str, seed: int
) -> None:
    assume(twin in info.twins)
    model, drawn = network("relu", seed, dtype), sample("relu", seed, dtype)
    assert isinstance(model, nn.Sequential)
    first, _, second, _, last = model

    def written_differently(x: Tensor) -> Tensor:
        hidden = TWINS[twin](F.linear(x, 4 * first.weight, 4 * first.bias))
        hidden = TWINS[twin](F.linear(hidden, second.weight / 4, second.bias))
        return F.linear(hidden, last.weight[:1], last.bias[:1]).squeeze(-1)

    expected = info(attrib.target(model, 0), drawn)
    assert_close(info(written_differently, drawn), expected, SAME[dtype])


@claiming(Law.AFFINE)
@dtypes
@few
@given(kind=kinds, seed=seeds)
def test_units_and_origins_of_the_features_do_not_matter(
    info: MethodInfo, dtype: torch.dtype, kind: str, seed: int
) -> None:
    f, drawn = attrib.target(network(kind, seed, dtype), 0), sample(kind, seed, dtype)
    unit = 0.5 + data(kind, seed + 3, dtype, batch=()).sigmoid()
    origin = data(kind, seed + 4, dtype, batch=())
    expected = info(f, Sample(*(unit * u + origin for u in drawn)))
    assert_close(info(lambda u: f(unit * u + origin), drawn), expected, SHIFTED[dtype])


@claiming(Law.ANTISYMMETRIC)
@dtypes
@few
@given(kind=kinds, seed=seeds)
def test_exchanging_input_and_baseline_changes_the_sign(
    info: MethodInfo, dtype: torch.dtype, kind: str, seed: int
) -> None:
    f, drawn = attrib.target(network(kind, seed, dtype), 0), sample(kind, seed, dtype)
    there = info(f, drawn)
    back = info(f, Sample(drawn.baseline, drawn.x, drawn.baselines))
    assert_close(back, -there, LOOSE[dtype])
