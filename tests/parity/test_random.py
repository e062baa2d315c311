"""NoiseTunnel and GradientShap against Captum: the same draws where they can be replayed, else in
distribution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor

import attrib

from .comparing import assert_close, relative
from .networks import NETWORKS, pair

captum = pytest.importorskip("captum.attr")

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:.*require gradients:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*requires_grad:UserWarning"),
]

KINDS = {
    "smoothgrad": attrib.mean,
    "smoothgrad_sq": attrib.second_moment,
    "vargrad": attrib.variance,
}


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


def replayed(
    seed: int, stds: Any, samples: int, partition: int | None = None
) -> attrib.types.Perturb:
    """The noise that Captum draws after `torch.manual_seed(seed)`, one draw per call.

    For every partition, and in it for every tensor, Captum draws float32 noise for all examples at
    once, the samples of one example next to each other.
    """
    draws: Iterator[Any] | None = None

    def noisy(x: Any) -> Iterator[Any]:
        leaves, spec = pytree.tree_flatten(x)
        scales = [stds] * len(leaves) if isinstance(stds, float) else stds
        torch.manual_seed(seed)
        left = samples
        while left:
            count = min(left, partition or samples)
            left -= count
            noise = [
                torch.normal(0, torch.full((len(leaf) * count, *leaf.shape[1:]), scale))
                for leaf, scale in zip(leaves, scales, strict=True)
            ]
            rows = [n.unflatten(0, (-1, count)) for n in noise]
            for sample in range(count):
                yield spec.unflatten([a + n[:, sample] for a, n in zip(leaves, rows, strict=True)])

    def perturb(x: Any) -> Any:
        nonlocal draws
        draws = noisy(x) if draws is None else draws
        return next(draws)

    return perturb


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("network", NETWORKS)
def test_smoothed_saliency_is_captums_noise_tunnel(network: str, kind: str) -> None:
    model, x = NETWORKS[network]()
    torch.manual_seed(9)
    theirs = captum.NoiseTunnel(captum.Saliency(model)).attribute(
        x, nt_type=kind, nt_samples=6, stdevs=0.2, target=1, abs=False
    )
    ours = attrib.smooth(
        attrib.saliency(attrib.target(model, 1)),
        replayed(9, 0.2, 6),
        samples=6,
        reduce=KINDS[kind],
    )
    # A difference of squares, Captum's variance, loses digits to the mean.
    assert_close(ours(x), theirs, tolerance=1e-10 if kind == "vargrad" else 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_smoothed_integrated_gradients_are_captums_noise_tunnel(kind: str) -> None:
    model, x = NETWORKS["mlp"]()
    torch.manual_seed(9)
    theirs = captum.NoiseTunnel(captum.IntegratedGradients(model)).attribute(
        x, nt_type=kind, nt_samples=5, stdevs=0.2, target=1, n_steps=8, baselines=0.1
    )
    integrated = attrib.integrated_gradients(attrib.target(model, 1), steps=8)
    ours = attrib.smooth(integrated, replayed(9, 0.2, 5), samples=5, reduce=KINDS[kind])
    # The float32 weights of Captum's quadrature.
    assert_close(ours(x, 0.1), theirs, tolerance=1e-6 if kind == "vargrad" else 2e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tuple_of_inputs_is_smoothed_with_a_std_each_as_in_captum(kind: str) -> None:
    model, inputs = pair()
    torch.manual_seed(9)
    theirs = captum.NoiseTunnel(captum.InputXGradient(model)).attribute(
        inputs, nt_type=kind, nt_samples=6, stdevs=(0.2, 0.5), target=1
    )
    ours = attrib.smooth(
        attrib.input_x_gradient(attrib.target(model, 1)),
        replayed(9, (0.2, 0.5), 6),
        samples=6,
        reduce=KINDS[kind],
    )
    assert_close(ours(inputs), theirs, tolerance=1e-10 if kind == "vargrad" else 1e-12)


@pytest.mark.parametrize("chunk_size", [1, 3, None])
def test_captums_partitions_are_replayed_in_any_chunks(chunk_size: int | None) -> None:
    model, x = NETWORKS["mlp"]()
    torch.manual_seed(9)
    theirs = captum.NoiseTunnel(captum.Saliency(model)).attribute(
        x, nt_samples=7, nt_samples_batch_size=3, stdevs=0.2, target=1, abs=False
    )
    noise = replayed(9, 0.2, 7, partition=3)
    f = attrib.target(model, 1)
    ours = attrib.smooth(attrib.saliency(f), noise, samples=7, chunk_size=chunk_size)(x)
    assert_close(ours, theirs, tolerance=1e-12)


def test_a_target_for_every_example_is_repeated_as_in_captum() -> None:
    model, x = NETWORKS["mlp"]()
    target = torch.tensor([0, 3, 1, 1, 2])
    torch.manual_seed(9)
    theirs = captum.NoiseTunnel(captum.Saliency(model)).attribute(
        x, nt_samples=4, stdevs=0.2, target=target, abs=False
    )
    saliency = attrib.saliency(attrib.target(model, target))
    ours = attrib.smooth(saliency, replayed(9, 0.2, 4), samples=4)(x)
    assert_close(ours, theirs, tolerance=1e-12)


def test_deviation_a_small_variance_of_large_attributions_is_kept() -> None:
    """Captum subtracts two large mean squares in float32; attrib never forms them."""
    x = torch.linspace(-1, 1, 6)[:, None]

    def model(x: Tensor) -> Tensor:
        return (1000 * x + 0.005 * x.square())[:, 0]

    torch.manual_seed(9)
    theirs = captum.NoiseTunnel(captum.Saliency(model)).attribute(
        x, nt_type="vargrad", nt_samples=50, stdevs=1.0, abs=False
    )
    noise = replayed(9, 1.0, 50)
    gradients = torch.stack([1000 + 0.01 * noise(x.double()) for _ in range(50)])
    truth = gradients.var(0, correction=0)
    ours = attrib.smooth(
        attrib.saliency(model), replayed(9, 1.0, 50), samples=50, reduce=attrib.variance
    )(x)
    # Gradients near 1000 are themselves rounded to 6e-5 in float32, 0.6 % of their spread.
    assert relative(ours.double(), truth) < 0.01
    assert relative(theirs.double(), truth) > 0.1


# GradientShap: Captum draws from NumPy's and torch's global generators, attrib from one generator.


def by_hand(
    f: Callable[[Any], Tensor], x: Any, baselines: Any, samples: int, std: float, seed: int
) -> Any:
    """Captum's GradientShap from its own draws and attrib's gradients: for each tensor baselines by
    NumPy, then noise by torch, then one coefficient per row by NumPy."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    leaves, spec = pytree.tree_flatten(x)
    rows = len(leaves[0]) * samples
    starts = [b[np.random.choice(len(b), rows).tolist()] for b in pytree.tree_leaves(baselines)]
    noise = [torch.normal(0, torch.full((rows, *a.shape[1:]), std)) for a in leaves]
    ends = [a.repeat_interleave(samples, 0) + n for a, n in zip(leaves, noise, strict=True)]
    share = torch.tensor(np.random.uniform(0.0, 1.0, rows), dtype=leaves[0].dtype)

    def between(end: Tensor, start: Tensor) -> Tensor:
        alpha = share.reshape(-1, *(1 for _ in end.shape[1:]))
        return alpha * end + (1 - alpha) * start

    points = [between(e, s) for e, s in zip(ends, starts, strict=True)]
    gradients = pytree.tree_leaves(attrib.saliency(f)(spec.unflatten(points)))
    products = [g * (e - s) for g, e, s in zip(gradients, ends, starts, strict=True)]
    return spec.unflatten([p.unflatten(0, (-1, samples)).mean(1) for p in products])


@pytest.mark.parametrize("std", [0.0, 0.3])
@pytest.mark.parametrize("network", NETWORKS)
def test_captums_draws_with_attribs_gradients_are_captums_gradient_shap(
    network: str, std: float
) -> None:
    model, x = NETWORKS[network]()
    baselines = torch.randn(7, *x.shape[1:], dtype=x.dtype)
    np.random.seed(5)
    torch.manual_seed(5)
    theirs = captum.GradientShap(model).attribute(x, baselines, n_samples=6, stdevs=std, target=1)
    assert_close(by_hand(attrib.target(model, 1), x, baselines, 6, std, 5), theirs, tolerance=1e-12)


@pytest.mark.parametrize("std", [0.0, 0.5])
def test_expected_gradients_are_captums_gradient_shap_in_distribution(std: float) -> None:
    model, x = NETWORKS["mlp"]()
    baselines = torch.randn(7, 6, dtype=x.dtype)
    f = attrib.target(model, 1)
    many = 4000
    ours = attrib.expected_gradients(f, samples=many, std=std, reduce=attrib.estimate)
    value, error, samples = ours(x, baselines)
    np.random.seed(5)
    torch.manual_seed(5)
    theirs = captum.GradientShap(model).attribute(
        x, baselines, n_samples=many, stdevs=std, target=1
    )
    assert samples == many
    # Both have the same standard error: thirty entries stay within five of their difference.
    assert ((value - theirs).abs() <= 5 * 2**0.5 * error).all()
    # ... and the error is small enough to tell a wrong factor or a wrong end of the line.
    assert (error / value.abs().max()).max() < 0.02


def test_without_chance_expected_gradients_are_captums_gradient_shap() -> None:
    weight = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    x, baseline = torch.rand(4, 3, dtype=torch.float64), torch.rand(1, 3, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        return x @ weight

    theirs = captum.GradientShap(model).attribute(x, baseline, n_samples=3)
    assert_close(attrib.expected_gradients(model, samples=3)(x, baseline), theirs)


def test_deviation_the_leaves_of_a_baseline_are_drawn_together() -> None:
    """Captum draws the row of each tensor on its own, and explains a baseline nobody gave."""
    first = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    x = (torch.full((1, 1), 2.0, dtype=torch.float64), torch.full((1, 1), 3.0, dtype=torch.float64))

    def model(a: Tensor, b: Tensor) -> Tensor:
        return (a * b)[:, 0]

    np.random.seed(5)
    torch.manual_seed(5)
    theirs = captum.GradientShap(model).attribute(x, (first, first), n_samples=20_000)
    ours = attrib.expected_gradients(lambda pair: model(*pair), samples=20_000)(x, (first, first))
    # f(x) = 6; at the baselines (-1, -1) and (1, 1) it is one, at four mixed ones zero on average.
    # The spread of a draw is below four, that of the mean of twenty thousand below 0.03.
    assert abs(float(sum(ours)) - 5.0) < 0.15
    assert abs(float(sum(theirs)) - 6.0) < 0.15


def test_deviation_the_global_generators_are_left_alone() -> None:
    """Captum takes draws from torch's and from NumPy's, so that torch's seed decides nothing."""
    model, x = NETWORKS["mlp"]()

    def states() -> tuple[bytes, bytes]:
        numpy_state: Any = np.random.get_state(legacy=False)
        return torch.get_rng_state().numpy().tobytes(), numpy_state["state"]["key"].tobytes()

    np.random.seed(5)
    np.random.uniform()  # NumPy fills its key before the first draw
    before = states()
    attrib.expected_gradients(attrib.target(model, 1))(x, x)
    assert states() == before
    position: Any = np.random.get_state(legacy=False)
    captum.GradientShap(model).attribute(x, x, target=1)
    moved: Any = np.random.get_state(legacy=False)
    assert states()[0] != before[0]
    assert moved["state"]["pos"] != position["state"]["pos"]
