"""Shapley and Banzhaf values of all coalitions: known games and the definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import attrib
from attrib.games.banzhaf import banzhaf_values
from attrib.games.kernel import kernel_shap
from attrib.games.owen import owen_values
from attrib.games.shapley import shapley_values
from known_games import GAMES, banzhaf, bent, everybody, random_game, score, seeded, shapley

games = pytest.mark.parametrize("game", GAMES.values(), ids=GAMES.keys())


def close(found: Any, expected: Any) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64).expand_as(found)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


X = torch.randn(3, 7, dtype=torch.float64, generator=seeded())
BASELINE = torch.randn(7, dtype=torch.float64, generator=seeded(1))

# Exact values.


@games
def test_known_games_have_their_shapley_values(game: Any) -> None:
    found = shapley_values(score(game.players, game.value))(everybody(game.players))
    close(found, game.shapley)


@games
def test_known_games_have_their_banzhaf_values(game: Any) -> None:
    found = banzhaf_values(score(game.players, game.value))(everybody(game.players))
    close(found, game.banzhaf)


@given(players=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_random_games_have_the_values_of_the_definition(players: int, seed: int) -> None:
    value = random_game(players, seed)
    f, x = score(players, value), everybody(players)
    close(shapley_values(f)(x), shapley(players, value))
    close(banzhaf_values(f)(x), banzhaf(players, value))
    # Every coalition is in the regressions as well.
    close(kernel_shap(f, samples=2**players)(x), shapley(players, value))
    close(banzhaf_values(f, samples=2**players)(x), banzhaf(players, value))


def test_of_x_a_x_the_value_is_the_mean_of_gradient_times_input_at_both_ends() -> None:
    a = torch.randn(7, 7, dtype=torch.float64, generator=seeded(2))
    a = a + a.mT
    found = shapley_values(lambda x: ((x @ a) * x).sum(-1))(X, BASELINE)
    close(found, (X - BASELINE) * ((X + BASELINE) @ a))


def test_of_a_product_of_three_everybody_gets_a_third() -> None:
    x = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    close(shapley_values(lambda x: x.prod(-1))(x), [10.0, 10.0, 10.0])


def test_each_coalition_is_evaluated_once() -> None:
    seen: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        seen.append(x)
        return x.sum(-1)

    shapley_values(f, chunk_size=1)(torch.ones(6))
    assert len(torch.stack(seen).unique(dim=0)) == len(seen) == 2**6


@pytest.mark.parametrize("method", [shapley_values, banzhaf_values])
def test_more_than_sixteen_features_are_refused_in_words(method: Any) -> None:
    with pytest.raises(attrib.AttribError, match=r"too many features.*got 17") as caught:
        method(bent)(torch.ones(17))
    assert caught.value.code == "groups.many"


@pytest.mark.parametrize("method", [shapley_values, banzhaf_values])
@pytest.mark.parametrize("chunk_size", [1, 7, None, "auto"])
def test_exact_values_do_not_depend_on_the_chunk_size(method: Any, chunk_size: Any) -> None:
    close(method(bent, chunk_size=chunk_size)(X, BASELINE), method(bent)(X, BASELINE))


def test_groups_across_leaves_are_one_player() -> None:
    ids = (torch.tensor([0, 1, 1]), torch.tensor([1, 2, 2, 0]))
    pieces, baselines = X.split([3, 4], -1), BASELINE.split([3, 4])

    def of_pieces(x: tuple[Tensor, Tensor]) -> Tensor:
        return bent(torch.cat(x, -1))

    members = torch.nn.functional.one_hot(torch.cat(ids), 3).bool().T

    def of_groups(present: Tensor) -> Tensor:
        here = (present.bool()[..., None] & members).any(-2)
        return bent(torch.where(here, X[0], BASELINE))

    expected = shapley_values(of_groups)(torch.ones(3, dtype=torch.float64))
    found = shapley_values(of_pieces, groups=ids)(pieces, baselines)
    close(torch.cat(found, -1)[0], expected[torch.cat(ids)])


# Composition. What draws is in the table of laws; here is what enumerates.

ENUMERATED: dict[str, Callable[..., Any]] = {
    "shapley": shapley_values,
    "banzhaf": banzhaf_values,
    "owen": lambda f, **options: owen_values(
        f, unions=torch.tensor([0, 0, 1, 1, 2, 2, 2]), **options
    ),
}
enumerated = pytest.mark.parametrize("method", ENUMERATED.values(), ids=ENUMERATED.keys())


@enumerated
def test_vmap_of_exact_values_is_a_loop(method: Any) -> None:
    attribute = method(bent)
    close(torch.vmap(attribute)(X), torch.stack([attribute(x) for x in X]))
    close(attribute(X), torch.vmap(attribute)(X))


@enumerated
def test_compiled_exact_values_are_the_same(method: Any) -> None:
    torch.compiler.reset()
    attribute = method(bent)
    compiled = torch.compile(attribute, fullgraph=True, backend="aot_eager")
    close(compiled(X, BASELINE), attribute(X, BASELINE))


@enumerated
def test_exact_values_have_derivatives(method: Any) -> None:
    assert torch.autograd.gradcheck(method(bent), (X.clone().requires_grad_(), BASELINE))


@enumerated
def test_a_batched_score_has_the_same_exact_values(method: Any) -> None:
    close(method(attrib.batched(bent))(X, BASELINE), method(bent)(X, BASELINE))
    # ... also as a part of another method, which folds its draws into the batch.
    folded = attrib.expected(method(attrib.batched(bent)))(X, torch.stack([BASELINE, 0 * BASELINE]))
    close(folded, (method(bent)(X, BASELINE) + method(bent)(X, 0)) / 2)


@enumerated
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_exact_values_come_in_the_dtype_of_the_input(method: Any, dtype: Any) -> None:
    found = method(lambda x: bent(x.float()).to(dtype))(X.to(dtype), BASELINE.to(dtype))
    assert found.dtype == dtype
    expected = method(bent)(X.to(dtype).double(), BASELINE.to(dtype).double())
    tolerance = {torch.float16: 5e-3, torch.bfloat16: 5e-2, torch.float32: 1e-5}[dtype]
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_integers_are_players_like_others() -> None:
    weights = torch.randn(10, dtype=torch.float64, generator=seeded())
    tokens = torch.tensor([[3, 1, 7], [2, 2, 9]])
    found = shapley_values(lambda ids: weights[ids].sum(-1))(tokens, 0)
    close(found, weights[tokens] - weights[0])


def test_against_a_set_of_baselines_the_values_are_means() -> None:
    rows = torch.randn(4, 7, dtype=torch.float64, generator=seeded(3))
    expected = torch.stack([shapley_values(bent)(X, row) for row in rows]).mean(0)
    close(shapley_values(bent, interventional=True)(X, rows), expected)
    close(kernel_shap(bent, samples=126, interventional=True)(X, rows), expected)
