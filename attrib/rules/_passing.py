"""Rules of relevance propagation for what has no weight: functions, products, constants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attrib._carriers import Carrier
from attrib.rules._flow import Call, Rule, refuse
from attrib.rules._secants import SCALE

__all__ = ["frozen", "gradient", "identity", "passing", "stops", "uniform"]


def identity() -> Rule:
    r"""All relevance passes, :math:`R_x = R_y`, so :math:`g_x = g_y\, y / x`.

    Where :math:`x` is exactly zero none does: no gradient could carry it.

    Returns:
        A rule for functions of one number.

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x.square().sum(-1)
        >>> attrib.lrp(f, composite={"square": identity()})(torch.tensor([2.0, 3.0]))
        tensor([4., 9.])
    """
    return _identity


def gradient() -> Rule:
    """The gradient as it is: for maxima, the winner takes all; for softmax, the Taylor rule of
    AttnLRP.

    Returns:
        A rule for any operation.

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x.square().sum(-1)
        >>> attrib.lrp(f, composite={"square": gradient()})(torch.tensor([2.0, 3.0]))
        tensor([ 8., 18.])
    """
    return _gradient


def uniform() -> Rule:
    r"""Equal parts to the factors of a product, :math:`R_a = R_b = \tfrac12 R_y` for
    :math:`y = a b`.

    Returns:
        A rule for ``"product"``: operations of several tensors that depend on the input.

    References:
        Achtibat, Hatefi, Dreyer, Jain, Wiegand, Lapuschkin & Samek (2024),
        https://arxiv.org/abs/2402.05602

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x[0] * x[1]
        >>> attrib.lrp(f, composite={"product": uniform()})(torch.tensor([2.0, 3.0]))
        tensor([3., 3.])
    """
    return _uniform


def frozen() -> Rule:
    r"""A constant: nothing passes, and what it multiplies becomes a linear map.

    Returns:
        A rule for any operation, in the composite of `attrib.lrp`: the ``"sigmoid"`` of gates, the
        ``"softmax"`` of attention.

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x[0] * torch.exp(x[1])
        >>> attrib.lrp(f, composite={"exp": frozen()})(torch.tensor([2.0, 0.0]))
        tensor([2., 0.])
    """
    return _frozen


def passing(x: Tensor, at: Tensor, value: Tensor, carrier: Carrier) -> Tensor:
    """A value that is a function of ``x``, one entry of the other, and hands on all relevance."""
    small = at.abs() < torch.finfo(at.dtype).tiny
    share = torch.where(small, 0, value / torch.where(small, 1, at))
    return carrier.carried(value, x, share, by=SCALE)


def stops(rule: Rule) -> bool:
    """Whether the result of a rule is a constant."""
    return rule is _frozen


def _identity(call: Call, carrier: Carrier) -> Tensor:
    if len(call.inputs) != 1:
        refuse(call.operation.name)
    (x,) = call.inputs
    call.passed = call.shares[0] if call.shares else None
    if call.operation.name == "relu":
        return call(x)
    at = carrier.frozen(x)
    value = call(at)
    if value.shape != x.shape:
        x, at, call.passed = x.expand_as(value), at.expand_as(value), None
    return passing(x, at, value, carrier)


def _gradient(call: Call, carrier: Carrier) -> Any:
    # An activation may be about to write over its input, which its derivative needs.
    written = call.operation.family in ("activation", "elementwise")
    return call(*(tensor.clone() if written else tensor for tensor in call.inputs))


def _uniform(call: Call, carrier: Carrier) -> Tensor:
    fixed = [carrier.frozen(tensor) for tensor in call.inputs]
    parts = [
        call(*fixed[:place], tensor, *fixed[place + 1 :])
        for place, tensor in enumerate(call.inputs)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return carrier.carried(call(*fixed), total / len(parts))


def _frozen(call: Call, carrier: Carrier) -> Any:
    return call(*(carrier.frozen(tensor) for tensor in call.inputs))
