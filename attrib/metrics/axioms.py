"""Axioms as measures: by how much an attribution misses what theory promises."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attrib._checks import check_baseline, check_callable, check_input, describe
from attrib._tree import features, leaves, tree_map
from attrib.errors import AttribTypeError, AttribValueError
from attrib.gradient import score_of
from attrib.types import Measure, Score, Tree

__all__ = ["completeness"]


def completeness(f: Score) -> Measure:
    r"""Completeness gap, :math:`\sum_i \phi_i - \big(f(x) - f(x')\big)`; zero is best.

    Args:
        f: The score that was attributed.

    Returns:
        ``measure(attribution, x, baseline=0, *args) -> (*batch,)``, signed, in units of the score;
        the attribution, then exactly the arguments that produced it.

    Raises:
        AttribValueError: If the attribution does not have the leaves and batch of ``x``.
        AttribError: As for `attrib.grad_and_score` and the baseline of
            `attrib.integrated_gradients`.

    References:
        Sundararajan, Taly & Yan (2017), section 3, https://arxiv.org/abs/1703.01365

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x.square().sum(-1)
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> completeness(f)(attrib.integrated_gradients(f)(x), x).abs() < 1e-6
        tensor([True])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    score = score_of(f)

    def measure(attribution: Tree, x: Tree, baseline: Any = 0, *args: Any) -> Tensor:
        check_input(x, gradients=False)
        start = check_baseline(baseline, x)
        rise = score(x, *args) - score(tree_map(lambda b, a: b.expand(a.shape), start, x), *args)
        parts = leaves(attribution)
        if not any(isinstance(part, Tensor) for part in parts) or any(
            part is not None and not isinstance(part, Tensor) for part in parts
        ):
            raise AttribTypeError(
                f"attribution: must be a tree of tensors, got {describe(attribution)}; pass what "
                "an attribution returned",
                code="attribution.type",
            )
        if len(parts) != len(leaves(x)) or any(
            part is not None and part.shape[: rise.ndim] != rise.shape for part in parts
        ):
            raise AttribValueError(
                f"attribution: must be a tree like x, got {describe(attribution)} for x "
                f"{describe(x)} with scores of shape {tuple(rise.shape)}",
                code="attribution.shape",
            )
        summed = [
            features(part, rise.ndim).sum(-1, dtype=torch.promote_types(part.dtype, torch.float32))
            for part in parts
            if part is not None
        ]
        return (torch.stack(summed).sum(0) - rise).to(rise.dtype)

    return measure
