"""Hand-written limits: the fewest lines of plain torch that compute each method, without a library.

Every function takes a workload and returns a call. Options are what a patient author would tune
for one model: how many rows go through it at once, and in which memory layout.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy
import torch
from torch import Tensor, nn

from benchmarks.models import Workload

Call = Callable[[], Tensor]
Rule = Callable[[int, torch.dtype], tuple[Tensor, Tensor]]


def saliency(workload: Workload, *, layout: str = "contiguous") -> Call:
    """The gradient of the target's output."""
    model, target, x = workload.model, workload.target, workload.x
    return lambda: _gradient(model, target, _laid_out(x, layout))


def input_x_gradient(workload: Workload, *, layout: str = "contiguous") -> Call:
    """The input times the gradient of the target's output."""
    model, target, x = workload.model, workload.target, workload.x
    return lambda: x * _gradient(model, target, _laid_out(x, layout))


def integrated_gradients(
    workload: Workload,
    *,
    steps: int,
    rows: int,
    layout: str = "contiguous",
    rule: Rule | None = None,
) -> Call:
    """Integrated gradients, the weights put into the cotangent of the backward."""
    rule = gauss_legendre if rule is None else rule
    model, target = workload.model, workload.target
    x, baseline = workload.x, workload.baseline
    together = max(1, rows // len(x))

    def call() -> Tensor:
        nodes, weights = rule(steps, x.dtype)
        difference = x - baseline
        total = torch.zeros_like(x)
        for alpha, weight in zip(nodes.split(together), weights.split(together), strict=True):
            points = torch.addcmul(baseline, _column(alpha, x), difference).flatten(0, 1)
            cotangent = weight.repeat_interleave(len(x))
            gradient = _gradient(model, target, _laid_out(points, layout), cotangent)
            total += gradient.unflatten(0, (len(alpha), -1)).sum(0)
        return total.mul_(difference)

    return call


def expected_gradients(
    workload: Workload, *, samples: int, rows: int, layout: str = "contiguous"
) -> Call:
    """Mean over drawn baselines b and positions u of (x - b) * gradient at b + u (x - b)."""
    model, target = workload.model, workload.target
    x, baselines = workload.x, workload.baselines
    together = max(1, rows // len(x))

    def call() -> Tensor:
        total = torch.zeros_like(x)
        for start in range(0, samples, together):
            count = min(together, samples - start)
            baseline = baselines[torch.randint(len(baselines), (count, len(x)))]
            difference = x - baseline
            alpha = torch.rand(count, len(x)).view(count, len(x), *(1,) * (x.dim() - 1))
            points = torch.addcmul(baseline, alpha, difference).flatten(0, 1)
            gradient = _gradient(model, target, _laid_out(points, layout))
            total += gradient.unflatten(0, (count, -1)).mul(difference).sum(0)
        return total.div_(samples)

    return call


def smoothed_integrated_gradients(
    workload: Workload,
    *,
    steps: int,
    samples: int,
    std: float,
    rows: int,
    layout: str = "contiguous",
) -> Call:
    """Mean over noisy copies of x of the integrated gradients of the copy."""
    model, target = workload.model, workload.target
    x, baseline = workload.x, workload.baseline
    steps_together = min(steps, max(1, rows // len(x)))
    copies_together = max(1, rows // (len(x) * steps))

    def call() -> Tensor:
        nodes, weights = gauss_legendre(steps, x.dtype)
        total = torch.zeros_like(x)
        for start in range(0, samples, copies_together):
            copies = min(copies_together, samples - start)
            difference = x + std * torch.randn(copies, *x.shape) - baseline
            sums = torch.zeros_like(difference)
            for alpha, weight in zip(
                nodes.split(steps_together), weights.split(steps_together), strict=True
            ):
                points = torch.addcmul(baseline, _column(alpha, difference), difference)
                cotangent = weight.repeat_interleave(copies * len(x))
                points = _laid_out(points.flatten(0, 2), layout)
                gradient = _gradient(model, target, points, cotangent)
                sums += gradient.unflatten(0, (len(alpha), copies, -1)).sum(0)
            total += sums.mul_(difference).sum(0)
        return total.div_(samples)

    return call


def saliency_per_target(
    workload: Workload, *, targets: int, backward: str = "loop", layout: str = "contiguous"
) -> Call:
    """The gradients of the first `targets` outputs from one forward, stacked in front."""
    model, x = workload.model, workload.x
    with torch.no_grad():
        classes = model(x[:1]).shape[-1]
    cotangents = torch.eye(targets, classes, dtype=x.dtype).unsqueeze(1)

    def call() -> Tensor:
        with torch.enable_grad():
            leaf = _laid_out(x, layout).detach().requires_grad_()
            output = model(leaf)
        seeds = cotangents.expand(targets, *output.shape)
        if backward == "batched":
            return torch.autograd.grad(output, leaf, seeds, is_grads_batched=True)[0]
        return torch.stack(
            [
                torch.autograd.grad(output, leaf, seed, retain_graph=number < targets - 1)[0]
                for number, seed in enumerate(seeds)
            ]
        )

    return call


def input_x_gradient_per_target(
    workload: Workload, *, targets: int, backward: str = "loop", layout: str = "contiguous"
) -> Call:
    """The input times each of the gradients of the first `targets` outputs."""
    gradients = saliency_per_target(workload, targets=targets, backward=backward, layout=layout)
    return lambda: workload.x * gradients()


@lru_cache
def gauss_legendre(steps: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1], each (steps,), computed once."""
    nodes, weights = numpy.polynomial.legendre.leggauss(steps)
    return (
        torch.from_numpy(0.5 * (1 + nodes)).to(dtype),
        torch.from_numpy(0.5 * weights).to(dtype),
    )


@lru_cache
def midpoint(steps: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1], each (steps,): best where the integrand jumps."""
    nodes = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    return nodes.to(dtype), torch.full_like(nodes, 1 / steps).to(dtype)


def _gradient(
    model: nn.Module, target: int, points: Tensor, cotangent: Tensor | None = None
) -> Tensor:
    with torch.enable_grad():
        leaf = points.detach().requires_grad_()
        output = model(leaf)[:, target]
    cotangent = torch.ones_like(output) if cotangent is None else cotangent
    return torch.autograd.grad(output, leaf, cotangent)[0]


def _laid_out(points: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        return points.contiguous(memory_format=torch.channels_last)
    return points


def _column(alpha: Tensor, x: Tensor) -> Tensor:
    return alpha.view(-1, *(1,) * x.dim())
