"""Perturbations: draws of the right distribution, from the right generator, one per call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor

import attrib

X = torch.randn(200, 50, generator=torch.Generator().manual_seed(0))
MAKERS = {"gaussian": attrib.perturb.gaussian, "uniform": attrib.perturb.uniform}
each = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def within(found: float, expected: float, error: float) -> bool:
    """Up to five standard errors: wrong once in two million."""
    return abs(found - expected) <= 5 * error


def test_gaussian_noise_has_mean_zero_and_the_given_deviation() -> None:
    noise = (attrib.perturb.gaussian(0.3, generator=seeded())(X) - X).double()
    count = noise.numel()
    assert within(float(noise.mean()), 0.0, 0.3 / count**0.5)
    assert within(float(noise.square().mean()), 0.3**2, 0.3**2 * (2 / count) ** 0.5)
    assert within(float(noise.pow(4).mean()), 3 * 0.3**4, 0.3**4 * (96 / count) ** 0.5)


def test_uniform_noise_fills_its_box_evenly() -> None:
    noise = (attrib.perturb.uniform(0.3, generator=seeded())(X) - X).double()
    count = noise.numel()
    # Adding to X and subtracting it again rounds to the last place of X.
    assert noise.abs().max() <= 0.3 + 1e-6
    assert within(float(noise.mean()), 0.0, 0.3 / (3 * count) ** 0.5)
    spread = 0.3**2 * (1 / 5 - 1 / 9) ** 0.5  # the standard deviation of the square
    assert within(float(noise.square().mean()), 0.3**2 / 3, spread / count**0.5)


@each
def test_every_call_is_another_independent_draw(make: Any) -> None:
    perturb = make(1.0, generator=seeded())
    first, second = perturb(X) - X, perturb(X) - X
    scale = float((first.std() * second.std()) / first.numel() ** 0.5)
    assert within(float((first * second).mean()), 0.0, scale)
    neighbours = (first[:, 1:] * first[:, :-1]).mean()
    assert within(float(neighbours), 0.0, scale)


@each
def test_every_leaf_has_its_own_scale(make: Any) -> None:
    x = {"a": torch.zeros(5000), "b": (torch.zeros(5000), torch.zeros(5000))}
    found = make({"a": 1.0, "b": (10.0, 0)}, generator=seeded())(x)
    ratio = found["b"][0].std() / found["a"].std()
    assert 9 < ratio < 11
    assert torch.equal(found["b"][1], x["b"][1])


@each
def test_noise_differs_from_leaf_to_leaf(make: Any) -> None:
    first, second = make(1.0, generator=seeded())((X, X))
    assert not torch.equal(first, second)


@each
def test_integers_and_absent_leaves_stay(make: Any) -> None:
    ids, mask = torch.arange(5), torch.tensor([True, False])
    found = make(1.0)((X, ids, mask, None))
    assert torch.equal(found[1], ids) and torch.equal(found[2], mask) and found[3] is None


@each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_stays(make: Any, dtype: torch.dtype) -> None:
    found = make(0.5, generator=seeded())(X.to(dtype))
    assert found.dtype == dtype and found.isfinite().all()
    spread = (found - X.to(dtype)).double().square().mean().sqrt()
    expected = 0.5 if make is attrib.perturb.gaussian else 0.5 / 3**0.5
    assert abs(float(spread) / expected - 1) < 0.05


@each
def test_no_noise_is_no_change(make: Any) -> None:
    assert torch.equal(make(0.0)(X), X)
    assert torch.equal(make(0)(X), X)


@each
def test_the_generator_decides_the_draws(make: Any) -> None:
    assert torch.equal(make(1.0, generator=seeded())(X), make(1.0, generator=seeded())(X))
    assert not torch.equal(make(1.0, generator=seeded())(X), make(1.0, generator=seeded(1))(X))


@each
@pytest.mark.parametrize("shape", [(), (5,), (3, 16), (7, 33)])
def test_draws_in_chunks_are_those_one_after_another(make: Any, shape: tuple[int, ...]) -> None:
    """Leaf by leaf, draw by draw, whatever is made at once; in any other way of calling, too."""
    x = (torch.ones(shape), torch.arange(3), {"a": torch.zeros(2, 3, dtype=torch.float64)})
    perturb = make(0.5, generator=seeded())
    each = [pytree.tree_leaves(perturb(x)) for _ in range(7)]
    points = attrib.perturb.drawn(make(0.5, generator=seeded()), x, 7)
    chunks = [pytree.tree_leaves(points.take(*ends)) for ends in ((0, 1), (1, 5), (5, 7))]
    for leaf, found in zip(zip(*each, strict=True), zip(*chunks, strict=True), strict=True):
        assert torch.equal(torch.cat(found), torch.stack(leaf))
    own = make(0.5, generator=seeded())
    called = attrib.perturb.drawn(lambda y: own(y), x, 7)
    assert torch.equal(called.take(0, 7)[0], torch.stack([leaves[0] for leaves in each]))


@each
def test_without_a_generator_torch_decides_and_is_left_alone(make: Any) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    perturb = make(1.0)
    first, second = perturb(X), perturb(X)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, second)
    assert torch.equal(make(1.0)(X), first)
    torch.manual_seed(4)
    assert not torch.equal(make(1.0)(X), first)


@each
def test_x_is_not_written_to(make: Any) -> None:
    kept, version = X.clone(), X._version
    make(1.0)(X)
    assert torch.equal(X, kept) and X._version == version


@each
def test_noise_has_the_derivative_one(make: Any) -> None:
    x = X[:2].clone().requires_grad_()
    make(1.0)(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


@each
@pytest.mark.parametrize("scale", [-0.1, float("nan"), float("inf"), {"a": -1.0}])
def test_a_scale_is_finite_and_not_negative(make: Any, scale: Any) -> None:
    with pytest.raises(ValueError, match="out of range") as refusal:
        make(scale)
    assert isinstance(refusal.value, attrib.AttribError)


@each
@pytest.mark.parametrize("scale", ["a", True, torch.ones(2), None])
def test_a_scale_is_a_number(make: Any, scale: Any) -> None:
    with pytest.raises(TypeError, match="must be a number") as refusal:
        make(scale)(X)
    assert isinstance(refusal.value, attrib.AttribError)


@each
def test_scales_are_structured_like_x(make: Any) -> None:
    with pytest.raises(ValueError, match="structure") as refusal:
        make((0.1, 0.2))([X, X])
    assert isinstance(refusal.value, attrib.AttribError)


@each
def test_a_generator_is_a_generator(make: Any) -> None:
    with pytest.raises(TypeError, match="generator: ") as refusal:
        make(0.1, generator=3)
    assert isinstance(refusal.value, attrib.AttribError)


def test_a_perturbation_of_ones_own_is_any_function_of_x() -> None:
    flips = seeded()

    def mirrored(x: Tensor) -> Tensor:
        return x if torch.rand((), generator=flips) < 0.5 else -x

    f = lambda x: x.square().sum(-1)
    found = attrib.smooth(attrib.saliency(f), mirrored, samples=400)(X[:1, :3])
    share = found / (2 * X[:1, :3])
    assert (share.abs() <= 5 / 400**0.5).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@each
def test_draws_are_the_same_inside_of_transforms(make: Any, dtype: torch.dtype) -> None:
    x = torch.ones(3, 7, dtype=dtype)

    def moved(x: Tensor) -> Tensor:
        return make(0.5, generator=seeded())(x)

    inside = torch.vmap(moved, randomness="same")(x[None])[0]
    assert torch.equal(inside, moved(x))
