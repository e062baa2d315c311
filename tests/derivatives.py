"""Derivatives of an attribution, held against central differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import attrib
from attrib.types import Attribute, Score

STEP = 1e-6


def relative(a: Tensor, b: Tensor) -> float:
    """The largest difference, in units of the largest entry."""
    return float((a - b).detach().abs().max() / b.detach().abs().max().clamp_min(1e-30))


def check_derivatives(method: Callable[[Score], Attribute], model: nn.Module, x: Tensor) -> None:
    """By parameters and by x, to 1e-6 of the terms of the slope; plain autograd gives the same.

    Args:
        method: From a score to an attribution.
        model: In float64; its second output is explained.
        x: A batch of inputs.
    """
    weight = torch.randn_like(x)
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        f = lambda x: torch.func.functional_call(model, parameters, (x,))[:, 1]
        return (method(f)(x) * weight).sum()

    slopes, slope = torch.func.grad(loss, argnums=(0, 1))(parameters, x)
    way = {name: torch.randn_like(value) for name, value in parameters.items()}
    ahead, behind = (
        loss({n: p + sign * STEP * way[n] for n, p in parameters.items()}, x) for sign in (1, -1)
    )
    found = sum((slopes[name] * way[name]).sum() for name in way)
    scale = sum((slopes[name] * way[name]).abs().sum() for name in way)
    assert abs(found - (ahead - behind) / (2 * STEP)) <= 1e-6 * scale

    direction = torch.randn_like(x)
    ahead, behind = (loss(parameters, x + sign * STEP * direction) for sign in (1, -1))
    error = (slope * direction).sum() - (ahead - behind) / (2 * STEP)
    assert error.abs() <= 1e-6 * (slope * direction).abs().sum()

    own = x.clone().requires_grad_()
    attributed = method(attrib.target(model, 1))(own)
    (again,) = torch.autograd.grad((attributed * weight).sum(), own)
    assert relative(again, slope) <= 1e-9
