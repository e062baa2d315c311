"""Hand-written limits of the measures: one loop over chunks of draws of a good size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.models import Workload

Call = Callable[[], Tensor]


def infidelity(
    workload: Workload, *, std: float, samples: int, rows: int, layout: str = "contiguous"
) -> Call:
    """The mean squared error of what a gradient foretells under normal noise."""
    x, attribution = workload.x, gradient(workload, workload.x)
    together = max(1, rows // len(x))

    def call() -> Tensor:
        whole = _score(workload, x, layout)
        total = torch.zeros(len(x), dtype=x.dtype)
        for start in range(0, samples, together):
            noise = std * torch.randn(min(together, samples - start), *x.shape, dtype=x.dtype)
            points = _score(workload, (x - noise).flatten(0, 1), layout)
            foretold = (noise * attribution).flatten(2).sum(-1)
            total += (foretold - whole + points.view(len(noise), -1)).square().sum(0)
        return total / samples

    return call


def max_sensitivity(
    workload: Workload, *, radius: float, samples: int, rows: int, layout: str = "contiguous"
) -> Call:
    """The largest relative change of the gradient in a box."""
    x = workload.x
    together = max(1, rows // len(x))

    def call() -> Tensor:
        base = gradient(workload, x, layout)
        size = base.flatten(1).norm(dim=1)
        worst = torch.zeros(len(x), dtype=x.dtype)
        for start in range(0, samples, together):
            count = min(together, samples - start)
            noise = radius * (2 * torch.rand(count, *x.shape, dtype=x.dtype) - 1)
            found = gradient(workload, (x + noise).flatten(0, 1), layout)
            moved = (found.view(noise.shape) - base).flatten(2).norm(dim=-1)
            worst = torch.maximum(worst, (moved / size).amax(0))
        return worst

    return call


def gradient(workload: Workload, points: Tensor, layout: str = "contiguous") -> Tensor:
    """The gradient of the target's score."""
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        score = _score(workload, points, layout).sum()
    return torch.autograd.grad(score, points)[0]


def _score(workload: Workload, points: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        points = points.contiguous(memory_format=torch.channels_last)
    return workload.model(points)[:, workload.target]
