"""Watching a score as it is computed, and giving some of its operations other derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attrib._carriers import Carrier, Token
from attrib._transforms import compiling, constant, inside, seen_by_compilers
from attrib.errors import AttribTypeError, AttribValueError
from attrib.rules._decompositions import BIASED, DECOMPOSITIONS, LINEAR_IF
from attrib.rules._operations import NAMED, OPERATIONS, Kind, Operation, of_operator
from attrib.rules._origins import Origins
from attrib.rules._refusals import (
    refuse,
    refuse_compiled,
    refuse_training,
    refuse_unseen,
    where,
)

__all__ = ["Call", "Flow", "Rule", "by_name", "check_rules", "refuse", "where", "written"]


class Call:
    """One call of an operation, as a function of the tensors that depend on the variables.

    Attributes:
        operation: What is called.
        inputs: The tensors that depend on the variables.
        references: What stood in their places at the baseline, for methods that have one.
        shares: What carries relevance to them that no gradient could, for methods that have such.
        passed: The same for the result, where a rule knows it.
        plain: The result with its true derivative, where a rule has it.
        args, kwargs: Everything it was called with, without a flag ``inplace``.
    """

    def __init__(
        self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any], flow: Flow
    ) -> None:
        self.operation = operation
        self.args, self.kwargs = args, kwargs
        self._active = flow.active
        self.references: list[Tensor] = []
        self.shares: list[Tensor | None] = []
        self.passed: Tensor | None = None
        self.plain: Tensor | None = None
        self.inputs = tuple(_tensors((args, tuple(kwargs.values())), flow.active))

    def __call__(self, *inputs: Tensor) -> Any:
        """The operation on other inputs; never in place."""
        rest = list(inputs)
        args = _replaced(self.args, self._active, rest)
        kwargs = {name: _replaced(value, self._active, rest) for name, value in self.kwargs.items()}
        return self.operation.function(*args, **kwargs)


Rule = Callable[[Call, Carrier], Any]
"""``rule(call, carrier)``: the result, usually ``carrier.carried(value, surrogate)``."""


class Flow(TorchFunctionMode):
    """While it is active, in this thread alone, operations that depend on the variables follow
    rules.

    Args:
        carrier: The level of differentiation at which the rules hold.
        variables: What the score is differentiated by.
        rules: By the name of an operation, of its family, or by a torch function; ``"product"`` is
            for operations of two tensors that both depend on the variables.
        unknown: What to do with operations that are not linear and have no rule: ``"refuse"``, or
            follow their ``"gradient"``.
        decompose: Take operations without a rule apart, where it is known how.
    """

    def __init__(
        self,
        carrier: Carrier,
        variables: list[Tensor],
        rules: Mapping[Any, Rule],
        unknown: str = "refuse",
        decompose: bool = True,
    ) -> None:
        super().__init__()
        self.carrier = carrier
        self.rules = {name: rule for name, rule in rules.items() if isinstance(name, str)}
        self.own = [(function, rule) for function, rule in rules.items() if callable(function)]
        self.unknown = unknown
        self.decompose = decompose
        self.traced = compiling()
        if self.traced:
            _show_operations()
        # Where the model records nothing, inside of its own no_grad, nothing depends on anything.
        self.recorded = torch.is_grad_enabled()
        self.marked: dict[int, Tensor] = {}
        self.origins = None if self.traced else Origins(variables)
        # A compiler does not tell what is a view of what.
        self.views: list[tuple[Tensor, Tensor]] = []
        for variable in variables:
            # Integers are what they are at any baseline.
            if variable.is_floating_point():
                self.mark(variable)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if compiling() and not self.traced:
            refuse_compiled()
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        operation = by_name(name, func) if self.traced else OPERATIONS.get(func)
        if operation is None and not self.traced:
            operation = of_operator(func)
        if operation is not None and operation.kind is Kind.FREE:
            if operation.inplace:
                self.overwritten(args[0])
            result = func(*args, **kwargs)
            self.left(name, args, kwargs, result)
            return result
        if not _tensors((args, tuple(kwargs.values())), self.active):
            result = func(*args, **kwargs)
            self.left(name, args, kwargs, result)
            if self.traced and name in _VIEWS:
                self.views += [(part, args[0]) for part in _parts(result)]
            return result
        self.entered(name, args, kwargs)
        own = next((rule for function, rule in self.own if function is func), None)
        if own is None and operation is None:
            own = self.rules.get(name)
        if own is not None or (operation is not None and operation.kind is not Kind.LINEAR):
            operation = operation or Operation(name, Kind.RULED, "", func)
            return self.changed(operation, own, args, kwargs)
        if operation is None and self.unknown == "refuse" and name not in _ACCESS:
            refuse(name)
        if operation is not None and operation.inplace:
            self.overwritten(args[0])
            result = operation.function(*args, **kwargs)
            self.mark_written(args[0])
            self.mark(result)  # for a compiler another object
            return result
        result = (operation.function if operation is not None else func)(*args, **kwargs)
        self.mark(result)
        return result

    def changed(
        self,
        operation: Operation,
        own: Rule | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """A call that is not plainly linear, or has a rule of its own."""
        target, args, kwargs = written(operation, args, kwargs)
        if target is not None and not (self.carrier.light and operation.kind is Kind.RULED):
            written_to = target.clone()
            self.mark(written_to)
            args = tuple(written_to if arg is target else arg for arg in args)
        call = Call(operation, args, kwargs, self)
        rule = own or self.rule_for(call)
        if self.decompose and own is None and self.biased(call):
            with self:
                result = BIASED[operation.name](*args, **kwargs)
        elif rule is not None:
            result = self.ruled(rule, call)
        elif len(call.inputs) == 1 and _linear(call):
            result = call(*call.inputs)
        else:
            result = self.taken_apart(call)
        if target is not None:
            self.overwritten(target)
            result = target.copy_(result)
            self.mark_written(target)
        self.mark(result)
        return result

    def taken_apart(self, call: Call) -> Any:
        """The result of a call that is not linear and has no rule."""
        operation, result = call.operation, NotImplemented
        if operation.kind is Kind.DECOMPOSED and self.decompose:
            with self:
                result = DECOMPOSITIONS[operation.name](*call.args, **call.kwargs)
        elif operation.name == "abs" and self.decompose and call.inputs[0].is_complex():
            with self:
                result = torch.hypot(call.inputs[0].real, call.inputs[0].imag)
        if result is not NotImplemented:
            return result
        if self.unknown == "refuse":
            if operation.family == "dropout":
                refuse_training(operation.name)
            refuse(operation.name, len(call.inputs))
        return call(*call.inputs)

    def biased(self, call: Call) -> bool:
        """Whether a bias is variable itself."""
        if call.operation.name not in BIASED or len(call.inputs) < 2:
            return False
        place = 3 if call.operation.name == "bilinear" else 2
        bias = call.args[place] if len(call.args) > place else call.kwargs.get("bias")
        return isinstance(bias, Tensor) and self.active(bias)

    def rule_for(self, call: Call) -> Rule | None:
        """The rule of this call, by name or by family."""
        operation = call.operation
        if operation.kind is Kind.WEIGHTED and len(call.inputs) > 1:
            return self.rules.get("product") if len(call.inputs) == 2 else None
        if operation.kind is Kind.RULED and any(x.is_complex() for x in call.inputs):
            return None  # rules are about real numbers
        found = self.rules.get(operation.name)
        return self.rules.get(operation.family) if found is None else found

    def ruled(self, rule: Rule, call: Call) -> Any:
        """The result of a call by a rule."""
        return rule(call, self.carrier)

    def overwritten(self, target: Tensor) -> None:
        """A tensor is about to be written to."""

    def mark(self, result: Any) -> None:
        """Remember that a result depends on the variables."""
        if isinstance(result, Tensor):
            if not (result.is_floating_point() or result.is_complex()):
                self.shadow(result)
            elif torch.is_grad_enabled() is self.recorded:
                if self.traced:
                    self.marked[id(result)] = result
                elif not self.has_marked(result):
                    # On the tensor itself, so that none is kept alive.
                    own: Any = result
                    own._attrib_flows = (*getattr(result, "_attrib_flows", ()), self)
            else:
                self.shadow(result)  # computed inside of the model's own no_grad
        elif isinstance(result, (tuple, list)):
            for part in result:  # pyright: ignore[reportUnknownVariableType]
                self.mark(part)

    def mark_written(self, target: Tensor) -> None:
        """Remember that what was written to, and what it is a view of, depends on the variables."""
        self.mark(target)
        for view, base in reversed(self.views):
            if view is target:
                target = base
                self.mark(base)
        if not self.traced and target._base is not None:  # pyright: ignore[reportPrivateUsage]
            self.mark(target._base)  # pyright: ignore[reportPrivateUsage]

    def active(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on the variables."""
        if self.traced:
            return self.traced_active(tensor)
        if self.has_marked(tensor):
            return True
        if type(tensor) is torch.nn.Parameter and tensor.grad_fn is None:
            return False
        base = tensor._base  # pyright: ignore[reportPrivateUsage]
        # A view that was taken before something was written to what it views.
        if base is not None and tensor.requires_grad is base.requires_grad:
            return self.has_marked(base)
        if any(self.has_marked(wrapped) for wrapped in inside(tensor)):
            return True
        origin = None if self.origins is None else self.origins.unseen(tensor)
        if origin is not None:
            refuse_unseen(origin)
        return False

    def traced_active(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on the variables, while a compiler traces."""
        if id(tensor) in self.marked:
            return True
        # A compiler reads attributes, such as x.T, without asking a mode.
        hidden = isinstance(self.carrier, Token) and tensor.requires_grad
        return hidden and not isinstance(tensor, torch.nn.Parameter)

    def has_marked(self, tensor: Tensor) -> bool:
        """Whether `mark` was called with this very tensor."""
        flows = getattr(tensor, "_attrib_flows", None)
        return flows is not None and self in flows

    def seen(self, result: Any) -> None:
        """The final result must have come out of operations that were followed."""
        _tensors(result, self.active)

    def shadow(self, result: Tensor) -> None:
        """A result depends on the variables without having a derivative."""

    def left(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """A call without derivative is done."""

    def entered(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A call with derivative is about to be done."""


def check_rules(rules: Any) -> dict[Any, Rule]:
    """A mapping from operations to rules."""
    if not isinstance(rules, Mapping):
        _refuse_rules(type(rules).__name__)
    own: dict[Any, Any] = dict(rules)  # pyright: ignore[reportUnknownArgumentType]
    for operation, rule in own.items():
        if not callable(rule) or not (isinstance(operation, str) or callable(operation)):
            _refuse_rules(f"{operation!r}: {type(rule).__name__}")
    return own


def _refuse_rules(what: str) -> NoReturn:
    raise AttribTypeError(
        f"rules: must be a mapping from operations, by name or as torch functions, to rules, got "
        f"{what}; pass e.g. {{'relu': rule}}",
        code="rules.type",
    )


@constant
def _show_operations() -> None:
    seen_by_compilers(OPERATIONS)


def by_name(name: str, func: Any) -> Operation | None:
    """What a compiler calls by this name: its function objects are not those of the table."""
    found = NAMED.get(name)
    if found is None or found.inplace or name == "unflatten":
        return found
    return Operation(found.name, found.kind, found.family, func, False, found.flag)


def written(
    operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor | None, tuple[Any, ...], dict[str, Any]]:
    """The tensor a call writes to, and the call without saying so."""
    inplace = operation.inplace
    if "inplace" in kwargs:
        inplace = kwargs["inplace"]
        kwargs = {name: value for name, value in kwargs.items() if name != "inplace"}
    elif operation.flag is not None and operation.flag < len(args):
        inplace = args[operation.flag]
        args = (*args[: operation.flag], False, *args[operation.flag + 1 :])
    if kwargs.get("out") is not None:
        raise AttribValueError(
            f"{operation.name}: has no derivative where it writes, got out=; leave it away",
            code="rules.out",
        )
    return (args[0] if inplace else None), args, kwargs


def _linear(call: Call) -> bool:
    """Whether a call is linear in its one input."""
    kind, name = call.operation.kind, call.operation.name
    if kind is Kind.FIRST:
        first = call.args[0] if call.args else call.kwargs.get("input")
        return call.inputs[0] is first
    return kind is Kind.WEIGHTED or (
        name in LINEAR_IF and LINEAR_IF[name](*call.args, **call.kwargs)
    )


def _tensors(value: Any, active: Callable[[Tensor], bool]) -> list[Tensor]:
    """The tensors in nested arguments that depend on the variables."""
    if isinstance(value, Tensor):
        return [value] if active(value) else []
    if isinstance(value, (tuple, list)):
        return [tensor for part in value for tensor in _tensors(part, active)]  # pyright: ignore[reportUnknownVariableType]
    return []


def _replaced(value: Any, active: Callable[[Tensor], bool], rest: list[Tensor]) -> Any:
    """The arguments with their active tensors exchanged for the next ones."""
    if isinstance(value, Tensor):
        return rest.pop(0) if active(value) else value
    if isinstance(value, (tuple, list)):
        parts = [_replaced(part, active, rest) for part in value]  # pyright: ignore[reportUnknownVariableType]
        return tuple(parts) if isinstance(value, tuple) else parts
    return value


# A property is read by the `__get__` of its descriptor.
_ACCESS = ("__get__", "__set__", "__delete__")


def _parts(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


# Where writing to the result writes to the argument.
_VIEWS = (
    *("__getitem__", "narrow", "select", "chunk", "split", "split_with_sizes", "tensor_split"),
    *("hsplit", "vsplit", "dsplit", "unbind", "view", "view_as", "reshape", "reshape_as"),
    *("flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as", "permute"),
    *("transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "adjoint", "diagonal"),
    *("unfold", "as_strided", "detach"),
)
