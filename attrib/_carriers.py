"""How a changed derivative reaches one level of differentiation, and no other.

A rule replaces derivatives in the gradient that an attribution takes of a model. Whoever
differentiates the attribution in turn, by inputs or by parameters, must still meet the true
derivative of everything that was computed. A carrier tells the two apart.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from attrib._transforms import compiling, constant, vjp
from attrib.errors import AttribValueError
from attrib.types import Score, Tree

__all__ = ["UNCHANGED", "Backward", "Carrier", "Overridden", "Plain", "Token"]


class Backward:
    """What happens to a gradient that arrives at an operation.

    Args:
        change: ``change(gradient, *residuals)``, the gradient with respect to the surrogate of
            `Carrier.carried`, computed with differentiable torch functions; it need not be linear.
            Without it the gradient goes on as it came.
    """

    def __init__(self, change: Callable[..., Tensor] | None = None) -> None:
        self.change = change

        def by_token(
            token: Tensor, value: Tensor, surrogate: Tensor | None, *residuals: Tensor
        ) -> Tensor:
            function: Any = _ByToken
            return function.apply(token, value, surrogate, change, *residuals)

        self.by_token = by_token
        # A compiler keeps these calls as they are: tracing them would lose the backward pass.
        _IN_GRAPH.append(by_token)


_IN_GRAPH: list[Callable[..., Tensor]] = []
UNCHANGED = Backward()


class Carrier(Protocol):
    """One level of differentiation: that of the gradient an attribution takes.

    Attributes:
        light: Nobody differentiates the attribution, so nothing is recorded for that.
    """

    light: bool

    def frozen(self, tensor: Tensor) -> Tensor:
        """The tensor, as a constant at this level; at all others with its true derivative."""
        ...

    def carried(
        self, value: Tensor, surrogate: Tensor, *residuals: Tensor, by: Backward | None = None
    ) -> Tensor:
        """The value, whose derivative at this level is that of the surrogate.

        Args:
            value: The true result of an operation, computed of `frozen` inputs.
            surrogate: A function of the inputs with the derivative that is wanted. If `by` does
                not change its shape, as large as the value.
            *residuals: Tensors for `by`, computed of `frozen` inputs.
            by: Changes the gradient between value and surrogate.
        """
        ...

    def slope(self, function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
        """The derivative of an elementwise function at a `frozen` place."""
        ...


@dataclass(frozen=True)
class Overridden:
    """A score whose operations have other derivatives, in the gradient that attrib takes of it.

    Attributes:
        score: The score.
        flow: ``flow(carrier, leaves)``, a context in which the score is evaluated once, on the
            given leaves.
    """

    score: Score
    flow: Callable[[Carrier, list[Tensor]], AbstractContextManager[Any]]

    def __call__(self, x: Tree, /, *args: Any) -> Tensor:
        raise AttribValueError(
            "override: an overridden score has no values of its own, got a call of it; hand it to "
            "a gradient method, e.g. attrib.saliency(override(f, rules)), and apply override last",
            code="override.called",
        )


class Plain:
    """Plain autograd: our own backward pass is the one that runs while we say so.

    Args:
        light: Nobody differentiates the attribution.

    Attributes:
        variables: What only we differentiate by.
        changed: Whether a gradient was changed somewhere, by whatever a rule reaches.
    """

    def __init__(self, light: bool) -> None:
        self.light = light
        self.pulling = False
        self.variables: list[Tensor] = []
        self.changed = False

    def frozen(self, tensor: Tensor) -> Tensor:
        """See `Carrier`."""
        return tensor.detach() if self.light else self._apply(tensor, None, UNCHANGED)

    def carried(
        self, value: Tensor, surrogate: Tensor, *residuals: Tensor, by: Backward | None = None
    ) -> Tensor:
        """See `Carrier`."""
        return self._apply(value, surrogate, by or UNCHANGED, *residuals)

    def slope(self, function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
        """See `Carrier`."""
        with torch.enable_grad():
            if not at.requires_grad:
                at = at.detach().requires_grad_()
                self.variables.append(at)
            (slope,) = torch.autograd.grad(
                function(at).sum(), at, create_graph=not self.light, materialize_grads=True
            )
        return slope

    def _apply(
        self, value: Tensor, surrogate: Tensor | None, by: Backward, *residuals: Tensor
    ) -> Tensor:
        function: Any = _ByPass
        self.changed = True
        return function.apply(self, value, surrogate, by.change, *residuals)


class Token:
    """`torch.func`: a number that is a variable of our level alone tells it from the others.

    torch applies a custom function again at every level of differentiation, and tells it there
    which of its arguments are variables.
    """

    light = False

    def __init__(self, token: Tensor) -> None:
        self.token = token
        if compiling():
            _keep_in_graph()

    def frozen(self, tensor: Tensor) -> Tensor:
        """See `Carrier`."""
        return UNCHANGED.by_token(self.token, tensor, None)

    def carried(
        self, value: Tensor, surrogate: Tensor, *residuals: Tensor, by: Backward | None = None
    ) -> Tensor:
        """See `Carrier`."""
        return (by or UNCHANGED).by_token(self.token, value, surrogate, *residuals)

    def slope(self, function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
        """See `Carrier`."""
        _, pullback = vjp(function, at)
        return pullback(torch.ones_like(at))[0]


@constant
def _keep_in_graph() -> None:
    compiler: Any = torch.compiler
    for function in _IN_GRAPH:
        compiler.allow_in_graph(function)


def _pulled(ctx: Any, gradient: Tensor, ours: bool) -> tuple[Any, ...]:
    residuals = ctx.saved_tensors
    nothing = (None,) * len(residuals)
    if not ours:
        return None, gradient, None, None, *nothing
    if ctx.needs_input_grad[2] and ctx.change is not None:
        gradient = ctx.change(gradient, *residuals)
    return None, None, gradient if ctx.needs_input_grad[2] else None, None, *nothing


class _ByPass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        plain: Plain,
        value: Tensor,
        surrogate: Tensor | None,
        change: Callable[..., Tensor] | None,
        *residuals: Tensor,
    ) -> Tensor:
        ctx.plain, ctx.change = plain, change
        ctx.save_for_backward(*residuals)
        # Not the argument itself, of which the result would be a view that allows no writing; and
        # what others differentiate must outlast a writing.
        return value.data if plain.light else value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return _pulled(ctx, gradients[0], ctx.plain.pulling)


class _ByToken(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        token: Tensor,
        value: Tensor,
        surrogate: Tensor | None,
        change: Callable[..., Tensor] | None,
        *residuals: Tensor,
    ) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, _, _, ctx.change, *residuals = inputs
        ctx.save_for_backward(*residuals)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return _pulled(ctx, gradients[0], ctx.needs_input_grad[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return None if tangents[1] is None else tangents[1].clone()
