"""Watching a score as it is computed, and giving some of its operations other derivatives."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attrib._carriers import Carrier
from attrib._transforms import compiling, constant, seen_by_compilers
from attrib.errors import AttribTypeError, AttribValueError
from attrib.rules._decompositions import DECOMPOSITIONS, LINEAR_IF
from attrib.rules._operations import NAMED, OPERATIONS, Kind, Operation

__all__ = ["Call", "Flow", "Rule", "check_rules", "refuse"]


class Call:
    """One call of an operation, as a function of the tensors that depend on the variables.

    Attributes:
        operation: What is called.
        inputs: The tensors that depend on the variables.
        references: What stood in their places at the baseline, for methods that have one.
        args, kwargs: Everything it was called with, without a flag ``inplace``.
    """

    def __init__(
        self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any], flow: Flow
    ) -> None:
        self.operation = operation
        self.args, self.kwargs = args, kwargs
        self._active = flow.active
        self.references: list[Tensor] = []
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
        for variable in variables:
            self.mark(variable)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        operation = _by_name(name, func) if self.traced else OPERATIONS.get(func)
        if operation is not None and operation.kind is Kind.FREE:
            return func(*args, **kwargs)
        if not _tensors((args, tuple(kwargs.values())), self.active):
            return func(*args, **kwargs)
        if compiling() and not self.traced:
            refuse_compiled()
        own = next((rule for function, rule in self.own if function is func), None)
        if own is not None or (operation is not None and operation.kind is not Kind.LINEAR):
            operation = operation or Operation(name, Kind.RULED, "", func)
            return self.changed(operation, own, args, kwargs)
        if operation is None and self.unknown == "refuse" and name not in _ACCESS:
            refuse(name)
        result = (operation.function if operation is not None else func)(*args, **kwargs)
        self.mark(result)
        if operation is not None and operation.inplace:
            self.mark(args[0])
        return result

    def changed(
        self,
        operation: Operation,
        own: Rule | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """A call that is not plainly linear, or has a rule of its own."""
        target, args, kwargs = _written(operation, args, kwargs)
        if target is not None and not (self.carrier.light and operation.kind is Kind.RULED):
            args = (target.clone(), *args[1:])
            self.mark(args[0])
        call = Call(operation, args, kwargs, self)
        rule = own or self.rule_for(call)
        if rule is not None:
            result = self.ruled(rule, call)
        elif operation.name in LINEAR_IF and LINEAR_IF[operation.name](*args, **kwargs):
            result = call(*call.inputs)
        elif operation.kind is Kind.DECOMPOSED and self.decompose:
            with self:
                result = DECOMPOSITIONS[operation.name](*args, **kwargs)
        elif len(call.inputs) == 1 and operation.kind is Kind.WEIGHTED:
            result = call(*call.inputs)
        elif self.unknown == "refuse":
            refuse(operation.name)
        else:
            result = call(*call.inputs)
        if target is not None:
            self.overwritten(target)
            result = target.copy_(result)
        self.mark(result)
        return result

    def rule_for(self, call: Call) -> Rule | None:
        """The rule of this call, by name or by family."""
        operation = call.operation
        if operation.kind is Kind.WEIGHTED and len(call.inputs) > 1:
            return self.rules.get("product")
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
            if result.is_floating_point() and torch.is_grad_enabled() is self.recorded:
                if self.traced:
                    self.marked[id(result)] = result
                elif not self.active(result):
                    # On the tensor itself, so that none is kept alive.
                    own: Any = result
                    own._attrib_flows = (*getattr(result, "_attrib_flows", ()), self)
        elif isinstance(result, (tuple, list)):
            for part in result:  # pyright: ignore[reportUnknownVariableType]
                self.mark(part)

    def active(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on the variables."""
        if self.traced:
            return id(tensor) in self.marked
        flows = getattr(tensor, "_attrib_flows", None)
        return flows is not None and self in flows


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


def refuse(name: str) -> NoReturn:
    """There is no rule for an operation."""
    raise AttribValueError(
        f"{name}: has no rule{_where()}, and what its gradient stands for is unknown; pass "
        f'rules={{{name!r}: rule}}, or unknown="gradient" to accept the gradient of whatever is '
        "not known",
        code="rules.unknown",
    )


def refuse_compiled() -> NoReturn:
    """A compiled model inside of a score that is not compiled itself."""
    raise AttribTypeError(
        "f: calls a model compiled by torch.compile, whose operations cannot be followed; "
        "attribute to the model it was made of (compiled._orig_mod) and compile the attribution",
        code="rules.compiled",
    )


@constant
def _show_operations() -> None:
    seen_by_compilers(OPERATIONS)


def _where() -> str:
    """Where the user's code called what is being computed."""
    if compiling():
        return ""
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.split(".")[0] not in ("torch", "attrib", "einops"):
            return f" (called in {frame.f_code.co_filename}, line {frame.f_lineno})"
        frame = frame.f_back
    return ""


def _by_name(name: str, func: Any) -> Operation | None:
    """What a compiler calls by this name: its function objects are not those of the table."""
    found = NAMED.get(name)
    if found is None or found.inplace or name == "unflatten":
        return found
    return Operation(found.name, found.kind, found.family, func, False, found.flag)


def _written(
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
    if "out" in kwargs:
        raise AttribValueError(
            f"{operation.name}: writes to out=, which has no derivative; leave out= away",
            code="rules.out",
        )
    return (args[0] if inplace else None), args, kwargs


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
