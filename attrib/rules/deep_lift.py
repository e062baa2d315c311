"""DeepLift: what the difference of a score from its value at a baseline owes to each input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attrib._batched import inherit
from attrib._carriers import Carrier, Overridden
from attrib._checks import (
    check_baseline,
    check_callable,
    check_choice,
    check_finite,
    check_input,
    check_score,
)
from attrib._transforms import compiling, concrete
from attrib._tree import copied, differentiable, flatten, leaves, tree_map, unflatten
from attrib.errors import add_note
from attrib.gradient import grad_and_score
from attrib.rules._cancel import Revealing
from attrib.rules._flow import Rule, check_rules
from attrib.rules._references import OtherPathError, Recording, References, Replaying
from attrib.rules._repeats import Repeats, repeats
from attrib.rules._rows import UntoldRowsError, if_rows_are_told
from attrib.rules._secants import elementwise, maximum, product, rectified, softmax
from attrib.rules._sums import adds_up, check_sum
from attrib.types import Attribute, Score, Tree

__all__ = ["deep_lift"]

RESCALE: dict[Any, Rule] = {
    "relu": rectified,
    "activation": elementwise,
    "elementwise": elementwise,
    "pool": maximum,
    "softmax": softmax,
    "product": product,
}


def deep_lift(
    f: Score,
    *,
    rule: str = "rescale",
    multiply: bool = True,
    rules: Mapping[Any, Rule] | None = None,
    unknown: str = "refuse",
) -> Attribute:
    r"""DeepLift: the difference of the score from its value at a baseline, handed back operation by
    operation,

    .. math:: \phi_i = m_i\, (x_i - x'_i), \qquad \sum_i \phi_i = f(x) - f(x').

    The multiplier :math:`m_i` is the derivative of the score in which every operation that is not
    linear passes on a slope between baseline and input instead of its derivative. A function
    :math:`y = g(z)` of one number passes on :math:`\frac{g(z) - g(z')}{z - z'}`; products, maxima
    and softmax have rules that are as exact, and norms and attention are taken apart into those. It
    does not matter how the model is written: as modules or functions, in place, or used twice.
    For a score with one layer of such functions it is integrated gradients.

    Args:
        f: Score.
        rule: ``"rescale"``, or ``"reveal-cancel"``, by which what raises ``z`` and what lowers it
            reach ``g`` apart from one another, in the mean of both orders:

            .. math:: m^\pm = \frac{1}{2 \Delta z^\pm} \big(g(z' + \Delta z^\pm) - g(z') +
                      g(z) - g(z' + \Delta z^\mp)\big).

            The two parts come out of linear layers and of sums, and last through moves of entries
            and eval-mode batch norm. Products, maxima and softmax keep their rules. It takes about
            five times as long, and its multipliers depend on signs of differences: they jump where
            one changes.
        multiply: Multiply by ``x - baseline``. Without it, the multipliers.
        rules: Rules for operations that attrib does not know, or instead of its own, as for
            `attrib.override`; ``call.references`` holds the inputs of the call at the baseline.
        unknown: What to do with an operation that is not linear and has no rule: ``"refuse"`` it by
            name, or follow its ``"gradient"``; the attributions then no longer add up.

    Returns:
        ``attribute(x, baseline=0, *args)``, a tree like ``x``, in units of the score; the
        multipliers in units of the score per unit of ``x``. ``baseline`` is a tree like ``x``, a
        tensor that broadcasts to it, or a number. Its average over a set of baselines,
        ``attrib.expected(deep_lift(f))(x, baselines)``, is DeepLiftShap.

    Raises:
        AttribTypeError: If `rules` is no mapping to functions, or the score calls a model that
            `torch.compile` has compiled.
        AttribValueError: If the score computes something else at ``x`` than at the baseline, or
            uses an operation without a rule.
        AttribError: As for `attrib.grad_and_score`.

    References:
        Shrikumar, Greenside & Kundaje (2017), https://arxiv.org/abs/1704.02685

        Ancona, Ceolini, Oztireli & Gross (2018), rescale as a changed derivative,
        https://arxiv.org/abs/1711.06104

    Example:
        >>> import torch
        >>> difference = torch.tensor([[1.0, -1.0]])
        >>> f = lambda x: x[..., 0] - torch.relu(x @ difference.T).squeeze(-1)  # the minimum
        >>> x = torch.tensor([[3.0, 4.0], [4.0, 3.0]])
        >>> deep_lift(f)(x)
        tensor([[3., 0.],
                [0., 3.]])
        >>> deep_lift(f, rule="reveal-cancel")(x)
        tensor([[1.5000, 1.5000],
                [1.5000, 1.5000]])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_choice(rule, "rule", ("rescale", "reveal-cancel"))
    check_choice(unknown, "unknown", ("refuse", "gradient"))
    table = {**RESCALE, **check_rules(rules or {})}

    def method(f: Score) -> Attribute:
        multipliers = partial(_multipliers, f, table, unknown, rule == "reveal-cancel")
        shared = [True]

        def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
            check_input(x)
            start = tree_map(
                lambda a, b: b.expand_as(a) if differentiable(a) else a,
                x,
                check_baseline(baseline, x),
            )
            # Rules of one's own, and gradients, owe nobody a sum.
            exact = not rules and unknown == "refuse"
            found = None
            repeated = repeats(f, start, args) if exact and rule == "rescale" and shared else None
            if repeated is not None:
                found = if_rows_are_told(lambda: _told(multipliers, x, start, args, repeated))
                if found is None:
                    shared.clear()  # not worth another try
            if found is None:
                try:
                    found, *scores = multipliers(x, start, args)
                except OtherPathError:
                    if compiling():
                        raise
                    # Once more: a model that was called twice at first has settled by now.
                    found, *scores = multipliers(x, start, args)
                if exact and concrete(scores[0]):
                    check_sum(_times(found, x, start), *scores)
            return _times(found, x, start) if multiply else found

        return attribute

    return inherit(f, method)


def _told(
    multipliers: Callable[..., tuple[Tree, Tensor, Tensor]],
    x: Tree,
    start: Tree,
    args: tuple[Any, ...],
    repeated: Repeats,
) -> Tree:
    """The multipliers, with the baseline evaluated once for all examples that share it."""
    try:
        found, *scores = multipliers(x, start, args, repeated)
    except OtherPathError as error:
        raise UntoldRowsError from error
    if not adds_up(_times(found, x, start), *scores):
        raise UntoldRowsError
    return found


def _multipliers(
    f: Score,
    rules: Mapping[Any, Rule],
    unknown: str,
    reveal: bool,
    x: Tree,
    start: Tree,
    args: tuple[Any, ...],
    repeated: Repeats | None = None,
) -> tuple[Tree, Tensor, Tensor]:
    references = References(repeated)
    at_baseline, given = f, (start, *args)
    if repeated is not None:
        at_baseline, given = repeated.score(f), repeated.shortened(given)
    own, *others = (copied(tree) for tree in given)
    variables = [leaf for leaf in leaves(own) if leaf is not None]
    starts = [leaf for leaf in leaves(start) if leaf is not None]

    def flow(carrier: Carrier, variables: list[Tensor]) -> Replaying:
        if reveal:
            return Revealing(carrier, variables, rules, unknown, references, starts)
        return Replaying(carrier, variables, rules, unknown, references)

    try:
        with torch.enable_grad(), Recording(variables, rules, unknown, references):
            score = _at_baseline(at_baseline, own, others)
        multipliers, reached = grad_and_score(Overridden(f, flow))(x, *args)
        references.finish()
    finally:
        references.clear()
    score = score if repeated is None else score[repeated.run]
    parts, spec = flatten(multipliers)
    found = iter(check_finite([part for part in parts if part is not None], score))
    whole = unflatten(spec, [None if part is None else next(found) for part in parts])
    return whole, reached, score


def _times(multipliers: Tree, x: Tree, start: Tree) -> Tree:
    return tree_map(lambda m, a, b: m * (a - b), multipliers, x, start)


def _at_baseline(f: Score, start: Tree, args: list[Any]) -> Tensor:
    try:
        score = f(start, *args)
    except Exception as error:
        add_note(error, "attrib was evaluating the score at the baseline")
        raise
    check_score(score, start)
    return score
