"""Integrated gradients over secants: complete at any number of steps, and of second order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attrib
from attrib.types import Attribute


class TimeFirst(nn.Module):
    """A sequence model that puts time before the batch, as attention modules used to."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.mix(x.transpose(0, 1)))
        return self.last(hidden * torch.sigmoid(hidden)).mean(0)


class Residual(nn.Module):
    """In-place and functional rectifiers, overlapping pools, a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.max_pool2d(self.first(x).relu_(), 3, stride=2, padding=1)
        hidden = hidden + F.relu(self.second(hidden), inplace=True)
        return self.last(hidden.amax((-1, -2)) * hidden.mean((-1, -2)))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "relu": (
        lambda: nn.Sequential(
            nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)
        ),
        (5,),
    ),
    "residual": (Residual, (2, 7, 7)),
    "time first": (TimeFirst, (4, 3)),
    "softmax": (
        lambda: nn.Sequential(
            nn.Linear(5, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 2), nn.Softmax(-1)
        ),
        (5,),
    ),
}
every_model = pytest.mark.parametrize("kind", MODELS)


def problem(kind: str, batch: int = 3) -> tuple[nn.Module, Tensor, Tensor]:
    build, shape = MODELS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().double().eval()
        x, baseline = torch.randn(2, batch, *shape, dtype=torch.float64)
    return model, x, baseline


def secants(f: attrib.types.Score, steps: int, **options: object) -> Attribute:
    return attrib.integrated_gradients(f, steps=steps, quadrature="secant", **options)  # type: ignore[arg-type]


@every_model
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_secants_are_complete_at_any_number_of_steps(kind: str, steps: int) -> None:
    model, x, baseline = problem(kind)
    f = attrib.target(model, 1)
    with torch.no_grad():
        found = secants(f, steps)(x, baseline).flatten(1).sum(1)
        torch.testing.assert_close(found, f(x) - f(baseline), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", ["relu", "time first", "softmax"])
def test_the_error_falls_with_the_square_of_the_step(kind: str) -> None:
    model, x, baseline = problem(kind)
    f = attrib.target(model, 0)
    with torch.no_grad():
        # Midpoints, so that the reference owes nothing to the secants.
        exact = attrib.integrated_gradients(f, steps=200_000, quadrature="midpoint")(x, baseline)
        errors = [(secants(f, steps)(x, baseline) - exact).norm().item() for steps in (10, 40, 160)]
    # 256; a kink near a point makes single errors better or worse than that. Where nothing but a
    # linear map comes before the functions of one number, one segment is exact.
    assert errors[0] / errors[2] > 60 or errors[0] < 1e-10
    assert errors[2] < 1e-3 * exact.norm()


def test_a_maximum_of_two_is_exact_with_one_segment() -> None:
    x, baseline = torch.tensor([[3.0, 1.0]]), torch.tensor([[0.0, 2.0]])
    # On the line 3t and 2 - t: the first overtakes at t = 1/2.
    for f in (lambda x: x.amax(-1), lambda x: F.max_pool1d(x, 2).squeeze(-1)):
        torch.testing.assert_close(secants(f, 1)(x, baseline), torch.tensor([[1.5, -0.5]]))


def test_one_segment_is_deep_lift() -> None:
    model, x, baseline = problem("relu")
    f = attrib.target(model, 1)
    torch.testing.assert_close(secants(f, 1)(x, baseline), attrib.deep_lift(f)(x, baseline))


@every_model
def test_shared_evaluations_change_nothing(kind: str) -> None:
    model, x, baseline = problem(kind)
    plain, batched = lambda x: model(x)[..., 1], attrib.target(model, 1)
    expected = secants(plain, 6, chunk_size=1)(x, baseline)
    for chunk_size in (1, 2, 4, None, "auto"):
        found = secants(batched, 6, chunk_size=chunk_size)(x, baseline)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


def test_points_share_their_evaluation() -> None:
    model, x, baseline = problem("relu")
    rows: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    with torch.no_grad():
        secants(attrib.target(model, 1), 8, chunk_size=8)(x, baseline)
    assert rows == [9 * len(x), 2 * len(x)]  # the ends once more, for the sum


def test_a_sequence_with_time_first_is_noticed_and_evaluated_point_by_point() -> None:
    model, x, baseline = problem("time first")
    rows: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    with torch.no_grad():
        secants(attrib.target(model, 1), 8, chunk_size=8)(x, baseline)
    assert sum(rows) > 9 * len(x)


def test_other_paths_have_secants_too() -> None:
    model, x, baseline = problem("relu")
    f = attrib.target(model, 1)

    def bent(x: Tensor, baseline: Tensor, alpha: Tensor) -> Tensor:
        return baseline + (x - baseline) * torch.stack([alpha, alpha**2, alpha**3, alpha, alpha])

    found = secants(f, 400, path=bent)(x, baseline)
    exact = attrib.integrated_gradients(f, steps=4000, path=bent, quadrature="midpoint")(
        x, baseline
    )
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-3 * exact.abs().max().item())
    torch.testing.assert_close(found.sum(-1), f(x) - f(baseline), rtol=1e-11, atol=1e-13)


def test_no_tolerance_with_secants() -> None:
    with pytest.raises(attrib.AttribError, match="quadrature"):
        attrib.integrated_gradients(lambda x: x.sum(-1), quadrature="secant", tol=1e-3)


def test_in_half_precision_equal_points_give_no_noise() -> None:
    weight = torch.tensor([[2.0], [-1.0]], dtype=torch.float16)
    x = torch.tensor([[0.5], [0.001]], dtype=torch.float16)
    f = lambda x: torch.relu(x @ weight.mT).sum(-1)
    found = secants(f, 4)(x, x * 0.5)
    torch.testing.assert_close(found, x, rtol=2e-3, atol=1e-4)
