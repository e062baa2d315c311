"""Errors of Shapley values at equal evaluations, on games of trained models and real data.

    python -m benchmarks.shapley_errors

prints, for 16 and 160 evaluations per feature, the mean squared errors of Captum 0.9.0 over those
of attrib, each the mean over several rows of data. The truth is exact enumeration; more features
than that allows are grouped. Needs the extra `parity` and scikit-learn.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import captum.attr
import torch
from sklearn import datasets
from torch import Tensor, nn

import attrib
from attrib.games import kernel, sampling, shapley

Estimate = Callable[[int, int], Tensor]

ROWS = (7, 70, 80, 110, 150)
"""The rows of each data set that are explained."""

PAIRS = (
    ("Captum, sampling", "attrib, antithetic"),
    ("Captum, kernel", "attrib, leverage"),
    ("Captum, kernel", "attrib, process"),
    ("Captum, kernel", "attrib, kernel"),
)


@dataclass(frozen=True)
class Played:
    """A row of data, a trained model, and which entries are one feature."""

    name: str
    model: nn.Module
    x: Tensor
    baseline: Tensor
    target: int
    groups: Tensor

    @property
    def players(self) -> int:
        return int(self.groups.max()) + 1


def games() -> list[Played]:
    """Tables and digits, logits and probabilities."""
    found: list[Played] = []
    for name, load in (("wine", datasets.load_wine), ("cancer", datasets.load_breast_cancer)):
        data, labels = load(return_X_y=True)
        x = torch.tensor(data, dtype=torch.float32)
        x = (x - x.mean(0)) / x.std(0)
        y = torch.tensor(labels)
        network = nn.Sequential(
            nn.Linear(x.shape[1], 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3)
        )
        groups = torch.arange(x.shape[1])
        # Thirty measurements of cells are ten quantities, each in three statistics.
        ids = groups % 10 if name == "cancer" else groups
        found += _of(f"{name}, {int(ids.max()) + 1} features", network, x, y, ids)
    data, labels = datasets.load_digits(return_X_y=True)
    x = torch.tensor(data, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    rows = torch.arange(8) // 2
    tiles = (rows[:, None] * 4 + rows)[None]
    found += _of("digits, 16 tiles", network, x, torch.tensor(labels), tiles)
    return found


def _of(name: str, network: nn.Module, x: Tensor, y: Tensor, groups: Tensor) -> list[Played]:
    model = _trained(network, x, y)
    probability = nn.Sequential(model, nn.Softmax(-1))
    return [
        Played(f"{name}, {kind}", m, x[row][None], x.mean(0, keepdim=True), int(y[row]), groups)
        for kind, m in (("logit", model), ("probability", probability))
        for row in ROWS
    ]


def _trained(network: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(150):
        rows = torch.randperm(len(x))[:256]
        loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval().requires_grad_(False)


def estimates(game: Played) -> dict[str, Estimate]:
    """``estimate(evaluations, seed)`` of every contender."""
    f = attrib.target(game.model, game.target)
    mask = game.groups.expand(game.x.shape).contiguous()
    orders = lambda evaluations: max(1, round(evaluations / game.players))

    def of_attrib(make: Callable[..., Any]) -> Estimate:
        def estimate(evaluations: int, seed: int) -> Tensor:
            generator = torch.Generator().manual_seed(seed)
            method = make(f, evaluations, groups=game.groups, generator=generator)
            return method(game.x, game.baseline)

        return estimate

    def of_captum(method: Any, samples: Callable[[int], int]) -> Estimate:
        def estimate(evaluations: int, seed: int) -> Tensor:
            torch.manual_seed(seed)
            return method.attribute(
                game.x,
                baselines=game.baseline,
                target=game.target,
                feature_mask=mask,
                n_samples=samples(evaluations),
                perturbations_per_eval=64,
            )

        return estimate

    # An order of Captum takes one evaluation more.
    halves = lambda n: max(1, round(n / (game.players - 1) / 2))
    return {
        "Captum, sampling": of_captum(captum.attr.ShapleyValueSampling(game.model), orders),
        "attrib, antithetic": of_attrib(
            lambda f, n, **kw: sampling.shapley_sampling(f, samples=halves(n), **kw)
        ),
        "Captum, kernel": of_captum(captum.attr.KernelShap(game.model), lambda n: n),
        "attrib, leverage": of_attrib(lambda f, n, **kw: kernel.kernel_shap(f, samples=n, **kw)),
        "attrib, process": of_attrib(
            lambda f, n, **kw: kernel.kernel_shap(f, samples=n, regression="gaussian_process", **kw)
        ),
        "attrib, kernel": of_attrib(
            lambda f, n, **kw: kernel.kernel_shap(f, samples=n, sampling="kernel", **kw)
        ),
    }


def errors(game: Played, evaluations: int, trials: int) -> dict[str, float]:
    """Mean squared errors, relative to the mean square of the exact values."""
    truth = shapley.shapley_values(attrib.target(game.model, game.target), groups=game.groups)(
        game.x, game.baseline
    )
    return {
        name: torch.stack(
            [(estimate(evaluations, seed) - truth).square().mean() for seed in range(trials)]
        )
        .mean()
        .div(truth.square().mean())
        .item()
        for name, estimate in estimates(game).items()
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--per-feature", type=int, nargs="+", default=[16, 160])
    settings = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    played = games()
    with torch.no_grad():
        for times in settings.per_feature:
            print(f"\n{times} evaluations per feature: Captum's mean squared error over attrib's\n")
            print("| game | antithetic : sampling | leverage : kernel", end="")
            print(" | Gaussian process : kernel | kernel : kernel |")
            print("|---|---:|---:|---:|---:|")
            for name, same in itertools.groupby(played, lambda game: game.name):
                rows = [errors(game, times * game.players, settings.trials) for game in same]
                found = {key: sum(row[key] for row in rows) for key in rows[0]}
                cells = " | ".join(f"{found[a] / found[b]:.1f}x" for a, b in PAIRS)
                print(f"| {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
