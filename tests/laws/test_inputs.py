"""Examples keep to themselves, and an input may have any form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import attrib
from laws.compare import assert_close, dtypes
from laws.methods import Law, MethodInfo, Sample, claiming, every, such_that
from laws.networks import KINDS, data, few, kinds, network, seeds, vector_kinds

SHIFTED = {torch.float32: 2e-5, torch.float64: 1e-12}


def sample(
    kind: str, seed: int, dtype: torch.dtype = torch.float64, batch: tuple[int, ...] = (5,)
) -> Sample:
    return Sample(
        data(kind, seed, dtype, batch),
        data(kind, seed + 1, dtype, batch),
        data(kind, seed + 2, dtype, batch=(4,)),
    )


def rows_of(drawn: Sample, rows: Any) -> Sample:
    return Sample(drawn.x[rows], drawn.baseline[rows], drawn.baselines)


@claiming(Law.PERMUTED)
@dtypes
@few
@given(kind=kinds, seed=seeds)
def test_permuting_the_examples_permutes_the_attributions(
    info: MethodInfo, dtype: torch.dtype, kind: str, seed: int
) -> None:
    model, drawn = network(kind, seed, dtype), sample(kind, seed, dtype)
    index, order = torch.tensor([0, 2, 1, 1, 0]), torch.tensor([3, 0, 4, 2, 1])
    expected = info(attrib.target(model, index), drawn)[order]
    found = info(attrib.target(model, index[order]), rows_of(drawn, order))
    assert_close(found, expected, SHIFTED[dtype])


@claiming(Law.ALONE)
@dtypes
@few
@given(kind=kinds, seed=seeds, row=st.integers(0, 4))
def test_an_example_gets_in_a_batch_what_it_gets_alone(
    info: MethodInfo, dtype: torch.dtype, kind: str, seed: int, row: int
) -> None:
    model, drawn = network(kind, seed, dtype), sample(kind, seed, dtype)
    index = torch.tensor([0, 2, 1, 1, 0])
    batch = info(attrib.target(model, index), drawn)
    alone = info(attrib.target(model, index[row : row + 1]), rows_of(drawn, slice(row, row + 1)))
    assert_close(alone, batch[row : row + 1], SHIFTED[dtype], batch)


@claiming(Law.UNDISTURBED)
@few
@given(kind=kinds, seed=seeds)
def test_an_example_gets_the_same_in_any_company(info: MethodInfo, kind: str, seed: int) -> None:
    f, drawn = attrib.target(network(kind, seed), 0), sample(kind, seed)
    others = drawn.x.clone()
    others[1:] = 3 * data(kind, seed + 3)[1:]
    before, after = info(f, drawn), info(f, drawn._replace(x=others))
    assert_close(after[:1], before[:1], SHIFTED[torch.float64], before)


@such_that(lambda info: info.chunked)
@dtypes
@few
@given(kind=kinds, seed=seeds)
def test_the_size_of_the_chunks_does_not_matter(
    info: MethodInfo, dtype: torch.dtype, kind: str, seed: int
) -> None:
    f, drawn = attrib.target(network(kind, seed, dtype), 0), sample(kind, seed, dtype)
    expected = info(f, drawn, chunk_size=1)
    for chunk_size in (2, 5, None, "auto", 1000):
        assert_close(info(f, drawn, chunk_size=chunk_size), expected, SHIFTED[dtype])


@every()
@dtypes
@few
@given(kind=kinds, seed=seeds)
def test_a_score_marked_as_batched_gives_the_same_numbers(
    info: MethodInfo, dtype: torch.dtype, kind: str, seed: int
) -> None:
    model, drawn = network(kind, seed, dtype), sample(kind, seed, dtype)
    expected = info(lambda x: model(x)[..., 1], drawn)
    for f in (attrib.target(model, 1), attrib.batched(lambda x: model(x)[:, 1])):
        assert_close(info(f, drawn), expected, SHIFTED[dtype])


@claiming(Law.NESTED)
@few
@given(kind=vector_kinds, seed=seeds)
def test_there_may_be_two_batch_dimensions(info: MethodInfo, kind: str, seed: int) -> None:
    model, drawn = network(kind, seed), sample(kind, seed, batch=(2, 3))
    flat = Sample(drawn.x.flatten(0, 1), drawn.baseline.flatten(0, 1), drawn.baselines)
    found = info(lambda x: model(x)[..., 0], drawn)
    expected = info(lambda x: model(x)[..., 0], flat)
    if not info.seeded:  # otherwise the draws are shaped by the batch
        assert_close(found.flatten(0, 1), expected, SHIFTED[torch.float64])
    assert found.shape == (2, 3, *expected.shape[1:])


@every()
@pytest.mark.parametrize("marked", [False, True], ids=["unmarked", "marked"])
@few
@given(kind=vector_kinds, seed=seeds)
def test_there_may_be_no_batch_dimension(
    info: MethodInfo, marked: bool, kind: str, seed: int
) -> None:
    model, drawn = network(kind, seed), sample(kind, seed, batch=(1,))
    one = Sample(drawn.x[0], drawn.baseline[0], drawn.baselines)
    f = attrib.target(model, 1) if marked else lambda x: model(x)[..., 1]
    assert_close(info(f, one), info(f, drawn)[0], SHIFTED[torch.float64])


@every()
@pytest.mark.parametrize("marked", [False, True], ids=["unmarked", "marked"])
@pytest.mark.parametrize("kind", ["gelu", "conv"])
def test_a_batch_may_be_empty(info: MethodInfo, marked: bool, kind: str) -> None:
    model, drawn = network(kind), sample(kind, 0, batch=(0,))
    f = attrib.target(model, 1) if marked else lambda x: model(x)[..., 1]
    features = KINDS[kind].features
    found = info(f, drawn)
    assert found.shape == (0, *features, *(features if info.pairs else ()))
    assert found.dtype == torch.float64


@every()
@few
@given(kind=kinds, seed=seeds)
def test_the_layout_of_the_input_in_memory_does_not_matter(
    info: MethodInfo, kind: str, seed: int
) -> None:
    f, drawn = attrib.target(network(kind, seed), 0), sample(kind, seed)
    expected = info(f, drawn)
    strided = Sample(*(torch.stack([t, -t], -1)[..., 0] for t in drawn))
    transposed = Sample(*(t.movedim(0, -1).contiguous().movedim(-1, 0) for t in drawn))
    assert not (strided.x.is_contiguous() or transposed.x.is_contiguous())
    assert_close(info(f, strided), expected, SHIFTED[torch.float64])
    assert_close(info(f, transposed), expected, SHIFTED[torch.float64])


@every()
@few
@given(kind=kinds, seed=seeds)
def test_an_expanded_input_is_like_its_copies(info: MethodInfo, kind: str, seed: int) -> None:
    f, drawn = attrib.target(network(kind, seed), 0), sample(kind, seed)
    expanded = drawn._replace(x=drawn.x[:1].expand_as(drawn.x), baseline=drawn.baseline[:1])
    copies = Sample(expanded.x.clone(), drawn.baseline[:1].repeat_interleave(5, 0), drawn.baselines)
    assert_close(info(f, expanded), info(f, copies), SHIFTED[torch.float64])


@every()
@few
@given(kind=kinds, seed=seeds)
def test_an_input_that_requires_a_gradient_is_like_any_other(
    info: MethodInfo, kind: str, seed: int
) -> None:
    f, drawn = attrib.target(network(kind, seed), 0), sample(kind, seed)
    expected = info(f, drawn)
    leaf = drawn._replace(x=drawn.x.clone().requires_grad_())
    inner = drawn._replace(x=leaf.x * 1.0)
    parameter = drawn._replace(x=torch.nn.Parameter(drawn.x.clone()))
    for variant in (leaf, inner, parameter):
        assert_close(info(f, variant), expected, SHIFTED[torch.float64])


@such_that(lambda info: info.takes == "baseline")
@few
@given(kind=kinds, seed=seeds)
def test_a_baseline_may_be_left_out_a_number_or_any_tensor_that_broadcasts(
    info: MethodInfo, kind: str, seed: int
) -> None:
    f, x = attrib.target(network(kind, seed), 0), data(kind, seed)
    zero, half = torch.zeros_like(x), torch.full_like(x, 0.5)
    attribute = info.attribute(f)
    assert_close(info.attribute(f)(x), attribute(x, zero), 0) if not info.seeded else None
    expected = info.attribute(f)(x, half)
    for baseline in (0.5, half[0], half[:1], half[0, ..., :1], half.flatten()[0]):
        assert_close(info.attribute(f)(x, baseline), expected, SHIFTED[torch.float64])


@claiming(Law.SPLIT)
@few
@given(kind=vector_kinds, seed=seeds)
def test_a_tuple_of_pieces_gets_the_pieces_of_the_attribution(
    info: MethodInfo, kind: str, seed: int
) -> None:
    model, drawn = network(kind, seed), sample(kind, seed)

    def split(x: Tensor) -> tuple[Tensor, list[Tensor]]:
        return x[..., :2], [x[..., 2:3], x[..., 3:]]

    def f(x: tuple[Tensor, list[Tensor]]) -> Tensor:
        return model(torch.cat([x[0], *x[1]], -1))[..., 0]

    expected = split(info(lambda x: model(x)[..., 0], drawn))
    pieces = Sample(*map(split, drawn))
    assert_close(info(f, pieces), expected, SHIFTED[torch.float64])
    assert_close(info(attrib.batched(f), pieces), expected, SHIFTED[torch.float64])


@such_that(lambda info: not info.integers)
@pytest.mark.parametrize("marked", [False, True], ids=["unmarked", "marked"])
@few
@given(kind=kinds, seed=seeds)
def test_integers_in_the_input_are_carried_along_and_get_none(
    info: MethodInfo, marked: bool, kind: str, seed: int
) -> None:
    model, drawn = network(kind, seed), sample(kind, seed)
    ids = torch.arange(5) % 3

    def f(x: dict[str, Tensor]) -> Tensor:
        return model(x["pixels"])[..., 0] * (1.0 + x["ids"]) * torch.where(x["keep"], 1.0, 2.0)

    keep = ids > 0

    def dressed(t: Tensor) -> dict[str, Tensor]:
        return {"pixels": t, "ids": ids[: len(t)], "keep": keep[: len(t)]}

    found = info(attrib.batched(f) if marked else f, Sample(*map(dressed, drawn)))
    factor = (1.0 + ids) * torch.where(keep, 1.0, 2.0)
    expected = info(
        attrib.batched(lambda x, factor: model(x)[..., 0] * factor, rows=[factor.double()]), drawn
    )
    if info.pairs:
        assert found["ids"] is None and found["keep"] is None
        found = found["pixels"]
        expected = {"pixels": expected}
    else:
        expected = {"pixels": expected}
    leaves = {name: found[name] for name in ("ids", "keep")}
    assert leaves == {"ids": None, "keep": None}
    assert_close(found["pixels"], expected["pixels"], SHIFTED[torch.float64])


@such_that(lambda info: info.dummies)
@few
@given(kind=vector_kinds, seed=seeds)
def test_a_leaf_that_the_score_does_not_use_gets_zeros(
    info: MethodInfo, kind: str, seed: int
) -> None:
    model, drawn = network(kind, seed), sample(kind, seed)
    pairs = Sample(*((t, t + 1) for t in drawn))
    found = pytree.tree_leaves(info(lambda x: model(x[0])[..., 0], pairs))
    used, *unused = found
    assert used.abs().max() > 0
    for leaf in unused:
        assert torch.equal(leaf, torch.zeros_like(leaf))


@every()
@few
@given(kind=vector_kinds, seed=seeds)
def test_one_tensor_in_two_places_has_two_separate_attributions(
    info: MethodInfo, kind: str, seed: int
) -> None:
    model, drawn = network(kind, seed), sample(kind, seed)

    def f(x: tuple[Tensor, Tensor]) -> Tensor:
        return model(x[0])[..., 0] + 3 * model(x[1].square())[..., 1]

    same = Sample(*((t, t) for t in drawn))
    copies = Sample(*((t, t.clone()) for t in drawn))
    assert_close(info(f, same), info(f, copies), 0)
