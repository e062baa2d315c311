"""Quadrature rules: weights that sum to one, exact degrees, nested nodes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from attrib._quadrature import RULES, clenshaw_curtis_levels, logarithmic, nodes, rule_tensors

STEPS = (1, 2, 3, 5, 16, 50, 101)
DOUBLE, SINGLE = torch.zeros((), dtype=torch.float64), torch.zeros(())


def named() -> list[tuple[str, int]]:
    return [(rule, steps) for rule in RULES for steps in STEPS if rule != "trapezoid" or steps > 1]


def tensors(rule: object, like: Tensor = DOUBLE) -> tuple[Tensor, Tensor]:
    return rule_tensors(rule, like)


def integrate(rule: object, degree: int) -> float:
    points, weights = tensors(rule)
    return float((weights * points**degree).sum())


@pytest.mark.parametrize("like", [DOUBLE, SINGLE], ids=["f64", "f32"])
@pytest.mark.parametrize(("quadrature", "steps"), named())
def test_weights_sum_to_one_to_rounding(quadrature: str, steps: int, like: Tensor) -> None:
    points, weights = tensors(nodes(quadrature, steps), like)
    assert points.dtype == weights.dtype == like.dtype
    assert points.shape == weights.shape == (steps,)
    # Each weight is rounded once: at most half a unit in the last place of it.
    assert abs(float(weights.double().sum()) - 1) <= torch.finfo(like.dtype).eps
    assert (weights > 0).all() and (points >= 0).all() and (points <= 1).all()
    assert (points.diff() > 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gets_nodes_in_single(dtype: torch.dtype) -> None:
    points, weights = rule_tensors(nodes("midpoint", 50), torch.zeros((), dtype=dtype))
    assert points.dtype == weights.dtype == torch.float32


# The highest degree of a polynomial that a rule of n nodes integrates exactly.
DEGREES = {
    "gauss-legendre": lambda n: 2 * n - 1,
    "midpoint": lambda n: 1,
    "trapezoid": lambda n: 1,
    "left": lambda n: 0,
    "right": lambda n: 0,
}


@pytest.mark.parametrize(("quadrature", "steps"), named())
def test_each_rule_is_exact_up_to_its_degree_and_not_beyond(quadrature: str, steps: int) -> None:
    rule, degree = nodes(quadrature, steps), DEGREES[quadrature](steps)
    for power in range(degree + 1):
        assert integrate(rule, power) == pytest.approx(1 / (power + 1), rel=1e-13)
    if steps <= 5:  # of more nodes, the error of the next degree is below rounding
        assert integrate(rule, degree + 1) != pytest.approx(1 / (degree + 2), rel=1e-9)


def test_riemann_sums_are_those_of_the_literature() -> None:
    assert nodes("left", 4) == ((0.0, 0.25, 0.5, 0.75), (0.25,) * 4)
    assert nodes("right", 4) == ((0.25, 0.5, 0.75, 1.0), (0.25,) * 4)
    assert nodes("midpoint", 4) == ((0.125, 0.375, 0.625, 0.875), (0.25,) * 4)
    points, weights = tensors(nodes("trapezoid", 4))
    torch.testing.assert_close(points, torch.tensor([0, 1, 2, 3], dtype=torch.float64) / 3)
    torch.testing.assert_close(weights, torch.tensor([1, 2, 2, 1], dtype=torch.float64) / 6)
    points, weights = tensors(nodes("gauss-legendre", 2))
    expected = 0.5 + torch.tensor([-1, 1], dtype=torch.float64) / math.sqrt(12)
    torch.testing.assert_close(points, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("quadrature", ["gauss-legendre", "midpoint", "trapezoid"])
def test_symmetric_rules_are_symmetric(quadrature: str) -> None:
    points, weights = tensors(nodes(quadrature, 50))
    torch.testing.assert_close(points.flip(0), 1 - points, rtol=0, atol=1e-15)
    torch.testing.assert_close(weights.flip(0), weights, rtol=1e-12, atol=0)


@pytest.mark.parametrize("steps", [9, 10, 13, 17, 50, 64, 100, 200, 1000])
def test_nested_rules_keep_the_nodes_of_the_one_before(steps: int) -> None:
    levels = [tensors(rule) for rule in clenshaw_curtis_levels(steps)]
    assert len(levels) >= 3, "two differences are needed to see how fast they converge"
    assert len(levels[-1][0]) <= steps
    assert len(levels[-1][0]) > steps / 2, "half of the steps would be left unused"
    for (coarse, _), (fine, _) in pairwise(levels):
        assert len(fine) == 2 * len(coarse) - 1
        torch.testing.assert_close(fine[::2], coarse, rtol=0, atol=1e-15)


@pytest.mark.parametrize("steps", [9, 17, 50, 200])
def test_nested_rules_are_exact_for_polynomials_of_as_many_degrees_as_intervals(
    steps: int,
) -> None:
    for rule in clenshaw_curtis_levels(steps):
        points, weights = tensors(rule)
        intervals = len(points) - 1
        assert float(weights.sum()) == pytest.approx(1, rel=1e-15)
        assert (weights > 0).all()
        assert (float(points[0]), float(points[-1])) == (0.0, 1.0)
        # A symmetric rule of an even number of intervals gets one degree for nothing.
        for power in range(intervals + 1 + (intervals % 2 == 0)):
            assert integrate(rule, power) == pytest.approx(1 / (power + 1), rel=1e-13)


@pytest.mark.parametrize("steps", [1, 2, 5, 20, 50, 200])
def test_the_logarithmic_rule_integrates_against_minus_log(steps: int) -> None:
    rule = logarithmic(steps)
    points, weights = tensors(rule)
    assert (weights > 0).all() and (points > 0).all() and (points < 1).all()
    for power in range(2 * steps):
        exact = 1 / (power + 1) ** 2  # of -log(u) * u**power
        assert integrate(rule, power) == pytest.approx(exact, rel=1e-12)
    if steps <= 5:
        exact = 1 / (2 * steps + 1) ** 2
        assert integrate(rule, 2 * steps) != pytest.approx(exact, rel=1e-9)


def test_nodes_are_made_once() -> None:
    rule = nodes("gauss-legendre", 37)
    assert nodes("gauss-legendre", 37) is rule
    first, again = rule_tensors(rule, DOUBLE), rule_tensors(rule, DOUBLE)
    assert first[0] is again[0] and first[1] is again[1]


def test_nodes_made_under_inference_mode_serve_where_gradients_are_recorded() -> None:
    rule = nodes("gauss-legendre", 41)
    with torch.inference_mode():
        rule_tensors(rule, DOUBLE)
    points, _ = rule_tensors(rule, DOUBLE)
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    (weight * points).sum().backward()
    assert weight.grad is not None
