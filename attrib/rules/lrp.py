"""Layer-wise relevance propagation, for any model that is made of torch operations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attrib._batched import inherit
from attrib._carriers import Carrier, Overridden
from attrib._checks import check_callable, check_choice, check_input
from attrib._tree import differentiable, tree_map
from attrib.gradient import grad_and_score
from attrib.rules._flow import Rule, check_rules
from attrib.rules._relevance import direct, epsilon
from attrib.rules._relevance_flow import Relevance
from attrib.rules.composites import Table, check_composite, excitation
from attrib.types import Attribute, Score, Tree

__all__ = ["excitation_backprop", "lrp"]


def lrp(
    f: Score,
    *,
    composite: Mapping[Any, Rule] | Rule | None = None,
    rules: Mapping[Any, Rule] | None = None,
    unknown: str = "refuse",
) -> Attribute:
    r"""Layer-wise relevance propagation: the score, handed back from operation to operation, by the
    rule of each, until it has arrived at the inputs.

    Written as input times gradient, :math:`R_i = x_i\, g_i`, with rules for :math:`g`: whatever
    moves, adds or averages numbers needs none, and residual connections share in proportion. The
    model stays as it is, however it is written.

    - Biases keep what they contribute: :math:`\sum_i R_i` is the score less the shares of the
      biases (and of additive constants, such as embeddings of positions). Rules with
      ``bias=False`` hand it to the inputs.
    - Batch norm that follows a convolution or a dense layer directly is merged with it, as if the
      model had one layer with the weights of both. Elsewhere it is followed by its gradient, where
      its shift keeps a share as a bias does.
    - Layer, RMS, group and instance norm have constant normalisers; quotients, constant
      denominators. Activations and other functions of one number pass all relevance, maxima all of
      it to the winner, softmax follows its gradient, and the factors of a product get equal parts.

    Args:
        f: Score; a logit rather than a probability.
        composite: Which rule each operation follows. A mapping, whose keys are names of operations
            (``"conv2d"``) or families (``"conv"``, ``"linear"``, ``"activation"``,
            ``"elementwise"``, ``"pool"``, ``"softmax"``, ``"product"``), torch functions, modules
            (whatever uses a weight of theirs), or positions: 0 is the first operation with a
            weight that is called, 1 the second. Torch functions go before modules, these before
            positions, these before names, these before families. What it leaves out follows the
            rules above, and LRP-:math:`\epsilon` if it has a weight. One rule alone is that of
            everything with a weight.
        rules: More rules by name, for operations that are not known.
        unknown: What to do with an operation that is not linear and has no rule: ``"refuse"`` it by
            name, or follow its ``"gradient"``.

    Returns:
        ``attribute(x, *args)``, a tree like ``x``, in units of the score.

    Raises:
        AttribTypeError: If the composite is no mapping from operations to rules.
        AttribValueError: If it names an operation that does not exist; at the evaluation, for an
            operation without a rule.
        AttribError: As for `attrib.saliency`.

    References:
        Bach, Binder, Montavon, Klauschen, Müller & Samek (2015),
        https://doi.org/10.1371/journal.pone.0130140

    Example:
        >>> import torch, attrib
        >>> layer = torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.constant_(layer.weight, 2.0)
        >>> x = torch.tensor([[1.0, 3.0]])
        >>> attrib.lrp(attrib.target(layer, 0), composite=attrib.rules.epsilon(0.0))(x)
        tensor([[2., 6.]]...)
        >>> attrib.lrp(attrib.target(layer, 0), composite={0: attrib.rules.flat()})(x)
        tensor([[4., 4.]]...)
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_choice(unknown, "unknown", ("refuse", "gradient"))
    if composite is None:
        composite = epsilon()
    if callable(composite):
        composite = {"conv": composite, "linear": composite}
    table = check_composite(composite, check_rules(rules or {}))
    return inherit(f, partial(_relevance, table, unknown, False))


def excitation_backprop(f: Score, *, unknown: str = "refuse") -> Attribute:
    r"""Excitation backpropagation: the probability that a walk from the output down to the input,
    which at every neuron goes on along its positive contributions, ends at an input,

    .. math:: P_i = \sum_j \frac{(x_i w_{ij})^+}{\sum_k (x_k w_{kj})^+} P_j.

    It starts with probability one at the output, whatever that is. Where a neuron has no positive
    contribution at all, the walk ends, and so do walks along constants that the model adds; else
    probabilities sum to one.

    Args:
        f: Score, one output of a model.
        unknown: As for `lrp`.

    Returns:
        ``attribute(x, *args)``, a tree like ``x`` of probabilities; zeros where the score is zero.

    Raises:
        AttribError: As for `lrp`.

    References:
        Zhang, Lin, Brandt, Shen & Sclaroff (2016), https://arxiv.org/abs/1608.00507

    Example:
        >>> import torch, attrib
        >>> layer = torch.nn.Linear(2, 1)
        >>> _ = torch.nn.init.constant_(layer.weight, 2.0)
        >>> excitation_backprop(attrib.target(layer, 0))(torch.tensor([[1.0, 3.0]]))
        tensor([[0.2500, 0.7500]]...)
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_choice(unknown, "unknown", ("refuse", "gradient"))
    return inherit(f, partial(_relevance, check_composite(excitation(), {}), unknown, True))


def _relevance(table: Table, unknown: str, per_score: bool, f: Score) -> Attribute:
    beside = any(map(direct, table.all()))

    def flow(carrier: Carrier, variables: list[Tensor]) -> Relevance:
        real = [variable for variable in variables if differentiable(variable)]
        half = len(real) // 2 if beside else len(real)
        return Relevance(carrier, real[:half], real[half:], table, unknown)

    gradient = grad_and_score(Overridden(_first(f) if beside else f, flow))

    def attribute(x: Tree, *args: Any) -> Tree:
        check_input(x)
        if beside:
            zeros = tree_map(lambda a: torch.zeros_like(a) if differentiable(a) else None, x)
            (gradients, shares), score = gradient((x, zeros), *args)
            relevance = tree_map(lambda g, r, a: g * a.clone() + r, gradients, shares, x)
        else:
            gradients, score = gradient(x, *args)
            relevance = tree_map(lambda g, a: g * a.clone(), gradients, x)
        if not per_score:
            return relevance
        return tree_map(lambda r: _per(r, score), relevance)

    return attribute


def _first(f: Score) -> Score:
    """The score of the first of two trees."""
    return lambda pair, *args: f(pair[0], *args)


def _per(relevance: Tensor, score: Tensor) -> Tensor:
    whole = score.reshape(score.shape + (1,) * (relevance.ndim - score.ndim))
    return torch.where(whole == 0, 0, relevance / torch.where(whole == 0, 1, whole))
