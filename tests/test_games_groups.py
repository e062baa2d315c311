"""What is one feature: every group that can be written, against sets of indices."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import attrib
from attrib import games
from attrib.games import game, patches, slic, superpixels, tokens, windows, words


def shown(x: Tensor, groups: object, coalitions: Tensor) -> Tensor:
    """Which entries of x the score sees, read off what it was given."""
    seen: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        seen.append(x)
        return x.flatten(1).sum(1)

    v = game(f, x, math.nan, groups=groups, chunk_size=1)
    with pytest.warns(attrib.NonFiniteWarning):
        v(coalitions)
    return ~torch.stack(seen[1:]).isnan()


def every_coalition(players: int) -> Tensor:
    return torch.tensor(list(itertools.product([False, True], repeat=players)))


def test_without_groups_every_entry_is_a_feature_leaf_by_leaf() -> None:
    x = {"a": torch.ones(2, 3), "b": torch.ones(2), "c": torch.ones(2, 2, 2)}
    weights = {
        "a": torch.arange(3.0),
        "b": torch.tensor(3.0),
        "c": 4 + torch.arange(4.0).view(2, 2),
    }

    def f(x: dict[str, Tensor]) -> Tensor:
        return sum((x[k] * weights[k]).reshape(2, -1).sum(1) for k in x)

    v = game(f, x)
    assert v.players == 8
    found = v(torch.eye(8, dtype=torch.bool))
    assert torch.equal(found, torch.arange(8.0)[:, None].expand(8, 2))


@given(
    ids=st.lists(st.integers(-2, 5), min_size=6, max_size=6).filter(lambda ids: max(ids) >= 0),
    per_example=st.booleans(),
)
def test_entries_of_one_id_are_shown_together(ids: list[int], per_example: bool) -> None:
    mask = torch.tensor([ids, ids[::-1]] if per_example else ids)
    present = sorted({i for i in ids if i >= 0})
    coalitions = every_coalition(len(present))
    found = shown(torch.ones(2, 6), mask, coalitions)
    for row, coalition in zip(found, coalitions, strict=True):
        there = {i for i, here in zip(present, coalition, strict=True) if here}
        expected = [[i < 0 or i in there for i in line] for line in mask.expand(2, 6).tolist()]
        assert row.tolist() == expected


def test_one_id_in_two_leaves_is_one_feature() -> None:
    x = (torch.ones(1, 2), torch.ones(1, 3))
    ids = (torch.tensor([4, 9]), torch.tensor([9, -1, 4]))
    v = game(
        lambda x: x[0] @ torch.tensor([1.0, 2.0]) + x[1] @ torch.tensor([4.0, 8, 16]), x, groups=ids
    )
    assert v.players == 2
    assert v(every_coalition(2))[:, 0].tolist() == [8, 8 + 2 + 4, 8 + 1 + 16, 31]
    first, second = v.spread(torch.tensor([[0.5, 0.25]]))
    assert first.tolist() == [[0.5, 0.25]]
    assert second.tolist() == [[0.25, 0, 0.5]]


def test_a_leaf_without_ids_is_never_hidden() -> None:
    x = {"ids": torch.tensor([[5, 6]]), "mask": torch.tensor([[True, False]]), "none": None}
    groups = {"ids": torch.tensor([0, 1]), "mask": None, "none": None}
    v = game(lambda x: (x["ids"] * x["mask"]).sum(1).float(), x, groups=groups)
    assert v(every_coalition(2))[:, 0].tolist() == [0, 0, 5, 5]
    spread = v.spread(torch.ones(1, 2))
    assert spread["mask"].tolist() == [[0, 0]]
    assert spread["none"] is None


# Overlapping, cut off at the end, with gaps, larger steps than the leaf, and dimensions spanned.
WINDOWS = [
    ((6,), (3,), (1,)),
    ((6,), (3,), (2,)),
    ((7,), (3,), (3,)),
    ((7,), (2,), (3,)),
    ((5,), (1,), (4,)),
    ((5,), (2,), (9,)),
    ((2, 5), (3,), (2,)),
    ((4, 5), (2, 3), (1, 2)),
    ((5, 4), (5, 2), (1, 1)),
    ((2, 3, 4), (2, 2), (1, 3)),
    ((2, 3, 4), (1, 2, 3), (2, 1, 1)),
    ((1,), (1,), (1,)),
]


@pytest.mark.parametrize(("shape", "sizes", "strides"), WINDOWS)
def test_windows_hide_what_they_cover_and_give_it_their_mean(
    shape: tuple[int, ...], sizes: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    dims = len(sizes)
    along = []
    for n, w, s in zip(shape[-dims:], sizes, strides, strict=True):
        starts = range(0, max(n - w, 0) + s, s)  # as many as ceil((n - w) / s) + 1
        along.append([set(range(a, min(a + w, n))) for a in starts if a < n])
    boxes = [
        torch.tensor(
            [all(i in d for i, d in zip(at, box, strict=True)) for at in _places(shape[-dims:])]
        )
        for box in itertools.product(*along)
    ]
    whole = (len(boxes), *(1 for _ in shape[dims:]), *shape[-dims:])
    covers = torch.stack(boxes).view(whole).expand(-1, *shape)

    x = torch.ones(2, *shape)
    groups = windows(sizes, strides)
    v = game(lambda x: x.flatten(1).sum(1), x, groups=groups)
    assert v.players == len(covers)
    generator = torch.Generator().manual_seed(0)
    coalitions = torch.rand(20, v.players, generator=generator) > 0.3
    hidden = torch.stack([covers[~c].any(0) for c in coalitions])
    assert torch.equal(v(coalitions), (~hidden).flatten(1).sum(1)[:, None].expand(-1, 2).float())

    values = torch.randn(2, v.players, generator=generator, dtype=torch.float64)
    v = game(lambda x: x.flatten(1).sum(1), x.double(), groups=groups)
    count = covers.sum(0)
    mean = torch.einsum("bp,p...->b...", values, covers.double()) / count.clamp_min(1)
    assert torch.allclose(v.spread(values), mean, rtol=1e-12, atol=1e-12)


def _places(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, shape)))


def test_a_value_that_is_not_a_number_stays_with_its_window() -> None:
    v = game(lambda x: x.sum(-1), torch.ones(1, 5), groups=windows((2,), 1))
    found = v.spread(torch.tensor([[math.nan, 1.0, 2.0, 3.0]]))
    assert torch.equal(found.isnan(), torch.tensor([[True, True, False, False, False]]))


def test_windows_count_over_leaves_and_skip_absent_ones() -> None:
    x = (torch.ones(2, 4), torch.ones(2, 3, 3), torch.ones(2, 2))
    v = game(lambda x: x[0].sum(1), x, groups=windows(((2,), (2, 2), None), ((2,), 1, None)))
    assert v.players == 2 + 4
    first, second, third = v.spread(torch.arange(6.0).expand(2, 6))
    assert first[0].tolist() == [0, 0, 1, 1]
    assert second[0].tolist() == [[2, 2.5, 3], [3, 3.5, 4], [4, 4.5, 5]]
    assert third.tolist() == [[0, 0], [0, 0]]


def test_patches_tile_the_last_dimensions() -> None:
    ids = patches(torch.zeros(2, 3, 5, 7), (2, 3))
    for i, j in itertools.product(range(5), range(7)):
        assert ids[i, j] == (i // 2) * 3 + j // 3
    assert patches(torch.zeros(4), (3,)).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("shape", [(4, 6), (2, 4, 6)])
def test_superpixels_span_the_channels(shape: tuple[int, ...]) -> None:
    regions = torch.arange(math.prod(shape)).view(shape) % 7 * 10 - 10
    for segmentation in (regions, regions.numpy(), regions.to(torch.int16)):
        found = shown(torch.ones(2, 3, 4, 6), superpixels(segmentation), every_coalition(6))
        expected = torch.stack(
            [
                (regions < 0) | torch.isin(regions, torch.arange(6)[c] * 10)
                for c in every_coalition(6)
            ]
        )
        whole = expected.view(64, -1, 1, 4, 6).expand(64, 2, 3, 4, 6)
        assert torch.equal(found, whole)


def test_slic_finds_regions_of_one_colour() -> None:
    pytest.importorskip("skimage")
    x = torch.zeros(2, 3, 20, 20)
    x[0, :, :, 10:] = 5
    x[1, :, 10:] = -5
    ids = slic(x, segments=4, compactness=0.1)
    assert ids.shape == (2, 1, 20, 20)
    for image, other in zip(ids, x[:, :1], strict=True):
        assert len(image.unique()) > 1
        for region in image.unique():
            assert len(other[image == region].unique()) == 1


def test_every_token_is_a_feature_and_padding_is_none() -> None:
    ids = torch.tensor([[5, 6, 7], [8, 0, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert tokens(ids).tolist() == [0, 1, 2]
    assert tokens(ids, mask=mask).tolist() == [[0, 1, 2], [0, -1, -1]]
    assert tokens(torch.zeros(2, 3, 4), mask=mask.bool()).tolist() == [
        [[0], [1], [2]],
        [[0], [-1], [-1]],
    ]
    embedded = torch.ones(2, 3, 4)
    found = shown(embedded, tokens(embedded, mask=mask), torch.tensor([[False, True, False]]))
    assert found[0, :, :, 0].tolist() == [[False, True, False], [False, True, True]]
    assert torch.equal(found, found[..., :1].expand_as(found))


def test_all_tokens_of_a_word_are_one_feature() -> None:
    x = torch.tensor([[101, 7, 8, 9, 102], [101, 5, 102, 0, 0]])
    rows = [[None, 0, 0, 1, None], [None, 0, None, None, None]]
    assert words(x, rows).tolist() == [[-1, 0, 0, 1, -1], [-1, 0, -1, -1, -1]]
    assert words(x, rows[0]).tolist() == [-1, 0, 0, 1, -1]
    assert words(torch.zeros(2, 5, 3), rows).shape == (2, 5, 1)
    v = game(lambda x: x.sum(1).float(), x, groups=words(x, rows))
    assert v(every_coalition(2)).tolist() == [[203, 203], [212, 203], [218, 208], [227, 208]]


REFUSED = [
    (torch.tensor([0.0, 1.0]), "groups.type"),
    (torch.tensor([True, False]), "groups.type"),
    ([0, 1], "groups.type"),
    ("tokens", "groups.type"),
    (torch.tensor([-1, -2]), "groups.empty"),
    (torch.tensor([0, 1, 2]), "groups.shape"),
    (torch.zeros(3, 2, dtype=torch.long), "groups.shape"),
    (torch.zeros(1, 1, 2, dtype=torch.long), "groups.shape"),
    ((torch.tensor([0, 1]), torch.tensor([0, 1])), "groups.structure"),
    (windows(2), "window.type"),
    (windows((3,)), "window.shape"),
    (windows((1, 1)), "window.shape"),
    (windows((0,)), "window.range"),
    (windows((1.5,)), "window.type"),
    (windows((1,), 0), "strides.range"),
    (windows((1,), -1), "strides.range"),
    (windows((1,), (1, 1)), "strides.shape"),
    (windows((1,), "1"), "strides.type"),
    (windows(None), "groups.empty"),
]


@pytest.mark.parametrize(("groups", "code"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_groups_that_do_not_fit_are_refused(groups: object, code: str) -> None:
    with pytest.raises(attrib.AttribError) as refusal:
        game(lambda x: x.sum(-1), torch.ones(2, 2), groups=groups)
    assert refusal.value.code == code
    assert "got" in str(refusal.value)


def test_examples_without_features_are_refused() -> None:
    for x in (torch.ones(2, 0), {"a": torch.ones(2, 0), "b": torch.ones(2, 3, 0)}):
        with pytest.raises(attrib.AttribError, match="x: no feature, got") as refusal:
            game(lambda x: torch.zeros(2), x)
        assert refusal.value.code == "groups.empty"


def test_windows_must_be_structured_like_x() -> None:
    pair = (torch.ones(1, 2), torch.ones(1, 2))
    for wrong in (windows(((1,),)), windows(((1,), (1,)), ((1,),))):
        with pytest.raises(attrib.AttribError) as refusal:
            game(lambda x: x[0].sum(-1), pair, groups=wrong)
        assert refusal.value.code.endswith(".structure")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: patches(torch.ones(3), (2, 2)), "size.shape"),
        (lambda: patches(torch.ones(3), (0,)), "size.range"),
        (lambda: superpixels(torch.ones(2, 2)), "segmentation.type"),
        (lambda: superpixels(torch.tensor([1, 2])), "segmentation.shape"),
        (lambda: slic(torch.ones(4, 4)), "x.shape"),
        (lambda: slic(torch.ones(3, 4, 4), segments=0), "segments.range"),
        (lambda: slic(torch.ones(3, 4, 4), compactness=0.0), "compactness.range"),
        (lambda: tokens(torch.ones(3)), "x.shape"),
        (lambda: tokens(torch.tensor([1, 2]), mask=torch.ones(3)), "mask.shape"),
        (lambda: words(torch.tensor([1, 2]), [0, 1, 2]), "word_ids.shape"),
        (lambda: words(torch.tensor([1, 2]), [0, "a"]), "word_ids.type"),
    ],
)
def test_what_makes_no_groups_is_refused(make: object, code: str) -> None:
    with pytest.raises(attrib.AttribError) as refusal:
        make()
    assert refusal.value.code == code


def test_ids_without_numbers_are_refused() -> None:
    def attribute(ids: Tensor) -> Tensor:
        return attrib.games.feature_ablation(lambda x: x.sum(-1), groups=ids)(torch.ones(1, 2))

    with pytest.raises(attrib.AttribError, match=r"torch\.vmap") as refusal:
        torch.vmap(attribute)(torch.tensor([[0, 1]]))
    assert refusal.value.code == "groups.traced"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: games.patches(torch.zeros(1, 3, 4, 4), 2), "size"),
        (lambda: games.words(torch.zeros(1, 3).long(), 5), "word_ids"),
        (lambda: games.words(torch.zeros(1, 3).long(), None), "word_ids"),
        (lambda: games.tokens(torch.zeros(1, 3).long(), mask=3), "mask"),
        (lambda: games.superpixels("a"), "segmentation"),
        (lambda: games.rise(lambda x: x.sum((1, 2, 3)), cells=3), "cells"),
        (lambda: games.owen_values(lambda x: x.sum(-1), unions=3), "unions"),
    ],
)
def test_what_is_of_another_type_is_refused_by_name(call: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name}: ") as refusal:
        call()
    assert isinstance(refusal.value, attrib.AttribError)
    assert refusal.value.code == f"{name}.type"


def test_a_set_of_baselines_without_rows_is_refused() -> None:
    x = torch.ones(2, 5)
    with pytest.raises(ValueError, match="single numbers") as refusal:
        games.shapley_values(lambda x: x.sum(-1), interventional=True)(x, torch.zeros(5))
    assert isinstance(refusal.value, attrib.AttribError)
    assert refusal.value.code == "baselines.shape"


def test_masks_that_fade_need_numbers_and_places() -> None:
    method = games.rise(lambda x: x.float().sum((1, 2)), cells=(2, 2))
    for x, code in [(torch.ones(1, 4, 4).long(), "x.dtype"), (torch.ones(1, 4, 0), "cells.length")]:
        with pytest.raises(attrib.AttribError) as refusal:
            method(x)
        assert refusal.value.code == code
