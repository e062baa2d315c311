r"""The rules of layer-wise relevance propagation, in the form of gradients.

Relevance is input times gradient, :math:`R = x \cdot g`. A rule says which gradient :math:`g_x` an
operation hands on for the :math:`g_y` that it is given, such that :math:`R_x = x\, g_x` is what the
rule of the literature makes of :math:`R_y = y\, g_y`. For a linear map the true gradient is LRP-0:
what only moves, adds or averages numbers needs no rule.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attrib._carriers import Carrier
from attrib._checks import check_number
from attrib._transforms import concrete
from attrib.errors import AttribValueError
from attrib.rules._flow import Call, Rule, refuse
from attrib.rules._linear_maps import LinearMap, linear_map
from attrib.rules._secants import SCALE

__all__ = [
    "absorbed",
    "absorbing",
    "alpha_beta",
    "direct",
    "epsilon",
    "flat",
    "gamma",
    "norm",
    "w_square",
    "z_box",
    "z_plus",
]


def epsilon(epsilon: float = 1e-6, *, bias: bool = True) -> Rule:
    r"""LRP-:math:`\epsilon`: relevance in proportion to the contributions :math:`x_i w_{ij}`,

    .. math:: R_i = \sum_j \frac{x_i w_{ij}}{y_j + \epsilon \operatorname{sign} y_j} R_j.

    Args:
        epsilon: What small denominators are kept away from zero by; it absorbs relevance. With 0 it
            is LRP-0, the gradient.
        bias: Let the bias keep the share that its part of :math:`y_j` earns; otherwise the inputs
            share that as well: the denominator is :math:`\sum_i x_i w_{ij}`.

    Returns:
        A rule for convolutions, matrix products, and anything else that is linear.

    References:
        Bach, Binder, Montavon, Klauschen, Müller & Samek (2015),
        https://doi.org/10.1371/journal.pone.0130140

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x @ torch.tensor([3.0, 1.0])
        >>> attrib.lrp(f, composite=epsilon(0.0))(torch.tensor([1.0, -2.0])).round(decimals=4)
        tensor([ 3., -2.])
    """
    return partial(_epsilon, check_number(epsilon, "epsilon"), bias)


def norm(epsilon: float = 1e-6) -> Rule:
    r"""LRP-:math:`\epsilon` for sums and averages: ``{"avg_pool2d": norm()}``.

    Without a rule they hand relevance on in the same proportions, with :math:`\epsilon = 0`.

    Args:
        epsilon: As for `epsilon`.

    Returns:
        A rule for operations that are linear in all tensors together.

    Example:
        >>> import torch, attrib
        >>> f = lambda x: torch.nn.functional.avg_pool1d(x, 2).sum((-1, -2))
        >>> attrib.lrp(f, composite={"avg_pool1d": norm(1.0)})(torch.tensor([[[3.0, 1.0]]]))
        tensor([[[1.0000, 0.3333]]])
    """
    return partial(_epsilon, check_number(epsilon, "epsilon"), True)


def gamma(gamma: float = 0.25, epsilon: float = 1e-6, *, bias: bool = True) -> Rule:
    r"""LRP-:math:`\gamma`: contributions that agree with the result count
    :math:`1 + \gamma` times,

    .. math:: R_i = \sum_j \frac{x_i w_{ij} + \gamma (x_i w_{ij})^+}
                                {\sum_k x_k w_{kj} + \gamma (x_k w_{kj})^+} R_j
              \quad\text{where } y_j > 0,

    and the same with :math:`(\cdot)^-` where :math:`y_j < 0`.

    Args:
        gamma: Weight of what agrees.
        epsilon: What small denominators are kept away from zero by.
        bias: As for `epsilon`.

    Returns:
        A rule for convolutions and matrix products.

    References:
        Montavon, Binder, Lapuschkin, Samek & Müller (2019),
        https://doi.org/10.1007/978-3-030-28954-6_10; for inputs of both signs Andéol, Kawakami,
        Wada, Kanamori, Müller & Montavon (2021), https://arxiv.org/abs/2106.09589

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x @ torch.tensor([3.0, 1.0])
        >>> attrib.lrp(f, composite=gamma(1.0))(torch.tensor([1.0, -2.0])).round(decimals=4)
        tensor([ 1.5000, -0.5000])
    """
    numbers = check_number(gamma, "gamma"), check_number(epsilon, "epsilon")
    return partial(_gamma, *numbers, bias)


def alpha_beta(
    alpha: float = 2.0, beta: float = 1.0, epsilon: float = 1e-6, *, bias: bool = True
) -> Rule:
    r"""LRP-:math:`\alpha\beta`: positive and negative contributions separately,

    .. math:: R_i = \sum_j \Bigl(\alpha \frac{(x_i w_{ij})^+}{\sum_k (x_k w_{kj})^+}
                     - \beta \frac{(x_i w_{ij})^-}{\sum_k (x_k w_{kj})^-}\Bigr) R_j,

    where a positive bias belongs to the first sum and a negative one to the second.

    Args:
        alpha: Weight of the positive part, :math:`1 + \beta`.
        beta: Weight of the negative part.
        epsilon: What small denominators are kept away from zero by.
        bias: As for `epsilon`.

    Returns:
        A rule for convolutions and matrix products.

    Raises:
        AttribValueError: If ``alpha - beta`` is not 1.

    References:
        Bach, Binder, Montavon, Klauschen, Müller & Samek (2015),
        https://doi.org/10.1371/journal.pone.0130140

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x @ torch.tensor([3.0, 1.0])
        >>> attrib.lrp(f, composite=alpha_beta(2, 1))(torch.tensor([1.0, -2.0])).round(decimals=4)
        tensor([ 2., -1.])
    """
    alpha, beta = check_number(alpha, "alpha"), check_number(beta, "beta")
    if abs(alpha - beta - 1) > 1e-12:
        raise AttribValueError(
            f"alpha: must be 1 + beta, got alpha={alpha:g} and beta={beta:g}; relevance would not "
            "be conserved",
            code="alpha.range",
        )
    return partial(_alpha_beta, alpha, beta, check_number(epsilon, "epsilon"), bias)


def z_plus(epsilon: float = 1e-6, *, bias: bool = True) -> Rule:
    r"""The :math:`z^+` rule: relevance in proportion to the positive contributions,
    `alpha_beta` with :math:`\alpha = 1, \beta = 0`.

    Args:
        epsilon: What small denominators are kept away from zero by.
        bias: As for `epsilon`.

    Returns:
        A rule for convolutions and matrix products.

    References:
        Montavon, Lapuschkin, Binder, Samek & Müller (2017), https://arxiv.org/abs/1512.02479

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x @ torch.tensor([3.0, -1.0])
        >>> attrib.lrp(f, composite=z_plus())(torch.tensor([1.0, 2.0])).round(decimals=4)
        tensor([1., 0.])
    """
    return partial(_alpha_beta, 1.0, 0.0, check_number(epsilon, "epsilon"), bias)


def w_square() -> Rule:
    r"""The :math:`w^2` rule, whatever the input is,

    .. math:: R_i = \sum_j \frac{w_{ij}^2}{\sum_k w_{kj}^2} R_j.

    Returns:
        A rule for convolutions and matrix products, usually the first.

    References:
        Montavon, Lapuschkin, Binder, Samek & Müller (2017), https://arxiv.org/abs/1512.02479

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x @ torch.tensor([3.0, 1.0])
        >>> attrib.lrp(f, composite=w_square())(torch.tensor([1.0, -2.0])).round(decimals=4)
        tensor([0.9000, 0.1000])
    """
    return partial(_direct, torch.square)


def flat() -> Rule:
    r"""Relevance in equal parts to all inputs that an output sees,

    .. math:: R_i = \sum_j \frac{1}{\sum_k 1} R_j.

    Returns:
        A rule for convolutions and matrix products, usually the first.

    References:
        Lapuschkin, Wäldchen, Binder, Montavon, Samek & Müller (2019),
        https://arxiv.org/abs/1902.10178

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x @ torch.tensor([3.0, 1.0])
        >>> attrib.lrp(f, composite=flat())(torch.tensor([1.0, -2.0])).round(decimals=4)
        tensor([0.5000, 0.5000])
    """
    return partial(_direct, torch.ones_like)


def z_box(low: float | Tensor, high: float | Tensor, epsilon: float = 1e-6) -> Rule:
    r"""The :math:`z^B` rule, for inputs between :math:`l_i \le 0` and :math:`h_i \ge 0`,

    .. math:: R_i = \sum_j \frac{x_i w_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-}
                                {\sum_k x_k w_{kj} - l_k w_{kj}^+ - h_k w_{kj}^-} R_j.

    Args:
        low: The smallest value an input can have; a tensor broadcasts to what the operation gets.
        high: The largest.
        epsilon: What small denominators are kept away from zero by.

    Returns:
        A rule for convolutions and matrix products, usually the first.

    Raises:
        AttribTypeError: If a bound is neither a number nor a tensor.

    References:
        Montavon, Lapuschkin, Binder, Samek & Müller (2017), https://arxiv.org/abs/1512.02479

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x @ torch.tensor([3.0, 1.0])
        >>> attrib.lrp(f, composite=z_box(-2.0, 2.0))(torch.tensor([1.0, -2.0])).round(decimals=4)
        tensor([1., 0.])
    """
    for name, bound in (("low", low), ("high", high)):
        if not isinstance(bound, Tensor):
            check_number(bound, name, least=-float("inf"))
    return partial(_box, low, high, check_number(epsilon, "epsilon"))


def absorbed(y: Tensor, epsilon: float, carrier: Carrier) -> Tensor:
    """What it is given, whose gradient is true but for what an epsilon absorbs."""
    if epsilon == 0:
        return y
    value = carrier.frozen(y)
    size = value.abs()
    return carrier.carried(value, y, size / (size + epsilon), by=SCALE)


def absorbing(rule: Rule) -> float | None:
    """The epsilon of a rule that is the gradient but for what it absorbs; ``None`` of others."""
    if isinstance(rule, partial) and rule.func is _epsilon and rule.args[1]:
        return rule.args[0]
    return None


def direct(rule: Rule) -> bool:
    """Whether a rule gives relevance to inputs that are zero, which no gradient can."""
    return isinstance(rule, partial) and rule.func in (_direct, _box)


def _epsilon(epsilon: float, bias: bool, call: Call, carrier: Carrier) -> Tensor:
    y = call(*call.inputs)
    if bias:
        # The call is remembered on its result, which must not be kept by it in turn.
        call.plain = y if epsilon > 0 else None
        return absorbed(y, epsilon, carrier)
    value, layer = carrier.frozen(y), _layer(call)
    z = y if layer.bias is None else layer.apply(layer.x, layer.weight, None)
    share = _ratio(value, carrier.frozen(z), epsilon)
    return carrier.carried(value, z, share, by=SCALE)


def _gamma(gamma: float, epsilon: float, bias: bool, call: Call, carrier: Carrier) -> Tensor:
    layer = _layer(call)
    value = _value(layer, carrier)
    positive = layer.weight + gamma * layer.weight.clamp(min=0)
    negative = layer.weight + gamma * layer.weight.clamp(max=0)
    b = layer.bias if bias else None
    raised = None if b is None else b + gamma * torch.where(b > 0, b, 0)
    lowered = None if b is None else b + gamma * torch.where(b < 0, b, 0)
    up = _by_sign(layer, positive, negative, raised, carrier)
    down = _by_sign(layer, negative, positive, lowered, carrier)
    rising = _ratio(torch.relu(value), carrier.frozen(up), epsilon)
    falling = _ratio(-torch.relu(-value), carrier.frozen(down), epsilon)
    return carrier.carried(value, up * rising + down * falling)


def _alpha_beta(
    alpha: float, beta: float, epsilon: float, bias: bool, call: Call, carrier: Carrier
) -> Tensor:
    layer = _layer(call)
    value = _value(layer, carrier)
    positive, negative = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
    b = layer.bias if bias else None
    gain = None if b is None else torch.where(b > 0, b, 0)
    up = _by_sign(layer, positive, negative, gain, carrier)
    surrogate = up * (alpha * _ratio(value, carrier.frozen(up), epsilon))
    if beta > 0:
        loss = None if b is None else torch.where(b < 0, b, 0)
        down = _by_sign(layer, negative, positive, loss, carrier)
        surrogate = surrogate - down * (beta * _ratio(value, carrier.frozen(down), epsilon))
    return carrier.carried(value, surrogate)


def _direct(strength: Callable[[Tensor], Tensor], call: Call, carrier: Carrier) -> Tensor:
    layer = _layer(call)
    value, at = _value(layer, carrier), carrier.frozen(layer.x)
    weight = strength(layer.weight)
    total = layer.apply(torch.ones_like(at), weight, None)
    # What an output hands on is `passed` times its relevance, value times gradient. The value is
    # recorded for that, and the model may write over what it gets.
    passed = layer.apply(_share(call, layer, at), weight, None) * _ratio(1, total, 0)
    call.passed = passed
    return carrier.carried(value.clone(), passed * value)


def _box(
    low: float | Tensor, high: float | Tensor, epsilon: float, call: Call, carrier: Carrier
) -> Tensor:
    layer = _layer(call)
    value, at = _value(layer, carrier), carrier.frozen(layer.x)
    least, most = (
        bound.expand_as(at) if isinstance(bound, Tensor) else torch.full_like(at, bound)
        for bound in (low, high)
    )
    share = _share(call, layer, at)
    positive, negative = layer.weight.clamp(min=0), layer.weight.clamp(max=0)

    def excess(by: Tensor | float) -> Tensor:
        above = layer.apply(by * at, layer.weight, None) - layer.apply(by * least, positive, None)
        return above - layer.apply(by * most, negative, None)

    passed = excess(share) * _ratio(1, excess(1.0), epsilon)
    call.passed = passed
    return carrier.carried(value.clone(), passed * value)


def _layer(call: Call) -> LinearMap:
    return linear_map(call) or refuse(call.operation.name)


def _value(layer: LinearMap, carrier: Carrier) -> Tensor:
    """The true result, a constant at our level."""
    bias = None if layer.bias is None else carrier.frozen(layer.bias)
    return layer.apply(carrier.frozen(layer.x), layer.weight, bias)


def _by_sign(
    layer: LinearMap, above: Tensor, below: Tensor, bias: Tensor | None, carrier: Carrier
) -> Tensor:
    """One weight for the positive inputs and another for the negative ones."""
    at = carrier.frozen(layer.x)
    result = layer.apply(torch.relu(layer.x), above, bias)
    if concrete(at) and not (at < 0).any():
        return result
    return result + layer.apply(-torch.relu(-layer.x), below, None)


def _share(call: Call, layer: LinearMap, at: Tensor) -> Tensor:
    """What carries relevance to the input: its derivative is that of the relevance itself.

    Deep in a model it is the input, each entry divided by itself; zeros then get nothing.
    """
    for tensor, share in zip(call.inputs, call.shares, strict=False):
        if tensor is layer.x and share is not None:
            return share
    return layer.x * _ratio(1, at, 0)


def _ratio(part: Any, whole: Tensor, epsilon: float) -> Tensor:
    """A quotient whose denominator is moved away from zero, and 0 where that is zero still."""
    # Arithmetic, where a CPU takes ten times as long for conditions.
    sign = whole.sign()
    if epsilon > 0:
        return part / torch.add(whole, (sign + 0.5).sign(), alpha=epsilon)
    some = sign.abs()
    return part / (whole + (1 - some)) * some
