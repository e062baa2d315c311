"""Scores with other derivatives: `override`, and the methods that need nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attrib._batched import inherit
from attrib._carriers import Backward, Carrier, Overridden
from attrib._checks import check_callable, check_choice
from attrib.gradient import saliency
from attrib.rules._flow import Call, Flow, Rule, check_rules, refuse
from attrib.rules._passing import gradient
from attrib.types import Attribute, Score

__all__ = ["DECONVOLUTION", "GUIDED", "deconvolution", "guided_backprop", "override"]


def override(
    f: Score, rules: Mapping[Any, Rule], *, unknown: str = "refuse", decompose: bool = True
) -> Overridden:
    r"""The same score with other derivatives for some operations, in the gradients attrib takes.

    Every spelling of an operation is one: ``F.relu``, ``torch.relu``, ``x.relu_()``, ``nn.ReLU``, a
    module used twice. The value of the score does not change, and whoever differentiates the
    attribution meets true derivatives.

    Args:
        f: Score.
        rules: From the name of an operation (``"relu"``), of a family (``"activation"``,
            ``"elementwise"``, ``"pool"``, ``"softmax"``, ``"norm"``, ``"product"``) or a torch
            function to ``rule(call, carrier)``, which returns the result, usually
            ``carrier.carried(value, surrogate)``: the value, with the derivative of the surrogate.
        unknown: What to do with an operation that is not linear and has no rule: ``"refuse"`` it by
            name, or follow its ``"gradient"``.
        decompose: Take operations without a rule apart into others, where it is known how.

    Returns:
        A score for gradient methods: ``attrib.saliency(override(f, rules))``.

    Raises:
        AttribTypeError: If `rules` is no mapping to functions.
        AttribValueError: At the evaluation, for an operation without a rule.

    Example:
        >>> import torch, attrib
        >>> def twice(call, carrier):
        ...     (x,) = call.inputs
        ...     return carrier.carried(call(carrier.frozen(x)), 2 * x)
        >>> f = lambda x: torch.tanh(x).sum(-1)
        >>> attrib.saliency(attrib.override(f, {"tanh": twice}))(torch.ones(1, 2))
        tensor([[2., 2.]])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_choice(unknown, "unknown", ("refuse", "gradient"))
    return Overridden(f, partial(_flow, check_rules(rules), unknown, decompose))


def _flow(
    rules: Mapping[Any, Rule],
    unknown: str,
    decompose: bool,
    carrier: Carrier,
    variables: list[Tensor],
) -> Flow:
    return Flow(carrier, variables, rules, unknown, decompose)


def guided_backprop(f: Score) -> Attribute:
    r"""Guided backpropagation: the gradient, of which every ReLU passes on only the positive part,
    and only where it is active,

    .. math:: \tilde g_x = \max(\tilde g_y, 0)\, [x > 0].

    A ReLU6, or any other ``hardtanh`` from zero on, is a ReLU that is not active at its upper end
    either. All other activations keep their gradient.

    Args:
        f: Score.

    Returns:
        ``attribute(x, *args)``, a tree like ``x``, in units of the score per unit of ``x``.

    Raises:
        AttribError: As for `attrib.saliency`.

    References:
        Springenberg, Dosovitskiy, Brox & Riedmiller (2015), https://arxiv.org/abs/1412.6806

    Example:
        >>> import torch
        >>> f = lambda x: (torch.relu(x) * torch.tensor([1.0, -1.0])).sum(-1)
        >>> guided_backprop(f)(torch.ones(1, 2))
        tensor([[1., 0.]])
    """
    return _overridden(f, GUIDED)


def deconvolution(f: Score) -> Attribute:
    r"""Deconvolution: the gradient, of which every ReLU passes on the positive part wherever it
    stood itself,

    .. math:: \tilde g_x = \max(\tilde g_y, 0).

    So does a ReLU6, or any other ``hardtanh`` from zero on. All other activations keep their
    gradient.

    Args:
        f: Score.

    Returns:
        ``attribute(x, *args)``, a tree like ``x``, in units of the score per unit of ``x``.

    Raises:
        AttribError: As for `attrib.saliency`.

    References:
        Zeiler & Fergus (2014), https://arxiv.org/abs/1311.2901

    Example:
        >>> import torch
        >>> f = lambda x: (torch.relu(x) * torch.tensor([1.0, -1.0])).sum(-1)
        >>> deconvolution(f)(-torch.ones(1, 2))
        tensor([[1., 0.]])
    """
    return _overridden(f, DECONVOLUTION)


def _overridden(f: Score, rules: Mapping[Any, Rule]) -> Attribute:
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")

    def method(f: Score) -> Attribute:
        return saliency(override(f, rules, unknown="gradient", decompose=False))

    return inherit(f, method)


def _guide(call: Call, carrier: Carrier) -> Tensor:
    (x,) = call.inputs
    # Copies, where a model may write to what a derivative looks at: the result of a ReLU, and the
    # argument of one with an upper end.
    active = call(x if call.operation.name == "relu" else x.clone())
    value = active.detach().clone() if carrier.light else call(carrier.frozen(x))
    return carrier.carried(value, active, by=_RECTIFIED)


def _rectify(call: Call, carrier: Carrier) -> Tensor:
    (x,) = call.inputs
    return carrier.carried(call(carrier.frozen(x)), x, by=_RECTIFIED)


def _from_zero(rule: Rule) -> Rule:
    """A rule for those ``hardtanh`` that are a ReLU with an upper end."""

    def chosen(call: Call, carrier: Carrier) -> Any:
        low = call.args[1] if len(call.args) > 1 else call.kwargs.get("min_val", -1.0)
        return rule(call, carrier) if low == 0 else gradient()(call, carrier)

    return chosen


def _hidden(call: Call, carrier: Carrier) -> Tensor:
    return refuse(call.operation.name)


_RECTIFIED = Backward(torch.relu)

# A recurrent network of ReLUs in one kernel cannot be reached.
_RECURRENT: dict[Any, Rule] = {"rnn_relu": _hidden, "rnn_relu_cell": _hidden}


def _of_rectifiers(rule: Rule) -> dict[Any, Rule]:
    return {"relu": rule, "relu6": rule, "hardtanh": _from_zero(rule), **_RECURRENT}


GUIDED = _of_rectifiers(_guide)
DECONVOLUTION = _of_rectifiers(_rectify)
