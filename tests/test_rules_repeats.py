"""A baseline that examples share is evaluated once, and nobody can tell by the numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib


class TimeFirst(nn.Module):
    """Rows are not along the first dimension of what the operations see."""

    def __init__(self, *, flat: bool) -> None:
        super().__init__()
        self.mix, self.last, self.flat = nn.Linear(3, 4), nn.Linear(4, 2), flat

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.transpose(0, 1)
        steps, rows = hidden.shape[:2]
        hidden = torch.tanh(self.mix(hidden.reshape(steps * rows, 3) if self.flat else hidden))
        hidden = (hidden * torch.sigmoid(hidden)).reshape(steps, rows, 4)
        return self.last(hidden).mean(0)


class Scaled(nn.Module):
    """An argument of its own for every example."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x) * scale[:, None]))


def images() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2)
    )


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "rows": (lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), (3,)),
    "images": (images, (1, 6, 6)),
    "time first": (lambda: TimeFirst(flat=False), (4, 3)),
    "time first, flat": (lambda: TimeFirst(flat=True), (4, 3)),
    "attention": (
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Flatten(), nn.Linear(12, 2)
        ),
        (3, 4),
    ),
}
every_case = pytest.mark.parametrize("case", CASES)


def problem(case: str, count: int = 1) -> tuple[nn.Module, Tensor, Tensor, list[int]]:
    build, shape = CASES[case]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().double().eval()
        x = torch.randn(4, *shape, dtype=torch.float64)
        baselines = torch.randn(count, *shape, dtype=torch.float64)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    return model, x, baselines, seen


def one_by_one(f: Callable[..., attrib.types.Score], x: Tensor, baseline: Tensor) -> Tensor:
    rows = [attrib.deep_lift(f(i))(x[i : i + 1], baseline) for i in range(len(x))]
    return torch.cat(rows)


@every_case
def test_a_shared_baseline_gives_what_every_example_gets_alone(case: str) -> None:
    model, x, baseline, _ = problem(case)
    targets = torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        found = attrib.deep_lift(attrib.target(model, targets))(x, baseline)
        expected = one_by_one(lambda i: attrib.target(model, targets[i : i + 1]), x, baseline)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("case", ["rows", "images"])
def test_a_shared_baseline_is_evaluated_once(case: str) -> None:
    model, x, baseline, seen = problem(case)
    f = attrib.target(model, 1)
    for given in (0.5, baseline, baseline.expand_as(x).clone()):
        seen.clear()
        with torch.no_grad():
            attrib.deep_lift(f)(x, given)
        assert seen == [1, len(x)]


@every_case
def test_deep_lift_shap_evaluates_every_baseline_once(case: str) -> None:
    model, x, baselines, seen = problem(case, count=3)
    f = attrib.target(model, 1)
    with torch.no_grad():
        found = attrib.expected(attrib.deep_lift(f))(x, baselines)
        if case in ("rows", "images"):
            assert seen == [3, 3 * len(x)]
        each = [one_by_one(lambda _: f, x, b[None]) for b in baselines]
    torch.testing.assert_close(found, torch.stack(each).mean(0), rtol=1e-11, atol=1e-13)


def test_examples_with_other_arguments_do_not_share() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Scaled().double().eval()
    x, scale = (
        torch.arange(12.0).double().reshape(4, 3),
        torch.tensor([1.0, 1.0, 2.0, 3.0]).double(),
    )
    f = attrib.target(model, 0)
    with torch.no_grad():
        found = attrib.deep_lift(f)(x, 0.5, scale)
        each = [attrib.deep_lift(f)(x[i : i + 1], 0.5, scale[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(found, torch.cat(each), rtol=1e-11, atol=1e-13)


def test_a_shared_baseline_has_its_own_derivative() -> None:
    model, x, baseline, _ = problem("rows")
    f = attrib.target(model, 1)

    def total(baseline: Any) -> Tensor:
        return attrib.deep_lift(f, multiply=False)(x, baseline).square().sum()

    leaf = baseline.clone().requires_grad_()
    (found,) = torch.autograd.grad(total(leaf), leaf)
    with torch.no_grad():
        steps = torch.eye(3, dtype=torch.float64) * 1e-6
        slopes = [(total(baseline + s) - total(baseline - s)) / 2e-6 for s in steps]
    torch.testing.assert_close(found[0], torch.stack(slopes), rtol=1e-6, atol=1e-8)
