"""Ablation, occlusion and permutation as Captum computes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib.games import feature_ablation, feature_permutation, occlusion

captum = pytest.importorskip("captum.attr")
pytestmark = pytest.mark.parity

torch.manual_seed(0)
IMAGES = nn.Sequential(
    nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 42, 3)
).eval()
X, BASELINE = torch.randn(2, 3, 2, 6, 7)


class Two(nn.Module):
    """A function of two tensors."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first.sum(1).tanh() * second.square().sum(1)


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mask", [None, torch.arange(7) // 2, torch.randint(0, 5, (3, 1, 6, 7))])
def test_feature_ablation(mask: Tensor | None) -> None:
    found = feature_ablation(attrib.target(IMAGES, 1), groups=mask)(X, BASELINE)
    whole = None if mask is None else mask.expand(3, 2, 6, 7)
    close(found, captum.FeatureAblation(IMAGES).attribute(X, BASELINE, 1, feature_mask=whole))


def test_feature_ablation_of_features_in_two_tensors() -> None:
    x = (torch.randn(3, 4), torch.randn(3, 5))
    masks = (torch.tensor([[0, 1, 1, 2]]), torch.tensor([[2, 2, 5, 0, 5]]))
    found = feature_ablation(attrib.target(Two()), groups=masks)(x)
    close(found, captum.FeatureAblation(Two()).attribute(x, feature_mask=masks))


@pytest.mark.parametrize(
    ("window", "strides"),
    [((2, 2, 3), (2, 1, 2)), ((1, 3, 3), (1, 3, 3)), ((2, 6, 7), 1), ((2, 4, 5), (1, 4, 3))],
)
def test_occlusion(window: tuple[int, ...], strides: Any) -> None:
    found = occlusion(attrib.target(IMAGES, 2), window, strides=strides)(X, BASELINE)
    close(found, captum.Occlusion(IMAGES).attribute(X, window, strides, BASELINE, 2))


def test_occlusion_of_two_tensors() -> None:
    x = (torch.randn(3, 4), torch.randn(3, 5))
    found = occlusion(attrib.target(Two()), ((2,), (3,)), strides=((1,), (2,)))(x)
    close(found, captum.Occlusion(Two()).attribute(x, ((2,), (3,)), ((1,), (2,))))


def test_feature_permutation_by_the_same_orders() -> None:
    """Captum draws its own orders, so each side is given one: two examples, which change places."""
    found = feature_permutation(attrib.target(IMAGES, 0))(X[:2])
    swap = lambda x, mask: torch.where(mask.bool(), x.flip(0), x)
    close(found, captum.FeaturePermutation(IMAGES, swap).attribute(X[:2], target=0))


def test_captum_cannot_hide_by_minus_infinity() -> None:
    """It multiplies by masks: 0 * -inf is not a number, for all features."""
    x = torch.tensor([[1.0, 2.0, 3.0]])
    f = lambda x: x.softmax(-1)[..., 0]
    assert captum.FeatureAblation(f).attribute(x, baselines=-torch.inf).isnan().all()
    assert feature_ablation(f)(x, -torch.inf).isfinite().all()


def test_captum_answers_in_single_precision() -> None:
    model = IMAGES.to(torch.float64)
    try:
        found = occlusion(attrib.target(model, 0), (2, 3, 3))(X.double())
        theirs = captum.Occlusion(model).attribute(X.double(), (2, 3, 3), target=0)
        assert (found.dtype, theirs.dtype) == (torch.float64, torch.float32)
        close(found.float(), theirs)
    finally:
        IMAGES.to(torch.float32)


def test_captum_gives_one_example_zeros_where_nothing_can_be_exchanged() -> None:
    theirs = captum.FeaturePermutation(IMAGES).attribute(X[:1], target=0)
    assert torch.equal(theirs, torch.zeros_like(theirs))
    with pytest.raises(attrib.AttribError):
        feature_permutation(attrib.target(IMAGES, 0))(X[:1])
