"""Exchanging features between examples: closed forms, a plain loop, and the random orders."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib.games import feature_permutation, windows

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3)).double().eval()
SCORES = [
    attrib.target(MODEL, 1),
    attrib.target(MODEL, torch.tensor([0, 1, 2, 0, 1])),
    lambda x: MODEL(x)[..., 1],
]
X = torch.randn(5, 4, dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def orders_of(players: int, rows: int, seed: int) -> Tensor:
    """The order of the examples that each feature had, read off what the score was given."""
    seen: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        seen.append(x)
        return x.sum(-1)

    x = torch.arange(rows, dtype=torch.float64)[:, None].expand(rows, players)
    feature_permutation(attrib.batched(f), generator=seeded(seed), chunk_size=None)(x)
    exchanged = seen[-1].view(players + 1, rows, players)[1:]
    return exchanged.diagonal(dim1=0, dim2=2).T.long()


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("chunk_size", [1, 2, None, "auto"])
@pytest.mark.parametrize("groups", [None, torch.tensor([1, 0, 1, -1]), windows((2,))])
def test_every_feature_comes_from_other_examples(groups: Any, chunk_size: Any, kind: int) -> None:
    f = SCORES[kind]
    method = feature_permutation(f, groups=groups, generator=seeded(), chunk_size=chunk_size)
    found = method(X)
    players = {None: 4}.get(groups, 2 if isinstance(groups, Tensor) else 3)
    orders = orders_of(players, 5, 0)
    masks = {
        4: [[0], [1], [2], [3]],
        2: [[1], [0, 2]],
        3: [[0, 1], [1, 2], [2, 3]],
    }[players]
    total, count = torch.zeros_like(X), torch.zeros(4)
    for order, entries in zip(orders, masks, strict=True):
        changed = X.clone()
        changed[:, entries] = X[order][:, entries]
        total[:, entries] += (f(X) - f(changed))[:, None]
        count[entries] += 1
    torch.testing.assert_close(found, total / count.clamp_min(1), rtol=1e-10, atol=1e-12)


def test_two_examples_are_always_exchanged() -> None:
    x = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    for seed in range(8):
        found = feature_permutation(lambda x: x.sum(-1), generator=seeded(seed))(x)
        assert torch.equal(found, x - x.flip(0))


def test_every_order_but_the_own_is_drawn_equally_often() -> None:
    draws = 6000
    orders = orders_of(draws, 4, seed=1)
    others = [p for p in itertools.permutations(range(4)) if p != (0, 1, 2, 3)]
    counts = torch.tensor([(orders == torch.tensor(p)).all(-1).sum() for p in others])
    assert counts.sum() == draws
    # One order in 24 becomes one of three rotations: they are drawn more often, by a third.
    rotations = {(1, 2, 3, 0), (2, 3, 0, 1), (3, 0, 1, 2)}
    expected = torch.tensor([draws / 24 * (4 / 3 if p in rotations else 1) for p in others])
    chi2 = ((counts - expected).square() / expected).sum()
    assert chi2 < 22 + 4 * math.sqrt(2 * 22)


def test_the_mean_over_orders_approaches_the_mean_over_other_examples() -> None:
    w = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    found = feature_permutation(
        lambda x: x @ w, samples=2000, generator=seeded(), reduce=attrib.estimate
    )(X)
    # An order is a rotation instead of the identity once in 120 times.
    other = (X.sum(0) - X) / 4
    stay = (1 / 5) - 1 / 120
    expected = w * (X - (stay * X + (1 - stay) * other))
    assert found.samples == 2000
    assert ((found.value - expected).abs() <= 4.5 * found.stderr).all()
    assert (found.stderr < 0.15).all()


def test_a_tolerance_stops_when_the_errors_are_small_enough() -> None:
    f = lambda x: (x @ torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)).square()
    taken: list[int] = []
    for tol in (0.2, 0.1):
        options: Any = {"generator": seeded(), "reduce": attrib.estimate}
        found = feature_permutation(f, samples=5000, tol=tol, **options)(X)
        assert (found.stderr <= tol * found.value.abs().amax(-1, keepdim=True)).all()
        options = {"generator": seeded(), "reduce": attrib.estimate}
        expected = feature_permutation(f, samples=found.samples, **options)(X)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        taken.append(found.samples)
    assert taken[0] < taken[1] < 5000


def test_the_draws_do_not_depend_on_the_chunks_nor_change_the_global_state() -> None:
    before = torch.get_rng_state()
    f = SCORES[0]
    expected = feature_permutation(f, samples=3, chunk_size=1)(X)
    for chunk_size in (2, None, "auto"):
        found = feature_permutation(f, samples=3, chunk_size=chunk_size)(X)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(torch.get_rng_state(), before)
    generator = seeded()
    method = feature_permutation(f, generator=generator)
    assert not torch.equal(method(X), method(X))


@pytest.mark.parametrize("x", [X[:1], X[0]])
def test_one_example_has_nobody_to_exchange_with(x: Tensor) -> None:
    with pytest.raises(attrib.AttribError, match="one example") as refusal:
        feature_permutation(SCORES[2])(x)
    assert refusal.value.code == "x.batch"


def test_a_dummy_feature_gets_exactly_nothing() -> None:
    found = feature_permutation(lambda x: x[..., 0] * x[..., 2], samples=3)(X)
    assert torch.equal(found[:, [1, 3]], torch.zeros(5, 2).double())
    assert (found[:, [0, 2]] != 0).any()


def test_nested_batches_and_integers_are_exchanged_too() -> None:
    x = {"ids": torch.arange(6).view(2, 3, 1), "size": torch.arange(6.0).view(2, 3, 1)}
    groups = {"ids": torch.tensor([0]), "size": torch.tensor([0])}
    seen = feature_permutation(
        lambda x: (x["ids"] - x["size"]).abs().sum(-1), groups=groups, chunk_size=1
    )(x)
    # Both leaves of the feature come from the same example.
    assert torch.equal(seen["ids"], torch.zeros(2, 3, 1))
    assert seen["size"].shape == (2, 3, 1)


def test_an_empty_batch_has_an_empty_attribution() -> None:
    assert feature_permutation(SCORES[0])(X[:0]).shape == (0, 4)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"samples": 0}, "samples.range"),
        ({"samples": 1.5}, "samples.type"),
        ({"reduce": "mean"}, "reduce.type"),
        ({"generator": 0}, "generator.type"),
        ({"chunk_size": 0}, "chunk_size.range"),
        ({"groups": 0.5}, "groups.type"),
    ],
)
def test_options_are_checked(options: dict[str, Any], code: str) -> None:
    with pytest.raises(attrib.AttribError) as refusal:
        feature_permutation(SCORES[0], **options)
    assert refusal.value.code == code
