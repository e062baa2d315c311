r"""The reveal-cancel rule of DeepLift: what raises and what lowers a number, kept apart.

Every tensor carries its difference from the baseline in two pieces,
:math:`x - x' = \Delta^+ + \Delta^-`. A linear operation with weights :math:`w` collects in
:math:`\Delta^+` of its result the terms :math:`w_i \Delta x_i` that are positive, and in
:math:`\Delta^-` the negative ones. A function :math:`f` of one number then moves by each of them
first and by the other one second, and takes the mean of both orders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from attrib._carriers import Carrier
from attrib.rules._flow import Call, Rule, by_name, written
from attrib.rules._operations import OPERATIONS, Kind, Operation, of_operator
from attrib.rules._references import References, Replaying
from attrib.rules._secants import elementwise, rectified, secant

__all__ = ["Revealing"]

# Two tensors: what is variable, and weights.
_LAYERS = (
    *("linear", "conv1d", "conv2d", "conv3d", "convolution"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
)
_MATRICES = ("matmul", "mm", "bmm", "mv", "dot", "inner", "outer", "tensordot", "einsum")
_BIAS = 2
# Of these the last active tensor counts negative, of the other differences the first.
_NEGATIVE_LAST = ("sub", "subtract", "__sub__", "__isub__")
_NEGATIVE_FIRST = ("neg", "negative", "rsub", "__rsub__")

_Pieces = tuple[Tensor, Tensor]


class Revealing(Replaying):
    """Replaying, with the difference of every tensor from the baseline in two pieces.

    Args:
        starts: The variables at the baseline; the others as for `Replaying`.
    """

    def __init__(
        self,
        carrier: Carrier,
        variables: list[Tensor],
        rules: Mapping[Any, Rule],
        unknown: str,
        references: References,
        starts: list[Tensor],
    ) -> None:
        super().__init__(carrier, variables, rules, unknown, references)
        # With the tensors themselves, so that no other tensor gets the number of one.
        self.pieces = references.pieces
        for variable, start in zip(variables, starts, strict=True):
            if variable.is_floating_point():
                self.keep(variable, _signed(variable - start))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        operation = by_name(name, func) if self.traced else OPERATIONS.get(func)
        if operation is None and not self.traced:
            operation = of_operator(func)
        if operation is None or operation.kind is Kind.FREE:
            return super().__torch_function__(func, types, args, kwargs)
        if not Call(operation, args, kwargs, self).inputs:
            return func(*args, **kwargs)
        target, args, kwargs = written(operation, args, kwargs)
        if target is None:
            result = super().__torch_function__(func, types, args, kwargs)
            self.carry(operation, args, kwargs, result)
            return result
        # In place: the same on a copy, which is then written to the target.
        source = target.clone()
        args = (source, *args[1:])
        if self.active(target):
            self.mark(source)
            self.keep(source, self.pieces_of(target))
        result = super().__torch_function__(_outside(operation, func), types, args, kwargs)
        result = source if result is None else result
        self.carry(operation, args, kwargs, result)
        self.forget(target)
        target.copy_(result)
        if self.active(result):
            self.mark_written(target)
            self.keep(target, self.pieces_of(result))
        return target

    def ruled(self, rule: Rule, call: Call) -> Any:
        """See `Flow`."""
        call.references = self.references.next(call)
        pieces = self.pieces_of(call.inputs[0])
        if pieces is not None and rule in (elementwise, rectified):
            result = _revealed(call, self.carrier, *pieces)
        else:
            result = rule(call, self.carrier)
        # Of a maximum and where it is, the maximum.
        end, start = (_first(value) for value in (result, call(*call.references)))
        self.keep(end, _signed(end - start))
        return result

    def carry(
        self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """The pieces of the result of a linear operation."""
        call = Call(operation, args, kwargs, self)
        found = [self.pieces_of(tensor) for tensor in call.inputs]
        pieces = [pair for pair in found if pair is not None]
        if not pieces or len(pieces) < len(found):
            return
        if operation.kind is Kind.LINEAR:
            # Dropout that is not active returns what it was given.
            if "dropout" not in operation.name:
                self.keep(result, _linear(call, pieces))
        elif isinstance(result, Tensor) and id(result) in self.pieces:
            return
        elif operation.name == "batch_norm":
            self.keep(result, _weighed(torch.mul, _scale(*args, **kwargs), *pieces[0]))
        elif operation.kind is Kind.WEIGHTED and len(pieces) == 1:
            self.keep(result, _weighted(call, *pieces[0]))

    def keep(self, result: Any, pieces: Any) -> None:
        """Remember the pieces of a tensor, or of several."""
        # Inside of torch.no_grad they would have no derivative.
        if pieces is None or torch.is_grad_enabled() is not self.recorded:
            return
        if isinstance(result, Tensor):
            self.pieces[id(result)] = (result, pieces)
        else:
            for part, *pair in zip(result, *pieces, strict=True):
                self.keep(part, tuple(pair))

    def pieces_of(self, tensor: Tensor) -> _Pieces | None:
        """The pieces of a tensor; ``None`` after operations through which nothing carries them."""
        found = self.pieces.get(id(tensor))
        whole = _whole(tensor)
        if found is None and whole.shape == tensor.shape and whole.stride() == tensor.stride():
            found = self.pieces.get(id(whole))  # the identity of a hook
        return None if found is None else found[1]

    def forget(self, target: Tensor) -> None:
        """A tensor is written to, and with it what it is a view of, and the other views of that."""
        for number, (tensor, _) in list(self.pieces.items()):
            if _whole(tensor) is _whole(target):
                del self.pieces[number]


def _revealed(call: Call, carrier: Carrier, up: Tensor, down: Tensor) -> Tensor:
    x, reference = call.inputs[0], call.references[0]
    at = carrier.frozen(x)
    value = call(at)
    if value.shape != x.shape:
        x, at, reference, up, down = (t.expand_as(value) for t in (x, at, reference, up, down))
    high, low = reference + carrier.frozen(up), reference + carrier.frozen(down)

    def slope(end: Tensor, start: Tensor) -> Tensor:
        return secant(call, end, start, call(end), carrier)

    # The way up first or last, and the way down first or last.
    raised = (slope(high, reference) + slope(at, low)) / 2
    lowered = (slope(low, reference) + slope(at, high)) / 2
    return carrier.carried(value, raised * up + lowered * down)


def _first(value: Any) -> Any:
    return value if isinstance(value, Tensor) else value[0]


def _whole(tensor: Tensor) -> Tensor:
    base = tensor._base  # pyright: ignore[reportPrivateUsage]
    return tensor if base is None else base


def _signed(step: Tensor) -> _Pieces:
    """A difference, where it is positive and where it is negative; nothing is half of each."""
    up = (step > 0).to(step.dtype) + (step == 0).to(step.dtype) / 2
    return step * up, step * (1 - up)


def _linear(call: Call, pieces: list[_Pieces]) -> Any:
    """The pieces of sums and moves of entries: differences exchange them."""
    name, last = call.operation.name, len(pieces) - 1
    negative = 0 if name in _NEGATIVE_FIRST else last if name in _NEGATIVE_LAST else -1
    # One variable tensor in a difference may be what is left or what is subtracted.
    if name in _NEGATIVE_LAST and len(pieces) == 1 and call.args and call.args[0] is call.inputs[0]:
        negative = -1
    pairs = [(b, a) if place == negative else (a, b) for place, (a, b) in enumerate(pieces)]
    nothing = _called(call, *(torch.zeros_like(a) for a, _ in pairs))

    def rise(*steps: Tensor) -> Any:
        moved = _called(call, *steps)
        if isinstance(moved, Tensor):
            return _less(moved, nothing)
        return tuple(_less(a, b) for a, b in zip(moved, nothing, strict=True))

    return rise(*(a for a, _ in pairs)), rise(*(b for _, b in pairs))


def _less(moved: Tensor, start: Tensor) -> Tensor:
    # What is masked by infinity does not move.
    return torch.where(start.isfinite(), moved - start, 0)


def _called(call: Call, *inputs: Tensor) -> Any:
    if not call.operation.inplace:
        return call(*inputs)
    inputs = tuple(tensor.clone() for tensor in inputs)
    result = call(*inputs)
    return inputs[0] if result is None else result


def _weighted(call: Call, up: Tensor, down: Tensor) -> _Pieces | None:
    """The pieces of a product with weights, by the signs of its terms."""
    operation, args, kwargs = call.operation, call.args, call.kwargs
    if operation.name == "mul":
        first, second = (*args, *kwargs.values())
        weight = second if first is call.inputs[0] else first
        return _weighed(torch.mul, weight, up, down)
    if operation.name in _LAYERS:
        args = (*args[:_BIAS], None, *args[_BIAS + 1 :]) if len(args) > _BIAS else args
        kwargs = {name: None if name == "bias" else value for name, value in kwargs.items()}
    elif operation.name not in _MATRICES:
        return None
    weights = [
        tensor
        for tensor in _tensors((args, tuple(kwargs.values())))
        if tensor is not call.inputs[0]
    ]
    if len(weights) != 1:
        return None

    def product(step: Tensor, weight: Tensor) -> Tensor:
        return operation.function(
            *_exchanged(args, call.inputs[0], step, weight),
            **{name: _exchanged(v, call.inputs[0], step, weight) for name, v in kwargs.items()},
        )

    return _weighed(product, weights[0], *_signed(up + down))


def _weighed(product: Callable[[Any, Any], Tensor], weight: Any, *pieces: Tensor) -> _Pieces:
    up, down = pieces
    if isinstance(weight, Tensor):
        more, less = weight.clamp(min=0), weight.clamp(max=0)
    else:
        more, less = max(weight, 0), min(weight, 0)
    return (
        product(up, more) + product(down, less),
        product(up, less) + product(down, more),
    )


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for part in value for tensor in _tensors(part)]  # pyright: ignore[reportUnknownVariableType]
    return []


def _exchanged(value: Any, variable: Tensor, step: Tensor, weight: Tensor) -> Any:
    if isinstance(value, Tensor):
        return step if value is variable else weight
    if isinstance(value, (tuple, list)):
        parts = [_exchanged(part, variable, step, weight) for part in value]  # pyright: ignore[reportUnknownVariableType]
        return tuple(parts) if isinstance(value, tuple) else parts
    return value


def _scale(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """The factors of a batch norm in evaluation."""
    factor = torch.rsqrt(running_var + eps)
    factor = factor if weight is None else factor * weight
    return factor.reshape(-1, *(1,) * (input.ndim - 2))


def _outside(operation: Operation, func: Any) -> Any:
    """The spelling that goes through the mode and does not write, but for linear operations."""
    return func if operation.kind is Kind.LINEAR else operation.function
