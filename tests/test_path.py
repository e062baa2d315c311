"""Path methods: the published example, steps to a tolerance, paths of one's own, expectations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import attrib
from laws.compare import assert_close
from laws.networks import KINDS, SMOOTH, data, few, kinds, network, seeds

QUADRATURES = ("gauss-legendre", "midpoint", "left", "right", "trapezoid")


class ToyModel(nn.Module):
    """The model of Captum's front page, https://github.com/pytorch/captum."""

    def __init__(self) -> None:
        super().__init__()
        self.lin1, self.relu, self.lin2 = nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)
        self.lin1.weight = nn.Parameter(torch.arange(-4.0, 5.0).view(3, 3))
        self.lin1.bias = nn.Parameter(torch.zeros(1, 3))
        self.lin2.weight = nn.Parameter(torch.arange(-3.0, 3.0).view(2, 3))
        self.lin2.bias = nn.Parameter(torch.ones(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.relu(self.lin1(x)))


def test_the_published_example_comes_out() -> None:
    torch.manual_seed(123)
    x, f = torch.rand(2, 3), attrib.target(ToyModel(), 0)
    found = attrib.integrated_gradients(f)(x)
    published = torch.tensor([[-0.5922, -1.5497, -1.0067], [0.0, -0.2219, -5.1991]])
    torch.testing.assert_close(found.detach(), published, rtol=0, atol=5e-5)  # four places printed
    assert attrib.metrics.completeness(f)(found, x).abs().max() < 1e-6


def naive(
    f: Callable[[Tensor], Tensor], x: Tensor, baseline: Tensor, alphas: Any, weights: Any
) -> Tensor:
    """The sum as it stands in the paper, a row and a step at a time."""
    rows = []
    for a, b in zip(x, baseline, strict=True):
        row = torch.zeros_like(a)
        for alpha, weight in zip(alphas, weights, strict=True):
            point = (b + alpha * (a - b)).requires_grad_()
            row += weight * torch.autograd.grad(f(point[None])[0], point)[0]
        rows.append((a - b) * row)
    return torch.stack(rows)


@pytest.mark.parametrize("quadrature", QUADRATURES)
@few
@given(kind=kinds, seed=seeds, steps=st.integers(2, 9))
def test_integrated_gradients_are_the_sum_of_the_paper(
    quadrature: Any, kind: str, seed: int, steps: int
) -> None:
    f = attrib.target(network(kind, seed), 0)
    x, baseline = data(kind, seed, batch=(2,)), data(kind, seed + 1, batch=(2,))
    step = 1 / steps
    if quadrature == "gauss-legendre":
        np = pytest.importorskip("numpy")
        points, weights = np.polynomial.legendre.leggauss(steps)
        alphas, weights = (points + 1) / 2, weights / 2
    elif quadrature == "trapezoid":
        alphas = [k / (steps - 1) for k in range(steps)]
        ends = {0, steps - 1}
        weights = [(0.5 if k in ends else 1.0) / (steps - 1) for k in range(steps)]
    else:
        shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[quadrature]
        alphas, weights = [(k + shift) * step for k in range(steps)], [step] * steps
    found = attrib.integrated_gradients(f, steps=steps, quadrature=quadrature)(x, baseline)
    assert_close(found.detach(), naive(f, x, baseline, alphas, weights), 1e-12)


@few
@given(kind=kinds, seed=seeds)
def test_average_gradients_times_differences_are_integrated_gradients(kind: str, seed: int) -> None:
    f = attrib.target(network(kind, seed), 0)
    x, baseline = data(kind, seed), data(kind, seed + 1)
    for quadrature in QUADRATURES:
        options: Any = {"steps": 7, "quadrature": quadrature}
        average = attrib.average_gradient(f, **options)(x, baseline)
        expected = attrib.integrated_gradients(f, **options)(x, baseline)
        assert_close((x - baseline) * average, expected, 1e-12)


def test_an_average_gradient_of_nothing_is_the_gradient() -> None:
    f, x = attrib.target(network("gelu"), 0), data("gelu")
    assert_close(attrib.average_gradient(f)(x, x), attrib.saliency(f)(x), 1e-12)


# ---- steps to a tolerance


def alphas_seen(steps: int, tol: float, seed: int = 0) -> tuple[Tensor, attrib.Estimate]:
    """Where on the way from zero to one a network was evaluated."""
    model, seen = network("relu", seed), []

    def f(x: Tensor) -> Tensor:
        seen.append(x.detach()[:, 0].clone())
        return model(x)[:, 0]

    attribute = attrib.integrated_gradients(
        attrib.batched(f), steps=steps, tol=tol, reduce=attrib.estimate
    )
    found = attribute(torch.ones(1, 6, dtype=torch.float64))
    return torch.cat(seen), found


@pytest.mark.parametrize("steps", [9, 50, 100, 333])
@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-9])
def test_no_node_is_evaluated_twice_and_never_more_than_asked_for(steps: int, tol: float) -> None:
    alphas, found = alphas_seen(steps, tol)
    assert len(alphas) == found.samples <= steps
    assert float(alphas.sort().values.diff().min()) > 1e-6


def test_smooth_scores_need_few_steps_and_looser_tolerances_fewer() -> None:
    f, x = attrib.target(network("gelu"), 0), data("gelu")
    used = [
        attrib.integrated_gradients(f, steps=200, tol=tol, reduce=attrib.estimate)(x).samples
        for tol in (1e-1, 1e-4, 1e-8, 1e-12)
    ]
    assert used == sorted(used) and used[0] < used[-1] < 200


@few
@given(kind=st.sampled_from(SMOOTH), seed=seeds, digits=st.integers(2, 10))
def test_on_smooth_scores_the_result_is_as_near_as_asked_for(
    kind: str, seed: int, digits: int
) -> None:
    f, tol = attrib.target(network(kind, seed), 0), 10.0**-digits
    x, baseline = data(kind, seed), data(kind, seed + 1)
    exact = attrib.integrated_gradients(f, steps=200)(x, baseline)
    found = attrib.integrated_gradients(f, steps=200, tol=tol)(x, baseline)
    off = (found - exact).flatten(1).abs().amax(1)
    largest = exact.flatten(1).abs().amax(1)
    assert (off <= tol * largest + 1e-12).all()
    gap = attrib.metrics.completeness(f)(found, x, baseline)
    assert (gap.abs() <= tol * largest + 1e-12).all()


def exact_on(kind: str, f: Any, x: Tensor, baseline: Tensor) -> Tensor:
    if KINDS[kind].smooth:
        return attrib.integrated_gradients(f, steps=200)(x, baseline)
    # A jump of the gradient costs at most half a step: 60 times less than with the rules tested.
    rule: Any = {"steps": 3000, "quadrature": "midpoint"}
    return attrib.integrated_gradients(f, **rule)(x, baseline)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [9, 17, 50])
def test_the_estimated_error_covers_the_true_one_in_nearly_all_cases(kind: str, steps: int) -> None:
    covered = []
    for seed in range(6):
        f = attrib.target(network(kind, seed), 0)
        x, baseline = data(kind, seed, batch=(16,)), data(kind, seed + 100, batch=(16,))
        with torch.no_grad():
            exact = exact_on(kind, f, x, baseline)
            value, error, _ = attrib.integrated_gradients(
                f, steps=steps, tol=1e-15, reduce=attrib.estimate
            )(x, baseline)
        true = (value - exact).flatten(1).abs().amax(1)
        assert error.shape == true.shape
        rounding = 1e-13 * exact.flatten(1).abs().amax(1)
        covered.append(error + rounding >= true)
    assert torch.cat(covered).double().mean() >= 0.95


@pytest.mark.parametrize("steps", [9, 17, 50, 100])
def test_on_relu_networks_a_tolerance_is_not_worse_than_the_fixed_rule_it_replaces(
    steps: int,
) -> None:
    of_tol, of_fixed = [], []
    for seed in range(40):
        f = attrib.target(network("relu", seed), 0)
        x, baseline = data("relu", seed, batch=(16,)), data("relu", seed + 100, batch=(16,))
        with torch.no_grad():
            exact = exact_on("relu", f, x, baseline)
            fixed = attrib.integrated_gradients(f, steps=steps)(x, baseline)
            found, _, used = attrib.integrated_gradients(
                f, steps=steps, tol=1e-15, reduce=attrib.estimate
            )(x, baseline)
        assert used <= steps
        of_tol.append((found - exact).abs().amax(1))
        of_fixed.append((fixed - exact).abs().amax(1))
    assert torch.cat(of_tol).mean() <= torch.cat(of_fixed).mean()


def test_a_row_that_is_not_smooth_does_not_stop_at_the_tolerance_of_another() -> None:
    # The first example never leaves its linear piece, the second one has a kink.
    f = attrib.batched(lambda x: (x - 0.3).relu().sum(-1))
    x = torch.tensor([[-1.0, -1.0], [1.0, 0.9]], dtype=torch.float64)
    alone = attrib.integrated_gradients(f, steps=200, tol=1e-3, reduce=attrib.estimate)
    both, first, second = alone(x), alone(x[:1]), alone(x[1:])
    assert first.samples < second.samples == both.samples


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"steps": 8, "tol": 0.1}, "steps.range"),
        ({"tol": 0.0}, "tol.range"),
        ({"tol": -1.0}, "tol.range"),
        ({"tol": float("nan")}, "tol.range"),
        ({"tol": "small"}, "tol.type"),
        ({"tol": 0.1, "quadrature": "left"}, "quadrature.tol"),
        ({"reduce": attrib.estimate}, "reduce.unknown"),
        ({"reduce": attrib.mean, "tol": 0.1}, "reduce.unknown"),
        ({"quadrature": "simpson"}, "quadrature.unknown"),
        ({"steps": 0}, "steps.range"),
        ({"steps": 2.5}, "steps.type"),
        ({"steps": 1, "quadrature": "trapezoid"}, "steps.range"),
        ({"path": 3}, "path.type"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(options: Any, code: str) -> None:
    with pytest.raises(attrib.AttribError) as refusal:
        attrib.integrated_gradients(lambda x: x.sum(-1), **options)
    assert refusal.value.code == code


# ---- paths of one's own


@few
@given(kind=kinds, seed=seeds)
def test_the_straight_path_written_out_is_the_straight_path(kind: str, seed: int) -> None:
    f = attrib.target(network(kind, seed), 0)
    x, baseline = data(kind, seed), data(kind, seed + 1)
    expected = attrib.integrated_gradients(f, steps=9)(x, baseline)
    for path in (attrib.straight, lambda x, b, alpha: (1 - alpha) * b + alpha * x):
        found = attrib.integrated_gradients(f, steps=9, path=path)(x, baseline)
        assert_close(found, expected, 1e-12)


@few
@given(kind=st.sampled_from(SMOOTH), seed=seeds)
def test_the_speed_along_a_path_does_not_matter(kind: str, seed: int) -> None:
    f = attrib.target(network(kind, seed), 0)
    x, baseline = data(kind, seed), data(kind, seed + 1)
    faster = lambda x, b, alpha: b + alpha.square() * (3 - 2 * alpha) * (x - b)
    expected = attrib.integrated_gradients(f, steps=100)(x, baseline)
    found = attrib.integrated_gradients(f, steps=100, path=faster)(x, baseline)
    assert_close(found, expected, 1e-8)


def test_a_path_through_a_corner_attributes_to_one_feature_after_the_other() -> None:
    # Along the axes of x1 * x2: nothing for the first, the whole product for the second.
    def around(x: Tensor, b: Tensor, alpha: Tensor) -> Tensor:
        first, second = (2 * alpha).clamp(0, 1), (2 * alpha - 1).clamp(0, 1)
        return b + torch.stack([first, second]) * (x - b)

    x = torch.tensor([[2.0, 3.0], [1.0, -1.0]], dtype=torch.float64)
    found = attrib.integrated_gradients(
        lambda x: x.prod(-1), path=around, steps=50, quadrature="midpoint"
    )(x)
    expected = torch.stack([torch.zeros(2, dtype=torch.float64), x.prod(-1)], -1)
    assert_close(found, expected, 1e-12)


def test_a_path_may_be_random_in_its_parameters_and_be_trained() -> None:
    f, x = attrib.target(network("gelu"), 0), data("gelu")
    bend = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    path = lambda x, b, alpha: b + (alpha + bend * torch.sin(torch.pi * alpha)) * (x - b)
    attrib.integrated_gradients(f, path=path, steps=20)(x).square().sum().backward()
    # The straight line, however fast: the attribution does not depend on the bend.
    assert bend.grad is not None and abs(float(bend.grad)) < 1e-6


def test_a_path_of_the_wrong_shape_is_refused() -> None:
    f = attrib.target(network("gelu"), 0)
    with pytest.raises(ValueError, match="path: ") as refusal:
        attrib.integrated_gradients(f, path=lambda x, b, alpha: x[:1])(data("gelu"))
    assert isinstance(refusal.value, attrib.AttribError)


# ---- expected gradients


def background(kind: str, seed: int, count: int) -> Tensor:
    return data(kind, seed, batch=(count,))


@pytest.mark.parametrize("std", [0.0, 0.4])
def test_expected_gradients_estimate_integrated_gradients_averaged_over_baselines(
    std: float,
) -> None:
    f, x = attrib.target(network("tanh"), 1), data("tanh")
    baselines = background("tanh", 1, 7)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        expect = attrib.expected(attrib.integrated_gradients(f))
        value, stderr, samples = attrib.expected_gradients(
            f, samples=4000, std=std, generator=generator, reduce=attrib.estimate
        )(x, baselines)
        if std == 0:
            exact, own = expect(x, baselines), 0.0
        else:  # with noise, the average over noisy inputs: itself an estimate
            noise = attrib.perturb.gaussian(std, generator=generator)
            exact, own, _ = attrib.smooth(expect, noise, samples=1000, reduce=attrib.estimate)(
                x, baselines
            )
    assert samples == 4000
    # Five standard errors, for each of thirty numbers: wrong once in sixty thousand.
    assert ((value - exact).abs() <= 5 * (stderr.square() + own**2).sqrt()).all()
    assert (stderr > 0).all()


def test_standard_errors_shrink_with_the_square_root_of_the_samples() -> None:
    f, x = attrib.target(network("tanh"), 1), data("tanh")
    baselines = background("tanh", 1, 7)

    def stderr(samples: int) -> Tensor:
        attribute = attrib.expected_gradients(f, samples=samples, reduce=attrib.estimate)
        return attribute(x, baselines).stderr.detach()

    with torch.no_grad():
        ratio = stderr(400) / stderr(6400)
    # The error of a standard error is a share 1 / sqrt(2 n) of it, more for heavy tails.
    assert (ratio.mean() - 4).abs() < 4 * 5 * 2 / (2 * 400) ** 0.5 / ratio.numel() ** 0.5
    assert ratio.min() > 2 and ratio.max() < 8


def test_the_standard_error_is_that_of_repeated_estimates() -> None:
    f, x = attrib.target(network("tanh"), 1), data("tanh", batch=(2,))
    baselines = background("tanh", 1, 7)
    generator = torch.Generator().manual_seed(0)
    attribute = attrib.expected_gradients(
        f, samples=30, generator=generator, reduce=attrib.estimate
    )
    with torch.no_grad():
        runs = [attribute(x, baselines) for _ in range(300)]
    spread = torch.stack([run.value for run in runs]).std(0)
    claimed = torch.stack([run.stderr for run in runs]).square().mean(0).sqrt()
    torch.testing.assert_close(spread, claimed, rtol=5 / (2 * 300) ** 0.5, atol=0)


def test_all_leaves_of_a_baseline_come_from_the_same_row_and_the_same_point() -> None:
    # Where a == b in every row, a draw that mixed rows or points would break the equality.
    seen: list[tuple[Tensor, Tensor]] = []

    def f(x: tuple[Tensor, Tensor]) -> Tensor:
        seen.append((x[0].detach(), x[1].detach()))
        return (x[0] * x[1]).sum(-1)

    rows = torch.randn(9, 3, dtype=torch.float64)
    x = torch.randn(4, 3, dtype=torch.float64)
    attrib.expected_gradients(attrib.batched(f), samples=20)((x, x), (rows, rows))
    first, second = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert torch.equal(first, second)
    assert len(first.unique(dim=0)) == len(first)


def test_every_sample_is_on_a_line_to_a_baseline_uniformly() -> None:
    seen: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.square().sum(-1)

    baselines = torch.tensor([[0.0], [10.0], [20.0]], dtype=torch.float64)
    x = torch.full((500, 1), 30.0, dtype=torch.float64)
    attrib.expected_gradients(
        attrib.batched(f), samples=12, generator=torch.Generator().manual_seed(0)
    )(x, baselines)
    points = torch.cat(seen)
    assert points.min() >= 0 and points.max() <= 30
    # Baseline b with probability 1/3, then uniform from b to 30.
    mean, second = 0.0, 0.0
    for b in (0.0, 10.0, 20.0):
        mean += (b + 30) / 2 / 3
        second += (30**2 + 30 * b + b**2) / 3 / 3
    error = (second - mean**2) ** 0.5 / len(points) ** 0.5
    assert abs(float(points.mean()) - mean) <= 5 * error


def test_every_example_has_its_own_draws() -> None:
    f = attrib.target(network("tanh"), 0)
    x = data("tanh", batch=(1,)).expand(4, 6)
    found = attrib.expected_gradients(f, samples=5)(x, background("tanh", 1, 7))
    assert len(found.detach().unique(dim=0)) == 4


def test_the_deviation_may_differ_from_leaf_to_leaf() -> None:
    seen: list[Tensor] = []

    def f(x: dict[str, Tensor]) -> Tensor:
        seen.append((x["a"] - x["b"]).detach())
        return (x["a"] * x["b"]).sum(-1)

    zeros = torch.zeros(100, 5, dtype=torch.float64)
    x, rows = {"a": zeros, "b": zeros}, {"a": zeros[:1], "b": zeros[:1]}
    attrib.expected_gradients(attrib.batched(f), samples=9, std={"a": 1.0, "b": 0.0})(x, rows)
    # Uniform times normal has the variance one third.
    spread = torch.cat(seen).square().mean()
    assert abs(float(spread) - 1 / 3) < 5 * (3 / 5 - 1 / 9) ** 0.5 / 4500**0.5
    with pytest.raises(ValueError, match="std: "):
        attrib.expected_gradients(attrib.batched(f), std={"a": 1.0})(x, rows)


@pytest.mark.parametrize(
    "baselines",
    [torch.zeros(0, 6), torch.zeros(3, 5), torch.zeros(6, 7), torch.tensor(0.0), 0.0, "zero"],
)
def test_baselines_that_do_not_fit_are_refused_before_the_model_is_called(baselines: Any) -> None:
    def f(x: Tensor) -> Tensor:
        raise AssertionError("called")

    for attribute in (
        attrib.expected_gradients(f),
        attrib.expected(attrib.integrated_gradients(f)),
    ):
        with pytest.raises(attrib.AttribError, match="baseline"):
            attribute(torch.zeros(2, 6), baselines)


@pytest.mark.parametrize(
    "baseline",
    [torch.zeros(5), torch.zeros(3, 6), torch.zeros(2, 2, 6), "zero", (0, 0), [0.0, 1.0]],
)
def test_a_baseline_that_does_not_fit_is_refused_before_the_model_is_called(baseline: Any) -> None:
    def f(x: Tensor) -> Tensor:
        raise AssertionError("called")

    for method in (attrib.integrated_gradients, attrib.average_gradient, attrib.guided_ig):
        with pytest.raises(attrib.AttribError, match="baseline"):
            method(f)(torch.zeros(2, 6), baseline)


def test_a_training_loop_can_penalise_attributions() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    x, generator = torch.randn(64, 4), torch.Generator().manual_seed(0)
    f = attrib.target(model)
    attribute = attrib.expected_gradients(f, samples=2, generator=generator)
    model.weight.data.fill_(1.0)
    before = model.weight.detach().clone()
    for _ in range(40):
        optimiser.zero_grad()
        loss = attribute(x, x)[:, 0].abs().mean()
        loss.backward()
        optimiser.step()
    after = model.weight.detach()
    assert after[0, 0].abs() < 0.2 * before[0, 0].abs()
    assert torch.equal(after[0, 1:], before[0, 1:])
