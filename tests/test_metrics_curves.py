"""Deletion, insertion and erasure: linear scores, explicit loops."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

import attrib
from attrib import games, metrics
from laws.networks import data, few, kinds, network, seeds

W = torch.tensor([4.0, -1.0, 2.0, 0.5], dtype=torch.float64)


def linear(x: Tensor) -> Tensor:
    return x @ W


ONES = torch.ones(1, 4, dtype=torch.float64)
PARTS = {"most": [5.5, 1.5, -0.5, -1.0, 0.0], "least": [5.5, 6.5, 6.0, 4.0, 0.0]}


def by_hand(f: Any, x: Tensor, values: Tensor, baseline: Tensor, counts: list[int]) -> Tensor:
    """Scores without the largest entries of each example, one after another."""
    rows: list[Tensor] = []
    for count in counts:
        hidden = x.clone()
        for example in range(len(x)):
            order = sorted(range(values.shape[1]), key=lambda i: -float(values[example, i]))
            flat = hidden[example].view(-1)
            for entry in order[:count]:
                flat[entry] = baseline[example].reshape(-1)[entry]
        rows.append(f(hidden))
    return torch.stack(rows)


@pytest.mark.parametrize("order", ["most", "least"])
def test_a_linear_score_loses_its_terms_in_order(order: Any) -> None:
    found = metrics.curve(linear, order=order)(W[None], ONES)
    assert found.shares.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert found.scores[:, 0].tolist() == PARTS[order]


def test_inserting_the_first_is_deleting_the_last() -> None:
    shown = metrics.curve(linear, insert=True)(W[None], ONES)
    hidden = metrics.curve(linear, order="least")(W[None], ONES)
    assert torch.equal(shown.scores, hidden.scores.flip(0))


@few
@given(kind=kinds, seed=seeds)
def test_a_curve_is_the_loop_over_features(kind: str, seed: int) -> None:
    f = attrib.target(network(kind, seed), 0)
    x, baseline, phi = (data(kind, seed + i) for i in range(3))
    features = phi[0].numel()
    counts = [round(step * features / 5) for step in range(6)]
    expected = by_hand(f, x, phi.flatten(1), baseline, counts)
    for chunk_size in (1, 4, None):
        found = metrics.curve(f, steps=5, chunk_size=chunk_size)(phi, x, baseline)
        torch.testing.assert_close(found.scores, expected, rtol=1e-10, atol=1e-12)


def test_areas_are_trapezoids() -> None:
    f = linear
    most, least = PARTS["most"], PARTS["least"]

    def area(y: list[float]) -> float:
        return sum(0.25 * (a + b) / 2 for a, b in pairwise(y))

    assert metrics.deletion(f)(W[None], ONES).item() == pytest.approx(area(most))
    assert metrics.insertion(f)(W[None], ONES).item() == pytest.approx(area(least))
    assert metrics.deletion_gap(f)(W[None], ONES).item() == pytest.approx(area(least) - area(most))
    assert metrics.aopc(f)(W[None], ONES).item() == pytest.approx(sum(5.5 - y for y in most) / 5)


def test_of_all_orders_that_of_its_terms_is_the_best_for_a_linear_score() -> None:
    """Every other ranking deletes less at some step: the measures know the true attribution."""
    x = torch.ones(1, 4, dtype=torch.float64)
    for permutation in torch.cartesian_prod(*[torch.arange(4)] * 4):
        if len(permutation.unique()) < 4:
            continue
        other = W[permutation][None]
        assert metrics.deletion(linear)(W[None], x) <= metrics.deletion(linear)(other, x)
        assert metrics.insertion(linear)(W[None], x) >= metrics.insertion(linear)(other, x)
        assert metrics.aopc(linear)(W[None], x) >= metrics.aopc(linear)(other, x)


def test_groups_are_hidden_together_and_ranked_by_their_sum() -> None:
    x = torch.arange(1.0, 25.0).double().reshape(1, 2, 3, 4)
    f = lambda x: x.sum((1, 2, 3))
    ids = games.patches(x, (3, 2))
    sums = [float(x[:, :, :, :2].sum()), float(x[:, :, :, 2:].sum())]
    by_entry = metrics.curve(f, groups=ids)(x, x).scores[:, 0].tolist()
    by_group = metrics.curve(f, groups=ids)(torch.tensor([sums]), x).scores[:, 0].tolist()
    assert by_entry == by_group == [sum(sums), min(sums), 0.0]


def test_no_single_entry_decides_for_its_group() -> None:
    x = torch.tensor([[5.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 5.0]]).double()
    groups = torch.tensor([0, 0, 1, 1])
    scores = metrics.curve(lambda x: x.sum(-1), groups=groups)(x, x).scores
    assert scores.T.tolist() == [[7.0, 2.0, 0.0], [7.0, 2.0, 0.0]]


def test_every_example_has_its_own_order_and_its_own_groups() -> None:
    x = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]]).double()
    ids = torch.tensor([[0, 0, 1], [0, 1, 1]])
    scores = metrics.curve(lambda x: x.sum(-1), groups=ids)(x, x).scores
    assert scores.T.tolist() == [[7.0, 3.0, 0.0], [7.0, 1.0, 0.0]]


def test_entries_of_a_negative_id_stay() -> None:
    x = torch.tensor([[1.0, 2.0, 4.0]]).double()
    groups = torch.tensor([0, -1, 1])
    scores = metrics.curve(lambda x: x.sum(-1), groups=groups)(x, x).scores
    assert scores[:, 0].tolist() == [7.0, 3.0, 2.0]


def test_a_tree_is_ranked_over_all_its_leaves() -> None:
    x = {"a": torch.tensor([[1.0, 8.0]]), "b": torch.tensor([[4.0]]), "ids": torch.tensor([[7]])}
    f = lambda x: x["a"].sum(-1) + x["b"].sum(-1) + 0 * x["ids"].sum(-1)
    phi = {"a": x["a"], "b": x["b"], "ids": None}
    scores = metrics.curve(f, order="most")(phi, x).scores[:, 0].tolist()
    assert scores == [13.0, 5.0, 1.0, 0.0, 0.0]


def test_equals_go_in_their_order_whatever_the_ranking() -> None:
    x = torch.tensor([[1.0, 2.0, 4.0]])
    same = torch.ones(1, 3)
    for order in ("most", "least"):
        scores = metrics.curve(lambda x: x.sum(-1), order=order)(same, x).scores
        assert scores[:, 0].tolist() == [7.0, 6.0, 4.0, 0.0]


def test_an_attribution_that_is_nan_measures_nan_for_its_example_alone() -> None:
    phi = torch.tensor([[float("nan"), 1.0], [2.0, 1.0]])
    found = metrics.deletion(lambda x: x.sum(-1))(phi, torch.ones(2, 2))
    assert found.isnan().tolist() == [True, False]


def test_the_slope_of_a_curve_is_that_of_finite_differences() -> None:
    f, phi = (lambda x: x.prod(-1) + x.square().sum(-1)), torch.randn(2, 3).double()
    x = torch.randn(2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: metrics.deletion(f)(phi, x, 0.3), x)


# --- erasure --------------------------------------------------------------------------------------


@few
@given(kind=kinds, seed=seeds)
def test_comprehensiveness_and_sufficiency_are_loops_over_bins(kind: str, seed: int) -> None:
    f = attrib.target(network(kind, seed), 0)
    x, baseline, phi = (data(kind, seed + i) for i in range(3))
    features, shares = phi[0].numel(), (0.1, 0.5, 1.0)
    counts = [-(-int(share * 10) * features // 10) for share in shares]
    without = by_hand(f, x, phi.flatten(1), baseline, counts)
    alone = by_hand(f, baseline, phi.flatten(1), x, counts)
    found = metrics.comprehensiveness(f, shares=shares)(phi, x, baseline)
    torch.testing.assert_close(found, (f(x) - without).mean(0), rtol=1e-9, atol=1e-11)
    found = metrics.sufficiency(f, shares=shares)(phi, x, baseline)
    torch.testing.assert_close(found, (f(x) - alone).mean(0), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("share", "features", "count"),
    [(0.1, 30, 3), (0.1, 31, 4), (0.1, 1, 1), (0.1, 10, 1), (0.07, 100, 7)],  # 7.000000000000001
)
def test_a_share_is_rounded_up_but_not_by_rounding_errors(
    share: float, features: int, count: int
) -> None:
    x = torch.ones(1, features)
    found = metrics.comprehensiveness(lambda x: x.sum(-1), shares=[share])(x, x)
    assert found.item() == count


def test_monotonicity_is_the_share_of_steps_that_do_not_fall() -> None:
    phi = torch.tensor([[-1.0, 1.0, 2.0, 3.0]]).double()
    x = torch.ones(1, 4).double()
    signs = torch.tensor([-1.0, 1.0, 0.0, 1.0]).double()
    f = lambda x: x @ signs
    assert metrics.monotonicity(f)(phi, x).item() == 0.75
    assert metrics.monotonicity(f)(-phi, x).item() == 0.75
    assert metrics.monotonicity(lambda x: x.sum(-1))(phi, x).item() == 1.0


def test_average_drop_and_increase_look_behind_the_map() -> None:
    x = torch.tensor([[1.0, 3.0], [1.0, 3.0]]).double()
    phi = torch.tensor([[5.0, 9.0], [-2.0, -4.0]]).double()
    f = lambda x: 2 * x[..., 1] - x[..., 0]
    # The maps are (0, 1) and (1, 0): behind them the scores 5, 5 are 6 and -1.
    assert metrics.average_drop(f)(phi, x).tolist() == [0.0, 6 / 5]
    assert metrics.average_increase(f)(phi, x).tolist() == [1.0, 0.0]


def test_a_map_may_broadcast_over_channels_and_a_baseline_shines_through() -> None:
    x, baseline = torch.rand(2, 3, 2, 2).double(), torch.rand(3, 1, 1).double()
    phi = torch.rand(2, 1, 2, 2).double()
    low, high = phi.amin((1, 2, 3), keepdim=True), phi.amax((1, 2, 3), keepdim=True)
    seen = (phi - low) / (high - low)
    f = lambda x: 1 + x.square().sum((1, 2, 3))
    expected = (f(x) - f(seen * x + (1 - seen) * baseline)).clamp_min(0) / f(x)
    found = metrics.average_drop(f)(phi, x, baseline)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["average_drop", "average_increase", "deletion"])
def test_the_examples_of_a_map_are_not_taken_for_channels(name: str) -> None:
    x, phi = torch.rand(3, 3, 2, 2), torch.rand(3, 2, 2)
    measure = getattr(metrics, name)(lambda x: 1 + x.square().sum((1, 2, 3)))
    with pytest.raises(attrib.AttribError, match=r"attribution\[:, None\]") as refused:
        measure(phi, x)
    assert refused.value.code == "attribution.shape"
    rows = torch.cat([measure(phi[i : i + 1, None], x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(measure(phi[:, None], x), rows)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: metrics.curve(linear, order="best"), "order.unknown"),
        (lambda: metrics.deletion(linear, steps=0), "steps.range"),
        (lambda: metrics.deletion(linear, groups=games.windows((2,))), "groups.overlap"),
        (lambda: metrics.comprehensiveness(linear, shares=[]), "shares.range"),
        (lambda: metrics.sufficiency(linear, shares=[2.0]), "shares.range"),
        (lambda: metrics.comprehensiveness(linear, shares=0.5), "shares.type"),
        (lambda: metrics.sensitivity_n(linear, sizes=2), "sizes.type"),
        (lambda: metrics.insertion(torch.ones(2)), "f.type"),
        (lambda: metrics.deletion(linear)(torch.ones(1, 3), ONES), "attribution.shape"),
        (lambda: metrics.average_drop(linear)(torch.ones(2, 4), ONES), "attribution.shape"),
    ],
)
def test_bad_arguments_are_refused(make: Any, code: str) -> None:
    with pytest.raises(attrib.AttribError) as error:
        make()
    assert error.value.code == code
