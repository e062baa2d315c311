"""Blur integrated gradients, against sums of Gaussian weights written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import attrib
from attrib._quadrature import nodes
from laws.compare import assert_close
from laws.networks import data, few, network, seeds

IMAGE = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def naive_blur(image: Tensor, sigma: float, dims: tuple[int, ...] = (-2, -1)) -> Tensor:
    """One dimension after the other, one entry at a time, weights normalised at the borders."""
    for dim in dims:
        slices = image.unbind(dim)
        blurred = []
        for i in range(len(slices)):
            weights = [math.exp(-((i - j) ** 2) / (2 * sigma**2)) for j in range(len(slices))]
            terms = [w * s for w, s in zip(weights, slices, strict=True)]
            blurred.append(sum(terms[1:], terms[0]) / sum(weights))
        image = torch.stack(blurred, dim)
    return image


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0, 50.0])
@pytest.mark.parametrize("dims", [(-2, -1), (-1,), (-3, -2, -1)])
def test_the_path_is_a_convolution_with_a_gaussian(sigma: float, dims: tuple[int, ...]) -> None:
    path = attrib.blur_path(sigma, dims)
    for alpha in (0.0, 0.2, 0.7, 0.99):
        found = path(IMAGE, None, torch.tensor(alpha, dtype=torch.float64))
        expected = naive_blur(IMAGE, (1 - alpha) * sigma, dims)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_path_ends_at_the_input_exactly() -> None:
    path = attrib.blur_path(5.0)
    assert torch.equal(path(IMAGE, None, torch.tensor(1.0, dtype=torch.float64)), IMAGE)


def test_a_constant_stays_what_it_is_and_gets_nothing() -> None:
    f = attrib.target(network("smooth_conv"), 0)
    flat = torch.full((2, 2, 4, 4), 0.7, dtype=torch.float64)
    path = attrib.blur_path(3.0)
    torch.testing.assert_close(path(flat, None, torch.tensor(0.4)), flat, rtol=1e-6, atol=0)
    assert attrib.blur_ig(f)(flat).abs().max() < 1e-12


def test_other_dimensions_are_not_blurred() -> None:
    f = attrib.target(network("smooth_conv"), 0)
    # Constant along the blurred dimension, whatever along the other ones.
    striped = torch.randn(2, 2, 4, 1, dtype=torch.float64).expand(2, 2, 4, 4)
    assert attrib.blur_ig(f, dims=(-1,))(striped).abs().max() < 1e-12
    assert attrib.blur_ig(f, dims=(-2,))(striped).abs().max() > 1e-3


@few
@given(seed=seeds, sigma=st.sampled_from([0.5, 2.0, 20.0]))
def test_attributions_are_the_integral_along_the_path(seed: int, sigma: float) -> None:
    f, x = attrib.target(network("smooth_conv", seed), 0), data("smooth_conv", seed, batch=(2,))
    expected = torch.zeros_like(x)
    h = 1e-5
    for alpha, weight in zip(*nodes("gauss-legendre", 12), strict=True):
        at = naive_blur(x, (1 - alpha) * sigma).requires_grad_()
        gradient = torch.autograd.grad(f(at).sum(), at)[0]
        ahead, back = (naive_blur(x, (1 - alpha - shift) * sigma) for shift in (h, -h))
        expected += weight * gradient * (ahead - back) / (2 * h)
    found = attrib.blur_ig(f, max_sigma=sigma, steps=12)(x)
    # Central differences: h squared times the third derivative in alpha, up to sigma cubed.
    assert_close(found.detach(), expected, 1e-5)


@few
@given(seed=seeds)
def test_attributions_sum_to_the_rise_of_the_score_as_steps_grow(seed: int) -> None:
    f, x = attrib.target(network("smooth_conv", seed), 0), data("smooth_conv", seed)
    with torch.no_grad():
        rise = f(x) - f(naive_blur(x, 3.0))

    def gap(steps: int) -> float:
        with torch.no_grad():
            found = attrib.blur_ig(f, max_sigma=3.0, steps=steps)(x)
        return float((found.flatten(1).sum(1) - rise).abs().max() / rise.abs().max())

    assert gap(200) < 1e-8
    assert gap(400) < 1e-10


def test_a_path_may_be_used_with_any_quadrature_and_by_hand() -> None:
    f, x = attrib.target(network("smooth_conv"), 0), data("smooth_conv")
    by_hand = attrib.integrated_gradients(
        f, path=attrib.blur_path(3.0), steps=9, quadrature="midpoint"
    )
    found = attrib.blur_ig(f, max_sigma=3.0, steps=9, quadrature="midpoint")(x)
    assert_close(found, by_hand(x), 0)


def test_an_integer_leaf_is_not_blurred() -> None:
    f = attrib.target(network("smooth_conv"), 0)
    x, ids = data("smooth_conv"), torch.arange(5)
    score = attrib.batched(lambda t: f(t[0]) * (1 + t[1]))
    found, none = attrib.blur_ig(score, max_sigma=3.0)((x, ids))
    assert none is None
    expected = attrib.blur_ig(f, max_sigma=3.0)(x) * (1 + ids)[:, None, None, None]
    assert_close(found, expected, 1e-12)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"max_sigma": 0.0}, ValueError),
        ({"max_sigma": -1.0}, ValueError),
        ({"max_sigma": float("inf")}, ValueError),
        ({"max_sigma": "wide"}, TypeError),
        ({"dims": ()}, ValueError),
        ({"dims": (0, 1)}, ValueError),
        ({"dims": (-1, -1)}, ValueError),
        ({"steps": 0}, ValueError),
        ({"quadrature": "simpson"}, ValueError),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(options: Any, kind: Any) -> None:
    with pytest.raises(kind) as refusal:
        attrib.blur_ig(lambda x: x.sum(-1), **options)
    assert isinstance(refusal.value, attrib.AttribError)


def test_an_input_without_the_dimensions_is_refused_before_the_model_is_called() -> None:
    def f(x: Tensor) -> Tensor:
        raise AssertionError("called")

    with pytest.raises(ValueError, match="dims: ") as refusal:
        attrib.blur_ig(f)(torch.zeros(3))
    assert isinstance(refusal.value, attrib.AttribError)
