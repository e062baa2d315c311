"""The multipliers of DeepLift: slopes between an input and a baseline instead of derivatives.

Each rule is exact: the multipliers of the inputs, times their differences from the baseline, add up
to the difference of the result. Products are shared by the mean of the other factor, softmax and
maxima as derived below.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attrib._carriers import Backward, Carrier
from attrib._transforms import concrete
from attrib.rules._flow import Call, refuse

__all__ = [
    "SCALE",
    "crossing",
    "elementwise",
    "maximum",
    "product",
    "rectified",
    "secant",
    "softmax",
]


def _scaled(gradient: Tensor, multiplier: Tensor) -> Tensor:
    return gradient * multiplier


SCALE = Backward(_scaled)

_WITH_INDICES = tuple(
    f"{kind}max_pool{n}d_with_indices" for kind in ("", "adaptive_") for n in (1, 2, 3)
)


def elementwise(call: Call, carrier: Carrier) -> Tensor:
    """A function of one number: the slope of its secant."""
    if len(call.inputs) != 1:
        refuse(call.operation.name)
    x, reference = call.inputs[0], call.references[0]
    at = carrier.frozen(x)
    value = call(at)
    if value.shape != x.shape:
        x, at, reference = (tensor.expand_as(value) for tensor in (x, at, reference))
    return carrier.carried(value, x, secant(call, at, reference, value, carrier), by=SCALE)


def rectified(call: Call, carrier: Carrier) -> Tensor:
    r"""The rectifier: the share of the way from :math:`x'` to :math:`x` that is above zero,
    :math:`\frac{h}{h - l}` with :math:`h = \max(x, x', 0)` and :math:`l = \min(x, x', 0)`."""
    x, reference = call.inputs[0], call.references[0]
    at = carrier.frozen(x)
    value = call(at)
    if carrier.light:
        # The same, written into as few tensors as possible. Differences of rectified numbers are
        # exact; the smallest number makes the derivative of torch out of nothing by nothing.
        least = small(x.dtype)
        rise = call(reference).neg_().add_(value).add_(value.sign(), alpha=least)
        share = rise.div_((at - reference).add_(least))
    else:
        high = torch.maximum(at, reference).clamp(min=0)
        share = _quotient(high, high - torch.minimum(at, reference).clamp(max=0))
    return carrier.carried(value, x, share, by=SCALE)


def small(dtype: torch.dtype) -> float:
    """A number that changes no other by its addition, and has an inverse."""
    return 2.0**-24 if dtype == torch.float16 else torch.finfo(dtype).tiny


def _quotient(above: Tensor, below: Tensor) -> Tensor:
    """Zero where it is divided by zero, with a derivative that is finite."""
    return above / torch.where(below == 0, 1, below)


def secant(call: Call, at: Tensor, reference: Tensor, value: Tensor, carrier: Carrier) -> Tensor:
    """:math:`(f(x) - f(x')) / (x - x')`, without the noise of a difference of nearly equal numbers.

    Where both points are so close that the mean of the derivatives at both ends misses the
    difference by no more than rounding does, that mean takes the place of the quotient. A kink in
    between shows as a difference of the two derivatives.
    """
    step = at - reference
    quotient = (value - call(reference)) / torch.where(step == 0, 1, step)
    precision = torch.finfo(value.dtype).eps
    near = step.abs() <= precision ** (1 / 3) * (1 + at.abs())
    if concrete(near) and not near.any():
        return quotient
    function = _hardsigmoid if call.operation.name == "hardsigmoid" else call
    ends = carrier.slope(function, at), carrier.slope(function, reference.expand_as(at))
    error = (ends[0] - ends[1]).abs() * step.abs()
    smooth = near & (error <= 4 * precision * (1 + value.abs()))
    return torch.where(smooth, (ends[0] + ends[1]) / 2, quotient)


def _hardsigmoid(x: Tensor) -> Tensor:
    """The same, with a second derivative."""
    return (x / 6 + 0.5).clamp(0, 1)


def product(call: Call, carrier: Carrier) -> Tensor:
    r"""Linear in each of two inputs: each is multiplied by the mean of the other,
    :math:`ab - a'b' = \frac{b + b'}{2}(a - a') + \frac{a + a'}{2}(b - b')`."""
    first, second = call.inputs
    a, b = (carrier.frozen(tensor) for tensor in call.inputs)
    a_mean, b_mean = ((t + r) / 2 for t, r in zip((a, b), call.references, strict=True))
    return carrier.carried(call(a, b), call(first, b_mean) + call(a_mean, second))


def maximum(call: Call, carrier: Carrier) -> Any:
    r"""Largest entries: a maximum that rises or falls does so at its own entry.

    With the maxima :math:`y, y'` at the entries :math:`i, j` and :math:`m = \max(y, y')`,
    :math:`y - y' = (m - y') + (y - m)`, of which the first part belongs to :math:`i`, which has
    risen to :math:`m`, and the second to :math:`j`, which has fallen from it.
    """
    x, reference = call.inputs[0], call.references[0]
    at = carrier.frozen(x)
    new, old, value, other, index, other_index = _both(call, carrier, x, reference)
    least = call.operation.name == "amin"
    top = torch.minimum(value, other) if least else torch.maximum(value, other)
    risen = _quotient(top - other, value - _entries(call, reference, index))
    fallen = _quotient(value - top, _entries(call, at, other_index) - other)
    # Where nothing has moved, the derivative.
    unmoved = ((index == other_index) & (value == other)).to(value.dtype)
    return _returned(call, carrier, value, new * (risen + unmoved) + old * fallen, index)


def crossing(call: Call, carrier: Carrier) -> Any:
    r"""Largest entries of inputs that move on a straight line: up to where it is overtaken, a
    maximum is its old entry :math:`j`, then its new entry :math:`i`.

    .. math:: y - y' = (1 - t)(x_i - x_i') + t\,(x_j - x_j'), \qquad
              t = \frac{x_j' - x_i'}{(x_j' - x_i') + (x_i - x_j)}

    Between near points this differs from the integral of the gradient by the square of the
    distance, where `maximum` is off by the distance itself.
    """
    x, reference = call.inputs[0], call.references[0]
    at = carrier.frozen(x)
    new, old, value, other, index, other_index = _both(call, carrier, x, reference)
    ahead = (other - _entries(call, reference, index)).abs()
    behind = (value - _entries(call, at, other_index)).abs()
    share = _quotient(ahead, ahead + behind)
    return _returned(call, carrier, value, new * (1 - share) + old * share, index)


def softmax(call: Call, carrier: Carrier) -> Tensor:
    r"""Softmax, log-softmax and log-sum-exp, by logarithmic means
    :math:`L(a, b) = \frac{a - b}{\log a - \log b}` of :math:`e = \exp(x)` and :math:`S = \sum e`:

    .. math:: \Delta \log S = \sum_j w_j \Delta x_j, \quad w_j = \frac{L(e_j, e_j')}{L(S, S')},
              \qquad \Delta p_i = L(p_i, p_i')\, (\Delta x_i - \Delta \log S).

    No factor is above one, however far the inputs are from those at the baseline.
    """
    x, reference = call.inputs[0], call.references[0]
    at = carrier.frozen(x)
    value = call(at)
    name, dim, keepdim = call.operation.name, *_reduced(call, x)
    if name == "softmin":
        x, at, reference = -x, -at, -reference
    x, at, reference = (t.to(value.dtype) for t in (x, at, reference))
    total, other = (torch.logsumexp(t, dim, keepdim=True) for t in (at, reference))
    # A masked entry is minus infinity at both places, and has no part in anything.
    dead = at.isinf() | reference.isinf()
    x = torch.where(dead, 0, x)
    weight = torch.exp(_log_mean(at, reference) - _log_mean(total, other))
    raised = (torch.where(dead, 0, weight) * x).sum(dim, keepdim=True)
    if name == "logsumexp":
        return carrier.carried(value, raised if keepdim else raised.squeeze(dim))
    if name == "log_softmax":
        return carrier.carried(value, x - raised)
    slope = torch.exp(_log_mean(at - total, reference - other))
    return carrier.carried(value, torch.where(dead, 0, slope) * (x - raised))


def _log_mean(a: Tensor, b: Tensor) -> Tensor:
    """The logarithm of the logarithmic mean of two numbers, given by their logarithms."""
    dead = a.isinf() | b.isinf()
    step = torch.where(dead, 0, a - b).abs()
    size = torch.where(step == 0, 1, step)
    factor = torch.where(step == 0, 0, torch.log(-torch.expm1(-size) / size))
    return torch.where(dead, -torch.inf, torch.maximum(a, b) + factor)


def _reduced(call: Call, x: Tensor) -> tuple[Any, bool]:
    """The dimensions over which a softmax or a maximum is taken, and whether they are kept."""
    args, kwargs = call.args, call.kwargs
    dim = kwargs["dim"] if "dim" in kwargs else args[1] if len(args) > 1 else None
    if dim is None or dim == ():
        dim = tuple(range(x.ndim))
    return dim, bool(kwargs.get("keepdim", args[2] if len(args) > 2 else False))


def _largest(call: Call, x: Tensor) -> tuple[Tensor, Tensor]:
    """The maxima, and where they are."""
    name = call.operation.name
    if name in ("amax", "amin"):
        rows = _rows(call, x)
        found: Any = rows.max(-1) if name == "amax" else rows.min(-1)
    else:
        pool: Any = getattr(F, f"{name}_with_indices")
        found = pool(x, *call.args[1:], **call.kwargs)
    return found[0], found[1]


def _both(
    call: Call, carrier: Carrier, x: Tensor, reference: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The maxima with a gradient to the entries of now and of the baseline, as numbers, and where
    they are."""
    new, index = _largest(call, x)
    old, other_index = _largest(call, carrier.carried(reference, x))
    if carrier.light:
        return new, old, new.detach(), old.detach(), index, other_index
    value, other = _largest(call, carrier.frozen(x))[0], _largest(call, reference)[0]
    return new, old, value, other, index, other_index


def _returned(call: Call, carrier: Carrier, value: Tensor, surrogate: Tensor, index: Tensor) -> Any:
    if call.operation.name in ("amax", "amin"):
        keepdim = _reduced(call, call.inputs[0])[1]
        for place in sorted(_dims(call, call.inputs[0])) if keepdim else []:
            value, surrogate = value.unsqueeze(place), surrogate.unsqueeze(place)
        return carrier.carried(value, surrogate)
    result = carrier.carried(value, surrogate)
    spelling = getattr(call.operation.function, "__name__", "")
    # A compiler calls the function that decides by a flag, where Python has decided already.
    both = spelling in _WITH_INDICES or call.kwargs.get("return_indices", False)
    return (result, index) if both else result


def _entries(call: Call, x: Tensor, index: Tensor) -> Tensor:
    """What stands at the places that `_largest` tells."""
    if call.operation.name in ("amax", "amin"):
        return _rows(call, x).gather(-1, index.unsqueeze(-1)).squeeze(-1)
    spatial = int(call.operation.name[-2])
    return x.flatten(-spatial).gather(-1, index.flatten(-spatial)).reshape(index.shape)


def _rows(call: Call, x: Tensor) -> Tensor:
    dims = _dims(call, x)
    return x.movedim(dims, list(range(-len(dims), 0))).flatten(-len(dims))


def _dims(call: Call, x: Tensor) -> list[int]:
    dim, _ = _reduced(call, x)
    dims: list[int] = [dim] if isinstance(dim, int) else list(dim)
    return [place % x.ndim for place in dims]
