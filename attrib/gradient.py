"""Gradients of scores, and the attributions that are one gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attrib._batched import inherit
from attrib._checks import check_callable, check_finite, check_input, check_score
from attrib._transforms import depends, differentiated_outside, vjp
from attrib._tree import differentiable, flatten, put, tree_map, unflatten
from attrib.errors import AttribValueError
from attrib.types import Attribute, Score, Tree

__all__ = ["grad_and_score", "input_x_gradient", "saliency", "score_of"]


def grad_and_score(f: Score) -> Callable[..., tuple[Tree, Tensor]]:
    r"""Gradient of every example's own score, :math:`\partial f / \partial x_i`, and the score.

    What `torch.func.grad_and_value` is to one example, this is to a batch: examples do not
    interact, so one backward pass of ones serves them all. Derivatives of any order are exact, with
    respect to ``x``, to ``args`` and to what `f` closes over; under `torch.no_grad` nothing is
    recorded for them.

    Args:
        f: Score.

    Returns:
        ``call(x, *args) -> (gradient, score)``: a tree like ``x`` and ``(*batch,)``. The place of
        an integer leaf holds ``None``; a leaf that the score does not use gets zeros.

    Raises:
        AttribTypeError: If ``x`` is not a tree of dense real tensors with a floating-point leaf, or
            the score is not a floating-point tensor.
        AttribValueError: If the score is not one number per example, or depends on no leaf of
            ``x``.

    Warns:
        NonFiniteWarning: If a score is NaN or infinite; the gradient of its example is NaN.

    Example:
        >>> import torch
        >>> grad_and_score(lambda x: x.square().sum(-1))(torch.tensor([[1.0, 2.0]]))
        (tensor([[2., 4.]]), tensor([5.]))
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    return inherit(f, _grad_and_score)


def saliency(f: Score) -> Attribute:
    r"""Gradient of the score, :math:`\partial f / \partial x_i`.

    Signed; for the map of the paper take absolute values, and for images the maximum over channels.

    Args:
        f: Score.

    Returns:
        ``attribute(x, *args)``, a tree like ``x``, in units of the score per unit of ``x``.

    Raises:
        AttribError: As for `grad_and_score`.

    References:
        Simonyan, Vedaldi & Zisserman (2014), https://arxiv.org/abs/1312.6034

    Example:
        >>> import torch
        >>> saliency(lambda x: x.square().sum(-1))(torch.tensor([[1.0, 2.0]]))
        tensor([[2., 4.]])
    """

    def method(f: Score) -> Attribute:
        gradient = grad_and_score(f)
        return lambda x, *args: gradient(x, *args)[0]

    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    return inherit(f, method)


def input_x_gradient(f: Score) -> Attribute:
    r"""Input times gradient, :math:`x_i\, \partial f / \partial x_i`.

    Args:
        f: Score.

    Returns:
        ``attribute(x, *args)``, a tree like ``x``, in units of the score.

    Raises:
        AttribError: As for `grad_and_score`.

    References:
        Shrikumar, Greenside, Shcherbina & Kundaje (2016), https://arxiv.org/abs/1605.01713

    Example:
        >>> import torch
        >>> input_x_gradient(lambda x: x.square().sum(-1))(torch.tensor([[1.0, 2.0]]))
        tensor([[2., 8.]])
    """

    def method(f: Score) -> Attribute:
        gradient = grad_and_score(f)
        return lambda x, *args: tree_map(torch.mul, gradient(x, *args)[0], x)

    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    return inherit(f, method)


def score_of(f: Score) -> Score:
    """The score itself, checked, and evaluated on a copy of ``x`` that the model may write to."""

    def method(f: Score) -> Score:
        def score(x: Tree, *args: Any) -> Tensor:
            result = f(tree_map(Tensor.clone, x), *args)
            check_score(result, x)
            return result

        return score

    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    return inherit(f, method)


def _grad_and_score(f: Score) -> Callable[..., tuple[Tree, Tensor]]:
    def call(x: Tree, *args: Any) -> tuple[Tree, Tensor]:
        check_input(x)
        parts, spec = flatten(x)
        places = [place for place, part in enumerate(parts) if differentiable(part)]

        def score_at(variables: tuple[Tensor, ...]) -> Tensor:
            # Copies: a model that writes to its argument writes to ours, and a tensor that
            # appears twice in x has two separate derivatives.
            own = [None if part is None else part.clone() for part in put(parts, places, variables)]
            score = f(unflatten(spec, own), *args)
            check_score(score, x)
            return score

        compute = _by_transform if differentiated_outside() else _by_autograd
        gradients, score = compute(score_at, tuple(parts[place] for place in places))
        gradients = check_finite(gradients, score)
        return unflatten(spec, put([None] * len(parts), places, gradients)), score

    return call


def _by_autograd(
    score_at: Callable[..., Tensor], values: tuple[Tensor, ...]
) -> tuple[list[Tensor], Tensor]:
    """Plain autograd: least overhead, and at home with hooks, checkpoints and old functions."""
    with torch.enable_grad():
        variables = tuple(value.detach().requires_grad_() for value in values)
        score = score_at(variables)
    if not score.requires_grad:
        _refuse_independent()
    ones = torch.ones_like(score)
    gradients: tuple[Any, ...] = torch.autograd.grad(score, variables, ones, allow_unused=True)
    if all(gradient is None for gradient in gradients):
        _refuse_independent()
    return [_beside(v, g) for v, g in zip(values, gradients, strict=True)], score.detach()


def _by_transform(
    score_at: Callable[..., Tensor], values: tuple[Tensor, ...]
) -> tuple[list[Tensor], Tensor]:
    """`torch.func`: exact derivatives of the result, inside any transform or compiler."""

    def checked(*variables: Tensor) -> Tensor:
        score = score_at(variables)
        # torch.func would answer with zeros.
        if not depends(score):
            _refuse_independent()
        return score

    score, pullback = vjp(checked, *values)
    # Recorded only when gradients are enabled, unlike in torch.func.grad: under torch.no_grad
    # memory and time are those of a plain backward pass.
    gradients = pullback(torch.ones_like(score), retain_graph=torch.is_grad_enabled())
    return list(gradients), score


def _beside(value: Tensor, gradient: Tensor | None) -> Tensor:
    """A gradient in memory like its value, whatever layout the model worked in."""
    if gradient is None:
        return torch.zeros_like(value)
    return gradient.contiguous() if value.is_contiguous() else gradient


def _refuse_independent() -> None:
    raise AttribValueError(
        "f: the score does not depend on x, got a result without a gradient; look for detach(), "
        "torch.no_grad(), .item() or .data inside of the model, or for an x that it does not use",
        code="score.independent",
    )
