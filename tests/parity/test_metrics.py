"""Infidelity and max-sensitivity against Captum, under the same draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor

import attrib
from attrib import metrics

from .comparing import assert_close
from .networks import NETWORKS, pair

captum = pytest.importorskip("captum.metrics")
captum_attr = pytest.importorskip("captum.attr")

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:.*require gradients:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*requires_grad:UserWarning"),
]

SAMPLES = 7


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


def noise_for(x: Any, scale: float = 0.1) -> list[Tensor]:
    """Noise for all draws of each leaf, ``(batch, samples, *feature)``: the order in which Captum
    repeats the examples."""
    generator = torch.Generator().manual_seed(11)
    return [
        scale * torch.randn(len(a), SAMPLES, *a.shape[1:], generator=generator, dtype=a.dtype)
        for a in pytree.tree_leaves(x)
    ]


def theirs(noise: list[Tensor]) -> Callable[..., Any]:
    def perturb(x: Any) -> Any:
        parts = [a + n.flatten(0, 1) for a, n in zip(pytree.tree_leaves(x), noise, strict=True)]
        return tuple(parts) if isinstance(x, tuple) else parts[0]

    return perturb


def ours(noise: list[Tensor]) -> Callable[[Any], Any]:
    """The same draws, one at a call."""
    draws: Iterator[int] = iter(range(SAMPLES))

    def perturb(x: Any) -> Any:
        leaves, spec = pytree.tree_flatten(x)
        draw = next(draws)
        return spec.unflatten([a + n[:, draw] for a, n in zip(leaves, noise, strict=True)])

    return perturb


def as_captum_calls(attribute: Any) -> Callable[[Any], Any]:
    """Captum passes a tuple for the input, and the tensor itself for what is perturbed."""
    return lambda x: (attribute(x[0]),) if isinstance(x, tuple) else attribute(x)


@pytest.mark.parametrize("chunk_size", [1, 3, None])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_infidelity_is_captums(network: str, normalize: bool, chunk_size: int | None) -> None:
    model, x = NETWORKS[network]()
    f, noise = attrib.target(model, 1), noise_for(x)
    attribution = attrib.saliency(f)(x)

    def difference(x: Tensor) -> tuple[Tensor, Tensor]:
        perturbed = theirs(noise)(x)
        return x - perturbed, perturbed

    expected = captum.infidelity(
        model, difference, x, attribution, target=1, n_perturb_samples=SAMPLES, normalize=normalize
    )
    options: Any = {"samples": SAMPLES, "normalize": normalize, "chunk_size": chunk_size}
    given = metrics.infidelity(f, None, ours(noise), **options)(attribution, x)
    made = metrics.infidelity(f, attrib.saliency(f), ours(noise), **options)(x)
    # Captum's normalised form subtracts large numbers.
    tolerance = 1e-10 if normalize else 1e-12
    assert_close(given, expected, tolerance=tolerance)
    assert torch.equal(given, made)


@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_the_global_form_is_captums_decorator(baseline: float) -> None:
    model, x = NETWORKS["mlp"]()
    x[0, 0] = baseline  # no way to the baseline: both count the difference itself
    f, noise = attrib.target(model, 1), noise_for(x)
    attribution = attrib.integrated_gradients(f)(x, baseline)
    decorated = captum.infidelity_perturb_func_decorator(True)(lambda x, _: theirs(noise)(x))
    expected = captum.infidelity(
        model, decorated, x, attribution, baselines=baseline, target=1, n_perturb_samples=SAMPLES
    )
    found = metrics.infidelity(
        f, attrib.integrated_gradients(f), ours(noise), samples=SAMPLES, form="global"
    )(x, baseline)
    assert_close(found, expected, tolerance=1e-12)


def test_a_tuple_of_inputs_is_measured_as_in_captum() -> None:
    model, inputs = pair()
    f, noise = attrib.target(model, 1), noise_for(inputs)
    attribution = attrib.saliency(f)(inputs)

    def difference(inputs: Any) -> Any:
        perturbed = theirs(noise)(inputs)
        return tuple(a - b for a, b in zip(inputs, perturbed, strict=True)), perturbed

    expected = captum.infidelity(
        model, difference, inputs, attribution, target=1, n_perturb_samples=SAMPLES
    )
    found = metrics.infidelity(f, attrib.saliency(f), ours(noise), samples=SAMPLES)(inputs)
    assert_close(found, expected, tolerance=1e-12)


def test_a_perturbation_that_tells_its_change_is_captums_pair() -> None:
    model, x = NETWORKS["mlp"]()
    f = attrib.target(model, 1)
    attribution = attrib.integrated_gradients(f)(x)
    hidden = torch.rand(len(x), SAMPLES, x.shape[1]) > 0.5

    def hiding(x: Tensor) -> tuple[Tensor, Tensor]:
        mask = hidden.flatten(0, 1)
        return mask.double(), x.masked_fill(mask, 0)

    draws = iter(range(SAMPLES))

    def told(x: Tensor) -> metrics.Perturbed:
        mask = hidden[:, next(draws)]
        return metrics.Perturbed(x.masked_fill(mask, 0), mask.double())

    expected = captum.infidelity(model, hiding, x, attribution, target=1, n_perturb_samples=SAMPLES)
    found = metrics.infidelity(f, attrib.integrated_gradients(f), told, samples=SAMPLES)(x)
    assert_close(found, expected, tolerance=1e-12)


@pytest.mark.parametrize(
    ("norm", "theirs_norm"), [(2, "fro"), (1, 1), (float("inf"), float("inf"))]
)
@pytest.mark.parametrize("network", NETWORKS)
def test_max_sensitivity_is_captums(network: str, norm: float, theirs_norm: Any) -> None:
    model, x = NETWORKS[network]()
    noise = noise_for(x)
    saliency = attrib.saliency(attrib.target(model, 1))

    expected = captum.sensitivity_max(
        as_captum_calls(saliency), x, theirs(noise), n_perturb_samples=SAMPLES, norm_ord=theirs_norm
    )
    for chunk_size in (1, 3, None):
        measure = metrics.max_sensitivity(
            saliency, ours(noise), samples=SAMPLES, norm=norm, chunk_size=chunk_size
        )
        assert_close(measure(x), expected, tolerance=1e-12)


def test_max_sensitivity_of_a_tuple_is_one_norm_over_all_leaves_as_in_captum() -> None:
    model, inputs = pair()
    noise = noise_for(inputs)
    saliency = attrib.saliency(attrib.target(model, 1))
    expected = captum.sensitivity_max(saliency, inputs, theirs(noise), n_perturb_samples=SAMPLES)
    found = metrics.max_sensitivity(saliency, ours(noise), samples=SAMPLES)(inputs)
    assert_close(found, expected, tolerance=1e-12)


def test_max_sensitivity_of_integrated_gradients_with_a_baseline_is_captums() -> None:
    model, x = NETWORKS["mlp"]()
    noise = noise_for(x)
    theirs_ig = captum_attr.IntegratedGradients(model)
    expected = captum.sensitivity_max(
        theirs_ig.attribute,
        x,
        theirs(noise),
        n_perturb_samples=SAMPLES,
        target=1,
        baselines=torch.full_like(x, 0.3),
    )
    ig = attrib.integrated_gradients(attrib.target(model, 1))
    found = metrics.max_sensitivity(ig, ours(noise), samples=SAMPLES)(x, torch.full_like(x, 0.3))
    # The float32 weights of Captum's quadrature.
    assert_close(found, expected, tolerance=1e-5)


def test_an_attribution_of_zeros_is_divided_by_one_as_in_captum() -> None:
    x = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    noise = noise_for(x)

    def model(x: Tensor) -> Tensor:
        return x.square().sum(-1)

    saliency = attrib.saliency(model)
    expected = captum.sensitivity_max(
        as_captum_calls(saliency),
        x,
        theirs(noise),
        n_perturb_samples=SAMPLES,
    )
    found = metrics.max_sensitivity(saliency, ours(noise), samples=SAMPLES)(x)
    assert_close(found, expected, tolerance=1e-12)


def test_deviation_a_small_normalised_infidelity_is_kept() -> None:
    """Captum expands the square: rounding is left where the attribution is nearly exact."""
    weight = torch.tensor([1.0, -2.0, 3.0])
    x = torch.randn(4, 3) * 100

    def model(x: Tensor) -> Tensor:
        return x @ weight + 1e-3 * x.sum(-1).sin()

    noise = noise_for(x, scale=100.0)
    attribution = (2 * weight).expand(4, 3)

    def difference(x: Tensor) -> tuple[Tensor, Tensor]:
        perturbed = theirs(noise)(x)
        return x - perturbed, perturbed

    options: Any = {"target": None, "n_perturb_samples": SAMPLES, "normalize": True}
    wrong = captum.infidelity(model, difference, x, attribution, **options)

    def slope(dtype: torch.dtype) -> Tensor:
        wide = [n.to(dtype) for n in noise]
        g: Any = lambda x: x @ weight.to(dtype) + 1e-3 * x.sum(-1).sin()
        measure = metrics.infidelity(g, None, ours(wide), samples=SAMPLES, normalize=True)
        return measure(attribution.to(dtype), x.to(dtype)).double()

    truth = slope(torch.float64)
    assert ((slope(torch.float32) - truth).abs() <= 1e-6).all()  # float32 scores near 1e3
    assert ((wrong - truth).abs() > 1e-6).any()
