"""Hand-written limits of the methods inside a model, whose modules are cut in two halves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks import limits
from benchmarks.models import Encoder, ResNet18, SmallCnn, Vgg19, Workload

Call = Callable[[], Tensor]
Place = Literal["early", "middle", "late"]
Neuron = int | tuple[int, ...]


def site(model: nn.Module, place: Place) -> str:
    """The dotted name of a layer near the beginning, the middle or the end of a model."""
    if isinstance(model, Encoder):
        return f"layers.{_spread(len(model.layers))[place]}"
    if isinstance(model, ResNet18):
        return {"early": "stem", "middle": "blocks.3", "late": "blocks.7"}[place]
    if isinstance(model, Vgg19):
        return {"early": "features.1", "middle": "features.17", "late": "features.36"}[place]
    if isinstance(model, SmallCnn):
        return {"early": "features.2", "middle": "features.6", "late": "features.10"}[place]
    return {"early": "1", "middle": "2", "late": "3"}[place]


def neuron(model: nn.Module) -> Neuron:
    """One neuron of the layer in the middle."""
    return 5 if isinstance(model, nn.Sequential) else (1, 2, 3)


def activation(workload: Workload, *, place: Place, layout: str = "contiguous") -> Call:
    """What a layer yields."""
    head, _ = halves(workload.model, place)
    return lambda: head(laid_out(workload.x, layout))


def gradient_x_activation(workload: Workload, *, place: Place, layout: str = "contiguous") -> Call:
    """The gradient times what a layer yields."""
    head, tail = halves(workload.model, place)

    def call() -> Tensor:
        h = head(laid_out(workload.x, layout))
        return h * gradient_at(tail, workload.target, h)

    return call


def grad_cam(workload: Workload, *, place: Place, layout: str = "contiguous") -> Call:
    """Feature maps, weighted by their mean gradients."""
    head, tail = halves(workload.model, place)

    def call() -> Tensor:
        h = head(laid_out(workload.x, layout))
        weight = gradient_at(tail, workload.target, h).mean((2, 3))
        return torch.einsum("bkij, bk -> bij", h, weight)

    return call


def integrated_gradients(
    workload: Workload, *, place: Place, steps: int, rows: int, layout: str = "contiguous"
) -> Call:
    """Integrated gradients of what is behind a layer."""
    head, tail = halves(workload.model, place)

    def call() -> Tensor:
        ends = (head(laid_out(part, layout)) for part in (workload.x, workload.baseline))
        x, baseline = ends
        behind = replace(workload, model=tail, x=x, baseline=baseline)
        return limits.integrated_gradients(behind, steps=steps, rows=rows, layout=layout)()

    return call


def conductance(
    workload: Workload, *, place: Place, steps: int, rows: int, layout: str = "contiguous"
) -> Call:
    """Changes of a layer from one end of the path over the middles of equal parts to the other,
    times mean gradients: of every middle, times half the way between its neighbours."""
    head, tail = halves(workload.model, place)
    x, baseline, target = workload.x, workload.baseline, workload.target
    together = max(1, rows // len(x))

    def call() -> Tensor:
        start, end = head(laid_out(torch.cat([baseline.expand_as(x), x]), layout)).chunk(2)
        # The ends count twice: from there to the nearest middle the gradient is that of the middle.
        last_h, last_gradient, total = start, None, torch.zeros_like(start)
        for alpha in ((torch.arange(steps, dtype=x.dtype) + 0.5) / steps).split(together):
            points = torch.addcmul(baseline, _column(alpha, x), x - baseline).flatten(0, 1)
            flat = head(laid_out(points, layout))
            gradient = gradient_at(tail, target, flat).unflatten(0, (len(alpha), -1))
            h = flat.unflatten(0, (len(alpha), -1))
            before = gradient[0] if last_gradient is None else last_gradient
            total += (h[0] - last_h) * (gradient[0] + before)
            total += ((h[1:] - h[:-1]) * (gradient[1:] + gradient[:-1])).sum(0)
            last_h, last_gradient = h[-1], gradient[-1]
        assert last_gradient is not None
        return total.add_((end - last_h) * last_gradient, alpha=2).div_(2)

    return call


def internal_influence(
    workload: Workload, *, place: Place, steps: int, rows: int, layout: str = "contiguous"
) -> Call:
    """The mean gradient by a layer on the path, the weights put into the cotangent."""
    head, tail = halves(workload.model, place)
    x, baseline, target = workload.x, workload.baseline, workload.target
    together = max(1, rows // len(x))

    def call() -> Tensor:
        total: Tensor | None = None
        nodes, weights = limits.gauss_legendre(steps, x.dtype)
        for alpha, weight in zip(nodes.split(together), weights.split(together), strict=True):
            points = torch.addcmul(baseline, _column(alpha, x), x - baseline).flatten(0, 1)
            h = head(laid_out(points, layout))
            gradient = gradient_at(tail, target, h, weight.repeat_interleave(len(x)))
            found = gradient.unflatten(0, (len(alpha), -1)).sum(0)
            total = found if total is None else total.add_(found)
        assert total is not None
        return total

    return call


def neuron_integrated_gradients(
    workload: Workload, *, steps: int, rows: int, layout: str = "contiguous"
) -> Call:
    """Integrated gradients of one neuron."""
    head, _ = halves(workload.model, "middle")
    model = nn.Sequential(head, _Neuron(neuron(workload.model)))
    alone = replace(workload, model=model, target=0)
    return limits.integrated_gradients(alone, steps=steps, rows=rows, layout=layout)


def neuron_conductance(
    workload: Workload, *, steps: int, rows: int, layout: str = "contiguous"
) -> Call:
    """The gradient by one neuron, then that of the neuron times it."""
    head, tail = halves(workload.model, "middle")
    pick = _Neuron(neuron(workload.model))
    x, baseline, target = workload.x, workload.baseline, workload.target
    together = max(1, rows // len(x))

    def call() -> Tensor:
        nodes, weights = limits.gauss_legendre(steps, x.dtype)
        difference = x - baseline
        total = torch.zeros_like(x)
        for alpha, weight in zip(nodes.split(together), weights.split(together), strict=True):
            points = torch.addcmul(baseline, _column(alpha, x), difference).flatten(0, 1)
            with torch.enable_grad():
                leaf = laid_out(points, layout).detach().requires_grad_()
                h = head(leaf)
            cotangent = weight.repeat_interleave(len(x))
            slope = pick(gradient_at(tail, target, h, cotangent))
            with torch.enable_grad():
                through = pick(h)
            gradient = torch.autograd.grad(through, leaf, slope)[0]
            total += gradient.unflatten(0, (len(alpha), -1)).sum(0)
        return total.mul_(difference)

    return call


class _Neuron(nn.Module):
    """Keeps one neuron of a layer, (batch, 1)."""

    def __init__(self, index: Neuron) -> None:
        super().__init__()
        self.index = (index,) if isinstance(index, int) else index

    def forward(self, h: Tensor) -> Tensor:
        return h[(slice(None), *self.index)].unsqueeze(1)


class _Mean(nn.Module):
    """Over all places."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((-2, -1))


class _Pool(nn.Module):
    """The first token, through a layer of its own."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x[:, 0]))


def halves(model: nn.Module, place: Place) -> tuple[nn.Module, nn.Module]:
    """The model up to a layer, and from there on."""
    stages = _stages(model)
    cut = [name for name, _ in stages].index(site(model, place)) + 1
    modules = [module for _, module in stages]
    return nn.Sequential(*modules[:cut]), nn.Sequential(*modules[cut:])


def _stages(model: nn.Module) -> Sequence[tuple[str, nn.Module]]:
    """The modules of a model in the order in which they are called, with their dotted names."""
    if isinstance(model, ResNet18):
        between, head = _Mean(), model.head
        return [("stem", model.stem), *_named("blocks", model.blocks), ("", between), ("", head)]
    if isinstance(model, Encoder):
        return [*_named("layers", model.layers), ("", _Pool(model.pooler)), ("", model.head)]
    if isinstance(model, (SmallCnn, Vgg19)):
        return [*_named("features", model.features), ("", nn.Flatten()), ("", model.head)]
    return list(model.named_children())


def _named(name: str, parts: nn.Sequential) -> list[tuple[str, nn.Module]]:
    return [(f"{name}.{number}", module) for number, module in enumerate(parts)]


def _spread(count: int) -> dict[Place, int]:
    return {"early": 0, "middle": (count - 1) // 2, "late": count - 1}


def gradient_at(tail: nn.Module, target: int, h: Tensor, cotangent: Tensor | None = None) -> Tensor:
    """The gradient of the rest of a model by what a layer yields."""
    with torch.enable_grad():
        leaf = h.detach().requires_grad_()
        output = tail(leaf)[:, target]
    cotangent = torch.ones_like(output) if cotangent is None else cotangent
    return torch.autograd.grad(output, leaf, cotangent)[0]


def laid_out(points: Tensor, layout: str) -> Tensor:
    """The same numbers, in another layout if asked for."""
    if layout == "channels_last":
        return points.contiguous(memory_format=torch.channels_last)
    return points


def _column(alpha: Tensor, x: Tensor) -> Tensor:
    return alpha.view(-1, *(1,) * x.dim())
