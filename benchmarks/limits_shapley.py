"""Hand-written limits of Shapley values, KernelSHAP and LIME: a few tensor operations each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.limits_games import tiles
from benchmarks.models import Workload

Call = Callable[[], Tensor]


def shapley_sampling(
    workload: Workload, *, samples: int, size: Sequence[int], rows: int, layout: str = "contiguous"
) -> Call:
    """Means of contributions along random orders; nobody and everybody are evaluated once."""
    x, baseline = workload.x, workload.baseline
    ids = tiles(x, size).expand(x.shape[1:])
    players = int(ids.max()) + 1
    places = torch.arange(1, players)[:, None]

    def call() -> Tensor:
        ranks = torch.rand(samples, players).argsort(-1)
        coalitions = torch.cat(
            [
                torch.ones(1, players, dtype=torch.bool),
                torch.zeros(1, players, dtype=torch.bool),
                (ranks[:, None] < places).flatten(0, 1),
            ]
        )
        values = _values(workload, x, baseline, coalitions, ids, rows, layout)
        walks = values[2:].view(samples, players - 1, -1)
        ends = (samples, 1, walks.shape[-1])
        added = torch.cat([values[1].expand(ends), walks, values[0].expand(ends)], 1).diff(dim=1)
        found = added.gather(1, ranks[..., None].expand(added.shape)).mean(0)
        return found.T[:, ids]

    return call


def kernel_shap(
    workload: Workload, *, samples: int, size: Sequence[int], rows: int, layout: str = "contiguous"
) -> Call:
    """The regression on pairs of complementary coalitions, drawn with replacement."""
    x, baseline = workload.x, workload.baseline
    ids = tiles(x, size).expand(x.shape[1:])
    players = int(ids.max()) + 1
    sizes = torch.arange(1, players)
    odds = 1 / (sizes * (players - sizes))
    centre = torch.eye(players) - 1 / players

    def call() -> Tensor:
        size = 1 + torch.multinomial(odds, samples // 2, replacement=True)
        half = torch.rand(samples // 2, players).argsort(-1) < size[:, None]
        ends = torch.tensor([[True], [False]]).expand(2, players)
        values = _values(workload, x, baseline, torch.cat([ends, half, ~half]), ids, rows, layout)
        rise, differences = values[0] - values[1], values[2:].view(2, len(half), -1)
        signs = half * 2.0 - 1
        centred = signs @ centre
        mean = rise / players
        moments = centred.T @ (differences[0] - differences[1] - signs.sum(1)[:, None] * mean)
        inverse = torch.linalg.inv(centred.T @ centred + 1 / players)
        return (mean + inverse @ moments).T[:, ids]

    return call


def lime(
    workload: Workload, *, samples: int, size: Sequence[int], rows: int, layout: str = "contiguous"
) -> Call:
    """Least squares with an intercept on coalitions drawn with equal probability."""
    x, baseline = workload.x, workload.baseline
    ids = tiles(x, size).expand(x.shape[1:])
    players = int(ids.max()) + 1

    def call() -> Tensor:
        coalitions = torch.rand(samples, players) < 0.5
        values = _values(workload, x, baseline, coalitions, ids, rows, layout)
        design = torch.nn.functional.pad(coalitions.float(), (0, 1), value=1.0)
        return torch.linalg.solve(design.T @ design, design.T @ values)[:-1].T[:, ids]

    return call


def _values(
    workload: Workload,
    x: Tensor,
    baseline: Tensor,
    coalitions: Tensor,
    ids: Tensor,
    rows: int,
    layout: str,
) -> Tensor:
    """Scores ``(coalitions, examples)``."""
    found: list[Tensor] = []
    for some in coalitions.split(max(1, rows // len(x))):
        points = torch.where(some[:, ids][:, None], x, baseline).flatten(0, 1)
        if layout == "channels_last":
            points = points.contiguous(memory_format=torch.channels_last)
        found.append(workload.model(points)[:, workload.target].view(len(some), -1))
    return torch.cat(found) if len(found) > 1 else found[0]
