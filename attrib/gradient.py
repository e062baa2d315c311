"""Gradients of scores, and the attributions that are one gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor

from attrib._batched import Batched, inherit
from attrib._carriers import Carrier, Overridden, Plain, Token
from attrib._checks import check_callable, check_finite, check_input, check_score
from attrib._transforms import (
    compiling,
    depends,
    only_mapped,
    transforming,
    vjp,
)
from attrib._tree import copied, differentiable, flatten, leaves, put, tree_map, unflatten
from attrib.errors import AttribValueError, add_note
from attrib.types import Attribute, Score, Tree

__all__ = ["grad_and_score", "input_x_gradient", "refuse_independent", "saliency", "score_of"]


def grad_and_score(f: Score) -> Callable[..., tuple[Tree, Tensor]]:
    r"""Gradient of every example's own score, :math:`\partial f / \partial x_i`, and the score.

    What `torch.func.grad_and_value` is to one example, this is to a batch: examples do not
    interact, so one backward pass of ones serves them all. Derivatives of any order are exact, with
    respect to ``x``, to ``args`` and to what `f` closes over, as far as torch differentiates what
    `f` does (for it, the gradient of a function marked as ``once_differentiable`` is a constant);
    under `torch.no_grad` nothing is recorded for them.

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
        gradient = _grad_and_score(f)
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
        gradient = _grad_and_score(f)
        return lambda x, *args: tree_map(lambda g, a: g * _normal(a), gradient(x, *args)[0], x)

    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    return inherit(f, method)


def score_of(f: Score, *, own: bool = False) -> Score:
    """The score itself, checked, and evaluated on a copy of ``x`` that the model may write to,
    unless the ``x`` it is called with is our own."""

    def method(f: Score) -> Score:
        def score(x: Tree, *args: Any) -> Tensor:
            try:
                result = f(x if own else tree_map(Tensor.clone, x), *copied(args))
            except Exception as error:
                add_note(error, "attrib was evaluating the score")
                raise
            check_score(result, x)
            return result

        return score

    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    return inherit(f.score if isinstance(f, Overridden) else f, method)


def _grad_and_score(f: Score) -> Callable[..., tuple[Tree, Tensor]]:
    flow = f.flow if isinstance(f, Overridden) else None
    inner = f.score if isinstance(f, Overridden) else f

    def call(x: Tree, *args: Any) -> tuple[Tree, Tensor]:
        check_input(x)
        parts, spec = flatten(x)
        places = [place for place, part in enumerate(parts) if differentiable(part)]
        values = tuple(parts[place] for place in places)

        def evaluated(function: Callable[[Tree], Any], variables: Any, carrier: Carrier) -> Any:
            # Copies: a model that writes to its argument writes to ours, and a tensor that
            # appears twice in x has two separate derivatives.
            own = [None if part is None else part.clone() for part in put(parts, places, variables)]
            if flow is None:
                return function(unflatten(spec, own))
            watching: Any = flow(carrier, [leaf for leaf in own if leaf is not None])
            with watching:
                result = function(unflatten(spec, own))
            if not compiling():
                watching.seen(result)
            return result

        def score_at(variables: tuple[Tensor, ...], carrier: Carrier) -> Tensor:
            score = evaluated(lambda x: inner(x, *copied(args)), variables, carrier)
            check_score(score, x)
            return score

        choice = inner.choice if isinstance(inner, Batched) else None
        if choice is not None and only_mapped(choice.position, [*parts, *leaves(args)]):
            length = inner.rows.length if isinstance(inner, Batched) else None

            def scores_at(
                variables: tuple[Tensor, ...], carrier: Carrier, positions: list[int]
            ) -> list[Tensor]:
                def scores(x: Tree) -> list[Tensor]:
                    shared = choice.outputs(x, copied(args))
                    return [choice.select(shared, place, x, length) for place in positions]

                found = evaluated(scores, variables, carrier)
                check_score(found[0], x)
                return found

            together = partial(_several, scores_at, values)
            score, *gradients = _for_each(together, choice.position)
        else:
            compute = _by_transform if transforming() else _by_autograd
            score, *gradients = compute(score_at, values)
        return unflatten(spec, put([None] * len(parts), places, gradients)), score

    return call


def _by_autograd(
    score_at: Callable[[Any, Carrier], Tensor], values: tuple[Tensor, ...]
) -> list[Tensor]:
    """Plain autograd: least overhead, and at home with hooks, checkpoints and old functions."""
    carrier = Plain(light=not torch.is_grad_enabled())
    with torch.enable_grad():
        variables = tuple(_variable(value, carrier) for value in values)
        score = score_at(variables, carrier)
        total = score.sum()
    if not (carrier.light or carrier.changed):
        # Of a frozen model nobody can ask for more.
        carrier.light = _closed([score], [*variables, *carrier.variables])
    found = [score, *check_finite(_pull_back(total, variables, carrier), score, total)]
    alone = carrier.light or _closed(found, [*variables, *carrier.variables])
    return [tensor.detach() for tensor in found] if alone else found


def _closed(results: list[Tensor], variables: list[Tensor]) -> bool:
    """Whether the graph of results leads to our own variables alone: nobody could use it."""
    if any(tensor.requires_grad and tensor.grad_fn is None for tensor in results):
        return False
    own = {id(variable) for variable in variables}
    waiting: list[Any] = [tensor.grad_fn for tensor in results if tensor.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in own:
            return False
        for after, _ in node.next_functions:
            if after is not None and after not in seen:
                seen.add(after)
                waiting.append(after)
    return True


def _variable(value: Tensor, carrier: Plain) -> Tensor:
    value = _normal(value)
    if value.requires_grad and not carrier.light:
        return value.view_as(value)
    variable = value.detach().requires_grad_()
    if carrier.light:
        return variable
    # It stays in the graph of the attribution: what comes back to it then is of no use to anybody.
    carrier.variables.append(variable)
    function: Any = _Start
    return function.apply(variable)


class _Start(torch.autograd.Function):
    """A variable of ours, to which no derivative of the attribution comes back."""

    @staticmethod
    def forward(ctx: Any, variable: Tensor) -> Tensor:
        return variable.view_as(variable)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        return None


def _several(
    scores_at: Callable[..., list[Tensor]], values: tuple[Tensor, ...], positions: list[int]
) -> list[Tensor]:
    """Gradients of many scores from one forward pass, by one backward pass for each."""
    carrier = Plain(light=True)
    with torch.enable_grad():
        variables = tuple(_variable(value, carrier) for value in values)
        scores = scores_at(variables, carrier, positions)
        totals = [score.sum() for score in scores]
    pulled = [_pull_back(total, variables, carrier, again=True) for total in totals]
    score = torch.stack([score.detach() for score in scores])
    return [score, *check_finite([torch.stack(g) for g in zip(*pulled, strict=True)], score)]


def _pull_back(
    total: Tensor, variables: tuple[Tensor, ...], carrier: Plain, *, again: bool = False
) -> list[Tensor]:
    if not total.requires_grad:
        refuse_independent()
    carrier.pulling = True
    try:
        gradients: tuple[Any, ...] = torch.autograd.grad(
            total,
            variables,
            retain_graph=again or not carrier.light,
            create_graph=not carrier.light,
            allow_unused=True,
        )
    finally:
        carrier.pulling = False
    if all(gradient is None for gradient in gradients):
        refuse_independent()
    return [_beside(v, g) for v, g in zip(variables, gradients, strict=True)]


def _for_each(
    together: Callable[[list[int]], list[Tensor]], position: Tensor
) -> tuple[Tensor, ...]:
    function: Any = _ForEach
    return function.apply(together, position)


class _ForEach(torch.autograd.Function):
    """Calls a function with all positions that a surrounding `torch.vmap` maps over.

    The batching rules of vmap would compute one large backward pass, which on convolutions takes
    twice as long (measured) as one pass after another.
    """

    @staticmethod
    def forward(together: Callable[[list[int]], list[Tensor]], position: Tensor) -> Any:
        return tuple(result[0] for result in together([int(position)]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing to keep: it is only used where gradients are not recorded."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        together, positions = args
        results = tuple(together([int(position) for position in positions]))
        return results, (0,) * len(results)


_BEYOND_TRANSFORMS = "setup_context", "saved tensor hooks", "Cannot access data pointer"


def _by_transform(
    score_at: Callable[[Any, Carrier], Tensor], values: tuple[Tensor, ...]
) -> list[Tensor]:
    """`torch.func`: exact derivatives of the result, inside any transform or compiler."""

    def checked(token: Tensor, *variables: Tensor) -> Tensor:
        score = score_at(variables, Token(token))
        # torch.func would answer with zeros.
        if not depends(score):
            refuse_independent()
        return score

    try:
        score, pullback = vjp(checked, values[0].new_zeros(()), *values)
    except RuntimeError as error:
        if any(words in str(error) for words in _BEYOND_TRANSFORMS):
            add_note(
                error,
                "inside of a transform attrib takes this gradient with torch.func, which takes no "
                "full backward hooks, no checkpointing, no packed sequences, no autograd.Function "
                "without setup_context; outside of any transform gradient methods do without, of a "
                "score made by attrib.target or attrib.batched",
            )
        raise
    # Recorded only when gradients are enabled, unlike in torch.func.grad: under torch.no_grad
    # memory and time are those of a plain backward pass.
    _, *gradients = pullback(torch.ones_like(score), retain_graph=torch.is_grad_enabled())
    return [score, *check_finite(gradients, score)]


def _normal(value: Tensor) -> Tensor:
    """An inference tensor takes no part in anything recorded; its copy does."""
    if compiling() or torch.is_inference_mode_enabled() or not value.is_inference():
        return value
    return value.clone()


def _beside(value: Tensor, gradient: Tensor | None) -> Tensor:
    """A gradient in memory like its value, whatever layout the model worked in."""
    if gradient is None:
        return torch.zeros_like(value)
    return gradient.contiguous() if value.is_contiguous() else gradient


def refuse_independent() -> NoReturn:
    """Refuse a score without a derivative."""
    raise AttribValueError(
        "f: the score does not depend on x, got a result without a gradient; look for detach(), "
        "torch.no_grad(), .item() or .data inside of the model, or for an x that it does not use",
        code="score.independent",
    )
