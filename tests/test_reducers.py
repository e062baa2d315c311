"""Reducers: folding a stream of chunks gives what torch says of all samples at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import attrib

REDUCERS: dict[str, tuple[Callable[..., Any], Callable[[Tensor], Tensor]]] = {
    "total": (attrib.total, lambda a: a.sum(0)),
    "mean": (attrib.mean, lambda a: a.mean(0)),
    "second_moment": (attrib.second_moment, lambda a: a.square().mean(0)),
    "variance": (attrib.variance, lambda a: a.var(0, correction=0)),
    "maximum": (attrib.maximum, lambda a: a.amax(0)),
    "minimum": (attrib.minimum, lambda a: a.amin(0)),
    "estimate": (lambda chunks: attrib.estimate(chunks).value, lambda a: a.mean(0)),
    "stderr": (
        lambda chunks: attrib.estimate(chunks).stderr,
        lambda a: a.std(0) / len(a) ** 0.5,
    ),
}
each = pytest.mark.parametrize("name", REDUCERS)
partitions = st.lists(st.integers(1, 5), min_size=1, max_size=6).filter(
    lambda sizes: sum(sizes) > 1
)


def chunks_of(samples: Tensor, sizes: list[int]) -> list[Tensor]:
    return list(samples.split(sizes))


@each
@given(sizes=partitions, seed=st.integers(0, 2**16))
def test_a_reducer_says_of_chunks_what_torch_says_of_all(
    name: str, sizes: list[int], seed: int
) -> None:
    reduce, direct = REDUCERS[name]
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(sum(sizes), 3, 2, generator=generator, dtype=torch.float64)
    found = reduce(chunks_of(samples, sizes))
    torch.testing.assert_close(found, direct(samples), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", [[400], [1] * 400, [100, 300], [7] * 57 + [1]])
def test_variance_is_right_for_large_numbers_that_differ_little(sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    samples = 1e3 + 1e-2 * torch.randn(400, 5, generator=generator)
    assert samples.dtype == torch.float32
    exact = samples.double().var(0, correction=0)
    # A difference of means of squares, each 1e6, would leave an error of 1e6 * 2**-24: 600 times
    # the variance. The differences from one of the samples are exact, so all that is left is the
    # rounding of a sum of 400 numbers of one magnitude.
    rounding = 400 * 2.0**-24
    found = attrib.variance(chunks_of(samples, sizes))
    torch.testing.assert_close(found.double(), exact, rtol=rounding, atol=0)
    value, stderr, _ = attrib.estimate(chunks_of(samples, sizes))
    torch.testing.assert_close(stderr.double(), (exact / 399).sqrt(), rtol=rounding, atol=0)
    torch.testing.assert_close(value.double(), samples.double().mean(0), rtol=2.0**-23, atol=0)


def test_a_constant_has_no_variance_at_all() -> None:
    samples = torch.full((50, 3), 0.1)
    assert torch.equal(attrib.variance(chunks_of(samples, [20, 30])), torch.zeros(3))
    assert torch.equal(attrib.estimate(chunks_of(samples, [49, 1])).stderr, torch.zeros(3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@each
def test_half_precision_is_accumulated_in_single(name: str, dtype: torch.dtype) -> None:
    reduce, direct = REDUCERS[name]
    # Added up in bfloat16, ones stop at 256.
    samples = (1 + torch.randn(600, 2).mul(0.1)).to(dtype)
    found = reduce([*samples.split(1)])
    assert found.dtype == dtype
    expected = direct(samples.float())
    torch.testing.assert_close(found.float(), expected, rtol=torch.finfo(dtype).eps, atol=0)


@each
def test_trees_are_reduced_leaf_by_leaf_and_absent_leaves_stay(name: str) -> None:
    reduce, direct = REDUCERS[name]
    a, b = torch.randn(6, 3), torch.randn(6, 2, 2)
    chunks = [{"a": a[i : i + 2], "b": (b[i : i + 2], None)} for i in range(0, 6, 2)]
    found = reduce(chunks)
    assert found.keys() == {"a", "b"} and found["b"][1] is None
    torch.testing.assert_close(found["a"], direct(a))
    torch.testing.assert_close(found["b"][0], direct(b))


def test_an_estimate_says_how_many_samples_it_rests_on() -> None:
    found = attrib.estimate([torch.zeros(3, 2), torch.zeros(4, 2)])
    assert isinstance(found, attrib.Estimate)
    assert found.samples == 7


def test_one_sample_has_no_standard_error() -> None:
    value, stderr, samples = attrib.estimate([torch.ones(1, 2)])
    assert torch.equal(value, torch.ones(2)) and stderr.isnan().all() and samples == 1


@each
def test_no_samples_are_refused(name: str) -> None:
    with pytest.raises(attrib.AttribError, match="chunks: empty") as refusal:
        REDUCERS[name][0]([])
    assert refusal.value.code == "chunks.empty" and isinstance(refusal.value, ValueError)


@each
def test_no_chunk_is_kept(name: str) -> None:
    past: list[weakref.ref[Tensor]] = []

    def stream() -> Iterator[Tensor]:
        for _ in range(6):
            # All but the last one and what was made of it are gone by now.
            assert not any(ref() is not None for ref in past[:-1])
            chunk = torch.randn(4, 3)
            past.append(weakref.ref(chunk))
            yield chunk
            del chunk

    REDUCERS[name][0](stream())
    assert len(past) == 6


@each
def test_reducers_have_the_derivatives_of_what_they_compute(name: str) -> None:
    reduce, _ = REDUCERS[name]
    samples = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: reduce([s[:2], s[2:]]), samples)


def test_a_reducer_of_ones_own_is_any_function_of_the_chunks() -> None:
    def median(chunks: Any) -> Tensor:
        return torch.cat(list(chunks)).median(0).values

    noise = attrib.perturb.gaussian(1.0, generator=torch.Generator().manual_seed(0))
    attribute = attrib.smooth(
        attrib.saliency(lambda x: x.square().sum(-1)), noise, samples=9, reduce=median
    )
    kept: list[Tensor] = []

    def keep(chunks: Any) -> Tensor:
        kept.extend(chunks)
        return torch.cat(kept).mean(0)

    x = torch.randn(2, 3)
    found = attribute(x)
    noise = attrib.perturb.gaussian(1.0, generator=torch.Generator().manual_seed(0))
    attrib.smooth(attrib.saliency(lambda x: x.square().sum(-1)), noise, samples=9, reduce=keep)(x)
    assert torch.equal(found, torch.cat(kept).median(0).values)
