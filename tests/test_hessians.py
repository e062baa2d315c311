"""Integrated Hessians: the double integral of the paper, by one rule for its density."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import attrib
from attrib._quadrature import nodes
from laws.compare import assert_close
from laws.networks import KINDS, SMOOTH, data, few, network, seeds

EXACT = {torch.float32: 1e-5, torch.float64: 1e-12}
dtypes = pytest.mark.parametrize("dtype", EXACT)


def vectors(seed: int, dtype: torch.dtype, rows: int = 5, features: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, features, generator=generator, dtype=torch.float64).to(dtype)


def brute_force(f: Any, x: Tensor, baseline: Tensor, steps: int) -> Tensor:
    """Equation (5) of the paper for one example: a loop over both integrals."""
    delta = (x - baseline).flatten()
    flat = lambda v: f(v.reshape(x.shape)[None])[0]
    found = torch.zeros(len(delta), len(delta), dtype=x.dtype)
    points, weights = nodes("gauss-legendre", steps)
    for alpha, first in zip(points, weights, strict=True):
        for beta, second in zip(points, weights, strict=True):
            at = baseline.flatten() + alpha * beta * delta
            hessian = torch.func.jacrev(torch.func.jacrev(flat))(at)
            gradient = torch.func.grad(flat)(at)
            found += first * second * alpha * beta * delta[:, None] * delta * hessian
            found += first * second * torch.diag(delta * gradient)
    return found.reshape(*x.shape, *x.shape)


@few
@given(kind=st.sampled_from(SMOOTH), seed=seeds)
def test_interactions_are_the_double_integral_of_the_paper(kind: str, seed: int) -> None:
    f = attrib.target(network(kind, seed), 0)
    x, baseline = data(kind, seed, batch=(1,)), data(kind, seed + 1, batch=(1,))
    found = attrib.integrated_hessians(f, steps=40)(x, baseline)[0]
    # Both rules converge geometrically; 14 x 14 points reach 1e-5 on the least smooth network.
    assert_close(found.detach(), brute_force(f, x[0], baseline[0], 14).detach(), 1e-4)


@few
@given(kind=st.sampled_from(SMOOTH), seed=seeds)
def test_rows_sum_to_integrated_gradients(kind: str, seed: int) -> None:
    f = attrib.target(network(kind, seed), 0)
    x, baseline = data(kind, seed), data(kind, seed + 1)
    found = attrib.integrated_hessians(f, steps=64)(x, baseline)
    expected = attrib.integrated_gradients(f, steps=64)(x, baseline)
    features = len(KINDS[kind].features)
    assert_close(found.flatten(-features).sum(-1), expected, 1e-8)


@few
@given(kind=st.sampled_from(SMOOTH), seed=seeds)
def test_interactions_are_symmetric(kind: str, seed: int) -> None:
    f, x = attrib.target(network(kind, seed), 0), data(kind, seed)
    found = attrib.integrated_hessians(f, steps=5)(x, 0.3).reshape(len(x), x[0].numel(), -1)
    assert_close(found.mT, found, 1e-12)


@dtypes
@few
@given(seed=seeds)
def test_a_product_of_three_is_shared_by_nine_pairs(dtype: torch.dtype, seed: int) -> None:
    x = vectors(seed, dtype, features=3)
    found = attrib.integrated_hessians(lambda x: x.prod(-1), steps=3)(x)
    expected = x.prod(-1)[:, None, None].expand(-1, 3, 3) / 9
    assert_close(found, expected, EXACT[dtype])


@dtypes
@few
@given(seed=seeds)
def test_a_quadratic_form_is_exact(dtype: torch.dtype, seed: int) -> None:
    form, x, b = vectors(seed, dtype, rows=4), vectors(seed + 1, dtype), vectors(seed + 2, dtype)
    form = form + form.T
    found = attrib.integrated_hessians(lambda x: ((x @ form) * x).sum(-1), steps=2)(x, b)
    delta = x - b
    # Half of what the form says of the pair, and on the diagonal the mean gradient on the way.
    pairs = delta[:, :, None] * form * delta[:, None, :] / 2
    alone = torch.diag_embed(delta * (2 * b @ form + delta @ form / 2))
    assert_close(found, pairs + alone, EXACT[dtype])


@dtypes
def test_features_that_only_add_do_not_interact(dtype: torch.dtype) -> None:
    x = vectors(0, dtype)
    found = attrib.integrated_hessians(lambda x: x.pow(4).sum(-1) + x.exp().sum(-1))(x)
    off = found - torch.diag_embed(found.diagonal(dim1=-2, dim2=-1))
    assert torch.equal(off, torch.zeros_like(off))
    alone = x.pow(4) + x.exp() - 1
    assert_close(found.diagonal(dim1=-2, dim2=-1), alone, EXACT[dtype])


def test_a_tree_has_a_matrix_for_every_pair_of_leaves() -> None:
    f = attrib.target(network("tanh"), 0)
    x = data("tanh")
    split = {"a": x[:, :2], "b": [x[:, 2:], torch.arange(5)]}
    join = lambda t: f(torch.cat([t["a"], t["b"][0]], -1))
    matrix = attrib.integrated_hessians(f, steps=9)(x)
    found = attrib.integrated_hessians(join, steps=9)(split)
    assert found["b"][1] is None and found["a"]["b"][1] is None
    assert_close(found["a"]["a"], matrix[:, :2, :2], 1e-12)
    assert_close(found["a"]["b"][0], matrix[:, :2, 2:], 1e-12)
    assert_close(found["b"][0]["a"], matrix[:, 2:, :2], 1e-12)
    assert_close(found["b"][0]["b"][0], matrix[:, 2:, 2:], 1e-12)


@pytest.mark.parametrize("chunk_size", [1, 2, 5, None, "auto"])
def test_the_rows_of_a_hessian_come_in_chunks(chunk_size: Any) -> None:
    f, x = attrib.target(network("smooth_conv"), 0), data("smooth_conv", batch=(2,))
    expected = attrib.integrated_hessians(f, steps=3, chunk_size=None)(x)
    found = attrib.integrated_hessians(f, steps=3, chunk_size=chunk_size)(x)
    assert found.shape == (2, 2, 4, 4, 2, 4, 4)
    assert_close(found, expected, 1e-12)


@pytest.mark.parametrize("steps", [0, -1, 201])
def test_the_number_of_steps_is_limited(steps: int) -> None:
    with pytest.raises(ValueError, match="steps: ") as refusal:
        attrib.integrated_hessians(lambda x: x.sum(-1), steps=steps)
    assert isinstance(refusal.value, attrib.AttribError)
