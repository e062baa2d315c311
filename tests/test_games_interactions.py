"""Interactions and Owen values: the definitions, closed forms, and how sure estimates are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import attrib
from attrib.games.banzhaf import banzhaf_values
from attrib.games.interactions import interactions, pairwise
from attrib.games.owen import owen_values
from attrib.games.shapley import shapley_values
from known_games import GAMES, Value, everybody, random_game, score, seeded, subsets

INDICES = (
    "shapley",
    "k-shapley",
    "taylor",
    "faithful",
    "banzhaf",
    "faithful-banzhaf",
    "moebius",
)
SAMPLED = tuple(index for index in INDICES if index != "moebius")
indices = pytest.mark.parametrize("index", INDICES)
sampled = pytest.mark.parametrize("index", SAMPLED)


def close(found: Any, expected: Any, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def named(found: Any, row: int = 0) -> dict[tuple[int, ...], float]:
    """The interactions of one example by their members."""
    members = [tuple(map(int, group.nonzero().flatten())) for group in found.members]
    return dict(zip(members, found.values[row].tolist(), strict=True))


def difference(value: Value, group: frozenset[int], given: frozenset[int]) -> float:
    """The discrete derivative: what a group adds to a coalition beyond its parts."""
    return sum((-1) ** (len(group) - len(part)) * value(given | part) for part in subsets(group))


def rest(players: int, group: frozenset[int]) -> list[frozenset[int]]:
    return list(subsets(set(range(players)) - group))


def shapley_index(players: int, value: Value, group: frozenset[int], order: int) -> float:
    n, t = players, len(group)
    return sum(
        difference(value, group, s)
        * math.factorial(n - len(s) - t)
        * math.factorial(len(s))
        / math.factorial(n - t + 1)
        for s in rest(players, group)
    )


def banzhaf_index(players: int, value: Value, group: frozenset[int], order: int) -> float:
    outside = rest(players, group)
    return sum(difference(value, group, s) for s in outside) / len(outside)


def taylor_index(players: int, value: Value, group: frozenset[int], order: int) -> float:
    if len(group) < order:
        return difference(value, group, frozenset())
    return sum(
        order / players * difference(value, group, s) / math.comb(players - 1, len(s))
        for s in rest(players, group)
    )


def dividend(players: int, value: Value, group: frozenset[int], order: int) -> float:
    return difference(value, group, frozenset())


DEFINITIONS: dict[str, Callable[[int, Value, frozenset[int], int], float]] = {
    "shapley": shapley_index,
    "banzhaf": banzhaf_index,
    "taylor": taylor_index,
    "moebius": dividend,
}


def fitted(players: int, value: Value, order: int, *, kernel: bool) -> dict[tuple[int, ...], float]:
    """The game of small groups that fits all coalitions best; by the kernel, exact at its ends."""
    groups = [g for t in range(order + 1) for g in itertools.combinations(range(players), t)]
    coalitions = list(subsets(range(players)))
    design = torch.tensor(
        [[float(set(g) <= s) for g in groups] for s in coalitions], dtype=torch.float64
    )
    values = torch.tensor([value(s) for s in coalitions], dtype=torch.float64)
    inner = [0 < len(s) < players or not kernel for s in coalitions]
    weights = torch.tensor(
        [
            1 / (math.comb(players, len(s)) * len(s) * (players - len(s))) if kernel else 1.0
            for s, is_inner in zip(coalitions, inner, strict=True)
            if is_inner
        ],
        dtype=torch.float64,
    )
    x, y, ends = design[inner], values[inner], design[[not i for i in inner]]
    # Lagrange: the fit under the constraint that nobody and everybody have their values.
    matrix = torch.cat([x.mT @ (weights[:, None] * x), ends], 0)
    border = torch.cat([ends, torch.zeros(len(ends), len(ends))], 1).mT
    system = torch.cat([matrix, border], 1)
    right = torch.cat([x.mT @ (weights * y), values[[not i for i in inner]]])
    solution = torch.linalg.solve(system, right)[: len(groups)]
    return dict(zip(groups, solution.tolist(), strict=True))


@pytest.mark.parametrize("index", DEFINITIONS)
@given(players=st.integers(1, 5), order=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_an_index_is_its_mean_of_discrete_derivatives(
    index: Any, players: int, order: int, seed: int
) -> None:
    value = random_game(players, seed)
    found = named(interactions(score(players, value), index=index, order=order)(everybody(players)))
    largest = min(order, players)
    assert len(found) == sum(math.comb(players, t) for t in range(1, largest + 1))
    for group, given_value in found.items():
        expected = DEFINITIONS[index](players, value, frozenset(group), largest)
        assert given_value == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("index", ["faithful", "faithful-banzhaf"])
@pytest.mark.parametrize(("players", "order"), [(4, 1), (4, 2), (5, 2), (5, 3), (6, 2)])
def test_faithful_indices_are_the_best_fit(index: Any, players: int, order: int) -> None:
    value = random_game(players, players + order)
    found = named(interactions(score(players, value), index=index, order=order)(everybody(players)))
    expected = fitted(players, value, order, kernel=index == "faithful")
    for group, number in found.items():
        assert number == pytest.approx(expected[group], abs=1e-9)


@pytest.mark.parametrize("index", ["k-shapley", "taylor", "faithful"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES.keys())
def test_efficient_indices_sum_to_the_rise(index: Any, order: int, game: Any) -> None:
    f, x = score(game.players, game.value), everybody(game.players)
    found = interactions(f, index=index, order=order)(x)
    close(found.values.sum(-1), f(x) - f(0 * x))


def test_k_shapley_of_order_two_splits_pairs_evenly() -> None:
    # Lundberg et al. (2020): the main effect is the Shapley value without half of each pair.
    f, x = score(5, random_game(5, 1)), everybody(5)
    matrix = pairwise(interactions(f, index="k-shapley")(x))[0]
    plain = pairwise(interactions(f)(x))[0]
    off = plain - plain.diagonal().diag()
    close(matrix, plain - (off.sum(-1) / 2).diag())


@pytest.mark.parametrize("index", ["shapley", "faithful", "k-shapley", "taylor"])
def test_alone_a_feature_has_its_shapley_value(index: Any) -> None:
    f, x = score(5, random_game(5, 2)), everybody(5)
    close(interactions(f, index=index, order=1)(x).values, shapley_values(f)(x))


@pytest.mark.parametrize("index", ["banzhaf", "faithful-banzhaf"])
def test_alone_a_feature_has_its_banzhaf_value(index: Any) -> None:
    f, x = score(5, random_game(5, 2)), everybody(5)
    close(interactions(f, index=index, order=1)(x).values, banzhaf_values(f)(x))


@indices
def test_of_pairs_alone_every_index_finds_the_pairs(index: Any) -> None:
    a = torch.randn(5, 5, dtype=torch.float64, generator=seeded()).triu(1)
    found = interactions(lambda x: ((x @ a) * x).sum(-1), index=index)(everybody(5))
    matrix = pairwise(found)[0]
    close(matrix.triu(1), a)
    close(matrix, matrix.mT)


@sampled
def test_from_any_samples_a_quadratic_game_is_exact(index: Any) -> None:
    a = torch.randn(7, 7, dtype=torch.float64, generator=seeded())
    f = lambda x: ((x @ a) * x).sum(-1) + 2
    x = torch.randn(2, 7, dtype=torch.float64, generator=seeded(1))
    found = interactions(f, index=index, samples=80, reduce=attrib.estimate, generator=seeded())(x)
    expected = interactions(f, index=index)(x)
    close(found.values.value, expected.values, 1e-8)
    assert found.values.stderr.max() < 1e-8


@sampled
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("players", [1, 2, 3, 6])
def test_from_all_samples_interactions_are_exact(index: Any, order: int, players: int) -> None:
    f, x = score(players, random_game(players, 4)), everybody(players)
    found = interactions(f, index=index, order=order, samples=2**players)(x)
    close(found.values, interactions(f, index=index, order=order)(x).values)


@sampled
def test_a_tolerance_stops_when_the_errors_of_interactions_are_small_enough(index: Any) -> None:
    waves = torch.randn(9, 16, dtype=torch.float64, generator=seeded(3))
    f = lambda x: (x @ waves).sin().sum(-1)
    x = torch.randn(2, 9, dtype=torch.float64, generator=seeded(4)) / 3
    taken: list[int] = []
    for tol in (0.5, 0.05, 1e-9):
        options: Any = {"samples": 2000, "tol": tol, "generator": seeded()}
        found = interactions(f, index=index, reduce=attrib.estimate, **options)(x).values
        size = found.value.abs().amax(-1, keepdim=True)
        assert (found.stderr <= tol * size).all()
        close(
            interactions(f, index=index, **options | {"generator": seeded()})(x).values, found.value
        )
        taken.append(found.samples)
    # In the end all coalitions but those of nobody and everybody, or all of them.
    assert taken == sorted(taken) and taken[0] < taken[2]
    close(found.value, interactions(f, index=index)(x).values)


def test_a_tolerance_leaves_a_rest_alone_that_is_too_small_for_a_fit() -> None:
    f, x = score(8, random_game(8, 2)), everybody(8)
    options: Any = {"tol": 1e-9, "reduce": attrib.estimate, "generator": seeded()}
    found = interactions(f, samples=230, **options)(x).values
    assert found.samples == 216  # six times 36 features and pairs


@pytest.mark.parametrize("options", [{}, {"samples": 60}])
@pytest.mark.parametrize("chunk_size", [1, 7, None])
def test_interactions_do_not_depend_on_the_chunk_size(options: Any, chunk_size: Any) -> None:
    f = lambda x: x.sin().prod(-1) + x.sum(-1).exp()
    x = torch.rand(2, 3, 6, dtype=torch.float64, generator=seeded())
    found = interactions(f, chunk_size=chunk_size, **options, generator=seeded())(x)
    expected = interactions(f, **options, generator=seeded())(x)
    close(found.values, expected.values)
    assert found.values.shape == (2, 3, 21)


def test_a_matrix_has_features_alone_on_its_diagonal() -> None:
    f = lambda x: x[..., 0] + 10 * x[..., 1] * x[..., 2]
    found = interactions(f, index="moebius", order=3)(torch.ones(3))
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 10.0], [0.0, 10.0, 0.0]])
    close(pairwise(found), expected, 1e-6)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: interactions(torch.sum, index="shap"), "index.unknown"),
        (lambda: interactions(torch.sum, order=0), "order.range"),
        (lambda: interactions(torch.sum, order=3, samples=100), "order.samples"),
        (lambda: interactions(torch.sum, index="moebius", samples=100), "index.samples"),
        (lambda: interactions(torch.sum, reduce=attrib.estimate), "reduce.unknown"),
        (lambda: interactions(torch.sum, tol=0.1), "reduce.unknown"),
        (lambda: interactions(torch.sum, samples=60, tol=-1.0), "tol.range"),
        (lambda: interactions(lambda x: x.sum(-1), samples=41)(torch.ones(6)), "samples.few"),
        (lambda: interactions(lambda x: x.sum(-1))(torch.ones(17)), "groups.many"),
        (lambda: pairwise(torch.ones(3)), "found.type"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Any, code: str) -> None:
    with pytest.raises(attrib.AttribError) as caught:
        make()
    assert caught.value.code == code


# Owen values.

UNIONS: dict[str, list[list[int]]] = {
    "one level": [[0, 0, 1, 1, 1, 2]],
    "mixed up": [[1, 0, 1, 0, 1, 2]],
    "two levels": [[0, 0, 0, 1, 1, 1], [0, 0, 1, 2, 3, 3]],
    "finer numbers anew": [[0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 1, 1]],
    "one word in each sentence": [[0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 0, 0]],
    "three levels": [[0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1], [0, 0, 1, 2, 3, 4]],
}
unions = pytest.mark.parametrize("labels", UNIONS.values(), ids=UNIONS.keys())


FINE_TO_COARSE = [torch.tensor([0, 1, 2, 2, 3, 4]), torch.tensor([0, 0, 0, 0, 1, 1])]


def in_pieces(order: Sequence[int], labels: list[list[int]]) -> bool:
    """Whether every union is in one piece."""
    for depth in range(1, len(labels) + 1):
        runs = [
            k for k, _ in itertools.groupby(tuple(lv[i] for lv in labels[:depth]) for i in order)
        ]
        if len(runs) != len(set(runs)):
            return False
    return True


def owen(value: Value, labels: list[list[int]]) -> Tensor:
    players = len(labels[0])
    orders = [o for o in itertools.permutations(range(players)) if in_pieces(o, labels)]
    sums = torch.zeros(players, dtype=torch.float64)
    for order in orders:
        for place, player in enumerate(order):
            before = frozenset(order[:place])
            sums[player] += value(before | {player}) - value(before)
    return sums / len(orders)


@unions
def test_owen_values_are_means_over_orders_of_whole_unions(labels: list[list[int]]) -> None:
    value = random_game(6, 5)
    f, x, levels = score(6, value), everybody(6), [torch.tensor(level) for level in labels]
    expected = owen(value, labels)
    close(owen_values(f, unions=levels)(x)[0], expected)
    for design in ("antithetic", "independent"):
        found = owen_values(
            f,
            unions=levels,
            samples=3000,
            design=design,
            reduce=attrib.estimate,
            generator=seeded(),
        )(x)
        assert ((found.value[0] - expected).abs() <= 4 * found.stderr[0]).all()
        close(found.value.sum(-1), f(x) - f(0 * x))


def test_unions_of_one_or_of_all_leave_shapley_values() -> None:
    f, x = score(6, random_game(6, 6)), everybody(6)
    for labels in (torch.arange(6), torch.zeros(6, dtype=torch.long)):
        close(owen_values(f, unions=labels)(x), shapley_values(f)(x))


@unions
def test_a_union_gets_its_value_among_unions(labels: list[list[int]]) -> None:
    f, x, coarse = score(6, random_game(6, 7)), everybody(6), torch.tensor(labels[0])
    found = owen_values(f, unions=[torch.tensor(level) for level in labels])(x)
    sums = found.new_zeros(1, 3).index_add(1, coarse, found)
    of_unions = shapley_values(f, groups=coarse)(x)
    for union in range(int(coarse.max()) + 1):
        close(sums[:, union], of_unions[:, coarse == union][:, 0])


def test_only_coalitions_that_can_occur_are_evaluated() -> None:
    seen: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        seen.append(x)
        return x.sum(-1)

    owen_values(f, unions=torch.tensor([0, 0, 0, 1, 1, 1]), chunk_size=1)(torch.ones(6))
    # Any part of one union, with none or all of the other; full and empty parts come twice.
    assert len(torch.stack(seen).unique(dim=0)) == 2 * 2 * 2**3 - 4


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: owen_values(torch.sum, unions=torch.tensor([0.5])), "unions.type"),
        (lambda: owen_values(torch.sum, unions=[[0, 1]]), "unions.type"),
        (lambda: owen_values(torch.sum, unions=torch.zeros(2, 2).long()), "unions.shape"),
        (lambda: owen_values(torch.sum, unions=[]), "unions.shape"),
        (lambda: owen_values(torch.sum, unions=torch.arange(17)), "groups.many"),
        (lambda: owen_values(torch.sum, unions=FINE_TO_COARSE), "unions.order"),
        (lambda: owen_values(torch.sum, unions=FINE_TO_COARSE, samples=20), "unions.order"),
        (
            lambda: owen_values(lambda x: x.sum(-1), unions=torch.arange(3))(torch.ones(4)),
            "unions.shape",
        ),
        (
            lambda: owen_values(torch.sum, unions=torch.arange(3), reduce=attrib.estimate),
            "reduce.unknown",
        ),
    ],
)
def test_unions_that_make_no_sense_are_refused(make: Any, code: str) -> None:
    with pytest.raises(attrib.AttribError) as caught:
        make()
    assert caught.value.code == code
