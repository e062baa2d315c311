"""Guided integrated gradients, against algorithm 1 of the paper written out number by number."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import attrib
from laws.compare import assert_close
from laws.networks import SMOOTH, data, few, kinds, network, seeds


def naive(
    f: Any, x: Tensor, baseline: Tensor, steps: int, fraction: float, max_distance: float
) -> Tensor:
    """Algorithm 1 of Kapishnikov et al. (2021) with a corridor around the line, one example."""
    shape, size = x.shape, x.numel()
    end, start = x.flatten().tolist(), baseline.flatten().tolist()
    point, found = list(start), [0.0] * size
    total = sum(abs(e - s) for e, s in zip(end, start, strict=True))
    for step in range(steps):
        at = torch.tensor(point, dtype=x.dtype).reshape(1, *shape).requires_grad_()
        gradient = torch.autograd.grad(f(at)[0], at)[0].flatten().tolist()
        alpha = (step + 1) / steps
        low, high = max(alpha - max_distance, 0.0), min(alpha + max_distance, 1.0)
        lowest = [s + low * (e - s) for e, s in zip(end, start, strict=True)]
        highest = [s + high * (e - s) for e, s in zip(end, start, strict=True)]
        wanted = total * (1 - alpha)
        before = list(point)
        # Whoever fell behind the corridor is put at its back.
        for i in range(size):
            if abs(point[i] - start[i]) < abs(lowest[i] - start[i]):
                point[i] = lowest[i]
        arrived = [abs(point[i] - start[i]) >= abs(highest[i] - start[i]) for i in range(size)]
        while True:
            distance = sum(abs(e - p) for e, p in zip(end, point, strict=True))
            if math.isclose(distance, wanted, rel_tol=1e-12, abs_tol=1e-12) or distance < wanted:
                break
            cost = [math.inf if arrived[i] else abs(gradient[i]) for i in range(size)]
            threshold = sorted(cost)[math.floor(fraction * (size - 1))]
            chosen = [i for i in range(size) if cost[i] <= threshold and not arrived[i]]
            if not chosen:
                break
            gain = sum(abs(highest[i] - point[i]) for i in chosen)
            share = (distance - wanted) / gain
            for i in chosen:
                arrived[i] = share >= 1
                point[i] = highest[i] if arrived[i] else point[i] + share * (highest[i] - point[i])
            if share <= 1:
                break
        for i in range(size):
            found[i] += gradient[i] * (point[i] - before[i])
    return torch.tensor(found, dtype=x.dtype).reshape(shape)


@few
@given(
    kind=kinds,
    seed=seeds,
    steps=st.integers(1, 12),
    fraction=st.sampled_from([0.1, 0.25, 0.5, 1.0]),
    max_distance=st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]),
)
def test_the_path_is_that_of_the_published_algorithm(
    kind: str, seed: int, steps: int, fraction: float, max_distance: float
) -> None:
    f = attrib.target(network(kind, seed), 0)
    x, baseline = data(kind, seed, batch=(3,)), data(kind, seed + 1, batch=(3,))
    options: Any = {"steps": steps, "fraction": fraction, "max_distance": max_distance}
    with torch.no_grad():
        found = attrib.guided_ig(f, **options)(x, baseline)
    expected = torch.stack([naive(f, a, b, **options) for a, b in zip(x, baseline, strict=True)])
    assert_close(found, expected, 1e-10)


@pytest.mark.parametrize(
    ("fraction", "max_distance"), [(0.25, 0.0), (1.0, 0.0), (1.0, 1.0), (1.0, 0.1)]
)
@few
@given(kind=kinds, seed=seeds)
def test_where_nothing_can_be_chosen_the_path_is_straight(
    fraction: float, max_distance: float, kind: str, seed: int
) -> None:
    f = attrib.target(network(kind, seed), 0)
    x, baseline = data(kind, seed), data(kind, seed + 1)
    guided = attrib.guided_ig(f, steps=9, fraction=fraction, max_distance=max_distance)
    # The gradient is taken before each move.
    straight = attrib.integrated_gradients(f, steps=9, quadrature="left")
    assert_close(guided(x, baseline), straight(x, baseline), 1e-12)


@pytest.mark.parametrize("max_distance", [0.02, 0.3, 1.0])
def test_the_path_stays_in_its_corridor_and_keeps_its_pace(max_distance: float) -> None:
    model, seen = network("gelu"), []

    def f(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return model(x)[:, 0]

    x, baseline, steps = data("gelu"), data("gelu", 1), 10
    with torch.no_grad():
        attrib.guided_ig(attrib.batched(f), steps=steps, max_distance=max_distance)(x, baseline)
    points = seen[-steps:]
    whole = (x - baseline).abs().sum(-1)
    for step, point in enumerate(points):
        share = (point - baseline) / (x - baseline)
        alpha = step / steps
        low, high = max(alpha - max_distance, 0.0), min(alpha + max_distance, 1.0)
        assert (share >= low - 1e-12).all() and (share <= high + 1e-12).all()
        left = (x - point).abs().sum(-1)
        torch.testing.assert_close(left, (1 - alpha) * whole, rtol=1e-10, atol=1e-12)


def test_features_with_small_gradients_go_first() -> None:
    seen: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return (x * torch.tensor([3.0, 1.0, 2.0])).sum(-1)

    attrib.guided_ig(attrib.batched(f), steps=3, fraction=0.1, max_distance=1.0)(torch.ones(1, 3))
    points = torch.cat(seen[-3:])
    expected = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    torch.testing.assert_close(points, expected)


def test_features_with_equal_gradients_go_together() -> None:
    f = attrib.batched(lambda x: (x[:, 0] + x[:, 1]).square() + 9 * x[:, 2])
    x = torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64)
    found = attrib.guided_ig(f, steps=7, fraction=0.1, max_distance=1.0)(x)
    assert torch.equal(found[:, 0], found[:, 1])


@pytest.mark.parametrize("kind", SMOOTH)
def test_the_completeness_gap_closes_as_steps_grow(kind: str) -> None:
    f = attrib.target(network(kind), 0)
    x, baseline = data(kind, batch=(40,)), data(kind, 1, batch=(40,))
    measure = attrib.metrics.completeness(f)

    def gap(steps: int) -> float:
        with torch.no_grad():
            found = attrib.guided_ig(f, steps=steps, max_distance=0.1)(x, baseline)
            return float(measure(found, x, baseline).abs().mean())

    # Gradients are taken before each move: an error of first order, on average over examples.
    assert gap(160) <= 1.5 * gap(20) / 8


def test_a_baseline_that_is_the_input_gets_nothing() -> None:
    f, x = attrib.target(network("gelu"), 0), data("gelu")
    assert torch.equal(attrib.guided_ig(f)(x, x), torch.zeros_like(x))


def test_leaves_of_a_tree_share_one_path() -> None:
    f, x = attrib.target(network("gelu"), 0), data("gelu")
    whole = attrib.guided_ig(f, steps=9)(x, 0.5)
    join = attrib.batched(lambda t: f(torch.cat(t, -1)))
    first, second = attrib.guided_ig(join, steps=9)((x[:, :1], x[:, 1:]), 0.5)
    assert_close(torch.cat([first, second], -1), whole, 1e-12)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"steps": 0}, "steps.range"),
        ({"fraction": 0.0}, "fraction.range"),
        ({"fraction": 1.5}, "fraction.range"),
        ({"fraction": "all"}, "fraction.type"),
        ({"max_distance": -0.1}, "max_distance.range"),
        ({"max_distance": 1.1}, "max_distance.range"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(options: Any, code: str) -> None:
    with pytest.raises(attrib.AttribError) as refusal:
        attrib.guided_ig(lambda x: x.sum(-1), **options)
    assert refusal.value.code == code
