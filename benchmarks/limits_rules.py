"""Hand-written limits of methods with rules: modules of their own in a copy of the model.

They know which modules a model has, where attrib follows its operations.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.models import Workload

Call = Callable[[], Tensor]


def deep_lift(workload: Workload, *, layout: str = "contiguous") -> Call:
    """DeepLift, rescale rule: one pass at the baseline, one at the input, one backward."""
    model, x, baseline = _replaced(workload.model), workload.x, workload.baseline
    modules = [module for module in model.modules() if isinstance(module, (_Relu, _MaxPool))]

    def call() -> Tensor:
        return _multipliers(
            model, modules, workload.target, _laid_out(x, layout), _laid_out(baseline, layout)
        ) * (x - baseline)

    return call


def deep_lift_shap(workload: Workload, *, rows: int) -> Call:
    """DeepLift averaged over the baselines, each of which is evaluated once."""
    model, x, baselines = _replaced(workload.model), workload.x, workload.baselines
    modules = [module for module in model.modules() if isinstance(module, (_Relu, _MaxPool))]
    together = max(1, rows // len(x))

    def call() -> Tensor:
        total = torch.zeros_like(x)
        for some in baselines.split(together):
            start = some.repeat_interleave(len(x), 0)
            points = x.repeat(len(some), *(1 for _ in x.shape[1:]))
            found = _multipliers(model, modules, workload.target, points, some, len(x))
            total += (found * (points - start)).unflatten(0, (len(some), -1)).sum(0)
        return total.div_(len(baselines))

    return call


def lrp(workload: Workload, *, epsilon: float, layout: str = "contiguous") -> Call:
    """Relevance propagation, epsilon rule, with batch norms merged into convolutions before."""
    model, x, target = _stabilised(workload.model, epsilon), workload.x, workload.target

    def call() -> Tensor:
        with torch.enable_grad():
            point = _laid_out(x, layout).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(model(point)[:, target].sum(), point)
        return gradient * x

    return call


def guided_backprop(workload: Workload, *, layout: str = "contiguous") -> Call:
    """Guided backpropagation."""
    model, x, target = _replaced(workload.model, guided=True), workload.x, workload.target

    def call() -> Tensor:
        with torch.enable_grad():
            point = _laid_out(x, layout).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(model(point)[:, target].sum(), point)
        return gradient

    return call


def _multipliers(
    model: nn.Module,
    modules: list[nn.Module],
    target: int,
    x: Tensor,
    baseline: Tensor,
    repeats: int = 1,
) -> Tensor:
    with torch.no_grad():
        for module in modules:
            module.reference = None  # type: ignore[assignment]
        model(baseline)
        for module in modules if repeats > 1 else []:
            module.reference = module.reference.repeat_interleave(repeats, 0)  # type: ignore[operator, assignment]
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model(point)[:, target].sum(), point)
    return gradient


def _laid_out(x: Tensor, layout: str) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x


def _replaced(model: nn.Module, *, guided: bool = False) -> nn.Module:
    model = copy.deepcopy(model).requires_grad_(False)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, _Guided() if guided else _Relu())
            elif isinstance(child, nn.MaxPool2d) and not guided:
                setattr(module, name, _MaxPool(child))
    return model


def _stabilised(model: nn.Module, epsilon: float) -> nn.Module:
    model = copy.deepcopy(model).requires_grad_(False)
    for module in list(model.modules()):
        children = list(module.named_children())
        for place, (name, child) in enumerate(children):
            if isinstance(child, nn.Linear):
                setattr(module, name, _Epsilon(child, epsilon))
            elif isinstance(child, nn.Conv2d):
                after, norm = children[place + 1] if place + 1 < len(children) else ("", None)
                if isinstance(norm, nn.BatchNorm2d):
                    child = fuse_conv_bn_eval(child, norm)
                    setattr(module, after, nn.Identity())
                setattr(module, name, _Epsilon(child, epsilon))
    return model


class _Epsilon(nn.Module):
    def __init__(self, layer: nn.Module, epsilon: float) -> None:
        super().__init__()
        self.layer, self.epsilon = layer, epsilon

    def forward(self, x: Tensor) -> Tensor:
        return _Absorbed.apply(self.layer(x), self.epsilon)  # type: ignore[no-any-return]


class _Absorbed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, epsilon: float) -> Tensor:
        ctx.epsilon = epsilon
        ctx.save_for_backward(y)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        size = y.abs()
        return gradients[0] * size.div_(size + ctx.epsilon), None


class _Guided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _GuidedReLU.apply(x)  # type: ignore[no-any-return]


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.relu(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradients[0].clamp(min=0), y, 0)


class _Relu(nn.Module):
    reference: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.reference is None:
            self.reference = x
            return torch.relu(x)
        return _Secant.apply(x, self.reference)  # type: ignore[no-any-return]


class _Secant(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, reference: Tensor) -> Tensor:
        y = torch.relu(x)
        tiny = torch.finfo(x.dtype).tiny
        rise = (y - torch.relu(reference)).add_(y.sign(), alpha=tiny)
        ctx.save_for_backward(rise.div_((x - reference).add_(tiny)))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None


class _MaxPool(nn.Module):
    reference: Tensor | None = None

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.options = [
            [value, value] if isinstance(value, int) else list(value)
            for value in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        ]

    def forward(self, x: Tensor) -> Tensor:
        if self.reference is None:
            self.reference = x
            return torch.max_pool2d(x, *self.options)
        return _Maximum.apply(x, self.reference, self.options)  # type: ignore[no-any-return]


class _Maximum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, reference: Tensor, options: list[list[int]]) -> Tensor:
        pool = torch.ops.aten.max_pool2d_with_indices
        (y, index), (other, other_index) = pool(x, *options), pool(reference, *options)
        top = torch.maximum(y, other)
        step = x - reference
        still = ((index == other_index) & (y == other)).to(x.dtype)
        ctx.options = options
        ctx.save_for_backward(x, step, index, other_index, top - other + still, y - top)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, step, index, other_index, risen, fallen = ctx.saved_tensors
        back = torch.ops.aten.max_pool2d_with_indices_backward
        found = back(gradients[0] * risen, x, *ctx.options, False, index)
        found += back(gradients[0] * fallen, x, *ctx.options, False, other_index)
        still = (step == 0).to(x.dtype)
        return found.mul_((1 - still) / (step + still) + still), None, None
