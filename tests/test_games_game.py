"""A game is the score with absent features replaced, however it is evaluated."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import attrib
from attrib._map import Points, slices
from attrib.games import Game, game, windows

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double().eval()
SCORES = {
    "folded": attrib.target(MODEL, 1),
    "per row": attrib.target(MODEL, torch.tensor([0, 2, 1])),
    "mapped": lambda x: MODEL(x)[..., 1],
}
X = torch.randn(3, 4, dtype=torch.float64)
BASELINE = torch.randn(3, 4, dtype=torch.float64)
EVERY = torch.tensor(list(itertools.product([False, True], repeat=4)))
CHUNKS = [1, 2, 5, None, "auto"]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_absent_features_are_replaced(name: str, chunk_size: Any) -> None:
    f = SCORES[name]
    v = game(f, X, BASELINE, chunk_size=chunk_size)
    expected = torch.stack([f(torch.where(c, X, BASELINE)) for c in EVERY])
    close(v(EVERY), expected)
    close(v.full, f(X))
    assert (v.players, v.batch, v.dtype, v.device) == (4, (3,), torch.float64, X.device)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_examples_may_have_coalitions_of_their_own(name: str, chunk_size: Any) -> None:
    f = SCORES[name]
    coalitions = torch.rand(7, 3, 4, generator=torch.Generator().manual_seed(1)) > 0.5
    found = game(f, X, BASELINE, chunk_size=chunk_size)(coalitions)
    close(found, torch.stack([f(torch.where(c, X, BASELINE)) for c in coalitions]))


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3), (0,), (2, 0)])
def test_there_may_be_any_number_of_batch_dimensions(batch: tuple[int, ...], marked: bool) -> None:
    f = attrib.target(MODEL, 1) if marked and len(batch) < 2 else SCORES["mapped"]
    x = torch.randn(*batch, 4, dtype=torch.float64)
    v = game(f, x, 0.5)
    close(v(EVERY), torch.stack([SCORES["mapped"](torch.where(c, x, 0.5)) for c in EVERY]))
    each = EVERY.view(16, *(1 for _ in batch), 4).expand(16, *batch, 4)
    close(v(each), v(EVERY))
    assert v.spread(torch.zeros(*batch, 4)).shape == x.shape


@pytest.mark.parametrize("groups", [None, torch.tensor([1, 0, 1, -1]), windows((2,))])
@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("name", SCORES)
def test_a_set_of_baselines_is_averaged_over(name: str, chunk_size: Any, groups: Any) -> None:
    f = SCORES[name]
    rows = torch.randn(5, 4, dtype=torch.float64)
    v = game(f, X, rows, groups=groups, interventional=True, chunk_size=chunk_size)
    one_by_one = [game(f, X, row, groups=groups) for row in rows]
    coalitions = torch.rand(7, 3, v.players, generator=torch.Generator().manual_seed(2)) > 0.5
    for these in (coalitions, coalitions[:, 0]):
        close(v(these), torch.stack([each(these) for each in one_by_one]).mean(0))


@given(rows=st.integers(1, 7), coalitions=st.integers(1, 6), chunk_size=st.integers(1, 20))
def test_every_coalition_is_made_once_and_in_order(
    rows: int, coalitions: int, chunk_size: int
) -> None:
    made: list[int] = []

    def take(start: int, stop: int) -> Tensor:
        made.extend(range(start, stop))
        return torch.arange(start, stop)[:, None] == torch.arange(4)

    baselines = torch.randn(rows, 4, dtype=torch.float64)
    v = game(SCORES["mapped"], X, baselines, interventional=True, chunk_size=chunk_size)
    chunks = list(v.over(Points(coalitions, take)))
    assert made == list(range(coalitions))
    expected = torch.arange(coalitions)[:, None] == torch.arange(4)
    assert torch.equal(torch.cat([c for c, _ in chunks]), expected)
    close(torch.cat([values for _, values in chunks]), v(expected))


def test_coalitions_are_made_as_they_are_needed() -> None:
    waiting = []

    def take(start: int, stop: int) -> Tensor:
        waiting.append(stop - start)
        return torch.zeros(stop - start, 4, dtype=torch.bool)

    chunks = game(SCORES["folded"], X, chunk_size=8).over(Points(10**9, take))
    next(chunks)
    next(chunks)
    assert waiting == [8, 8]


def test_integers_are_hidden_by_integers() -> None:
    x = {"ids": torch.tensor([[3, 4]]), "on": torch.tensor([[True]]), "size": torch.tensor([[0.5]])}

    def f(x: dict[str, Tensor]) -> Tensor:
        assert x["ids"].dtype == torch.int64 and x["on"].dtype == torch.bool
        return (x["ids"].sum(1) + 100 * x["on"][:, 0]) * x["size"][:, 0]

    everyone, nobody = torch.tensor([[True] * 4]), torch.tensor([[False] * 4])
    assert game(f, x)(nobody).item() == 0
    v = game(f, x, {"ids": 7, "on": False, "size": 2.0})
    assert v(nobody).item() == 28
    assert v(everyone).item() == v.full.item() == 53.5
    assert v(torch.tensor([[True, False, False, True]])).item() == 5
    v = game(f, x, {"ids": torch.tensor([1, 2], dtype=torch.int32), "on": True, "size": 1})
    assert v(nobody).item() == 103
    assert {k: a.dtype for k, a in v.spread(torch.ones(1, 4)).items()} == {
        "ids": torch.float32,
        "on": torch.float32,
        "size": torch.float32,
    }


@pytest.mark.parametrize(
    ("leaf", "baseline"),
    [
        (torch.tensor([[1, 2]]), 0.5),
        (torch.tensor([[1, 2]]), -math.inf),
        (torch.tensor([[1, 2]]), torch.tensor([0.0, 1.0])),
        (torch.tensor([[1, 2]], dtype=torch.uint8), 256),
        (torch.tensor([[1, 2]], dtype=torch.uint8), -1),
        (torch.tensor([[1, 2]], dtype=torch.uint8), torch.tensor([300, 0])),
        (torch.tensor([[True, False]]), 2),
        (torch.tensor([[True, False]]), "0"),
    ],
)
def test_integers_are_not_hidden_by_what_is_none(leaf: Tensor, baseline: Any) -> None:
    def never(x: Tensor) -> Tensor:
        raise AssertionError("the model was called")

    with pytest.raises(attrib.AttribError, match=r"^baseline: ") as refusal:
        game(never, leaf, baseline)
    assert isinstance(refusal.value, TypeError)


def test_an_infinite_baseline_is_nothing_special() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0]])
    v = game(lambda x: x.softmax(-1)[..., 2], x, -math.inf)
    e = math.e
    found = v(torch.tensor([[False, False, True], [True, False, True], [False, True, True]]))
    expected = torch.tensor([[1.0], [e**3 / (e + e**3)], [e**3 / (e**2 + e**3)]])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("marked", [False, True])
def test_scores_that_are_not_finite_are_reported_once(bad: float, marked: bool) -> None:
    def f(x: Tensor) -> Tensor:
        return torch.where(x[..., 0] == 0, bad, x.sum(-1))

    v = game(attrib.batched(f) if marked else f, X, chunk_size=1)
    with pytest.warns(attrib.NonFiniteWarning, match="score: NaN or infinite for 3 of 3") as told:
        found = v(torch.tensor([[True] * 4, [False, True, True, True], [False] * 4]))
    assert len(told) == 1
    assert torch.isfinite(found[0]).all() and not torch.isfinite(found[1:]).any()
    with pytest.warns(attrib.NonFiniteWarning) as told:
        game(f, torch.zeros(2, 4), 1.0)(torch.ones(2, 4, dtype=torch.bool))
    assert len(told) == 1


def test_what_belongs_to_the_examples_is_repeated_with_them() -> None:
    factor, shift = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([0.5, 0.25, 0.0]).double()
    f = attrib.batched(lambda x, a, b: x.sum(1) * a + b, rows=[factor])
    v = game(f, X, BASELINE, shift)
    close(
        v(EVERY), torch.stack([torch.where(c, X, BASELINE).sum(1) * factor + shift for c in EVERY])
    )


def test_a_model_may_write_to_what_it_is_given() -> None:
    def f(x: dict[str, Tensor], scale: Tensor) -> Tensor:
        x["a"].mul_(scale)
        scale.mul_(2)
        return x["a"].sum(-1) + x["kept"].add_(1).sum(-1)

    x = {"a": X.clone(), "kept": BASELINE.clone()}
    scale = torch.full((3, 1), 3.0, dtype=torch.float64)
    groups = {"a": torch.arange(4), "kept": None}
    expected = torch.stack([3 * (c * X).sum(-1) + (BASELINE + 1).sum(-1) for c in EVERY])
    for score in (f, attrib.batched(f)):
        for chunk_size in (1, 3):
            v = game(score, x, 0, scale, groups=groups, chunk_size=chunk_size)
            close(v(EVERY), expected)
    assert torch.equal(x["a"], X) and torch.equal(x["kept"], BASELINE) and (scale == 3).all()


def test_evaluations_are_reported_and_can_be_cancelled() -> None:
    seen = []
    rows = torch.zeros(3, 4, dtype=torch.float64)
    v = game(SCORES["folded"], X, rows, interventional=True, chunk_size=7)
    with attrib.progress(lambda done, total: seen.append((done, total))):
        v(EVERY[:5])
    assert seen == [(0, 15), (7, 15), (14, 15), (15, 15)]

    def stop(done: int, total: int) -> None:
        raise attrib.Cancelled

    with pytest.raises(attrib.Cancelled), attrib.progress(stop):
        v(EVERY)


@pytest.mark.parametrize(
    ("coalitions", "code"),
    [
        (torch.ones(2, 4), "coalitions.type"),
        ([[True] * 4], "coalitions.type"),
        (torch.ones(4, dtype=torch.bool), "coalitions.shape"),
        (torch.ones(2, 3, dtype=torch.bool), "coalitions.shape"),
        (torch.ones(2, 2, 4, dtype=torch.bool), "coalitions.shape"),
    ],
)
def test_coalitions_must_be_rows_of_players(coalitions: Any, code: str) -> None:
    with pytest.raises(attrib.AttribError) as refusal:
        game(SCORES["folded"], X)(coalitions)
    assert refusal.value.code == code


def test_no_coalitions_have_no_values() -> None:
    assert game(SCORES["folded"], X)(EVERY[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda x: x.float(), torch.ones(2, 3, dtype=torch.long)),
        (lambda x: x.float().sum(0), torch.ones(2, 3, dtype=torch.long)),
        (lambda x: x[0].sum(1), (torch.ones(2, 3), torch.ones(3, dtype=torch.long))),
    ],
)
def test_a_score_must_be_one_number_per_example_of_every_leaf(f: Any, x: Any) -> None:
    with pytest.raises(attrib.AttribError) as refusal:
        game(f, x)
    assert refusal.value.code == "score.shape"


@pytest.mark.parametrize(
    ("baseline", "code"),
    [
        (0, "baselines.shape"),
        (torch.tensor(0.0), "baselines.shape"),
        (torch.zeros(0, 4), "baselines.shape"),
        (torch.zeros(2, 3), "baselines.shape"),
        (torch.zeros(2, 1, 1, 4), "baselines.shape"),
        ((torch.zeros(2, 4),), "baselines.shape"),
    ],
)
def test_a_set_of_baselines_needs_rows_like_x(baseline: Any, code: str) -> None:
    with pytest.raises(attrib.AttribError) as refusal:
        game(SCORES["folded"], X, baseline, interventional=True)
    assert refusal.value.code == code


def test_sets_of_baselines_have_rows_in_every_leaf() -> None:
    x = (X, torch.ones(3, 2, dtype=torch.long))
    f = lambda x: x[0].sum(1) * x[1].sum(1)
    nobody = torch.zeros(1, 6, dtype=torch.bool)
    rows = (torch.randn(4, 4).double(), torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8]]))
    v = game(f, x, rows, interventional=True)
    close(v(nobody), f(rows).mean().expand(1, 3))
    with pytest.raises(attrib.AttribError):
        game(f, x, (rows[0], rows[1][:3]), interventional=True)
    with pytest.raises(attrib.AttribError):
        game(f, x, (rows[0], rows[1].double()), interventional=True)


def test_a_game_says_what_it_is_without_its_data() -> None:
    assert repr(game(SCORES["folded"], X)) == (
        "Game(players=4, chunk_size='auto', interventional=False)"
    )


def test_values_carry_their_graph() -> None:
    x = X.clone().requires_grad_()
    v: Game = game(SCORES["folded"], x, 0.5)
    (found,) = torch.autograd.grad(v(EVERY).sum(), x)
    y = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(
        torch.stack([SCORES["folded"](torch.where(c, y, 0.5)) for c in EVERY]).sum(), y
    )
    close(found, expected)
    with torch.no_grad():
        assert not game(SCORES["folded"], x)(EVERY).requires_grad


def test_chunks_are_folded_by_reducers() -> None:
    v = game(SCORES["folded"], X, BASELINE, chunk_size=3)
    _, found = attrib.mean((c.double(), values) for c, values in v.over(slices(EVERY)))
    close(found, v(EVERY).mean(0))
