"""Ablation, inclusion and occlusion: closed forms, plain loops, and the laws of hiding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import attrib
from attrib.games import (
    feature_ablation,
    feature_inclusion,
    occlusion,
    patches,
    windows,
    words,
)
from attrib.types import Attribute, Score

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)).double().eval()
IMAGES = (
    nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30, 3))
    .double()
    .eval()
)
X, BASELINE = torch.randn(2, 5, 6, dtype=torch.float64)
PHOTO = torch.randn(3, 2, 5, 6, dtype=torch.float64)
GROUPS = torch.tensor([7, 2, 7, -1, 0, 2])
BOTH = pytest.mark.parametrize("method", [feature_ablation, feature_inclusion])


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def kinds(model: nn.Module) -> list[Score]:
    """One score, evaluated in each of the ways of the engine."""
    return [
        attrib.target(model, 1),
        attrib.batched(lambda x: model(x)[:, 1]),
        lambda x: model(x)[..., 1],
    ]


def looped(f: Score, x: Tensor, baseline: Tensor, hidden: list[Tensor]) -> list[Tensor]:
    return [f(torch.where(h, baseline, x)) for h in hidden]


@BOTH
def test_a_linear_score_gives_weights_times_changes(method: Callable[..., Attribute]) -> None:
    w = torch.randn(6, dtype=torch.float64)
    found = method(lambda x: x @ w + 3)(X, BASELINE)
    close(found, w * (X - BASELINE))


def test_a_product_gives_the_change_times_the_others() -> None:
    x = torch.tensor([[2.0, 3.0, 5.0]], dtype=torch.float64)
    close(feature_ablation(lambda x: x.prod(-1))(x, 1), torch.tensor([[15.0, 20.0, 24.0]]).double())
    close(feature_inclusion(lambda x: x.prod(-1))(x, 1), torch.tensor([[1.0, 2.0, 4.0]]).double())


@pytest.mark.parametrize("chunk_size", [1, 2, 3, None, "auto"])
@pytest.mark.parametrize("kind", range(3))
def test_every_group_gets_its_own_difference(kind: int, chunk_size: Any) -> None:
    f = kinds(MODEL)[kind]
    masks = [i == GROUPS for i in (7, 2, 0)]
    without = looped(f, X, BASELINE, masks)
    nothing = f(torch.where(GROUPS < 0, X, BASELINE))
    alone = looped(f, X, BASELINE, [(GROUPS >= 0) & ~m for m in masks])
    lost, gained = torch.zeros_like(X), torch.zeros_like(X)
    for mask, w, a in zip(masks, without, alone, strict=True):
        lost[:, mask] = (f(X) - w)[:, None]
        gained[:, mask] = (a - nothing)[:, None]
    close(feature_ablation(f, groups=GROUPS, chunk_size=chunk_size)(X, BASELINE), lost)
    close(feature_inclusion(f, groups=GROUPS, chunk_size=chunk_size)(X, BASELINE), gained)


@given(
    size=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_occlusion_is_the_mean_over_the_windows_that_cover(
    size: tuple[int, int], strides: tuple[int, int]
) -> None:
    (h, w), (s, t) = size, strides
    total, count = torch.zeros_like(PHOTO), torch.zeros(5, 6)
    with torch.no_grad():
        for kind in kinds(IMAGES):
            found = occlusion(kind, size, strides=strides)(PHOTO, 0.5)
            total.zero_()
            count.zero_()
            for i in range(math.ceil((5 - h) / s) + 1):
                for j in range(math.ceil((6 - w) / t) + 1):
                    box = (..., slice(i * s, i * s + h), slice(j * t, j * t + w))
                    changed = PHOTO.clone()
                    changed[box] = 0.5
                    total[box] += (kind(PHOTO) - kind(changed)).view(3, 1, 1, 1)
                    count[box[1:]] += 1
            close(found, total / count.clamp_min(1))


def test_occlusion_of_a_linear_score_is_known() -> None:
    w = torch.randn(2, 5, 6, dtype=torch.float64)
    f = lambda x: (x * w).sum((-3, -2, -1))
    found = occlusion(f, (2, 1, 6), strides=(2, 3, 1))(PHOTO)
    expected = torch.zeros_like(PHOTO)
    for row in (0, 3):
        expected[:, :, row] = (PHOTO * w)[:, :, row].sum((-2, -1))[:, None, None]
    close(found, expected)


def test_a_window_as_large_as_a_leaf_gets_the_whole_rise() -> None:
    f = kinds(IMAGES)[0]
    whole = (f(PHOTO) - f(torch.zeros_like(PHOTO)))[:, None, None, None].expand_as(PHOTO)
    close(occlusion(f, (5, 6))(PHOTO), whole)
    close(feature_ablation(f, groups=torch.zeros(1, dtype=torch.long))(PHOTO), whole)
    close(feature_inclusion(f, groups=torch.zeros(1, dtype=torch.long))(PHOTO), whole)


@pytest.mark.parametrize("chunk_size", [1, None, "auto"])
@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_dummy_feature_gets_exactly_nothing(
    kind: int, dtype: torch.dtype, chunk_size: Any
) -> None:
    model = nn.Sequential(nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 3)).to(dtype).eval()
    with torch.no_grad():
        model[0].weight[:, 7:20] = 0
        x = torch.randn(4, 50, dtype=dtype)
        for method in (feature_ablation, feature_inclusion):
            found = method(kinds(model)[kind], chunk_size=chunk_size)(x, torch.randn(50).to(dtype))
            assert torch.equal(found[:, 7:20], torch.zeros(4, 13, dtype=dtype))
            assert (found != 0).any(0).sum() == 37


@BOTH
def test_the_values_do_not_depend_on_the_way_of_evaluation(
    method: Callable[..., Attribute],
) -> None:
    expected = method(kinds(IMAGES)[2], chunk_size=1)(PHOTO, 0.5)
    for f in kinds(IMAGES):
        for chunk_size in (1, 7, None, "auto"):
            close(method(f, chunk_size=chunk_size)(PHOTO, 0.5), expected)


def test_showing_a_feature_is_hiding_it_the_other_way_round() -> None:
    f = kinds(MODEL)[0]
    close(feature_inclusion(f)(X, BASELINE), -feature_ablation(f)(BASELINE, X))


@BOTH
def test_a_set_of_baselines_is_the_mean_over_its_rows(method: Callable[..., Attribute]) -> None:
    f, rows = kinds(MODEL)[0], torch.randn(4, 6, dtype=torch.float64)
    expected = torch.stack([method(f, groups=GROUPS)(X, row) for row in rows]).mean(0)
    close(method(f, groups=GROUPS, interventional=True)(X, rows), expected)
    close(attrib.expected(method(f, groups=GROUPS))(X, rows), expected)
    rows = torch.randn(4, 2, 5, 6, dtype=torch.float64)
    f = kinds(IMAGES)[0]
    found = occlusion(f, (2, 3), strides=2, interventional=True)(PHOTO, rows)
    close(found, torch.stack([occlusion(f, (2, 3), strides=2)(PHOTO, b) for b in rows]).mean(0))


def test_integers_are_attributed() -> None:
    table = torch.randn(10, dtype=torch.float64)
    ids = torch.tensor([[1, 2, 3], [4, 4, 9]])
    found = feature_ablation(lambda x: table[x].sum(-1))(ids, 7)
    close(found, table[ids] - table[7])
    mixed = {"ids": ids, "size": torch.ones(2, 1), "gone": None}
    found = feature_ablation(lambda x: table[x["ids"]].sum(-1) * x["size"][:, 0])(mixed)
    close(found["ids"], table[ids] - table[0])
    close(found["size"], table[ids].sum(1, keepdim=True).float())
    assert found["gone"] is None


def test_words_of_different_numbers_are_hidden_together() -> None:
    table = torch.randn(10, dtype=torch.float64)
    ids = torch.tensor([[1, 2, 3, 9], [4, 4, 9, 0]])
    groups = words(ids, [[0, 0, 1, None], [0, 1, None, None]])
    f = lambda x, scale: table[x].sum(-1) * scale
    scale = torch.tensor([1.0, 2.0]).double()
    found = feature_ablation(f, groups=groups)(ids, 7, scale)
    change = table[ids] - table[7]
    first = torch.stack([change[0, :2].sum(), change[0, :2].sum(), change[0, 2], 0 * change[0, 0]])
    second = 2 * torch.stack([change[1, 0], change[1, 1], 0 * change[1, 0], 0 * change[1, 0]])
    close(found, torch.stack([first, second]))


def test_minus_infinity_hides_from_a_softmax() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    p = x.softmax(-1)[0]
    found = feature_ablation(lambda x: x.softmax(-1)[..., 0])(x, -math.inf)
    close(found, torch.stack([p[0], p[0] - p[0] / (1 - p[1]), p[0] - p[0] / (1 - p[2])])[None])


def test_only_what_rests_on_a_broken_score_is_not_finite() -> None:
    f = lambda x: x.sum(-1) + torch.where(x[..., 1] == 0, math.nan, 0.0)
    with pytest.warns(attrib.NonFiniteWarning):
        found = feature_ablation(f)(X)
    assert found[:, 1].isnan().all()
    close(found[:, [0, 2, 3, 4, 5]], X[:, [0, 2, 3, 4, 5]])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_half(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)).eval()
    x = torch.randn(5, 6)
    expected = occlusion(attrib.target(model, 1), (2,))(x)
    found = occlusion(attrib.target(model.to(dtype), 1), (2,))(x.to(dtype))
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() <= 0.06 * expected.abs().max() + 0.03


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_masks_of_examples_follow_their_rows(chunk_size: Any) -> None:
    """Inside of another method the batch is longer: a mask per example must grow with it."""
    own = torch.stack([GROUPS.roll(k) for k in range(5)])
    noise = torch.randn(4, 5, 6, dtype=torch.float64)
    draws = iter(noise.repeat(3, 1, 1))
    for groups in (own, GROUPS, own[:1]):
        plain = feature_ablation(kinds(MODEL)[2], groups=groups)
        expected = torch.stack([plain(X + draw, BASELINE) for draw in noise]).mean(0)
        shifted = attrib.smooth(
            feature_ablation(kinds(MODEL)[0], groups=groups),
            lambda x: x + next(draws),
            samples=4,
            chunk_size=chunk_size,
        )
        close(shifted(X, BASELINE), expected)


def test_a_mask_as_long_as_the_batch_is_not_taken_for_its_rows() -> None:
    x = torch.randn(6, 6, dtype=torch.float64)
    rows = torch.randn(3, 6, 6, dtype=torch.float64)
    f = attrib.target(MODEL, torch.tensor([0, 1, 2, 2, 1, 0]))
    ids = torch.tensor([0, 0, 1, 1, 2, 2])
    found = attrib.expected(feature_ablation(f, groups=ids))(x, rows)
    close(found, torch.stack([feature_ablation(f, groups=ids)(x, b) for b in rows]).mean(0))


def test_all_targets_need_one_evaluation() -> None:
    rows = []

    class Counted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows.append(len(x))
            return IMAGES(x)

    ids = patches(PHOTO, (2, 2))
    with torch.no_grad():
        found = attrib.per_target(lambda f: feature_ablation(f, groups=ids), Counted(), [0, 1, 2])(
            PHOTO
        )
        # The score itself, and once more among the nine ablations.
        assert sum(rows) == 3 * (1 + 1 + 9)
        for target, each in enumerate(found):
            close(each, feature_ablation(attrib.target(IMAGES, target), groups=ids)(PHOTO))


@given(chunk_size=st.integers(1, 9))
def test_memory_is_that_of_a_chunk(chunk_size: int) -> None:
    rows = []

    def f(x: Tensor) -> Tensor:
        rows.append(len(x))
        return x.flatten(1).sum(1)

    feature_ablation(attrib.batched(f), chunk_size=chunk_size)(PHOTO)
    assert max(rows) <= 3 * chunk_size
    assert sum(rows) == 3 * (60 + 2)


def test_derivatives_of_an_ablation_are_right() -> None:
    f = attrib.target(MODEL, 1)
    for method in (
        feature_ablation(f, groups=GROUPS),
        feature_inclusion(f),
        occlusion(f, (3,), strides=2),
    ):
        x, b = X.clone().requires_grad_(), BASELINE.clone().requires_grad_()
        assert torch.autograd.gradcheck(method, (x, b))


def test_vmap_is_a_loop_and_compilation_changes_nothing() -> None:
    f = lambda x: MODEL(x)[..., 1]
    torch.compiler.reset()
    with torch.no_grad():
        for method in (
            feature_ablation(f, groups=GROUPS),
            feature_ablation(f, groups=torch.stack([GROUPS] * 5)),
            occlusion(f, (3,), strides=2),
        ):
            stack = torch.stack([X, 2 * X])
            found = torch.vmap(method, (0, None))(stack, BASELINE)
            close(found, torch.stack([method(x, BASELINE) for x in stack]))
            compiled = torch.compile(method, fullgraph=True, backend="eager")
            close(compiled(X, BASELINE), method(X, BASELINE))


def test_windows_may_overlap_and_are_not_shown_alone() -> None:
    with pytest.raises(attrib.AttribError) as refusal:
        feature_inclusion(kinds(MODEL)[0], groups=windows((2,)))
    assert refusal.value.code == "groups.overlap"


@pytest.mark.parametrize(
    "method", [feature_ablation, feature_inclusion, lambda f, **o: occlusion(f, (2,), **o)]
)
def test_options_are_checked_before_anything_is_called(method: Callable[..., Any]) -> None:
    for wrong, code in (
        ({"chunk_size": 0}, "chunk_size.range"),
        ({"chunk_size": "big"}, "chunk_size.type"),
    ):
        with pytest.raises(attrib.AttribError) as refusal:
            method(lambda x: x, **wrong)
        assert refusal.value.code == code
    with pytest.raises(attrib.AttribError) as refusal:
        method(3)
    assert refusal.value.code == "f.type"
