"""Attributions that must add up to what a score has risen by."""

from __future__ import annotations

import torch
from torch import Tensor

from attrib._tree import features, leaves
from attrib.errors import AttribValueError
from attrib.types import Tree

__all__ = ["adds_up", "check_sum", "telling"]


def adds_up(attribution: Tree, reached: Tensor, before: Tensor) -> bool:
    """Whether an attribution explains how a score has risen, as far as can be said in the precision
    of its numbers: what a rule has not seen is off by much more."""
    if not telling(reached.dtype):
        return True
    rise = (reached - before).detach()
    total, size = torch.zeros_like(rise), rise.abs()
    for part in leaves(attribution):
        if part is not None:
            moved = features(part.detach(), rise.ndim).to(rise.dtype)
            total, size = total + moved.sum(-1), size + moved.abs().sum(-1)
    # A score may be a small difference of numbers of order one.
    scale = 1 + 10 * reached.detach().abs() + 10 * before.detach().abs()
    gap = (total - rise).abs()
    rounding = 1e3 * torch.finfo(rise.dtype).eps * scale
    return bool(((gap <= 1e-2 * size + rounding) | ~gap.isfinite()).all())


def check_sum(attribution: Tree, reached: Tensor, before: Tensor) -> None:
    """Refuse an attribution that does not add up."""
    if not adds_up(attribution, reached, before):
        raise AttribValueError(
            "f: got attributions that do not add up to the rise of the score; look for .data, "
            "detach(), torch.no_grad(), numpy or an extension of torch in the model, which no rule "
            "has seen, or for numbers so far apart that their difference is lost; "
            'deep_lift(f, unknown="gradient") accepts what is left',
            code="rules.incomplete",
        )


def telling(dtype: torch.dtype) -> bool:
    """Whether a sum tells anything: in half precision it is off by a percent by itself."""
    return torch.finfo(dtype).eps < 1e-6
